"""Every kept input is read or refused with a code, in a second; and the fuzzing process sees what is neither."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from backends.nash.hbm.container import unpack_sections
from hbir.errors import FileFormatError, HbError
from tests.fuzz import mutators, target
from tests.fuzz.readers import CORPUS, LARGE, READERS, SLOW, Reader, corpus_files
from tests.fuzz.seeds import SEEDS
from tests.fuzz.target import Target


@pytest.mark.parametrize("name", READERS)
def test_every_input_of_the_corpus_is_read_or_refused_in_a_second(tmp_path: Path, name: str) -> None:
    files, read = corpus_files(name), READERS[name].open()
    assert files
    path = tmp_path / f"input{READERS[name].suffix}"
    for file in files:
        path.unlink(missing_ok=True)
        path.write_bytes(file.read_bytes())
        begin = time.process_time()
        try:
            read(path)
        except HbError as error:
            assert error.code.startswith("HB"), file.name
        assert time.process_time() - begin < SLOW, file.name


def test_the_corpus_stays_small_and_has_a_place_for_every_reader() -> None:
    assert set(SEEDS) == set(READERS) == {folder.name for folder in CORPUS.iterdir()}
    assert sum(file.stat().st_size for name in READERS for file in corpus_files(name)) < 1 << 20


@pytest.fixture
def fuzzing(tmp_path: Path) -> Target:
    kept: list[bytearray] = []

    def read(path: Path) -> None:
        match path.read_bytes():
            case b"refused":
                raise FileFormatError(1, "no")
            case b"escape":
                raise ValueError("no")
            case b"deep":
                raise RecursionError
            case b"slow":
                begin = time.process_time()
                while time.process_time() - begin < 0.5:
                    pass
            case b"large":
                kept[:] = [bytearray(b"x") * (80 << 20)]  # beyond what an allocator keeps in stock
            case _:
                kept.clear()

    reader = Reader("none", ".none", lambda: read, (), 10)
    made = Target(reader, read, tmp_path, tmp_path / "report.json", tmp_path)
    made.rest()
    return made


def test_what_is_neither_read_nor_refused_is_counted_and_kept(
    fuzzing: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "SLOW", 0.4)
    monkeypatch.setattr(target, "LARGE", 16 << 20)
    for data in (b"good", b"refused", b"escape", b"deep", b"slow", b"good", b"large", b"good"):
        fuzzing(data)
    fuzzing.save()
    counts = json.loads((tmp_path / "report.json").read_text())
    expected = {"inputs": 8, "refused": 1, "escapes": 2, "hangs": 1, "large": 1}
    assert {name: counts[name] for name in expected} == expected
    assert counts["slowest"] >= 0.5
    assert counts["growth"] >= 30
    kept = sorted((file.name.rsplit("-", 1)[0], file.read_bytes()) for file in tmp_path.iterdir() if "-" in file.name)
    assert kept == [
        ("escape-RecursionError-outside", b"deep"),
        ("escape-ValueError-outside", b"escape"),
        ("hang", b"slow"),
        ("large", b"large"),
    ]
    assert SLOW == 1 and LARGE == 200 << 20


@pytest.fixture
def flips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain changes of bytes, which atheris makes in the fuzzing process."""
    rng = random.Random(0)

    def flip(data: bytes, most: int) -> bytes:
        changed = bytearray(data or b"\0")
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        return bytes(changed[:most])

    monkeypatch.setattr(mutators, "_bytes", flip)


@pytest.mark.parametrize("name", ["weights", "yaml", "toml", "onnx", "bc", "mlir", "hbm"])
@pytest.mark.usefixtures("flips")
def test_changed_inputs_reach_deep_code(name: str) -> None:
    # Refusals by many codes, or for many reasons: changes that all died at the door would be worth nothing.
    files = corpus_files(name)
    mutate, read = mutators.mutator_of(name), READERS[name].open()
    reasons, changed = set[str](), 0
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"input{READERS[name].suffix}"
        for seed in range(300):
            old = files[seed % len(files)].read_bytes()
            data = mutate(old, READERS[name].longest, seed)
            assert len(data) <= READERS[name].longest
            changed += data != old
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            try:
                read(path)
            except HbError as error:
                reasons.add(f"{error.code} {error.what[:20]} {error.why[:12]}")
    assert changed > 200
    assert len(reasons) >= 10


@pytest.mark.usefixtures("flips")
def test_checksums_are_right_after_a_change() -> None:
    change, whole = mutators._CHANGES["hbm"], 0
    for number, file in enumerate(corpus_files("hbm")[:20] * 5):
        data, rng = file.read_bytes(), random.Random(number)
        try:
            unpack_sections(memoryview(data))
        except HbError:
            continue
        unpack_sections(memoryview(change(data, 1 << 20, rng)))
        whole += 1
    assert whole >= 5


def test_coverage_is_watched_where_a_reader_says_so() -> None:
    left_out = set(target._not_watched(("hbir.ir", "tools")))
    assert {"hbir", "hbir.kernels", "hbir.march", "hbir.frontends.onnx.reader"} <= left_out
    assert not any(name.startswith(("hbir.ir.", "tools")) or name == "hbir.ir" for name in left_out)
