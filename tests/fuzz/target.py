"""One fuzzing process: `python -m tests.fuzz.target READER …`, started by `tests.fuzz.readers.run`.

libFuzzer, in this process, makes inputs and watches coverage; a bug is noted, its input kept, and the process goes on.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType

from tests.fuzz.readers import LARGE, READERS, SLOW, Reader, corpus_files

_STUCK = 20
"""Seconds after which libFuzzer ends the process: more than any machine under load makes of a second."""

_KEEP = 3
"""Inputs that are kept for each place where a bug shows."""

_OURS = ("/hbir/", "/backends/", "/tools/")


def _lines(error: BaseException) -> Iterator[tuple[str, int]]:
    """Files and lines that an exception passed through, the innermost last."""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        yield trace.tb_frame.f_code.co_filename, trace.tb_lineno
        trace = trace.tb_next


def _ours(file: str) -> bool:
    return "site-packages" not in file and any(folder in file for folder in _OURS)


def _place(error: BaseException) -> str:
    """Where in the project an exception passed through last."""
    lines = [f"{Path(file).stem}-{line}" for file, line in _lines(error) if _ours(file)]
    return lines[-1] if lines else "outside"


def _peak() -> int:
    """Bytes that the process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


class Target:
    """Reads one input after the other, and keeps count."""

    def __init__(self, reader: Reader, read: Callable[[Path], object], found: Path, report: Path, folder: Path) -> None:
        from hbir.errors import HbError

        self.read, self.refusal, self.found, self.report = read, HbError, found, report
        self.path = folder / f"input{reader.suffix}"
        self.path.touch()
        self.name = str(self.path)
        self.counts: dict[str, int | float] = dict.fromkeys(
            ("inputs", "refused", "escapes", "hangs", "large", "edges", "corpus", "slowest", "growth", "processor"), 0
        )
        self.kept: Counter[str] = Counter()
        self.codes: Counter[str] = Counter()
        self.peak = 0
        self._statm, self._page = os.open("/proc/self/statm", os.O_RDONLY), resource.getpagesize()
        self.written = time.monotonic()

    def _resident(self) -> int:
        """Bytes that the process holds now."""
        return int(os.pread(self._statm, 64, 0).split()[1]) * self._page

    def rest(self) -> None:
        """Let the peak begin anew: what the process holds now."""
        Path("/proc/self/clear_refs").write_text("5")
        self.peak = _peak()

    def __call__(self, data: bytes) -> None:
        """Read one input."""
        name = self.name
        os.unlink(name)  # noqa: PTH108 - thousands of times a second; the last file may still be mapped
        handle = os.open(name, os.O_WRONLY | os.O_CREAT, 0o600)
        os.write(handle, data)
        os.close(handle)
        counts, before = self.counts, self._resident()
        begin = time.process_time()
        try:
            self.read(self.path)
        except self.refusal as error:
            counts["refused"] += 1
            self.codes[error.code] += 1
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the bug
            self._escape(error, data)
        took = time.process_time() - begin
        counts["inputs"] += 1
        if took > counts["slowest"]:
            counts["slowest"] = round(took, 3)
            if took > SLOW:
                counts["hangs"] += 1
                self._keep("hang", data)
        elif took > SLOW:
            counts["hangs"] += 1
        peak = _peak()
        if peak > self.peak:
            self.peak = peak
            counts["growth"] = max(counts["growth"], (peak - before) >> 20)
            if peak - before > LARGE:
                counts["large"] += 1
                self._keep("large", data)
                self.rest()
        now = time.monotonic()
        if now - self.written > 1:
            self.written = now
            self.save()

    def _escape(self, error: BaseException, data: bytes) -> None:
        self.counts["escapes"] += 1
        kind = f"escape-{type(error).__name__}-{_place(error)}"
        if self._keep(kind, data):
            print("\n".join(traceback.format_exception(error)[-4:]), file=sys.stderr)

    def _keep(self, kind: str, data: bytes) -> bool:
        self.kept[kind] += 1
        if self.kept[kind] <= _KEEP:
            (self.found / f"{kind}-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
        return self.kept[kind] <= _KEEP

    def save(self) -> None:
        """Write the report."""
        self.counts["processor"] = round(time.process_time(), 1)
        aside = self.report.with_suffix(".part")
        aside.write_text(json.dumps(self.counts), "utf-8")
        aside.replace(self.report)


def _not_watched(packages: tuple[str, ...]) -> list[str]:
    """Modules beside the watched ones in the same top packages: atheris takes whole packages, or names of modules to leave."""
    names: list[str] = []
    for top in {package.partition(".")[0] for package in packages}:
        spec = find_spec(top)
        for place in map(Path, (spec and spec.submodule_search_locations) or ()):
            parts = (path.relative_to(place.parent).with_suffix("").parts for path in place.rglob("*.py"))
            names += [".".join(part[:-1] if part[-1] == "__init__" else part) for part in parts]
    inside = tuple(f"{package}." for package in packages)
    return [name for name in names if name not in packages and not name.startswith(inside)]


def main() -> None:
    """Fuzz until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("reader", choices=READERS)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--found", type=Path, required=True)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args()

    try:
        import atheris
    except ModuleNotFoundError:
        raise SystemExit("fuzzing readers needs atheris: pip install '.[fuzz]'") from None

    reader = READERS[options.reader]
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared) as scratch:
        folder, seeds = Path(scratch), options.corpus.with_name("seeds")
        # Seeds need much of the project, which must not be imported before atheris watches it: they are made elsewhere.
        if not seeds.exists():
            made = folder / "seeds"
            subprocess.run([sys.executable, "-m", "tests.fuzz.seeds", reader.name, str(made)], check=True)
            shutil.copytree(made, seeds)
        for path in corpus_files(reader.name):
            (seeds / path.name).write_bytes(path.read_bytes())
        inputs = sorted(path.read_bytes() for path in seeds.iterdir())
        with atheris.instrument_imports(list(reader.packages), _not_watched(reader.packages)):
            target = Target(reader, reader.open(), options.found, options.report, folder)
            # Imports what is imported late, and fills caches: what grows afterwards is the inputs' own.
            for data in inputs:
                target(data)
        from tests.fuzz.mutators import mutator_of

        gc.freeze()
        target.counts.update(slowest=0, growth=0)
        target.rest()
        target.save()
        arguments = [
            *(sys.argv[0], str(options.corpus), str(seeds), f"-seed={options.seed + 1}", f"-timeout={_STUCK}"),
            *(f"-max_total_time={max(int(options.seconds), 1)}", f"-max_len={reader.longest}", "-rss_limit_mb=0"),
            *(f"-artifact_prefix={options.found}/", "-reload=0", "-print_final_stats=1"),
        ]
        atheris.Setup(arguments, target, custom_mutator=mutator_of(reader.name))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
