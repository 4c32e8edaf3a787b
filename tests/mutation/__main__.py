"""python -m tests.mutation: how many small changes of the numerics and of the verifier the tests notice.

Every mutant of a file is judged by the tests that `targets` names for it. Nothing of the project may be imported here
before the last mutant was judged: see `runner`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from tests.mutation.mutants import Mutant, mutants_of
from tests.mutation.runner import Survey, Verdict, judge, survey, warm_up
from tests.mutation.scores import Score, equivalents, is_listed, scored, write_json, write_scores
from tests.mutation.targets import GROUPS

_EXAMPLES = """\b
Examples:
  python -m tests.mutation
  python -m tests.mutation numerics --workers 2 -o report.json
  python -m tests.mutation verifier --only rules.py
  python -m tests.mutation verifier --again report.json
"""


def _row(file: str, verdict: Verdict, entries: Sequence[dict[str, str]]) -> dict[str, Any]:
    mutant = verdict.mutant
    return {
        "file": file,
        "function": mutant.function,
        "number": mutant.line,
        "line": mutant.before,
        "becomes": mutant.after,
        "killer": verdict.killer,
        "equivalent": is_listed(file, mutant, entries),
    }


def _killed(report: Path | None) -> dict[tuple[str, str, str, str], str]:
    """What killed the mutants of a report."""
    rows: list[dict[str, Any]] = [] if report is None else json.loads(report.read_text(encoding="utf-8"))
    return {(r["file"], r["function"], r["line"], r["becomes"]): r["killer"] for r in rows if r["killer"]}


def _verdicts(
    file: str, mutants: Sequence[Mutant], known: Survey, workers: int, settled: dict[int, str]
) -> Iterator[list[Verdict]]:
    """What is known of all mutants so far, now and then; `settled` ones (by their place) are not judged."""
    begin = time.monotonic()
    killers = dict(settled)
    place = {id(mutant): at for at, mutant in enumerate(mutants)}
    left = [mutant for at, mutant in enumerate(mutants) if at not in settled]
    for number, verdict in enumerate(judge(file, left, known, workers), 1):
        killers[place[id(verdict.mutant)]] = verdict.killer
        if not number % 25:
            survived = sum(not killer for killer in killers.values())
            passed = time.monotonic() - begin
            click.echo(f"{file}: {number} of {len(left)}, {survived} survive, {passed:.0f} s", err=True)
            yield [Verdict(mutants[at], killers[at]) for at in sorted(killers)]
    yield [Verdict(mutant, killers[at]) for at, mutant in enumerate(mutants)]


def _print(scores: Sequence[Score], rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    from tools.console import print_json, print_table

    if as_json:
        print_json(rows)
        return
    left = [row for row in rows if not row["killer"] and not row["equivalent"]]
    if left:
        cells = [(Path(r["file"]).name, r["number"], r["line"], r["becomes"]) for r in left]
        print_table("Survivors that nobody listed", ("file", "#line", "source", "becomes"), cells)
    sums = [Score.sum(group, mine) for group in GROUPS if (mine := [s for s in scores if s.group == group])]
    columns = ("file", "#mutants", "#killed", "#listed", "#% of all", "#% without listed")
    print_table(
        "Mutants",
        columns,
        [
            (s.file or s.group, s.mutants, s.killed, s.equivalent, f"{s.raw:.1f}", f"{s.share:.1f}")
            for s in (*scores, *sums)
        ],
    )


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("groups", nargs=-1, type=click.Choice(list(GROUPS)))
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes at a time.")
@click.option("--only", multiple=True, help="Judge the files whose path contains this.")
@click.option("--again", type=click.Path(exists=True, path_type=Path), help="Count what this report killed as killed.")
@click.option("--listed", is_flag=True, help="Judge the mutants that are listed as equivalent, too.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write every mutant and what killed it.")
@click.option("--json", "as_json", is_flag=True, help="Print the mutants as JSON instead of tables.")
@click.option("--record", is_flag=True, help="Keep the figures in tests/mutation/score.json.")
@click.option("--at-least", type=float, default=95.0, show_default=True, help="Percent without listed; else exit 1.")
def main(
    *,
    groups: tuple[str, ...],
    workers: int,
    only: tuple[str, ...],
    again: Path | None,
    listed: bool,
    output: Path | None,
    as_json: bool,
    record: bool,
    at_least: float,
) -> None:
    """Judge the mutants of GROUPS (numerics, verifier; both by default) by their tests.

    Mutants that are listed as equivalent count as survivors.

    Exits with 1 when the tests kill too few, or one that is listed as equivalent.
    """
    entries, killed = equivalents(), _killed(again)
    scores, rows = list[Score](), list[dict[str, Any]]()
    warm_up()
    for group in groups or GROUPS:
        files = {file: tests for file, tests in GROUPS[group].items() if not only or any(part in file for part in only)}
        if not files:
            continue
        click.echo(f"{group}: running the tests without a mutant", err=True)
        known = survey(list(files), list(dict.fromkeys(test for tests in files.values() for test in tests)))
        for file in files:
            mutants = list(mutants_of(Path(file).read_text(encoding="utf-8")))
            settled = {
                at: killed.get((file, m.function, m.before, m.after), "")
                for at, m in enumerate(mutants)
                if (file, m.function, m.before, m.after) in killed or (not listed and is_listed(file, m, entries))
            }
            verdicts = list[Verdict]()
            for verdicts in _verdicts(file, mutants, known.within(files[file]), workers, settled):
                if output:
                    write_json(output, [*rows, *(_row(file, verdict, entries) for verdict in verdicts)])
            scores.append(scored(group, file, verdicts, entries))
            rows += [_row(file, verdict, entries) for verdict in verdicts]
    if record:
        write_scores(scores)
    _print(scores, rows, as_json=as_json)
    wrong = [row for row in rows if row["killer"] and row["equivalent"]]
    for row in wrong:
        click.echo(f"listed as equivalent, but killed by {row['killer']}: {row['line']} -> {row['becomes']}", err=True)
    totals = [Score.sum(group, mine) for group in GROUPS if (mine := [s for s in scores if s.group == group])]
    if wrong or any(total.share < at_least for total in totals):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
