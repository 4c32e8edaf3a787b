"""hbir-opt: runs passes over a module and shows what each of them did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import click

if TYPE_CHECKING:
    from hbir.module import Module
    from passes.manager import Pass, PassReport

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-opt model.onnx                                          (import and print)
  hbir-opt model.onnx -p fold-constants,canonicalize -o model.mlir
  hbir-opt model.mlir -p 'quantize{multiplier-bits=15},dead-code' --timing
  hbir-opt model.mlir -p canonicalize --print-after-change --verify exec
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


def _timing(reports: list[PassReport], as_json: bool) -> None:
    import json
    import sys
    from dataclasses import asdict

    from tools.console import print_table

    if as_json:
        # stdout may hold the module.
        sys.stderr.write(json.dumps([asdict(report) for report in reports], indent=2) + "\n")
        return
    total = sum(report.seconds for report in reports)
    rows = [
        (r.name, f"{1000 * r.seconds:.1f}", f"{100 * r.seconds / total if total else 0:.1f}", r.before, r.after)
        for r in reports
    ]
    columns = ("pass", "#ms", "#%", "#operations before", "#after")
    print_table(f"Passes took {1000 * total:.1f} ms", columns, rows, stderr=True)


class _Printer:
    """Prints the module after passes, to stderr: all that changed it, or those that were named."""

    def __init__(self, module: Module, changed: bool, after: tuple[str, ...]) -> None:
        self.changed, self.after = changed, after
        self.text = str(module) if changed else ""

    def __call__(self, step: Pass, report: PassReport, module: Module) -> None:
        if not self.changed and step.name not in self.after:
            return
        text = str(module)
        differs = text != self.text
        if step.name in self.after or (self.changed and differs):
            click.echo(
                f"// ----- after {step.name}: {report.before} -> {report.after} operations -----\n{text}", err=True
            )
        elif self.changed:
            click.echo(f"// ----- after {step.name}: no change -----", err=True)
        self.text = text


def _check_names(names: tuple[str, ...]) -> None:
    from passes.manager import load_pass

    for name in names:
        load_pass(name)


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--pipeline", default="", help="Passes, such as pass-a,pass-b{option=value}.")
@click.option(
    "-i",
    "--input-shape",
    "shapes",
    nargs=2,
    multiple=True,
    metavar="NAME SHAPE",
    help="Shape of a dynamic input of an ONNX model.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write the module instead of printing it: bytecode (.bc), or text (.mlir) with .weights beside it.",
)
@click.option("--print-after-change", is_flag=True, help="Print the module after each pass that changed it.")
@click.option("--print-after", multiple=True, metavar="PASS", help="Print the module after this pass; repeatable.")
@click.option("--timing", is_flag=True, help="Print how long each pass took.")
@click.option(
    "--verify",
    type=click.Choice(["structure", "exec", "none"]),
    default="structure",
    show_default=True,
    help="exec: also run the module before and after each pass and compare.",
)
@click.option(
    "--reproducer",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="When a pass fails, leave its input and one command here.",
)
@click.option("--list-passes", is_flag=True, help="List the passes and exit.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of tables.")
def main(
    file: Path | None,
    pipeline: str,
    shapes: tuple[tuple[str, str], ...],
    output: Path | None,
    print_after_change: bool,
    print_after: tuple[str, ...],
    timing: bool,
    verify: str,
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
        _check_names(print_after)
        from tools.modules import load_module

        module = load_module(file, shapes)
        level = cast(Literal["structure", "exec", "none"], verify)
        run = Pipeline(pipeline, level, _Printer(module, print_after_change, print_after), reproducer)
        result = run.run(module)
        if output is not None:
            save(result, output)
        else:
            print_lines(str(result))
        if timing:
            _timing(run.reports, as_json)


if __name__ == "__main__":
    main()
