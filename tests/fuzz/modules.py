"""Generated modules by the thousand through passes, compiler and simulator: workers, progress, counts, reproducers.

A worker runs cases of consecutive seeds; a case that takes longer than `LONGEST` seconds counts as a hang. What fails is made
smaller and written to a folder, and the run goes on.
"""

from __future__ import annotations

import multiprocessing
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.fuzz.case import Case, Outcome, keep, reduced, run

__all__ = ["LONGEST", "Progress", "Report", "fuzz"]

LONGEST = 60
"""Seconds that one case may take."""

_BATCH = 100
_BATCHES = 50
"""Batches of one process: what it holds on to is then given back."""
_KEPT = 3
"""Reproducers that are kept of one kind of failure."""


class _HangError(BaseException):
    """A case took too long. No Exception: whatever the case catches, it does not catch this."""


@dataclass
class Report:
    """What a run has come to. `counts` are those of `tests.fuzz.totals`, for `modules` and for `passes`; `failures` are
    (folder, what happened)."""

    counts: dict[str, Counter[str]] = field(default_factory=lambda: {"modules": Counter(), "passes": Counter()})
    refusals: Counter[str] = field(default_factory=Counter[str])
    failures: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    failed: Counter[str] = field(default_factory=Counter[str])
    seconds: float = 0.0

    def add(self, outcome: Outcome) -> None:
        """Count one case."""
        found = self.counts["passes" if outcome.kind == "promise" else "modules"]
        found["inputs"] += 1
        found[outcome.state] += 1
        found["operations"] += outcome.operations
        if outcome.state == "refused":
            self.refusals[outcome.code] += 1
        if outcome.state == "failed":
            self.failed[outcome.signature] += 1
            found["mismatches" if outcome.signature == "mismatch" else "crashes"] += 1

    def __str__(self) -> str:
        lines: list[str] = []
        for name, found in self.counts.items():
            counts = [f"{found[key]:,} {key}" for key in ("inputs", "passed", "refused", "mismatches", "crashes")]
            lines.append(f"{name}: {', '.join(counts)}, {found['operations']:,} operations")
        lines += [f"refused: {', '.join(f'{count} {code}' for code, count in sorted(self.refusals.items()))}"]
        lines += [f"failed {count} times: {signature}" for signature, count in self.failed.most_common()]
        lines += [f"  {folder}: {text}" for folder, text in self.failures]
        rate = sum(found["inputs"] for found in self.counts.values()) / max(self.seconds, 1e-9)
        return "\n".join([*lines, f"{self.seconds:.0f} s, {rate:.1f} cases a second"])


def _hang(number: int, frame: FrameType | None) -> None:
    raise _HangError


def _timed(case: Case) -> Outcome:
    signal.setitimer(signal.ITIMER_REAL, LONGEST)
    try:
        return run(case)
    except _HangError:
        return Outcome("", "failed", signature="hang", problem=f"no end after {LONGEST} s")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _batch(first: int, count: int) -> list[tuple[int, Outcome]]:
    signal.signal(signal.SIGALRM, _hang)
    return [(seed, _timed(Case(seed))) for seed in range(first, first + count)]


def _reproduce(seed: int, folder: Path) -> str:
    """Make a failing case smaller, keep it, and say what happened."""
    case = Case(seed)
    outcome = _timed(case)
    if outcome.signature != "hang":
        case = reduced(case)
        outcome = run(case)
    keep(case, outcome, folder)
    return outcome.problem


def fuzz(
    minutes: float,
    workers: int = 1,
    seed: int = 0,
    count: int | None = None,
    folder: Path | None = None,
    progress: Callable[[Report], None] | None = None,
) -> Report:
    """Run cases of the seeds from `seed` on until `count` modules went all the way or `minutes` have passed.

    Reproducers go to `folder`, if there is one. `progress` is called now and then.
    """
    report, begin = Report(), time.monotonic()
    end, following = begin + 60 * minutes, seed
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, max_tasks_per_child=_BATCHES) as pool:
        running: dict[Future[list[tuple[int, Outcome]]], int] = {}

        def start() -> None:
            nonlocal following
            # Cases that look at a single pass are not among the modules: what they leave open is asked for again.
            open_yet = _BATCH if count is None else count - report.counts["modules"]["inputs"] - sum(running.values())
            size = min(_BATCH, open_yet)
            if size > 0 and time.monotonic() < end:
                running[pool.submit(_batch, following, size)] = size
                following += size

        for _ in range(workers + 1):
            start()
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                running.pop(future)
                try:
                    outcomes = future.result()
                except BrokenProcessPool:
                    report.failures.append(
                        (f"one of the {_BATCH * workers * 2} seeds before {following}", "the process died")
                    )
                    report.failed["death"] += 1
                    return report
                for number, outcome in outcomes:
                    report.add(outcome)
                    if outcome.state == "failed" and report.failed[outcome.signature] <= _KEPT:
                        where = Path() if folder is None else folder / f"case_{number}"
                        told = outcome.problem
                        if folder is not None:
                            told = pool.submit(_reproduce, number, where).result()
                        report.failures.append((str(where) if folder else f"seed {number}", told))
                start()
            report.seconds = time.monotonic() - begin
            if progress is not None:
                progress(report)
    return report


class Progress:
    """One line on stderr: rewritten on a terminal, a new one every ten seconds elsewhere."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, report: Report) -> None:
        """Show how far a run is."""
        terminal = sys.stderr.isatty()
        if not terminal and report.seconds < self._last + 10:
            return
        self._last = report.seconds
        total = sum(found["inputs"] for found in report.counts.values())
        rate = total / max(report.seconds, 1e-9)
        line = (
            f"{total:,} cases, {report.refusals.total()} refused, {report.failed.total()} failed, {rate:.1f} a second"
        )
        sys.stderr.write(f"\r{line}\033[K" if terminal else f"{line}\n")
        sys.stderr.flush()
