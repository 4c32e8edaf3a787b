"""Bytecode: against tosa-opt in both directions, byte for byte against itself, and damaged in every way."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects import builtin as b

from hbir import load, save
from hbir.dialects import all_dialects
from hbir.errors import HbError
from hbir.ir.bytecode import read_bytecode, write_bytecode
from hbir.ir.bytecode.layout import MAGIC
from hbir.ir.bytecode.primitives import Cursor, Emitter, Section
from hbir.ir.files import used_blobs
from hbir.ir.text import print_module
from hbir.module import Module
from hbir.testing import modules
from tests.mlir_tools import check_both_directions, joined, run_tosa_opt

DIALECTS = ("hbir", "qat", "quantized")


def written(module: Module) -> bytes:
    blobs = {blob.digest.data: module.constants.bytes(blob) for blob in used_blobs(module.op)}
    return b"".join(write_bytecode(module.op, blobs))


@given(module=modules(DIALECTS, 6))
def test_a_module_comes_back_and_its_bytes_too(module: Module) -> None:
    data = written(module)
    back, blobs = read_bytecode(memoryview(data), all_dialects())
    assert print_module(back) == str(module)
    assert b"".join(write_bytecode(back, blobs)) == data


@settings(max_examples=5)
@given(parts=st.lists(modules(DIALECTS, 4), min_size=8, max_size=8))
def test_tosa_opt_reads_what_we_write_and_we_read_what_it_writes(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Module]
) -> None:
    check_both_directions(joined(parts), tmp_path_factory.mktemp("m"))


def test_every_native_encoding_is_mlirs(tmp_path: Path) -> None:
    """All builtin attributes and types at once, against the text that tosa-opt makes of the same module."""
    attributes = (
        "hbir.a = [1 : i64, -3 : i8, 255 : ui8, -1 : si16, true, false, 7 : index, 9223372036854775807 : i64, 1 : i48], "
        'hbir.b = "text \\C3\\BC", hbir.c = {x = unit, y = i32}, hbir.d = array<i64: 1, -2>, hbir.e = array<i1: true, false>, '
        "hbir.f = array<f32: 1.5, -0.0>, hbir.g = [1.5 : f32, -2.25 : f64, 1.0 : f16, 3.0 : bf16], "
        "hbir.h = @symbol, hbir.i = @outer::@inner, "
        "hbir.j = (i32, f32) -> (tensor<2x?xf64>), hbir.k = [tensor<*xi1>, tuple<i8, index>, none, si4, bf16, f16, f80, f128], "
        "hbir.l = array<i8>, hbir.m = 170141183460469231731687303715884105727 : i128"
    )
    text = f'"builtin.module"() ({{ ^bb0: }}) {{{attributes}}} : () -> () loc(fused["a", "b"("c":1:2)])'
    module = Module.parse(text)
    check_both_directions(module, tmp_path)


def test_constants_are_mapped_and_aligned(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    module = module_with_constants([rng.integers(0, 9, n).astype(np.float32) for n in (1, 333, 5000)])
    save(module, tmp_path / "net.bc")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.bc"]
    back = load(tmp_path / "net.bc")
    assert str(back) == str(module)
    for blob in used_blobs(back.op):
        view = back.constants.bytes(blob)
        assert type(view.obj).__name__ == "mmap" and view.readonly
        assert np.frombuffer(view, np.uint8).ctypes.data % 16 == 0


def module_with_constants(arrays: list[np.ndarray[tuple[int], np.dtype[np.float32]]]) -> Module:
    from xdsl.dialects.func import FuncOp, ReturnOp
    from xdsl.ir import Block, Region

    from hbir.dialects.hbir import constant
    from hbir.ir.constants import ConstantStore

    store = ConstantStore()
    ops = [constant(array, store, b.f32) for array in arrays]
    block = Block([*ops, ReturnOp(*[op.output for op in ops])])
    function = FuncOp("main", b.FunctionType.from_lists([], [op.output.type for op in ops]), Region(block))
    return Module(b.ModuleOp([function]), store)


SMALL = written(module_with_constants([np.arange(3, dtype=np.float32)]))


def check_refused_or_whole(data: bytes, folder: Path) -> bool:
    path = folder / "net.bc"
    path.write_bytes(data)
    try:
        module = load(path)
    except HbError as error:
        assert "\n" not in str(error)
        return False
    module.verify()
    return True


def test_every_cut_is_refused(tmp_path: Path) -> None:
    for end in range(len(SMALL)):
        assert not check_refused_or_whole(SMALL[:end], tmp_path), end


def test_every_changed_byte_is_refused_or_harmless(tmp_path: Path) -> None:
    for at in range(len(SMALL)):
        for flip in (0x01, 0x80, 0xFF):
            check_refused_or_whole(SMALL[:at] + bytes([SMALL[at] ^ flip]) + SMALL[at + 1 :], tmp_path)


@settings(max_examples=200)
@given(data=st.binary(max_size=200))
def test_garbage_is_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    assert not check_refused_or_whole(MAGIC + data, tmp_path_factory.mktemp("m"))


def crafted(entries: list[bytes], code: bytes) -> memoryview:
    """A file whose attributes are `entries` in MLIR's own encoding."""
    names, dialects, offsets, values = Emitter(), Emitter(), Emitter(), Emitter()
    strings = [b"builtin\0", b"module\0"]
    names.varint(2)
    for each in reversed(strings):
        names.varint(len(each))
    names.bytes(b"".join(strings))
    for number in (1, 0 << 1, 1, 0, 1, 1 << 1 | 1):
        dialects.varint(number)
    for number in (len(entries), 0, 0, len(entries)):
        offsets.varint(number)
    for entry in entries:
        offsets.flagged(len(entry), True)
        values.bytes(entry)
    body, file = Emitter(), Emitter()
    body.bytes(code)
    file.bytes(MAGIC)
    file.varint(6)
    file.bytes(b"x\0")
    for number, content in (
        (Section.STRING, names), (Section.DIALECT, dialects), (Section.ATTR_TYPE_OFFSET, offsets),
        (Section.ATTR_TYPE, values), (Section.IR, body),
    ):  # fmt: skip
        file.section(number, content)
    return memoryview(bytes(file.out))


