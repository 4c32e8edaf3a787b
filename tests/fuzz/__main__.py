"""`python -m tests.fuzz`: the nightly command, its two halves, and what they have come to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path

import click

_EXAMPLES = """\b
Examples:
  python -m tests.fuzz all --minutes 60 --workers 2 --record -o found
  python -m tests.fuzz modules --count 50000 --workers 2
  python -m tests.fuzz readers --minutes 30 -o found
  python -m tests.fuzz readers --minutes 5 --reader onnx
  python -m tests.fuzz again found/case_1234/case.json
  python -m tests.fuzz table --write README.md
"""

_MINUTES = click.option("--minutes", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Time budget.")
_LIMIT = click.option(
    "--minutes",
    type=click.FloatRange(min=0),
    help="Time budget; 10 by default, and none where --count says when to stop.",
)
_WORKERS = click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes.")
_SEED = click.option("--seed", type=click.IntRange(min=0), help="Where the seeds begin; by default the time decides.")
_FOLDER = click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path, file_okay=False), help="Folder for reproducers."
)
_RECORD = click.option("--record", is_flag=True, help="Add the counts to tests/fuzz/totals.json.")


@click.group(epilog=_EXAMPLES)
def main() -> None:
    """Look for bugs with generated modules and with damaged files, for as long as you like."""


def _begin(seed: int | None) -> int:
    """The first seed; without one, every run gets its own."""
    return time.time_ns() // 1_000_000 % 2**31 if seed is None else seed


def _modules(
    minutes: float, workers: int, seed: int | None, count: int | None, folder: Path | None, record: bool
) -> bool:
    from tests.fuzz.modules import Progress, fuzz
    from tests.fuzz.totals import add

    first = _begin(seed)
    report = fuzz(minutes, workers, first, count, folder, Progress())
    click.echo(f"\nseeds from {first}\n{report}")
    if record:
        for kind, counts in report.counts.items():
            share = counts["inputs"] / max(1, sum(found["inputs"] for found in report.counts.values()))
            add(kind, {**counts, "seconds": float(report.seconds * share)})
    return not report.failed


def _readers(
    minutes: float, workers: int, seed: int | None, folder: Path | None, record: bool, names: tuple[str, ...] = ()
) -> bool:
    from tests.fuzz.readers import READERS, run
    from tests.fuzz.totals import add

    for name in names:
        if name not in READERS:
            raise click.BadParameter(f"'{name}' is none of {', '.join(READERS)}", param_hint="--reader")

    def progress(name: str, counts: Mapping[str, int | float]) -> None:
        click.echo(f"{name}: {counts.get('inputs', 0):,} inputs", err=True)

    found = run(
        minutes, workers, _begin(seed) % 2**16, readers=names or tuple(READERS), folder=folder, progress=progress
    )
    bad = 0
    for name, counts in found.items():
        click.echo(f"{name}: {', '.join(f'{value:,} {key}' for key, value in counts.items())}")
        bad += int(sum(counts.get(key, 0) for key in ("escapes", "hangs", "large", "deaths")))
        if record:
            summed = ("inputs", "refused", "seconds", "escapes", "hangs", "large", "deaths")
            add(f"reader: {name}", {key: counts[key] for key in summed if key in counts})
    return not bad


@main.command()
@_LIMIT
@_WORKERS
@_SEED
@click.option("--count", type=click.IntRange(min=1), help="Stop after so many modules, if that comes first.")
@_FOLDER
@_RECORD
def modules(
    minutes: float | None, workers: int, seed: int | None, count: int | None, folder: Path | None, record: bool
) -> None:
    """Generated modules through passes, compiler and simulator; every bit is compared. Status 1 when one fails."""
    budget = minutes if minutes is not None else 10.0 if count is None else math.inf
    raise SystemExit(0 if _modules(budget, workers, seed, count, folder, record) else 1)


@main.command()
@_MINUTES
@_WORKERS
@_SEED
@click.option("--reader", "names", multiple=True, help="One reader alone, as `onnx`; may be given again.")
@_FOLDER
@_RECORD
def readers(
    minutes: float, workers: int, seed: int | None, names: tuple[str, ...], folder: Path | None, record: bool
) -> None:
    """Damaged files into everything that reads one, guided by coverage. Status 1 when one is not refused properly."""
    raise SystemExit(0 if _readers(minutes, workers, seed, folder, record, names) else 1)


@main.command(name="all")
@_MINUTES
@_WORKERS
@_SEED
@_FOLDER
@_RECORD
def everything(minutes: float, workers: int, seed: int | None, folder: Path | None, record: bool) -> None:
    """The nightly command: half of the time for modules, half for readers."""
    found = None if folder is None else folder / "modules"
    good = _modules(minutes / 2, workers, seed, None, found, record)
    good &= _readers(minutes / 2, workers, seed, None if folder is None else folder / "readers", record)
    raise SystemExit(0 if good else 1)


@main.command()
@click.argument("case", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def again(case: Path) -> None:
    """Run one kept case. Status 1 when it still fails."""
    from tests.fuzz.case import run, stored

    outcome = run(stored(case))
    click.echo(f"{outcome.kind}: {outcome.state} {outcome.problem or outcome.code}")
    raise SystemExit(1 if outcome.state == "failed" else 0)


@main.command()
@click.option("--write", "path", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A text to update.")
def table(path: Path | None) -> None:
    """The totals as the table of the README; with --write, put it between the markers there."""
    from tests.fuzz.totals import readme_table, replace_table

    if path is None:
        click.echo(readme_table())
    else:
        path.write_text(replace_table(path.read_text("utf-8"), readme_table()), "utf-8")


if __name__ == "__main__":
    main()
