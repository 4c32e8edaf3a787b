"""Coverage-guided fuzzing of everything that reads a file: who reads, what counts as a bug, and runs with a time budget.

Each reader runs in processes of its own (`tests.fuzz.target`, on atheris) that start from generated seeds and from the
corpus beside this file. A bug is an exception other than an error with a code, more than `SLOW` seconds of processor time,
or more than `LARGE` bytes of memory, at its peak, above what the process held before. The input that shows it is kept.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CORPUS", "LARGE", "READERS", "SLOW", "Reader", "corpus_files", "keep", "run"]

CORPUS = Path(__file__).with_name("corpus")
"""One folder for each reader: inputs that coverage found, and those that once showed a bug."""

SLOW = 1.0
"""Seconds of processor time that one input may take."""

LARGE = 200 << 20
"""Bytes of memory that one input may take."""

_ROOT = Path(__file__).parents[2]
_COVERED = re.compile(r"cov: (\d+) ft: \d+ corp: (\d+)")  # libFuzzer's own account
_GRACE = 240
"""Seconds that a process may take beyond its budget: importing, reading the seeds, ending."""


@dataclass(frozen=True)
class Reader:
    """One kind of file. `open` imports the reader and gives the function that reads a file, and raises HbError or nothing.

    `packages` are what coverage is measured in; `longest` bounds the inputs, in bytes.
    """

    name: str
    suffix: str
    open: Callable[[], Callable[[Path], object]]
    packages: tuple[str, ...]
    longest: int
    weight: float = 1.0
    """Share of the time, relative to the other readers."""


def _onnx() -> Callable[[Path], object]:
    from hbir import export

    return lambda path: export(path).verify()


def _module() -> Callable[[Path], object]:
    from hbir import load

    return load


def _weights() -> Callable[[Path], object]:
    from hbir.dialects import all_dialects
    from hbir.ir.constants import ConstantStore
    from hbir.ir.files import add_constants
    from hbir.ir.text import parse_module
    from hbir.ir.weights import read_weights
    from tests.fuzz.seeds import WEIGHTS_TEXT

    # What `load` does with the file beside a text; the text, always the same, is read once.
    module = parse_module(WEIGHTS_TEXT, all_dialects())

    def read(path: Path) -> None:
        data = memoryview(path.read_bytes())
        add_constants(path, module, read_weights(path.name, data), ConstantStore())

    return read


def _hbm() -> Callable[[Path], object]:
    from backends import Hbm

    return Hbm


def _config() -> Callable[[Path], object]:
    from tools.config import load_config

    return load_config


def _march() -> Callable[[Path], object]:
    from hbir.march import load_march

    return load_march


_IR = ("hbir.ir", "hbir.dialects", "hbir.module")

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("onnx", ".onnx", _onnx, ("hbir.frontends", "hbir.dialects", "hbir.ir"), 4096),
        Reader("mlir", ".mlir", _module, _IR, 2048),
        Reader("bc", ".bc", _module, _IR, 4096),
        Reader("weights", ".weights", _weights, ("hbir.ir.weights", "hbir.ir.files"), 1024),
        Reader(
            "hbm", ".hbm", _hbm, ("backends.api", "backends.nash.hbm", "backends.nash.isa", "hbir.march"), 32768, 1.5
        ),
        Reader("yaml", ".yaml", _config, ("tools",), 1024),
        Reader("toml", ".toml", _march, ("hbir.march",), 1024),
    )
}
"""Every reader by its name."""


def corpus_files(name: str) -> list[Path]:
    """The inputs that are kept for a reader, in order."""
    return sorted(path for path in (CORPUS / name).glob("*") if path.is_file())


def run(
    minutes: float,
    workers: int = 1,
    seed: int = 0,
    *,
    readers: Iterable[str] = tuple(READERS),
    folder: Path | None = None,
    slice_seconds: float = 180,
    progress: Callable[[str, Mapping[str, int | float]], None] | None = None,
) -> dict[str, dict[str, int | float]]:
    """Fuzz the readers for `minutes` in `workers` processes at a time; counts for each.

    `inputs` (of them `refused` with a code), `seconds` and `processor` seconds, `edges` covered and `corpus` inputs at the
    end, `escapes` (other exceptions), `hangs` (over `SLOW`), `large` (over `LARGE`), `deaths` of the process; `slowest` input
    in seconds, `growth` of memory by one input in MiB. `folder` keeps what is found from run to run: `NAME/corpus`, and in
    `NAME/found` the inputs that show a bug. `progress(name, counts)` is called after each slice of a reader.
    """
    names = list(readers)
    total = sum(READERS[name].weight for name in names)
    seconds = {name: 60 * minutes * workers * READERS[name].weight / total for name in names}
    counts: dict[str, dict[str, int | float]] = {name: {} for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        base = folder or Path(scratch)

        def work(name: str) -> None:
            left, number = seconds[name], 0
            while left > 1:
                budget = min(left, slice_seconds)
                found = _slice(READERS[name], budget, seed + number, base / name)
                _merge(counts[name], found)
                if progress is not None:
                    progress(name, counts[name])
                left, number = left - max(found["seconds"], 1), number + 1

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, names))
    return counts


def keep(folder: Path, files: int = 48, size: int = 96 << 10) -> None:
    """Renew the corpus from what `run` left in `folder`: every input that showed a bug, also earlier ones, and an even
    selection of those that coverage found, of all lengths: at most so many files and bytes for each reader."""
    for name in READERS:
        place = CORPUS / name
        bugs = {path.read_bytes() for path in (*place.glob("bug-*"), *(folder / name / "found").glob("*"))}
        found = sorted((path.read_bytes() for path in (folder / name / "corpus").glob("*")), key=lambda d: (len(d), d))
        chosen = found[:: max(-(-sum(map(len, found)) // size), -(-len(found) // files), 1)]
        for path in place.glob("*"):
            path.unlink()
        place.mkdir(parents=True, exist_ok=True)
        for kind, inputs in (("bug", bugs), ("input", chosen)):
            for data in inputs:
                (place / f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)


def _merge(total: dict[str, int | float], found: Mapping[str, int | float]) -> None:
    for name, value in found.items():
        largest = name in ("edges", "corpus", "slowest", "growth")
        total[name] = max(total.get(name, 0), value) if largest else round(total.get(name, 0) + value, 1)


def _slice(reader: Reader, seconds: float, seed: int, folder: Path) -> dict[str, int | float]:
    """One process. Its own report counts, up to its end or, when it dies, up to shortly before."""
    corpus, found = folder / "corpus", folder / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "tests.fuzz.target", reader.name, "--report", str(report), "--found", str(found)),
        *("--seed", str(seed), "--seconds", str(seconds), "--corpus", str(corpus)),
    ]
    begin, died = time.monotonic(), 0
    with (folder / "log.txt").open("wb") as log:
        try:
            done = subprocess.run(
                command, cwd=_ROOT, env=_environment(), stderr=log, stdout=log, timeout=seconds + _GRACE, check=False
            )
            died = int(done.returncode != 0)
        except subprocess.TimeoutExpired:
            died = 1
    try:
        counts: dict[str, int | float] = json.loads(report.read_text("utf-8"))
    except FileNotFoundError:
        tail = (folder / "log.txt").read_text("utf-8", "replace")[-2000:]
        raise RuntimeError(f"fuzzing {reader.name} did not begin:\n{tail}") from None
    covered = _COVERED.findall((folder / "log.txt").read_text("utf-8", "replace"))
    if covered:
        counts["edges"], counts["corpus"] = map(int, covered[-1])
    return {**counts, "deaths": died, "seconds": round(time.monotonic() - begin, 1)}


def _environment() -> dict[str, str]:
    # One thread: the other processors belong to other readers. A fixed hash seed: a seed then gives the same run.
    kept = {key: value for key, value in os.environ.items() if key in ("PATH", "HOME", "TMPDIR", "VIRTUAL_ENV")}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")
    return {**kept, **threads, "PYTHONPATH": str(_ROOT), "PYTHONHASHSEED": "0"}
