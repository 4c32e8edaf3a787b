"""Integers as quantisation leaves them: moves between grids, chains of rescales, heads that become float, shared grids."""

from __future__ import annotations

from typing import Any

from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects import hbir as f
from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of, tensor_type
from hbir.dialects.quant import UniformQuantizedType
from hbir.testing.float_graphs import NUMBERS
from hbir.testing.graphs import Generator, Graph
from hbir.testing.quantized_graphs import add_conv, add_sum, add_table, element_of, rescaled

__all__ = ["QUANTIZED_IDIOMS"]


def _clamped(g: Graph, x: SSAValue) -> SSAValue:
    element = element_of(x)
    low, high = element.limits
    bounds = sorted(g.choose((element.zero_point, low, high, g.integer(low, high))) for _ in range(2))
    return g.add(q.ClampOp.make(x, low=bounds[0], high=bounds[1]))


def _requantized(g: Graph) -> SSAValue:
    """Rescales in a row, as grids that were chosen apart leave them, with clamps in between: most do not fold into one."""
    x = g.quantized(None)
    for _ in range(3):
        step = g.choose((None, "rescale", "rescale", "rescale", "clamp"))
        if step is not None:
            x = rescaled(g, x) if step == "rescale" else _clamped(g, x)
    return x


def _is_float(x: SSAValue) -> bool:
    return tensor_type(x.type).element_type == f32


def _like(g: Graph, x: SSAValue, shape: tuple[int, ...]) -> SSAValue:
    """A value of a shape that goes together with `x`; among floats one that comes from integers, as often as not."""
    if not _is_float(x):
        return g.quantized(shape=shape, like=element_of(x))
    if g.maybe():
        return g.value(shape=shape)
    other = g.quantized(shape=shape)
    return g.add(q.DequantizeOp.make(other, grid=element_of(other)))


def _moved(g: Graph, x: SSAValue) -> SSAValue:
    """What moves values and computes none, on floats and on codes alike."""
    shape = shape_of(x.type)
    rank = len(shape)
    at = g.integer(0, rank - 1)
    edge = [int(axis == at) for axis in range(rank)]
    kind = g.choose(("pad", "pad", "pad", "concat", "slice", "transpose", "reshape", "expand", "resize"))
    if kind == "pad":
        numbers: Any = NUMBERS if _is_float(x) else (element_of(x).zero_point, 0, *element_of(x).limits, 5)
        mode = g.choose(("constant", "constant", "constant", "edge"))
        value = float(g.choose(numbers)) if mode == "constant" else 0.0
        before = edge if g.maybe() else [0] * rank
        return g.add(f.PadOp.make(x, before=before, after=edge, mode=mode, value=value))
    if kind == "concat":
        other = _like(g, x, tuple(g.integer(1, 3) if axis == at else n for axis, n in enumerate(shape)))
        return g.add(f.ConcatOp.make([x, other] if g.maybe() else [other, x], axis=at))
    if kind == "slice":
        begin = [int(e and n > 1) for e, n in zip(edge, shape, strict=True)]
        return g.add(f.SliceOp.make(x, begin=begin, end=shape, step=[1] * rank))
    if kind == "transpose":
        turn = g.integer(1, max(rank - 1, 1))
        return g.add(f.TransposeOp.make(x, permutation=[(axis + turn) % rank for axis in range(rank)]))
    if kind == "expand":
        return g.add(f.ExpandOp.make(x, shape=[2 * e if n == 1 and e else n for e, n in zip(edge, shape, strict=True)]))
    if kind == "resize" and rank == 4:
        return g.add(f.ResizeNearestOp.make(x, rows=[0, *range(shape[1])], columns=[*range(shape[2])]))
    return g.add(
        f.ReshapeOp.make(x, shape=(*shape[:at], 1, *shape[at:]) if rank < 4 else (shape[0] * shape[1], *shape[2:]))
    )


def _moves(g: Graph) -> SSAValue:
    """Moves of codes, or of floats between integers of two grids."""
    x = g.quantized(g.integer(1, 4))
    floats = g.maybe(3)
    if floats:
        x = g.add(q.DequantizeOp.make(x, grid=element_of(x)))
    for often in (5, 1):
        if g.maybe(often):
            x = _moved(g, x)
    if floats and g.maybe(4):
        x = g.add(q.QuantizeOp.make(x, grid=g.grid()))
    return x


