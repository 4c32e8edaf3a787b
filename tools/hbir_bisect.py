"""hbir-bisect: which pass turns a result wrong, at which operation, in which element; with a minimal case to run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tools.modules import input_shapes

if TYPE_CHECKING:
    from hbir.module import Module
    from passes.debugging.bisect import Bisection, Fault, Judgement
    from passes.debugging.equivalence import Feeds
    from passes.debugging.stages import Stage

__all__ = ["main"]

_EXAMPLES = """\b
Examples:
  hbir-bisect model.onnx                                       (the whole way to integers)
  hbir-bisect model.onnx --march nash-e --feeds frame.npz -o case
  hbir-bisect module.mlir -p 'fold-batch-norm,fuse-conv-add-relu' -o case
  hbir-bisect calibrated.bc --tolerance 0.1 --tolerance fix-lut=0 --json

\b
Without -p a float network takes the stock road: the float passes, calibration on the inputs, the passes of `convert`; a
calibrated one the passes of `convert`. With --march the last stage is the compiled binary on the simulator, which must give
what the interpreter gives, bit for bit. The exit status is diff's: 0 when every stage keeps its promise, 1 when one does not;
2 is a mistake.
"""

_MARCH = "nash-e"
"""Whose integers a network gets when no march is named."""


def _calibration() -> Stage:
    """Calibration on the inputs that are compared."""
    from passes import Promise, calibrate
    from passes.debugging.stages import Stage

    return Stage("calibrate", Promise.NUMERIC, lambda module, feeds: calibrate(module, feeds))


def _compilation(march: str, folder: Path) -> Stage:
    """The binary on the simulator."""
    import backends
    from passes import Promise
    from passes.debugging.stages import Stage

    def run(module: Module, feeds: Feeds) -> backends.Hbm:
        del feeds
        return backends.compile(module, folder / "candidate.hbm", march)

    return Stage(f"compile{{march={march}}}", Promise.EXACT, run)


def _stock_road(module: Module, march: str) -> list[str | Stage]:
    """What lies between a module and its integers."""
    from hbir.dialects.hbir import ConstantOp
    from hbir.dialects.qat import FakeQuantOp
    from hbir.march import load_march
    from passes.calibrate import FLOAT_PIPELINE
    from passes.convert import convert_pipeline

    operations = [op for function in module for op in function.operations]
    if any(op.name.startswith("quantized.") for op in operations):
        return []
    to_integers = convert_pipeline(load_march(march))
    # A fake quant at an input says how it is fed; one on weights says that the network is calibrated.
    if any(isinstance(op, FakeQuantOp) and isinstance(op.input.owner, ConstantOp) for op in operations):
        return [to_integers]
    return [FLOAT_PIPELINE, _calibration(), to_integers]


def _stages(module: Module, pipeline: str | None, march: str | None, folder: Path) -> list[str | Stage]:
    """All that is to be run. Raises ConfigError HB0814 when that is nothing, BackendError for an unknown march."""
    from hbir.errors import ConfigError
    from hbir.march import load_march
    from tools.refusals import Refusal

    stages: list[str | Stage] = [pipeline] if pipeline is not None else _stock_road(module, march or _MARCH)
    if march is not None:
        load_march(march)  # a march that does not exist is a mistake, not a stage that fails
        stages.append(_compilation(march, folder))
    if not stages:
        what, why = "there is no stage to run", "the module holds integers already"
        raise ConfigError(
            Refusal.MISSING, what, why=why, lever="add -p PIPELINE, or --march to compile and simulate it"
        )
    return stages


def _tolerances(given: tuple[str, ...]) -> dict[str, float]:
    """`0.1` and `fix-lut=0` by name, the former under the empty one. Raises ConfigError HB0813."""
    from hbir.errors import ConfigError
    from tools.refusals import Refusal

    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError:
            lever = "write --tolerance 0.1, or --tolerance fix-lut=0"
            raise ConfigError(Refusal.VALUE, f"--tolerance {text} is no number", lever=lever) from None
    return found


def _inputs(fault: Fault) -> list[str]:
    """The names of the input sets of the case."""
    count = len(fault.feeds)
    return ["inputs.npz"] if count == 1 else [f"inputs_{number}.npz" for number in range(count)]


def _command(fault: Fault, tolerances: tuple[str, ...], march: str | None) -> str:
    """The command that shows the fault again, in the folder of the case."""
    words = ["hbir-bisect", "module.mlir"]
    name = fault.stage.partition("{")[0]
    if name not in ("calibrate", "compile"):
        words += ["-p", fault.stage]
    if name == "compile" and march is not None:
        words += ["--march", march]
    for file in _inputs(fault):
        words += ["--feeds", file]
    for text in tolerances:
        words += ["--tolerance", text]
    return shlex.join(words)


def _write_case(folder: Path, fault: Fault, command: str) -> None:
    """Write `module.mlir` with its weights, the inputs and `command.txt`."""
    from hbir.feeds import write_feed
    from hbir.ir.files import write_text
    from hbir.module import save

    save(fault.case, folder / "module.mlir")
    for file, feed in zip(_inputs(fault), fault.feeds, strict=True):
        write_feed(folder / file, feed)
    write_text(folder / "command.txt", f"{command}\n")


def _number(value: float) -> float | str:
    """A number that JSON has."""
    from math import isfinite

    return value if isfinite(value) else str(value)


def _judgement(each: Judgement) -> dict[str, Any]:
    numbers = {"difference": _number(each.difference), "allowed": each.allowed, "unit": each.unit or "largest value"}
    return {"stage": each.stage, "promise": each.promise.name, **numbers, "failed": each.failed}


def _fault(fault: Fault) -> dict[str, Any]:
    told = {key: getattr(fault, key) for key in ("stage", "number", "what", "function", "layer", "operation", "made")}
    element: dict[str, Any] | None = None
    if fault.element is not None:
        numbers = {"expected": _number(fault.element.expected), "actual": _number(fault.element.actual)}
        element = {"output": fault.element.output, "index": list(fault.element.index), **numbers}
    case = {"layers": fault.layers, "tests": fault.tests, "module": str(fault.case)}
    return {**told, "promise": fault.promise.name, "element": element, "case": case}


def _print(found: Bisection, operations: int) -> None:
    from tools.console import print_lines, print_table

    rows = [
        (
            *(each.stage, each.promise.name, f"{each.difference:.3g} {each.unit}".rstrip()),
            *(f"{each.allowed:.3g} {each.unit}".rstrip(), "WRONG" if each.failed else ""),
        )
        for each in found.judged
    ]
    columns = ("stage", "promise", "#difference", "#allowed", "")
    print_table("Differences, as shares of an output's largest value", columns, rows)
    fault = found.fault
    if fault is None:
        print_lines("every stage keeps its promise on these inputs")
        return
    made = f", which {fault.made} computes after it" if fault.made else ""
    print_lines(
        f"pass     {fault.stage}  ({fault.promise.name}: {fault.promise.value})",
        f"layer    {fault.layer or '(none)'}  {fault.operation}{made}",
    )
    if fault.element is not None:
        place = ", ".join(map(str, fault.element.index))
        print_lines(
            f"element  {fault.element.output}[{place}] is {fault.element.actual}, and should be {fault.element.expected}"
        )
    print_lines(
        f"what     {fault.what}",
        f"case     {len(fault.layers)} of {operations} operations: {', '.join(fault.layers)}",
    )


@click.command(epilog=_EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.argument("file", type=click.Path(path_type=Path))
@click.option("-p", "--pipeline", help="These passes in place of the stock road.")
@click.option("--march", metavar="NAME", help="Convert for this march, compile, and compare the simulator as well.")
@click.option(
    "--feeds",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="NPZ",
    help="An input set; repeatable. [generated]",
)
@click.option(
    "--tolerance",
    multiple=True,
    metavar="[PASS=]SHARE",
    help="What rounding may change, as a share of an output's largest value; repeatable.  [default: 0.25]",
)
@input_shapes
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write the minimal case here.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", "as_json", is_flag=True, help="JSON in place of text.")
def main(
    file: Path, pipeline: str | None, march: str | None, feeds: tuple[Path, ...], tolerance: tuple[str, ...],
    shapes: tuple[tuple[str, str], ...], output: Path | None, quiet: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find the first pass that turns results of FILE (.bc, .mlir or .onnx) wrong, then the operation, then the element.

    Every pass is held to its own promise on the same inputs: EXACT: equal; LAYOUT: floats within 1e-4; NUMERIC: within
    --tolerance. The network is then cut down to the smallest piece on which that pass is still wrong, fed with the values that
    the whole network has there.
    """
    from tools.console import Log, command_errors, print_json

    log = Log(quiet=quiet)
    with command_errors(status=2):
        import tempfile

        from hbir.feeds import read_feed
        from passes.debugging.bisect import bisect
        from passes.debugging.differences import ROUNDING_TOLERANCE
        from tools.modules import load_module

        module = load_module(file, shapes)
        limits = _tolerances(tolerance)
        inputs = [read_feed(path) for path in feeds]
        with tempfile.TemporaryDirectory(prefix="hbir-bisect-") as folder:
            stages = _stages(module, pipeline, march, Path(folder))
            general = limits.pop("", ROUNDING_TOLERANCE)
            with log.stage("bisect", "judge the stages") as advance:

                def progress(text: str, share: float) -> None:
                    log.debug(text)
                    advance(share)

                found = bisect(module, stages, inputs, tolerance=general, tolerances=limits, progress=progress)
        fault = found.fault
        command = "" if fault is None else _command(fault, tolerance, march)
        if fault is not None and output is not None:
            _write_case(output, fault, command)
        if as_json:
            told = None if fault is None else {**_fault(fault), "command": command}
            print_json({"stages": [_judgement(each) for each in found.judged], "fault": told})
        else:
            _print(found, sum(len(function.operations) for function in module))
            if fault is not None:
                where = "add -o DIR for a folder with the case" if output is None else f"in {output}: {command}"
                log.info(where)
    sys.exit(0 if fault is None else 1)


if __name__ == "__main__":
    main()
