"""Calibration: run the float network on real inputs, watch every activation, fix the grids, and correct the biases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects.base import Array
from hbir.dialects.hbir import Conv2dOp, FunctionOp, LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import CalibrationError, IrError
from hbir.interpreter import check_input
from hbir.ir.locations import layer_name
from hbir.module import Function, Module, checked_module
from hbir.numerics.lut import function_named
from passes.coarsen_grids import CoarsenGrids
from passes.common.analysis import head_values, positional_values
from passes.common.calibration_options import WIDE_BELOW, CalibrationOptions, checked_samples
from passes.common.observers import OBSERVERS, RARE_POWER, Doubles, Histogram, Request, grid_for, resolution
from passes.common.rewriting import constant_of, only_user, users
from passes.common.statistics_values import denominators, statistics_values
from passes.correct_bias import CorrectBias, InputSamples, weighted_ops
from passes.insert_fake_quant import InsertFakeQuant, activation_points
from passes.manager import Pipeline
from passes.unify_scales import UnifyScales

__all__ = ["FLOAT_PIPELINE", "calibrate"]

FLOAT_PIPELINE = (
    "fold-constants,canonicalize,cancel-transposes,canonicalize,fuse-activations,replace-divisions,fold-batch-norm,"
    "expand-conv-transpose,replace-padding,expand-resize,fold-constants,fuse-conv-add-relu,canonicalize,dead-code"
)
"""What happens to a float network before it is calibrated: everything that must not be rounded in between."""


def _checked_feeds(function: Function, feeds: Mapping[str, Array], number: int) -> list[Array]:
    names = [argument.name for argument in function.flatten_inputs]
    if set(feeds) != set(names):
        raise CalibrationError(
            2,
            f"sample {number} feeds {sorted(map(str, feeds))}",
            why=f"the model's inputs are {names}",
            lever="give one array for each input under its name",
        )
    try:
        return [check_input(a.name, feeds[a.name], a.value.type) for a in function.flatten_inputs]
    except IrError as error:
        raise CalibrationError(3, f"sample {number}: {error.what}", why=error.why, lever=error.lever) from None
    except (ValueError, TypeError) as error:  # numpy makes no array of it
        lever = "give numpy arrays"
        raise CalibrationError(3, f"sample {number} holds no array", why=str(error), lever=lever) from None


def calibrate(
    module: Module,
    feeds: Iterable[Mapping[str, Array]],
    *,
    observer: str = "default",
    activation_bits: int = 8,
    weight_bits: int = 8,
    head_bits: int = 16,
    per_channel: bool = True,
    asymmetric: bool = True,
    percentile: float = 0.99995,
    wide_below: float = WIDE_BELOW,
    correct_bias: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Module:
    """Optimise the float graph, observe it on `feeds`, and return it with fake quantisation on every edge.

    `feeds` yields {input name: array} with the model's own dtypes and shapes. `observer` is `default` (mse), `max`,
    `percentile`, `mse` or `kl`; `percentile` is the share of values that stays in range. Values that reach an output
    past no further convolution or matrix product keep their whole observed range, and get `head_bits` bits where no convolution
    reads them. Statistics of rows, what they normalise, and denominators keep their range in sixteen bits (see
    `passes.common.statistics_values`). Of eight-bit values that keep positions (feature maps of a detector), those whose
    signal is less than `wide_below` dB above the rounding noise get sixteen bits where only convolutions and functions
    read them; -inf turns that off. `asymmetric` gives eight-bit grids a zero point: results of a relu or swish use all
    codes then.
    `correct_bias` takes the mean error of rounding out of the biases. `progress` is called with the number of samples done.
    Raises CalibrationError for options or data that do not fit, and for no data; IrError HB0236 for what is no module.
    """
    options = CalibrationOptions(
        observer=observer,
        activation_bits=activation_bits,
        weight_bits=weight_bits,
        head_bits=head_bits,
        per_channel=per_channel,
        asymmetric=asymmetric,
        percentile=percentile,
        wide_below=wide_below,
        correct_bias=correct_bias,
        progress=progress,
    )
    samples = checked_samples(feeds)
    checked_module(module)
    # A fixed grid at an input is the user's; weights on a grid mean that the whole module has been through this.
    done = next((op.name for f in module for op in f.operations if _is_calibrated(op, module)), None)
    if done is not None:
        raise CalibrationError(
            10,
            f"the module has {done} operations already",
            why="its scales are fixed, and a second calibration would round what is rounded",
            lever="calibrate the float module, or go on with passes.convert",
        )
    work = Pipeline(FLOAT_PIPELINE).run(module)
    if len(work.functions) != 1:
        raise CalibrationError(
            7, f"the module has {len(work.functions)} functions", lever="calibrate one function at a time"
        )
    function = work[0]
    block = function.op.body.block
    points = list(activation_points(block, accumulators=activation_bits == 8))
    histograms = [Histogram() for _ in points]
    inputs = [InputSamples() for _ in weighted_ops(block)]
    if not _observe(function, samples, points, histograms, inputs if correct_bias else (), progress):
        raise CalibrationError(8, "there is no calibration data", lever="give at least one sample, better 20 to 100")
    chosen = _grids(block, points, histograms, options)
    insert = InsertFakeQuant(
        *(activation_bits, weight_bits, head_bits, per_channel),
        grids={(function.name, number): grid for number, grid in enumerate(chosen)},
        signed={(function.name, number): sign for number, sign in _signs(block, points, histograms).items()},
    )
    kept = {(function.name, number): values for number, values in enumerate(inputs)}
    return Pipeline([insert, UnifyScales(), CoarsenGrids(), CorrectBias(kept)]).run(work)


def _grids(
    block: Block, points: Sequence[SSAValue], histograms: Sequence[Histogram], options: CalibrationOptions
) -> list[UniformQuantizedType]:
    """The grid of each value that gets one, from what was observed of it and from where it stands in the network."""
    near, head = head_values(block)
    positional, statistics = positional_values(block), statistics_values(block)
    grids: list[UniformQuantizedType] = []
    for value, histogram in zip(points, histograms, strict=True):
        bits = 16 if value in statistics else options.head_bits if value in head else options.activation_bits
        estimate = OBSERVERS["max" if value in near or value in statistics else options.estimator]
        power = RARE_POWER if value in positional else 2.0
        wanted = Request(bits, not options.asymmetric, options.percentile, _curve(value), power)
        grid = grid_for(estimate(histogram, wanted), bits, not options.asymmetric)
        if bits == 8 and value in positional - near and _may_widen(value, points):
            if resolution(histogram, grid, wanted.curve) < options.wide_below:
                grid = grid_for((histogram.low, histogram.high), 16, True)
        grids.append(grid)
    return grids


def _signs(block: Block, points: Sequence[SSAValue], histograms: Sequence[Histogram]) -> dict[int, int]:
    """The denominators (by their number among the points) that were never seen to be 0 or to change sign, with it."""
    divisors = denominators(block, functions=False)
    signs = {n: int(h.low > 0) - int(h.high < 0) for n, h in enumerate(histograms) if points[n] in divisors}
    return {number: sign for number, sign in signs.items() if sign}


def _is_calibrated(op: Operation, module: Module) -> bool:
    if isinstance(op, FakeQuantOp):
        return constant_of(op.input, module.constants) is not None
    return op.name.startswith("quantized.")


def _curve(value: SSAValue) -> Callable[[Doubles], Doubles] | None:
    """The function that alone reads a value, or None."""
    reader = only_user(value)
    if not isinstance(reader, FunctionOp):
        return None
    function = function_named(reader.values["function"], reader.values["parameters"])
    return function.evaluate


def _may_widen(value: SSAValue, points: Sequence[SSAValue]) -> bool:
    """Whether only convolutions and functions read a value. A concat would widen its other operands too, and a convolution
    without a grid hands out its accumulator, which int16 inputs make too wide for an output."""
    readers = users(value)
    return all(isinstance(r, FunctionOp | Conv2dOp | LinearOp) and r.results[0] in points for r in readers)


def _place(function: Function, value: SSAValue) -> str:
    """Where the user finds a value."""
    if isinstance(value.owner, Operation):
        return f"layer '{layer_name(value.owner)}'"
    return next(f"input '{argument.name}'" for argument in function.flatten_inputs if argument.value is value)


def _observe(
    function: Function,
    feeds: Iterable[Mapping[str, Array]],
    points: Sequence[SSAValue],
    histograms: Sequence[Histogram],
    inputs: Sequence[InputSamples],
    progress: Callable[[int], None] | None,
) -> int:
    """Run all samples; how many there were. `inputs` are those of the convolutions and linear layers, or none."""
    block = function.op.body.block
    watchers: dict[SSAValue, list[Histogram | InputSamples]] = {}
    for value, histogram in zip(points, histograms, strict=True):
        watchers.setdefault(value, []).append(histogram)
    for op, kept in zip(weighted_ops(block), inputs, strict=False):
        watchers.setdefault(op.input, []).append(kept)

    samples = 0

    def watch(values: Iterable[SSAValue], arrays: Iterable[Array]) -> None:
        for value, array in zip(values, arrays, strict=True):
            for watcher in watchers.get(value, ()):
                try:
                    watcher.add(np.asarray(array))
                except CalibrationError as error:
                    where = f"sample {samples}, {_place(function, value)}"
                    raise CalibrationError(1, error.what, where=where, lever=error.lever) from None

    def hook(op: Operation, results: Sequence[Array]) -> None:
        watch(op.results, results)

    prepared = function.prepare()
    for sample in feeds:
        arrays = _checked_feeds(function, sample, samples)
        watch(block.args, arrays)
        prepared.run(arrays, hook)
        samples += 1
        if progress is not None:
            progress(samples)
    return samples