def _head(g: Graph) -> SSAValue:
    """The end of a network: a convolution or what else there is, a clamp, a reshape, then floats; others may read it too."""
    x = g.quantized(4, bits=(8,))
    if g.maybe(4):
        x = add_conv(g, x)
    narrow = element_of(x).bits <= 16
    if narrow and not g.integer(0, 3):
        x = _clamped(g, x)
    if narrow and not g.integer(0, 2):
        n, h, w, c = shape_of(x.type)
        x = g.add(f.ReshapeOp.make(x, shape=(n, h * w, c, 1)))
    y = g.add(q.DequantizeOp.make(x, grid=element_of(x)))
    if narrow and not g.integer(0, 3):
        rescaled(g, x)
    return y


def _residual(g: Graph) -> SSAValue:
    """A sum, mostly with a clamp, of a convolution or another value; then a clamp of its own, or a convolution."""
    x = g.quantized(4)
    if g.maybe():
        x = add_conv(g, x)
    if element_of(x).bits <= 16:
        x = add_sum(g.choose((q.AddOp, q.AddOp, q.SubOp)), x)(g)
    last = g.choose((None, _clamped, add_conv))
    return x if last is None or element_of(x).bits > 16 else last(g, x)


def _shared(g: Graph) -> SSAValue:
    """Values that are brought to one grid and put together, and a part of them."""
    x = g.quantized(g.integer(1, 4))
    shape = shape_of(x.type)
    axis = g.integer(0, len(shape) - 1)
    parts = [x, *(g.quantized(shape=shape) for _ in range(g.integer(0, 2)))]
    # The widest of their grids: no rescale multiplies by much.
    grid = max((element_of(part) for part in parts), key=lambda element: element.scale)
    parts = [rescaled(g, part, grid) if element_of(part) != grid else part for part in parts]
    if len(parts) == 1:
        joined = _clamped(g, x)
    elif g.maybe(2):
        joined = g.add(f.ConcatOp.make(parts, axis=axis))
    else:
        joined = g.add(g.choose((f.MaximumOp, f.MinimumOp)).make(*parts[:2]))
    if g.maybe():
        end = list(shape_of(joined.type))
        begin = [end[axis] // 2 if at == axis else 0 for at in range(len(end))]
        joined = g.add(f.SliceOp.make(joined, begin=begin, end=end, step=[1] * len(end)))
    return joined


def _zero_apart(g: Graph, x: SSAValue) -> UniformQuantizedType:
    """The grid of an int8 value, with any zero point."""
    return UniformQuantizedType.get(8, element_of(x).scale, g.choose((0, -128, 127, 3, -70)))


def _joined_floats(g: Graph) -> SSAValue:
    """Floats of integers put together: the grids of these may be one, differ in the zero point alone, or altogether."""
    x = g.quantized(g.integer(1, 4), bits=(8,))
    shape = shape_of(x.type)
    axis, parts = g.integer(0, len(shape) - 1), [x]
    for _ in range(g.integer(1, 2)):
        grid = g.choose((element_of(x), _zero_apart(g, x), _zero_apart(g, x), g.grid()))
        parts.append(g.quantized(shape=shape, like=grid))
    floats = [g.add(q.DequantizeOp.make(part, grid=element_of(part))) for part in parts]
    joined = g.add(f.ConcatOp.make(floats, axis=axis))
    if g.maybe():
        return joined
    order = [(at + 1) % len(shape) for at in range(len(shape))]
    return g.add(f.TransposeOp.make(joined, permutation=order))


def _tabled(g: Graph) -> SSAValue:
    """A table between rescales, of which either may be absent, to grids with zero points of their own."""
    x = g.quantized(None, bits=(8,))
    if g.maybe():
        x = rescaled(g, x, _zero_apart(g, x) if g.maybe() else None)
    if element_of(x).bits == 8:
        x = add_table(g, x, computed=g.maybe())
    return rescaled(g, x, _zero_apart(g, x) if g.maybe(2) else None) if g.maybe(3) else x


def _again(g: Graph) -> SSAValue:
    """An operation of the graph once more, mostly with something changed."""
    return _requantized(g) if g.twin() is None else g.last


QUANTIZED_IDIOMS: tuple[Generator, ...] = (
    _requantized,
    _moves,
    _moves,
    _moves,
    _head,
    _head,
    _residual,
    _shared,
    _joined_floats,
    _tabled,
    _again,
)
"""Several operations at once, in the forms that the passes on integers look for; parts are optional."""
