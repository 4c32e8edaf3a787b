"""Neighbours that a pass makes one operation: those whose extents, orders and bounds tell what it must not mix up."""

from __future__ import annotations

from typing import Any

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import shape_of
from hbir.testing.float_graphs import batch_norm, inside
from hbir.testing.graphs import Generator, Graph

__all__ = ["PAIRS"]

_BOUNDS = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, None)


def _reduced(g: Graph) -> SSAValue:
    """A transpose, and a reduction that leaves the other axes in an order that is, mostly, not its own inverse."""
    # Extents are equal, or else a wrong order would be a wrong type.
    x = g.value(shape=g.choose(((2, 2, 2, 2), (3, 3, 3, 3))))
    gone, place, turn = g.integer(0, 3), g.integer(0, 3), g.choose((1, 2, 0))
    rest = [axis for axis in range(4) if axis != gone]
    order = [*rest[turn:], *rest[:turn]]
    order.insert(place, gone)
    y = g.add(f.TransposeOp.make(x, permutation=order)) if g.maybe(9) else x
    return g.add(f.ReduceOp.make(y, kind=g.choose(("sum", "max", "mean", "min")), axes=[place], keep=not g.maybe(3)))


def _parts(g: Graph) -> tuple[list[SSAValue], int]:
    """Two to four values that go together along an axis, short ones and long ones, and the axis."""
    rank = g.integer(1, 4)
    x = g.value(shape=[g.integer(1, 3) for _ in range(rank)]) if g.maybe(2) else g.value(rank)
    shape, axis = list(shape_of(x.type)), g.integer(0, rank - 1)
    parts = [x]
    for _ in range(g.choose((1, 2, 2, 3))):
        shape[axis] = g.choose((1, 2, 4, 6))
        parts.append(g.value(shape=shape) if g.integer(0, 1) else g.floats(shape))
    return parts, axis


def _part(g: Graph) -> SSAValue:
    """A slice of a concat: of one operand, mostly a late one, or of several; with or without a step."""
    parts, axis = _parts(g)
    joined = g.add(f.ConcatOp.make(parts, axis=axis))
    extents, whole = [shape_of(part.type)[axis] for part in parts], shape_of(joined.type)
    at = g.choose((len(parts) - 1, *range(len(parts))))
    low = sum(extents[:at]) + g.choose((0, 0, extents[at] - 1))
    high = min(low + g.choose((1, 1, 2, extents[at])), whole[axis])
    begin, end = [low if i == axis else 0 for i in range(len(whole))], list(whole)
    end[axis] = high
    return g.add(f.SliceOp.make(joined, begin=begin, end=end, step=[g.choose((1, 1, 2)) for _ in whole]))


def _exchanged(g: Graph) -> SSAValue:
    """A concat twice, with another value in one place, mostly the last; and how far they are apart."""
    parts, axis = _parts(g)
    first = g.add(f.ConcatOp.make(parts, axis=axis))
    at = g.choose((len(parts) - 1, len(parts) - 1, *range(len(parts))))
    parts[at] = g.floats(shape_of(parts[at].type))
    second = g.add(f.ConcatOp.make(parts, axis=axis))
    return g.add(f.SubOp.make(first, second)) if g.maybe() else second


def _products(g: Graph) -> SSAValue:
    """Products with square matrices of constants: no type says whether one was turned."""
    size = g.integer(2, 3)
    x = g.value(shape=g.choose(((size, size), (2, size), (1, 2, size))))
    for _ in range(g.integer(1, 2)):
        weight = g.floats((size, size), 0.5)
        if g.maybe():
            weight = g.add(f.MatmulOp.make(weight, g.floats((size, size), 0.5)))
        x = g.add(f.MatmulOp.make(x, weight))
    return x


