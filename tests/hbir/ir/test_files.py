"""Modules on disk: what is written, and hostile weight files."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from hbir import load, save
from hbir.errors import ConfigError, FileFormatError, IrError
from hbir.ir.constants import ConstantStore
from hbir.ir.files import used_blobs, write_bytes, write_text
from hbir.ir.weights import read_weights
from hbir.module import Module
from hbir.testing import assert_same_semantics, modules, tensors
from tests.mlir_tools import run_tosa_opt


@given(module=modules(("hbir", "quantized"), 5))
def test_save_and_load(tmp_path_factory: pytest.TempPathFactory, module: Module) -> None:
    path = tmp_path_factory.mktemp("m") / "net.mlir"
    save(module, path)
    again = load(path)
    assert str(again) == str(module)
    assert_same_semantics(module, again)
    assert sorted(p.name for p in path.parent.iterdir()) == ["net.mlir", "net.weights"]


def _saved(folder: Path) -> Path:
    store = ConstantStore()
    from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
    from xdsl.dialects.func import FuncOp, ReturnOp
    from xdsl.ir import Block, Region

    from hbir.dialects.hbir import constant

    ops = [constant(np.arange(n, dtype=np.float32), store, f32) for n in (1, 64, 7)]
    block = Block([*ops, ReturnOp(*[op.output for op in ops])])
    function = FuncOp("main", FunctionType.from_lists([], [op.output.type for op in ops]), Region(block))
    path = folder / "net.mlir"
    save(Module(ModuleOp([function]), store), path)
    return path


def test_weights_are_aligned_and_without_holes(tmp_path: Path) -> None:
    data = _saved(tmp_path).with_suffix(".weights").read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert (8 + size) % 64 == 0
    assert [begin for begin, _ in spans] == [0, *[end for _, end in spans[:-1]]]
    assert spans[-1][1] == len(data) - 8 - size
    for entry in header.values():
        begin, end = entry["data_offsets"]
        length = end - begin
        assert begin % min(length & -length, 64) == 0


def _rewrite(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        head = json.dumps(change(header) or header).encode()
        return len(head).to_bytes(8, "little") + head + data[8 + size :]

    return apply


def _set(value: Any) -> Callable[[bytes], bytes]:
    def change(header: dict[str, Any]) -> None:
        for entry in header.values():
            entry["data_offsets"] = value

    return _rewrite(change)


def _shift(by: int, grow: bytes) -> Callable[[bytes], bytes]:
    """Every entry further on, behind bytes that belong to none."""

    def change(header: dict[str, Any]) -> None:
        for entry in header.values():
            entry["data_offsets"] = [at + by for at in entry["data_offsets"]]

    def apply(data: bytes) -> bytes:
        moved = _rewrite(change)(data)
        size = 8 + int.from_bytes(moved[:8], "little")
        return moved[:size] + grow + moved[size:]

    return apply


def _extra(entry: dict[str, Any]) -> Callable[[bytes], bytes]:
    return _rewrite(lambda header: header.__setitem__("0" * 64, entry))


HOSTILE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "short": lambda data: data[:7],
    "header longer than the file": lambda data: (1 << 40).to_bytes(8, "little") + data[8:],
    "header of 2^63": lambda data: b"\xff" * 8 + data[8:],
    "not JSON": lambda data: data[:8] + b"{" + data[9:].replace(b"}", b"]"),
    "not UTF-8": lambda data: data[:8] + b"\xff\xfe" + data[10:],
    "a list": _rewrite(lambda header: [1]),
    "deep": lambda data: (100000).to_bytes(8, "little") + b"[" * 100000,
    "no entries": _rewrite(lambda header: {"a": 1}),
    "no offsets": _rewrite(lambda header: {key: {} for key in header}),
    "one offset": _set([0]),
    "infinite offsets": _set([0, float("inf")]),
    "nan offsets": _set([float("nan"), 1]),
    "offsets of text": _set(["a", "b"]),
    "negative offsets": _set([-4, 0]),
    "swapped offsets": _set([4, 0]),
    "offsets behind the file": _set([1 << 50, (1 << 50) + 4]),
    "overlap": _set([0, 4]),
    "a hole": _shift(by=4, grow=b"\0" * 4),
    "an entry that nobody reads": _extra({"data_offsets": [0, 4]}),
    "an entry without offsets that nobody reads": _extra({}),
    "appended": lambda data: data + b"\0",
    "appended twice": lambda data: data + data,
    "truncated": lambda data: data[:-1],
    "flipped": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_weights_are_refused(tmp_path: Path, name: str) -> None:
    path = _saved(tmp_path)
    weights = path.with_suffix(".weights")
    weights.write_bytes(HOSTILE[name](weights.read_bytes()))
    with pytest.raises(FileFormatError, match="HB0601.*net.weights"):
        load(path)


def test_a_header_of_many_megabytes_is_not_looked_at() -> None:
    size = 9 << 20
    with pytest.raises(FileFormatError, match="header of 9437184 bytes"):
        read_weights("net.weights", memoryview(size.to_bytes(8, "little") + b"{}".ljust(size)))


def test_every_truncation_and_many_flips(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    weights, rng = path.with_suffix(".weights"), random.Random(0)
    good = weights.read_bytes()
    text = str(load(path))
    for length in range(0, len(good), 7):
        weights.write_bytes(good[:length])
        with pytest.raises(FileFormatError):
            load(path)
    for _ in range(150):
        at = rng.randrange(len(good))
        weights.write_bytes(good[:at] + bytes([good[at] ^ (1 << rng.randrange(8))]) + good[at + 1 :])
        try:  # a flip in a field that nobody reads (shape, dtype) changes nothing
            assert str(load(path)) == text
        except FileFormatError as error:
            assert error.code == "HB0601"


def test_weights_of_a_constant_that_was_cut_out_of_the_text_may_stay(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    lines = [line for line in path.read_text().splitlines(keepends=True) if "-> tensor<64xf32>" not in line]
    text = "".join(lines).replace("%0, %1, %2", "%0, %2").replace("tensor<64xf32>, ", "")
    path.write_text(text)
    assert [argument.type.shape for argument in load(path)[0].flatten_outputs] == [(1,), (7,)]


def test_missing_files(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    path.with_suffix(".weights").unlink()
    with pytest.raises(IrError, match="HB0206.*net.weights is missing"):
        load(path)
    path.with_suffix(".weights").mkdir()
    with pytest.raises(IrError, match="HB0206.*cannot be read"):
        load(path)
    with pytest.raises(IrError, match="HB0207"):
        load(tmp_path / "none.mlir")
    with pytest.raises(IrError, match="HB0234"):
        load(tmp_path / "net.onnx")
    with pytest.raises(IrError, match="HB0234"):
        save(Module.parse('"builtin.module"() ({ ^bb0: }) : () -> ()'), tmp_path / "net.hbm")
    (tmp_path / "binary.mlir").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(IrError, match="HB0207"):
        load(tmp_path / "binary.mlir")


def test_constants_of_bytecode_that_was_made_of_a_text_lie_beside_it(tmp_path: Path) -> None:
    text, made = _saved(tmp_path), tmp_path / "made.bc"
    module = load(text)
    run_tosa_opt(text, "--emit-bytecode", "-o", made)
    with pytest.raises(
        IrError, match="HB0206: made.bc does not hold all constants.*made.weights is missing.*text's .weights"
    ):
        load(made)
    weights = text.with_suffix(".weights").read_bytes()
    made.with_suffix(".weights").write_bytes(weights)
    back = load(made)
    assert str(back) == str(module)
    for name, argument in zip((1, 64, 7), back[0].flatten_outputs, strict=True):
        assert argument.type.shape == (name,)
    made.with_suffix(".weights").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(FileFormatError, match="HB0601: made.weights is damaged; .*hash"):
        load(made)
    made.with_suffix(".weights").write_bytes((2).to_bytes(8, "little") + b"{}")
    with pytest.raises(
        FileFormatError, match="HB0601: made.weights does not hold all constants of the module; no entry"
    ):
        load(made)


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(ConfigError, match="HB0801.*No space left"):
        save(load(path), path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="HB0801"):
        save(Module.parse('"builtin.module"() ({ ^bb0: }) : () -> ()'), tmp_path / "file" / "net.mlir")


@given(tensors(dtype=np.float32), tensors(dtype=np.int16))
def test_the_store(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> None:
    store = ConstantStore()
    first, second = store.put(a), store.put(b)
    assert store.put(a.copy()) == first
    assert store.put(a.astype(">f4")) == first
    np.testing.assert_array_equal(store.array(first, np.float32, a.shape), a, strict=True)
    np.testing.assert_array_equal(store.array(second, np.int16, b.shape), b, strict=True)
    with pytest.raises(IrError, match="HB0202"):
        store.array(first, np.float32, (*a.shape, 2))
    with pytest.raises(IrError, match="HB0201.*not in the store"):
        ConstantStore().bytes(first)


def test_a_module_without_its_constants_is_not_saved(tmp_path: Path) -> None:
    text = _saved(tmp_path / "whole").read_text()
    with pytest.raises(IrError, match="HB0201.*not in the store"):
        save(Module.parse(text), tmp_path / "net.mlir")
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_the_text_is_utf8_whatever_the_locale(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    module = load(path)
    module[0].flatten_outputs[0].name = "größe"
    save(module, path)
    code = "import sys; from hbir import load, save; save(load(sys.argv[1]), sys.argv[2])"
    copy = tmp_path / "copy.mlir"
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", code, str(path), str(copy)], env=environment, check=True)
    assert copy.read_bytes() == path.read_bytes()


def test_a_constant_without_elements(tmp_path: Path) -> None:
    store = ConstantStore()
    blob = store.put(np.zeros((0, 3), np.float32))
    assert store.array(blob, np.float32, (0, 3)).shape == (0, 3)


def test_used_blobs_come_in_order_of_first_use(tmp_path: Path) -> None:
    module = load(_saved(tmp_path))
    assert [blob.size.data for blob in used_blobs(module.op)] == [4, 256, 28]


def test_texts_and_pieces_are_written_as_they_are_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "t.txt", "größe\r\nend\n")
    assert (tmp_path / "a" / "t.txt").read_bytes() == "größe\r\nend\n".encode()
    write_bytes(tmp_path / "b", [b"1", bytearray(b"2"), memoryview(b"3")])
    assert (tmp_path / "b").read_bytes() == b"123"

    def ends_early() -> Iterator[bytes]:
        yield b"new"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_bytes(tmp_path / "b", ends_early())
    assert (tmp_path / "b").read_bytes() == b"123" and len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ConfigError, match="HB0801"):
        write_text(tmp_path / "b" / "c", "")
