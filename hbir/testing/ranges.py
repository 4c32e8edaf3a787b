"""What values can be on example inputs: bounds that keep generated networks finite, and their operands away from poles.

They are found by interval arithmetic, operation by operation, and are wide rather than close.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import Operation, SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import Array, Tensor, shape_of, tensor_type
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore
from hbir.numerics.functions import function_named

__all__ = ["ANY", "LARGEST", "Range", "input_range", "is_steady", "result_range"]

Range: TypeAlias = tuple[float, float]
"""The least and the largest value."""

ANY: Range = (-math.inf, math.inf)
"""Of what nothing is known."""
LARGEST = 2.0**40
"""Operands of generated arithmetic are no larger: float32 holds a cube of them."""

_INPUT = 32.0
"""Floats that tests feed are no larger."""
_FLOAT32 = 2.0**126
_SAMPLES = 257
"""Where a function is looked at between the ends of its operand's range."""

_SAME = (f.ClipOp, f.ExpandOp, f.MaxPoolOp, f.ReshapeOp, f.ResizeNearestOp, f.SliceOp, f.TransposeOp)
_JOINED = (f.ConcatOp, f.MaximumOp, f.MinimumOp, f.PadOp)
_ROUNDED = (
    *(f.AvgPoolOp, f.BatchNormOp, f.Conv2dOp, f.ConvTranspose2dOp, f.DivOp, f.LinearOp, f.MatmulOp),
    *(f.ReduceOp, f.ResizeBilinearOp, f.SoftmaxOp),
)
"""Operations that passes rewrite into others which round differently."""


def input_range(kind: Tensor) -> Range:
    """The range of an input of a type, or of anything of a quantised one: that of its real values."""
    element = kind.element_type
    if isinstance(element, UniformQuantizedType):
        half = 2.0 ** (element.bits - 1)
        reach = float(element.scale_array.max()) * (half + abs(element.zero_point))
        return -reach, reach
    if isinstance(element, IntegerType):
        reach = 2.0 ** (float(element.bitwidth) - 1)
        return -reach, reach
    return -_INPUT, _INPUT


def is_steady(op: Operation, steady: Callable[[SSAValue], bool]) -> bool:
    """Whether no pass makes an operation's result another one by rounding differently, not even in the last bit.

    Of steady values alone it is known on which side of a step they lie: argmax, floor and sign of others would be a matter
    of luck, and so would be the reciprocal of what nearly cancels.
    """
    return not isinstance(op, (*_ROUNDED, FakeQuantOp)) and all(map(steady, op.operands))