def encoded(*numbers: int) -> bytes:
    out = Emitter()
    for number in numbers:
        out.varint(number)
    return bytes(out.out)


def module_located_at(number: int) -> bytes:
    """Code of a module whose location is attribute `number`, and nothing else."""
    return encoded(1 << 1, 0) + b"\x00" + encoded(number)


def test_sharing_cannot_make_an_attribute_of_any_size() -> None:
    """Forty arrays, each of the one before it twice: 2^40 attributes in two hundred bytes."""
    entries = [encoded(7), *(encoded(0, 2, at, at) for at in range(40))]
    with pytest.raises(HbError, match="HB0602.*hold more than"):
        read_bytecode(crafted(entries, module_located_at(40)), all_dialects())


def test_an_attribute_that_holds_itself_is_refused() -> None:
    with pytest.raises(HbError, match="HB0602.*deep"):
        read_bytecode(crafted([encoded(0, 1, 0)], module_located_at(0)), all_dialects())


def test_what_is_crafted_can_be_read() -> None:
    """Otherwise the two tests above would pass for any reason."""
    module, blobs = read_bytecode(crafted([encoded(15)], module_located_at(0)), all_dialects())
    assert module.name == "builtin.module" and not module.regions and not blobs


def test_operations_of_others_are_named(tmp_path: Path) -> None:
    text = tmp_path / "theirs.mlir"
    text.write_text('"builtin.module"() ({ "their.op"() : () -> () }) : () -> ()')
    run_tosa_opt("--emit-bytecode", text, "-o", tmp_path / "theirs.bc")
    with pytest.raises(HbError, match=r"HB0210.*their\.op"):
        load(tmp_path / "theirs.bc")


@given(value=st.integers(0, (1 << 64) - 1), signed=st.integers(-(1 << 63), (1 << 63) - 1))
def test_integers(value: int, signed: int) -> None:
    out = Emitter()
    out.varint(value)
    out.signed(signed)
    cursor = Cursor(memoryview(bytes(out.out)))
    assert (cursor.varint(), cursor.signed(), cursor.left) == (value, signed, 0)


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(SMALL)
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        check_refused_or_whole(bytes(data), tmp_path)


def test_integer_types_have_a_width_that_can_be_computed_with() -> None:
    for width, known in ((1024, True), (1025, False), (1 << 23, False)):
        module = b.ModuleOp([], {"hbir.a": b.IntegerAttr(1, b.IntegerType(width))})
        data = memoryview(b"".join(write_bytecode(module, {})))
        if known:
            assert print_module(read_bytecode(data, all_dialects())[0]) == print_module(module)
        else:
            with pytest.raises(HbError, match="1024 bits"):
                read_bytecode(data, all_dialects())
