"""hbir-opt: runs passes over a module and shows what each of them did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

from tools.modules import input_shapes

if TYPE_CHECKING:
    from passes.manager import PassReport

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-opt model.onnx                                          (import and print)
  hbir-opt model.onnx -p fold-constants,canonicalize -o model.mlir
  hbir-opt model.mlir -p 'quantize{multiplier-bits=15},dead-code' --timing
  hbir-opt model.mlir -p canonicalize --print-after-change --verify exec
  hbir-opt model.mlir -p canonicalize,dead-code --statistics --trace trace.html --snapshots steps
  hbir-opt --list-passes
"""


def _pass_rows() -> list[dict[str, Any]]:
    """Every pass with its options and their defaults."""
    from dataclasses import MISSING, fields

    from passes.manager import available_passes, load_pass

    rows: list[dict[str, Any]] = []
    for name in sorted(available_passes()):
        found = load_pass(name)
        options = {f.name.replace("_", "-"): f.default for f in fields(found) if f.default is not MISSING and f.repr}
        text = " ".join((found.__doc__ or "").split("\n\n")[0].split())
        rows.append({"name": name, "promise": found.promise.name, "options": options, "about": text})
    return rows


def _list_passes(as_json: bool) -> None:
    from tools.console import print_json, print_table

    rows = _pass_rows()
    if as_json:
        print_json(rows)
        return
    cells = [(r["name"], r["promise"], " ".join(f"{k}={v}" for k, v in r["options"].items()), r["about"]) for r in rows]
    print_table("Passes", ("pass", "promise", "options", "what it does"), cells)


def _timing(reports: list[PassReport]) -> None:
    from tools.console import print_table

    total = sum(report.seconds for report in reports)
    rows = [
        (r.name, f"{1000 * r.seconds:.1f}", f"{100 * r.seconds / total if total else 0:.1f}", r.before, r.after)
        for r in reports
    ]
    columns = ("pass", "#ms", "#%", "#operations before", "#after")
    print_table(f"Passes took {1000 * total:.1f} ms", columns, rows, stderr=True)


def _statistics(reports: list[PassReport]) -> None:
    """Which kinds of operations each pass made more or fewer of; the sum over all passes in the last row."""
    from collections import Counter

    from tools.console import print_table

    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.kinds)
    rows = [(r.name, ", ".join(f"{kind} {count:+d}" for kind, count in r.kinds.items()) or "none") for r in reports]
    told = ", ".join(f"{kind} {count:+d}" for kind, count in sorted(total.items()) if count) or "none"
    print_table("Operations made or removed", ("pass", "kinds"), [*rows, ("all passes", told)], stderr=True)


def _reports(reports: list[PassReport], timing: bool, statistics: bool, as_json: bool) -> None:
    """What was asked for about each pass: tables, or one JSON document."""
    if not as_json:
        if timing:
            _timing(reports)
        if statistics:
            _statistics(reports)
    elif timing or statistics:
        rows: list[dict[str, Any]] = []
        for each in reports:
            times = {"seconds": each.seconds, "before": each.before, "after": each.after} if timing else {}
            rows.append({"name": each.name, **times, **({"kinds": dict(each.kinds)} if statistics else {})})
        _json_aside(rows)


def _json_aside(value: object) -> None:
    """JSON on stderr: stdout may hold the module."""
    import json
    import sys

    sys.stderr.write(json.dumps(value, indent=2) + "\n")


def _write_snapshots(folder: Path, reports: list[PassReport]) -> None:
    """One loadable module for each pass that made a difference, named by its place and the pass."""
    from hbir.module import save

    text = ""
    for index, report in enumerate(reports, 1):
        if report.module is not None and (now := str(report.module)) != text:
            save(report.module, folder / f"{index:02d}-{report.name}.bc")
            text = now


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--pipeline", default="", help="Passes, such as pass-a,pass-b{option=value}.")
@input_shapes
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the module instead of printing it: bytecode (.bc), or text (.mlir) with .weights beside it.",
)
@click.option("--print-after-change", is_flag=True, help="Print the module after each pass that changed it.")
@click.option("--print-after", multiple=True, metavar="PASS", help="Print the module after this pass; repeatable.")
@click.option("--timing", is_flag=True, help="Print how long each pass took.")
@click.option("--statistics", is_flag=True, help="Print which kinds of operations each pass made or removed.")
@click.option("--snapshots", type=click.Path(path_type=Path), metavar="DIR", help="Save the module after each change.")
@click.option("--trace", type=click.Path(path_type=Path), metavar="FILE", help="Write an HTML page of what changed.")
@click.option(
    "--verify",
    type=click.Choice(["structure", "exec", "none"]),
    default="structure",
    show_default=True,
    help="exec: also run the module before and after each pass and compare.",
)
@click.option("--feeds", type=click.Path(path_type=Path), metavar="NPZ", help="Inputs for --verify exec.")
@click.option(
    "--reproducer",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="When a pass fails, leave its input and one command here.",
)
@click.option("--list-passes", is_flag=True, help="List the passes and exit.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of tables: one row for each pass.")
def main(
    file: Path | None,
    pipeline: str,
    shapes: tuple[tuple[str, str], ...],
    output: Path | None,
    print_after_change: bool,
    print_after: tuple[str, ...],
    timing: bool,
    statistics: bool,
    snapshots: Path | None,
    trace: Path | None,
    verify: str,
    feeds: Path | None,
    reproducer: Path | None,
    list_passes: bool,
    as_json: bool,
) -> None:
    """Run passes over FILE, a module (.bc, .mlir) or an .onnx model."""
    from tools.console import command_errors, print_lines

    with command_errors():
        from hbir.errors import ConfigError
        from hbir.module import save
        from passes.manager import Pipeline
        from tools.refusals import Refusal

        if list_passes:
            _list_passes(as_json)
            return
        if file is None:
            raise ConfigError(Refusal.MISSING, "no file is given", lever="see hbir-opt --help")
        from hbir.feeds import read_feed
        from tools.modules import load_module

        module = load_module(file, shapes)
        run = Pipeline(
            pipeline,
            cast(Literal["structure", "exec", "none"], verify),
            reproducer=reproducer,
            feeds=() if feeds is None else [read_feed(feeds)],
            print_after=print_after,
            print_after_change=print_after_change,
            snapshots=snapshots is not None,
            trace=trace,
        )
        result = run.run(module)
        if snapshots is not None:
            _write_snapshots(snapshots, run.reports)
        if output is not None:
            save(result, output)
        else:
            print_lines(str(result))
        _reports(run.reports, timing, statistics, as_json)


if __name__ == "__main__":
    main()