def result_range(op: Operation, known: Callable[[SSAValue], Range], store: ConstantStore) -> Range:
    """The range of an operation's first result; `ANY` where the operation says nothing on it, or it may be infinite."""
    kind = tensor_type(op.results[0].type)
    if isinstance(kind.element_type, UniformQuantizedType | IntegerType):
        return input_range(kind)
    if isinstance(op, f.ConstantOp):
        array = op.array(store)
        return (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if isinstance(op, f.ClipOp) and op.values["min"] is not None and op.values["max"] is not None:
        low, high = known(op.input)
        return max(op.values["min"], min(low, op.values["max"])), min(op.values["max"], max(high, op.values["min"]))
    ranges = [known(value) for value in op.operands]
    if not ranges or not all(map(math.isfinite, np.ravel(ranges))):
        return ANY
    try:
        low, high = _ranged(op, ranges)
    except (OverflowError, ZeroDivisionError):
        return ANY
    return (low, high) if max(-low, high) < _FLOAT32 else ANY


def _ranged(op: Operation, ranges: list[Range]) -> Range:
    (low, high), *others = ranges
    reach = max(-low, high)
    if isinstance(op, f.BinaryOp):
        return _binary(op, (low, high), others[0])
    if isinstance(op, f.FunctionOp):
        return _function(op, low, high)
    if isinstance(op, f.Conv2dOp | f.ConvTranspose2dOp | f.LinearOp | f.MatmulOp):
        factor = max(map(abs, others[0]))
        summed = reach * factor * _depth(op) + sum(max(map(abs, other)) for other in others[1:])
        low, high = -summed, summed
    elif isinstance(op, f.BatchNormOp):
        scale, bias, mean = (max(map(abs, other)) for other in others[:3])
        high = (reach + mean) * scale / math.sqrt(others[3][0] + op.values["epsilon"]) + bias
        low = -high
    elif isinstance(op, f.SoftmaxOp):
        low, high = 0.0, 1.0
    elif isinstance(op, f.ReduceOp):
        low, high = _reduced(op, low, high)
    elif isinstance(op, _JOINED):
        if isinstance(op, f.PadOp) and op.values["mode"] == "constant":
            others = [(op.values["value"], op.values["value"])]
        others.append((low, high))  # a concat may have one operand
        low, high = min(low, *(other[0] for other in others)), max(high, *(other[1] for other in others))
    elif isinstance(op, f.AvgPoolOp | f.ResizeBilinearOp):
        low, high = min(low, 0.0), max(high, 0.0)
    elif isinstance(op, FakeQuantOp):
        on_grid = (2.0**op.grid.bits) * float(op.grid.scale_array.max())
        low, high = max(min(low, 0.0) - on_grid, -2 * on_grid), min(max(high, 0.0) + on_grid, 2 * on_grid)
    elif not isinstance(op, (*_SAME, f.CastOp)) and op.name != "quantized.dequantize":
        return ANY
    if isinstance(op, f.ClipOp | f.Conv2dOp | f.LinearOp):
        least, most = op.values["min"], op.values["max"]
        if least is not None:
            low, high = max(low, least), max(high, least)
        if most is not None:
            low, high = min(low, most), min(high, most)
    return low, high


def _depth(op: f.Conv2dOp | f.ConvTranspose2dOp | f.LinearOp | f.MatmulOp) -> int:
    """At most so many products are added up for one element."""
    if isinstance(op, f.MatmulOp):
        return shape_of(op.lhs.type)[-1]
    return math.prod(shape_of(op.weight.type)[1:])


def _reduced(op: f.ReduceOp, low: float, high: float) -> Range:
    axes: tuple[int, ...] = op.values["axes"]
    count = math.prod(shape_of(op.input.type)[axis] for axis in axes)
    kind = op.values["kind"]
    if kind == "sum":
        return min(low, low * count), max(high, high * count)
    if kind == "prod":
        reach = max(-low, high, 1.0) ** count
        return (0.0 if low >= 0 else -reach), reach
    return low, high


def _binary(op: f.BinaryOp, a: Range, b: Range) -> Range:
    if isinstance(op, f.AddOp):
        return a[0] + b[0], a[1] + b[1]
    if isinstance(op, f.SubOp):
        return a[0] - b[1], a[1] - b[0]
    if isinstance(op, f.MaximumOp):
        return max(a[0], b[0]), max(a[1], b[1])
    if isinstance(op, f.MinimumOp):
        return min(a[0], b[0]), min(a[1], b[1])
    if isinstance(op, f.MulOp):
        corners = [x * y for x in a for y in b]
        return (0.0 if op.lhs is op.rhs else min(corners)), max(corners)
    if isinstance(op, f.DivOp):
        if b[0] <= 0 <= b[1]:
            return ANY
        corners = [x / y for x in a for y in b]
        return min(corners), max(corners)
    if b[0] != b[1]:
        return ANY
    exponent = b[0]

    def power(x: Array) -> Array:
        return np.power(x, exponent)

    return _sampled(power, *a)


def _function(op: f.FunctionOp, low: float, high: float) -> Range:
    function = function_named(op.values["function"], op.values["parameters"])
    return _sampled(function.evaluate, low, high)


def _sampled(rule: Callable[[Array], Array], low: float, high: float) -> Range:
    """The range of a smooth function, from samples: where it turns between two, by some hundredths more."""
    points = np.linspace(low, high, _SAMPLES)
    points = np.append(points, np.clip([0.0, -1.0, 1.0], low, high))
    with np.errstate(all="ignore"):
        found = rule(points)
    if not np.isfinite(found).all():
        return ANY
    least, most = float(found.min()), float(found.max())
    steps = np.diff(found[:_SAMPLES])
    if not ((steps >= 0).all() or (steps <= 0).all()):
        margin = (most - least) / 64
        least, most = (least if least >= 0 else least - margin), most + margin
    return least, most