def _grouped(g: Graph, x: SSAValue, bounds: tuple[float | None, float | None]) -> SSAValue:
    """A convolution of four channels in some groups, with or without padding."""
    groups, kernel = g.choose((2, 1, 2, 2, 4)), g.integer(1, min(3, *shape_of(x.type)[1:3]))
    weight = g.floats((4, kernel, kernel, 4 // groups), 0.5)
    bias = g.floats((4,)) if g.maybe() else None
    pad = tuple(g.integer(0, kernel - 1) for _ in range(4)) if not g.maybe(2) else (0, 0, 0, 0)
    geometry: dict[str, Any] = {"stride": (1, 1), "pad": pad, "dilation": (1, 1), "groups": groups}
    low, high = bounds
    return g.add(f.Conv2dOp.make(x, weight, bias, None, **geometry, min=low, max=high))


def _around(g: Graph) -> SSAValue:
    """A layer with a clamp between a batch norm, whose factors are near to one another, and a scale; any part may be absent."""
    x = g.value(shape=(1, g.integer(2, 4), g.integer(2, 4), 4))
    if g.maybe(5):
        x = batch_norm(g, x, even=True)
    clamp = g.choose(((None, None), (None, None), (None, 0.5), (0.0, None), (-0.5, 0.5)))
    if g.maybe(3):
        x = _grouped(g, x, clamp)
    else:
        x = g.add(f.LinearOp.make(x, g.floats((4, 4), 0.5), None, min=clamp[0], max=clamp[1]))
    if not g.maybe():
        return x
    kind = g.choose((f.MulOp, f.AddOp, f.SubOp, None))
    return batch_norm(g, x) if kind is None else g.add(kind.make(x, g.floats((4,))))


def _clips(g: Graph) -> SSAValue:
    """Clips in a row; their bounds may overlap, or leave nothing between them."""
    x = g.value(None)
    for _ in range(2):
        low = g.choose(_BOUNDS)
        high = g.choose([n for n in _BOUNDS if n is None or low is None or n >= low])
        x = g.add(f.ClipOp.make(x, min=low, max=high))
    return x


def _neutral(g: Graph) -> SSAValue:
    """A number that changes nothing on one side, and may on the other: 0 - x, 1 / x."""
    kind = g.choose((f.SubOp, f.SubOp, f.SubOp, f.DivOp, f.DivOp, f.MulOp, f.AddOp))
    first = g.maybe(2)
    x = g.value(None, steady=first and kind is f.DivOp)
    value = 0.0 if kind in (f.SubOp, f.AddOp) else 1.0
    if first and kind is f.DivOp:
        x = inside(g, x, 0.1, float("inf"))
    shape = g.choose(((), shape_of(x.type)[-1:], shape_of(x.type)))
    other = g.constant(np.full(shape, value, np.float32), f32)
    return g.add(kind.make(*((other, x) if first else (x, other))))


def _resized(g: Graph) -> SSAValue:
    """A nearest resize by whole factors, or to such an extent with some positions more often than others."""
    x = g.value(shape=(1, g.integer(1, 3), g.integer(1, 3), g.integer(1, 3)))
    sides: list[list[int]] = []
    for size in shape_of(x.type)[1:3]:
        count = size * g.integer(1, 3)
        even = [at * size // count for at in range(count)]
        sides.append(even if g.maybe() else sorted(g.integer(0, size - 1) for _ in range(count)))
    return g.add(f.ResizeNearestOp.make(x, rows=sides[0], columns=sides[1]))


def _transposed(g: Graph) -> SSAValue:
    """A transposed convolution in groups of several channels, mostly with a bias and a stride; a clip may follow."""
    groups, each, stride = g.choose((1, 2, 2)), g.choose((2, 1, 2)), g.choose((1, 2, 2))
    x = g.value(shape=(1, g.integer(1, 3), g.integer(1, 3), 2 * groups))
    kernel = g.integer(stride, 3)
    weight = g.floats((groups * each, kernel, kernel, 2), 0.5)
    bias = g.floats((groups * each,)) if g.maybe(3) else None
    pad = (g.integer(0, min(1, kernel - 1)), g.integer(0, min(1, kernel - 1)), g.integer(0, int(kernel > 2)), 0)
    options: dict[str, Any] = {"stride": (stride, stride), "pad": pad, "output_pad": (0, 0), "groups": groups}
    y = g.add(f.ConvTranspose2dOp.make(x, weight, bias, **options))
    return g.add(f.ClipOp.make(y, min=0.0, max=None)) if g.maybe() else y


PAIRS: tuple[Generator, ...] = (
    *(_reduced, _part, _exchanged, _products, _around, _around, _clips, _neutral, _resized, _transposed),
)
"""Each adds a few operations that stand next to one another."""
