"""Files of models: round trip, damage at every byte, descriptions that lie, linking."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backends.nash.hbm import HostSegment, Model, link, read, write
from backends.nash.hbm.container import Section, pack_sections, unpack_sections
from backends.nash.hbm.graph import canonical_json
from backends.nash.isa import Program
from hbir.errors import BackendError, ConfigError, FileFormatError, HbError, SimulationError
from hbir.march import load_march
from tests.backends.nash.samples import pool_model


def with_host(model: Model) -> Model:
    data = b"weights of the host"
    return replace(model, host=HostSegment("module {}", {hashlib.sha256(data).hexdigest(): memoryview(data)}))


def repacked(path: Path, change: Callable[[dict[str, Section]], object]) -> Path:
    """The file with changed sections and correct checksums."""
    sections = unpack_sections(memoryview(path.read_bytes()))
    change(sections)
    path.write_bytes(b"".join(pack_sections(list(sections.values()))))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write([with_host(pool_model())], tmp_path / "a.hbm")
    return tmp_path / "a.hbm"


def test_a_model_comes_back_as_it_was(path: Path) -> None:
    (model,) = read(path)
    assert model == with_host(pool_model())
    assert model.inputs[0].dtype == "int8"
    assert model.inputs[0].strides == (1024, 128, 16, 1)
    assert model.program.layers == ("pool",)


def test_tensors_are_found_by_name() -> None:
    model = pool_model()
    assert [model.tensor(name) for name in ("x", "y", "z")] == [model.inputs[0], model.outputs[0], None]


def test_the_same_model_gives_the_same_bytes(path: Path, tmp_path: Path) -> None:
    write(read(path), tmp_path / "b.hbm")
    assert (tmp_path / "b.hbm").read_bytes() == path.read_bytes()


def test_any_flipped_bit_is_refused(path: Path) -> None:
    good = path.read_bytes()
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        path.write_bytes(bad)
        with pytest.raises(FileFormatError):
            read(path)


def test_any_truncation_and_any_longer_file_is_refused(path: Path) -> None:
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(FileFormatError):
            read(path)
    path.write_bytes(good + b"\0")
    with pytest.raises(FileFormatError):
        read(path)


def test_unknown_optional_sections_are_skipped_and_required_ones_refused(path: Path) -> None:
    repacked(path, lambda s: s.update({"0/extra": Section("0/extra", b"news", required=False)}))
    assert read(path) == (with_host(pool_model()),)
    repacked(path, lambda s: s.update({"0/extra": Section("0/extra", b"news")}))
    with pytest.raises(FileFormatError, match="required and unknown") as caught:
        read(path)
    assert caught.value.code == "HB0627"


def test_the_debug_section_may_be_left_out(path: Path) -> None:
    repacked(path, lambda s: s.pop("0/debug"))
    (model,) = read(path)
    assert (model.program.layers, model.placements) == ((), ())


@pytest.mark.parametrize("kind", ["graph", "program", "views", "constants"])
def test_the_other_sections_may_not(path: Path, kind: str) -> None:
    repacked(path, lambda s: s.pop(f"0/{kind}"))
    with pytest.raises(FileFormatError):
        read(path)


def edit_graph(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    def apply(sections: dict[str, Section]) -> None:
        graph = json.loads(bytes(sections["0/graph"].data))
        change(graph)
        sections["0/graph"] = Section("0/graph", canonical_json(graph))

    repacked(path, apply)


LIES: list[Callable[[dict[str, Any]], object]] = [
    lambda g: g.pop("name"),
    lambda g: g.update(extra=1),
    lambda g: g.update(name=3),
    lambda g: g["march"].update(cores="four"),
    lambda g: g["march"].update(clock_hz=-1.0),
    lambda g: g["march"].pop("chip"),
    lambda g: g["march"].update(memory_alignment=0),
    lambda g: g["march"].update(clock_hz=10**400),
    lambda g: g["march"].update(cores=10**400),
    lambda g: g["inputs"][0]["quantization"].update(scales=[10**400]),
    lambda g: g["memories"].update(ddr=10**400),
    lambda g: g["memories"].update(ddr=1 << 60),
    lambda g: g["memories"].update(l1m=1 << 30),
    lambda g: g["memories"].update(cores=2),
    lambda g: g["memories"].update(constants=63),
    lambda g: g["memories"].update(l2m=64),
    lambda g: g["inputs"].append(g["inputs"][0]),
    lambda g: g["inputs"][0]["view"].update(shape=[1] * 7),
    lambda g: g["inputs"][0]["view"].update(shape=[1, 0, 8, 16]),
    lambda g: g["inputs"][0]["view"].update(dtype="i7"),
    lambda g: g["inputs"][0]["view"].update(strides=[1]),
    lambda g: g["inputs"][0]["quantization"].update(scales=[0.0]),
    lambda g: g["inputs"][0]["quantization"].update(scales=[0.5, 0.5]),
    lambda g: g["inputs"][0]["quantization"].update(axis=9),
    lambda g: g["inputs"][0]["quantization"].update(zero_points=[True]),
    lambda g: g.update(options={"a": [1]}),
]


@pytest.mark.parametrize("change", LIES)
def test_descriptions_that_lie_are_refused(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit_graph(path, change)
    with pytest.raises(FileFormatError) as caught:
        read(path)
    assert caught.value.code in ("HB0625", "HB0626")


@pytest.mark.parametrize("text", [b"", b"[1", b'{"a":1, "b":2}', b'{"a":1,"a":1}', b"\xff", b"[" * 100000, b"NaN"])
def test_text_that_is_no_canonical_json_is_refused(path: Path, text: bytes) -> None:
    repacked(path, lambda s: s.update({"0/graph": Section("0/graph", text)}))
    with pytest.raises(FileFormatError) as caught:
        read(path)
    assert caught.value.code == "HB0625"


@pytest.mark.parametrize(
    "host",
    [
        b"",
        (1 << 63).to_bytes(8, "little") + bytes(8),
        bytes(8) + (1 << 63).to_bytes(8, "little"),
        bytes(8) + (1).to_bytes(8, "little") + bytes(32) + (1 << 63).to_bytes(8, "little"),
        bytes(16) + b"rest",
        (1).to_bytes(8, "little") + bytes(8) + b"\xff",
    ],
)
def test_host_sections_that_lie_about_sizes_are_refused(path: Path, host: bytes) -> None:
    repacked(path, lambda s: s.update({"0/host": Section("0/host", host)}))
    with pytest.raises(FileFormatError) as caught:
        read(path)
    assert caught.value.code == "HB0626"


def test_records_are_checked_on_reading(path: Path) -> None:
    repacked(path, lambda s: s.update({"0/views": Section("0/views", bytes(63))}))
    with pytest.raises(FileFormatError, match="records of 64"):
        read(path)
    model = pool_model()
    views = model.program.views.copy()
    views["address"][0] = 1 << 39
    write([replace(model, program=Program(model.program.instructions, views))], path)
    with pytest.raises(SimulationError, match="ends at byte"):
        read(path)


def test_random_garbage_never_escapes_the_error_tree(path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("program", "views", "graph", "debug", "host"):
        for _ in range(40):
            write([with_host(pool_model())], path)

            def scramble(sections: dict[str, Section], kind: str = kind) -> None:
                data = bytearray(sections[f"0/{kind}"].data)
                for at in rng.integers(0, len(data), 3):
                    data[at] = rng.integers(0, 256)
                sections[f"0/{kind}"] = Section(f"0/{kind}", bytes(data), sections[f"0/{kind}"].required)

            repacked(path, scramble)
            try:
                read(path)
            except HbError as error:
                assert error.code.startswith(("HB06", "HB07"))


def test_linking_puts_models_into_one_file(path: Path, tmp_path: Path) -> None:
    second = replace(pool_model(), name="second")
    link([path, second], tmp_path / "both.hbm")
    assert read(tmp_path / "both.hbm") == (with_host(pool_model()), second)


def test_models_that_cannot_share_a_file_are_refused(path: Path, tmp_path: Path) -> None:
    other = replace(pool_model(), name="other", march=load_march("nash-m"))
    for parts in ([path, path], [path, other], []):
        with pytest.raises(BackendError) as caught:
            link(parts, tmp_path / "both.hbm")
        assert caught.value.code == "HB0508"
    assert not (tmp_path / "both.hbm").exists()


def test_files_that_cannot_be_opened_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError) as caught:
        read(tmp_path / "absent.hbm")
    assert caught.value.code == "HB0628"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError):
        write([pool_model()], tmp_path / "file" / "a.hbm")
