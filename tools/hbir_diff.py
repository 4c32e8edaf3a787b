"""hbir-diff: what differs between two modules, or what each pass of a pipeline changed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hbir.ir.diff import Change, ModuleDiff
    from hbir.module import Module

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-diff before.bc after.bc
  hbir-diff model.onnx model_float.mlir --json
  hbir-diff model.onnx -p 'fold-constants,canonicalize,fuse-conv-add-relu'
  hbir-diff model.onnx model_quantized_model.bc --only conv1
"""

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def _lines(change: Change) -> Iterator[tuple[str, str]]:
    """(text, colour) of each line that tells a change."""
    sign, colour = _SIGNS[change.kind]
    kinds = f"{change.before} -> {change.after}" if change.before != change.after else change.before
    name = change.after if change.before is None else change.before if change.after is None else kinds
    layer = f" '{change.layer}'" if change.layer else ""
    yield f"{sign} {name}{layer}", colour
    for each in change.differences:
        yield f"    {each.what}: {each.before} -> {each.after}" + (f"   {each.note}" if each.note else ""), ""


def _print(title: str, found: ModuleDiff) -> None:
    from tools.console import print_coloured

    counts = {kind: sum(change.kind == kind for change in found.changes) for kind in _SIGNS}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no difference"
    print_coloured([(f"{title}{told}, {found.same} the same", "bold")])
    function = ""
    for change in found.changes:
        if change.function != function:
            function = change.function
            print_coloured([(f"@{function}", "bold")])
        print_coloured(_lines(change))


def _only(found: ModuleDiff, part: str | None) -> ModuleDiff:
    from hbir.ir.diff import ModuleDiff

    if part is None:
        return found
    return ModuleDiff(tuple(change for change in found.changes if part in change.layer), found.same)


def _json(found: ModuleDiff) -> dict[str, Any]:
    return {"same": found.same, "changes": [{"kind": change.kind, **asdict(change)} for change in found.changes]}


def _steps(module: Module, pipeline: str) -> Iterable[tuple[str, ModuleDiff]]:
    """What each pass changed; passes that changed nothing are left out."""
    from hbir import diff
    from passes.manager import Pass, PassReport, Pipeline

    found: list[tuple[str, ModuleDiff]] = []
    before = module

    def look(step: Pass, report: PassReport, after: Module) -> None:
        nonlocal before
        changes = diff(before, after)
        if changes:
            found.append((str(step.spec()), changes))
            before = after.clone()

    Pipeline(pipeline, observer=look).run(module)
    return found


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("before", required=False, type=click.Path(path_type=Path))
@click.argument("after", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--pipeline", help="Run these passes over BEFORE and tell what each of them changed.")
@click.option("--only", metavar="TEXT", help="Only layers whose name holds this text.")
@click.option("-q", "--quiet", is_flag=True, help="No output, only the exit status.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")
@click.option(
    "--input-shape",
    "shapes",
    nargs=2,
    multiple=True,
    metavar="NAME SHAPE",
    help="For an ONNX input without a fixed shape.",
)
def main(
    before: Path | None, after: Path | None, pipeline: str | None, only: str | None, quiet: bool, as_json: bool,
    shapes: tuple[tuple[str, str], ...],
) -> None:  # fmt: skip
    """Tell what differs between the modules BEFORE and AFTER (.bc, .mlir or .onnx).

    Names of values and the order of independent operations do not count; operations are matched through layer names and data
    flow. The exit status of a comparison is diff's: 0 when nothing differs, 1 otherwise; 2 is a mistake.
    """
    from tools.console import command_errors, print_json

    with command_errors(status=2):
        from hbir import diff
        from hbir.errors import ConfigError
        from tools.modules import load_module
        from tools.refusals import Refusal

        if before is None or (after is None) == (pipeline is None):
            what = "give two modules, or one and a pipeline"
            raise ConfigError(Refusal.MISSING, what, lever="see hbir-diff --help")
        one = load_module(before, shapes)
        if after is not None:
            found = [("", _only(diff(one, load_module(after, shapes)), only))]
        else:
            found = [(name, _only(changes, only)) for name, changes in _steps(one, pipeline or "")]
        if as_json:
            parts = [{"pass": name, **_json(changes)} for name, changes in found]
            print_json(_json(found[0][1]) if after is not None else parts)
        elif not quiet:
            for name, changes in found:
                _print(f"{name}: " if name else "", changes)
    sys.exit(1 if after is not None and any(changes for _, changes in found) else 0)


if __name__ == "__main__":
    main()
