"""hbir-diff: what differs between two modules or two binaries, or what each pass of a pipeline changed."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tools.modules import input_shapes

if TYPE_CHECKING:
    from backends.nash.hbm.diff import HbmDiff
    from hbir.ir.changes import Change, ModuleDiff
    from hbir.module import Module

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-diff before.bc after.bc
  hbir-diff model.onnx model_float.mlir --json
  hbir-diff model.onnx -p 'fold-constants,canonicalize,fuse-conv-add-relu' -o passes.html
  hbir-diff model.onnx model_quantized_model.bc --only conv1
  hbir-diff yesterday.hbm today.hbm -o diff.html
"""

_BINARY = ".hbm"


@contextmanager
def _collector_at_rest() -> Generator[None]:
    """No search for cyclic garbage: modules live until the end, and to walk them again and again costs a third of the time."""
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


_LARGE = 1 << 20
"""Files of so many bytes together take more than a moment: the command says what it does."""


@contextmanager
def _told(*files: Path | None, quiet: bool) -> Generator[Callable[[float], None]]:
    """Progress on stderr for large files; the value reports the share that is done."""
    from tools.console import Log

    size = sum(path.stat().st_size for path in files if path is not None and path.is_file())
    if quiet or size < _LARGE:
        yield lambda _: None
        return
    with Log().stage("compare", "compare the files") as advance:
        yield advance


def _only(found: ModuleDiff, part: str | None) -> ModuleDiff:
    from hbir.ir.changes import ModuleDiff

    if part is None:
        return found
    changes = tuple(change for change in found.changes if part in change.layer)
    return ModuleDiff(changes, found.same, changes)


def _only_binary(found: HbmDiff, part: str | None) -> HbmDiff:
    """What belongs to layers whose name holds `part`; descriptions and sections belong to none and stay."""
    from hbir.ir.changes import Change

    if part is None:
        return found

    def kept(changes: Sequence[Change]) -> tuple[Change, ...]:
        return tuple(change for change in changes if part in change.layer)

    models = [
        replace(
            model,
            layers=kept(model.layers),
            weights=tuple(weight for weight in model.weights if part in weight.layer),
            instructions=replace(
                model.instructions,
                rows=tuple(row for row in model.instructions.rows if not isinstance(row, Change) or part in row.layer),
            ),
            host=_only(model.host, part),
        )
        for model in found.models
    ]
    return replace(found, models=tuple(models))


def _steps(module: Module, pipeline: str) -> Iterable[tuple[str, ModuleDiff]]:
    """What each pass changed; passes that changed nothing are left out."""
    from passes.debugging.trace import Trace
    from passes.manager import Pipeline, pass_text

    trace = Trace(module)
    Pipeline(pipeline, observer=lambda step, _, after: trace.add(pass_text(step), "", after)).run(module)
    return [(step.name, step.changes) for step in trace.steps if step.changes]


def _check(before: Path | None, after: Path | None, pipeline: str | None, page: Path | None) -> bool:
    """Whether two binaries are to be compared. Raises ConfigError for files and options that do not go together."""
    from hbir.errors import ConfigError
    from tools.refusals import Refusal

    if before is None or (after is None) == (pipeline is None):
        what = "give two files, or one module and a pipeline"
        raise ConfigError(Refusal.MISSING, what, lever="see hbir-diff --help")
    if page is not None and page.suffix.lower() != ".html":
        raise ConfigError(Refusal.FILE_KIND, f"{page.name} is no name of a page", lever="choose one that ends in .html")
    files = [path for path in (before, after) if path is not None]
    binaries = [path for path in files if path.suffix.lower() == _BINARY]
    if binaries and pipeline is not None:
        why = "passes change modules; a binary is the end of the road"
        raise ConfigError(Refusal.CONFLICT, f"no pipeline runs over {before.name}", why=why, lever="give the module")
    if len(binaries) == 1 and after is not None:
        other = next(path for path in files if path not in binaries)
        raise ConfigError(
            *(Refusal.CONFLICT, f"{before.name} and {after.name} cannot be compared"),
            why=f"{binaries[0].name} is a binary, {other.name} is none",
            lever="give two modules (.bc, .mlir, .onnx) or two binaries (.hbm)",
        )
    return bool(binaries)


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("before", required=False, type=click.Path(path_type=Path))
@click.argument("after", required=False, type=click.Path(path_type=Path))
@click.option("-p", "--pipeline", help="Run these passes over BEFORE and tell what each of them changed.")
@click.option("--only", metavar="TEXT", help="Only layers whose name holds this text.")
@click.option(
    "-o",
    "--output",
    "--html",
    "page",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Write an HTML page, side by side; the text then tells the counts alone.",
)
@click.option("-q", "--quiet", is_flag=True, help="No output, only the exit status.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")
@input_shapes
def main(
    before: Path | None, after: Path | None, pipeline: str | None, only: str | None, page: Path | None, quiet: bool,
    as_json: bool, shapes: tuple[tuple[str, str], ...],
) -> None:  # fmt: skip
    """Tell what differs between BEFORE and AFTER: two modules (.bc, .mlir or .onnx) or two binaries (.hbm).

    Names of values and the order of independent operations do not count; operations are matched through layer names and data
    flow. Where a pipeline made AFTER from BEFORE, each change names the passes that did it. Binaries are compared by section,
    description, layer, instruction and constant. The exit status of a comparison is diff's: 0 when nothing differs, 1
    otherwise; 2 is a mistake.
    """
    from tools.console import command_errors

    with command_errors(status=2), _collector_at_rest():
        binary = _check(before, after, pipeline, page)
        differs = False
        if before is not None and after is not None and binary:
            differs = _binaries(before, after, only, page, quiet=quiet, as_json=as_json)
        elif before is not None:
            differs = _modules(before, after, pipeline or "", only, page, shapes, quiet=quiet, as_json=as_json)
    sys.exit(1 if differs else 0)


def _modules(
    before: Path, after: Path | None, pipeline: str, only: str | None, page: Path | None,
    shapes: tuple[tuple[str, str], ...], *, quiet: bool, as_json: bool,
) -> bool:  # fmt: skip
    """Compare two modules, or run a pipeline; whether two modules differ."""
    from hbir.ir import diff
    from tools.console import print_json
    from tools.diff_text import module_json, print_module
    from tools.modules import load_module

    with _told(before, after, quiet=quiet) as advance:
        one = load_module(before, shapes)
        if after is not None:
            title = f"{before.name} → {after.name}"
            advance(1 / 3)
            other = load_module(after, shapes)
            advance(2 / 3)
            found = [("", _only(diff(one, other), only))]
        else:
            title = f"{before.name} through its passes"
            found = [(name, _only(changes, only)) for name, changes in _steps(one, pipeline)]
    if page is not None:
        from hbir.ir.files import write_text
        from hbir.viewers.diff_page import module_page

        write_text(page, module_page(title, found))
    if as_json:
        parts = [{"pass": name, **module_json(changes)} for name, changes in found]
        print_json(module_json(found[0][1]) if after is not None else parts)
    elif not quiet:
        for name, changes in found:
            print_module(f"{name}: " if name else "", changes, whole=page is None, passes=after is not None)
    return after is not None and any(changes for _, changes in found)


def _binaries(before: Path, after: Path, only: str | None, page: Path | None, *, quiet: bool, as_json: bool) -> bool:
    """Compare two binaries; whether they differ."""
    from tools.console import print_json, read_file_kind
    from tools.diff_text import binary_json, print_binary

    for path in (before, after):
        read_file_kind(path, (_BINARY,))
    from backends.nash.hbm.diff import diff_files

    with _told(before, after, quiet=quiet):
        found = _only_binary(diff_files(before, after), only)
    if page is not None:
        from hbir.ir.files import write_text
        from tools.binary_page import binary_page

        write_text(page, binary_page(f"{before.name} → {after.name}", found))
    if as_json:
        print_json(binary_json(found))
    elif not quiet:
        print_binary(found, whole=page is None)
    return bool(found)


if __name__ == "__main__":
    main()
