"""Operations of the float graph that mean the same on integers, in TOSA: those that move values, extremes, casts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from hbir.dialects import hbir as f
from hbir.dialects.base import HbOperation, shape_of, tensor_type
from hbir.dialects.hbir.pool import full_pad
from hbir.dialects.quant import UniformQuantizedType
from hbir.testing.oracles.tosa_graph import BITS, Graph, Tensor
from hbir.testing.oracles.tosa_lowering import Handler, Lowering, Outside, inexact, is_float, kind_of, operand_shape
from hbir.testing.oracles.tosa_windows import trimmed

__all__ = ["MOVEMENTS", "aligned", "broadcast", "look_up"]


def look_up(graph: Graph, x: Tensor, axis: int, indices: Sequence[int]) -> Tensor:
    """`x` at `indices` along one axis, as numpy's `take`: GATHER."""
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    rows = int(np.prod(before, dtype=np.int64))
    places = graph.operand(np.tile(np.asarray(indices, np.int32), (rows, 1)), "INT32")
    flat = graph.reshape(x, (rows, x.shape[axis], int(np.prod(after, dtype=np.int64))))
    return graph.reshape(graph.gather(flat, places), (*before, len(indices), *after))


def aligned(graph: Graph, *tensors: Tensor) -> list[Tensor]:
    """The tensors with leading axes of extent 1 up to one rank."""
    rank = max(len(x.shape) for x in tensors)
    shapes = [(1,) * (rank - len(x.shape)) + x.shape for x in tensors]
    return [x if x.shape == shape else graph.reshape(x, shape) for x, shape in zip(tensors, shapes, strict=True)]


def broadcast(graph: Graph, x: Tensor, shape: Sequence[int]) -> Tensor:
    """`x` in a larger shape by numpy's rules: RESHAPE and TILE."""
    shape = tuple(shape)
    narrow = (1,) * (len(shape) - len(x.shape)) + x.shape
    x = x if x.shape == narrow else graph.reshape(x, narrow)
    return x if narrow == shape else graph.tile(x, [n // old for n, old in zip(shape, narrow, strict=True)])


def _reshape(low: Lowering, op: f.ReshapeOp) -> Tensor:
    return low.graph.reshape(low.tensor(op, op.input), operand_shape(op.output.type))


def _transpose(low: Lowering, op: f.TransposeOp) -> Tensor:
    return low.graph.transpose(low.tensor(op, op.input), op.values["permutation"] or (0,))


def _concat(low: Lowering, op: f.ConcatOp) -> Tensor:
    parts = [low.tensor(op, value) for value in op.inputs]
    return parts[0] if len(parts) == 1 else low.graph.concat(parts, op.values["axis"])


def _slice(low: Lowering, op: f.SliceOp) -> Tensor:
    x, values = low.tensor(op, op.input), op.values
    if not values["begin"]:
        return x
    size = [end - begin for begin, end in zip(values["begin"], values["end"], strict=True)]
    x = low.graph.slice(x, values["begin"], size)
    for axis, step in enumerate(values["step"]):
        x = x if step == 1 else look_up(low.graph, x, axis, range(0, x.shape[axis], step))
    return x


def _pad(low: Lowering, op: f.PadOp) -> Tensor:
    x, values = low.tensor(op, op.input), op.values
    widths = list(zip(values["before"], values["after"], strict=True))
    if not widths:
        return x
    if values["mode"] == "constant":
        whole = values["value"]
        if not float(whole).is_integer() or not -(1 << (BITS[x.dtype] - 1)) <= whole < 1 << (BITS[x.dtype] - 1):
            raise inexact(op, f"it pads with {whole}, which is no {x.dtype}")
        return low.graph.pad(x, widths, int(whole))
    for axis, (before, after) in enumerate(widths):
        if before or after:
            mode: Any = values["mode"]
            x = look_up(low.graph, x, axis, np.pad(np.arange(x.shape[axis]), (before, after), mode=mode).tolist())
    return x


def _expand(low: Lowering, op: f.ExpandOp) -> Tensor:
    return broadcast(low.graph, low.tensor(op, op.input), operand_shape(op.output.type))


def _resize_nearest(low: Lowering, op: f.ResizeNearestOp) -> Tensor:
    rows = look_up(low.graph, low.tensor(op, op.input), 1, op.values["rows"])
    return look_up(low.graph, rows, 2, op.values["columns"])


def _max_pool(low: Lowering, op: f.MaxPoolOp) -> Tensor:
    values, graph = op.values, low.graph
    kernel, stride = values["kernel"], values["stride"]
    x = low.tensor(op, op.input)
    if x.dtype == "INT32":
        raise inexact(op, "MAX_POOL2D takes int8 and int16")
    pad = full_pad(x.shape, kernel, stride, values["pad"], values["ceil"])
    smallest = -(1 << (BITS[x.dtype] - 1))
    x, pad = trimmed(graph, x, kernel, stride, pad, value=smallest)
    top, left, bottom, right = pad
    if max(top, bottom) >= kernel[0] or max(left, right) >= kernel[1]:  # the overhang of a last window in ceil mode
        x, pad = graph.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), smallest), (0, 0, 0, 0)
    return graph.max_pool2d(x, kernel=kernel, stride=stride, pad=pad)


def _reduce(low: Lowering, op: f.ReduceOp) -> Tensor:
    values, x = op.values, low.tensor(op, op.input)
    if values["kind"] not in ("max", "min"):
        raise inexact(op, f"integers have no reduction '{values['kind']}' that keeps its type")
    for axis in values["axes"]:
        x = low.graph.reduce("REDUCE_" + values["kind"].upper(), x, axis)
    shape = operand_shape(op.output.type)
    return x if x.shape == shape else low.graph.reshape(x, shape)


def _argmax(low: Lowering, op: f.ArgmaxOp) -> Outside:
    x = low.tensor(op, op.input)
    if x.dtype == "INT32":
        raise inexact(op, "ARGMAX takes int8 and int16")
    found, shape = low.graph.argmax(x, op.values["axis"]), shape_of(op.output.type)
    return Outside((found,), lambda results: results[0].astype(np.int64).reshape(shape))


def _extreme(low: Lowering, op: f.MaximumOp | f.MinimumOp) -> Tensor:
    graph = low.graph
    a, b = aligned(graph, low.tensor(op, op.lhs), low.tensor(op, op.rhs))
    wide = [x if x.dtype == "INT32" else graph.cast(x, "INT32") for x in (a, b)]
    found = graph.binary("MAXIMUM" if isinstance(op, f.MaximumOp) else "MINIMUM", *wide)
    return found if a.dtype == "INT32" else graph.cast(found, a.dtype)


def _int32(low: Lowering, op: f.AddOp | f.SubOp) -> Tensor:
    if kind_of(op.output.type) != "INT32" or isinstance(tensor_type(op.output.type).element_type, UniformQuantizedType):
        raise inexact(op, f"the profile has this arithmetic for int32 only, not for {op.output.type}")
    a, b = aligned(low.graph, low.tensor(op, op.lhs), low.tensor(op, op.rhs))
    return low.graph.binary(op.name.removeprefix("hbir.").upper(), a, b)


def _cast(low: Lowering, op: f.CastOp) -> Tensor | Outside:
    kind = kind_of(op.output.type)
    if kind:
        x = low.tensor(op, op.input)
        return x if x.dtype == kind else low.graph.cast(x, kind)
    low.tensor(op, op.input)  # refuses what is no tensor of the graph
    return low.apply([op.input], partial(f.CastOp.evaluate, **op.values))


_MOVED: dict[type[HbOperation], Handler] = {
    f.ConcatOp: _concat,
    f.ExpandOp: _expand,
    f.PadOp: _pad,
    f.ReshapeOp: _reshape,
    f.ResizeNearestOp: _resize_nearest,
    f.SliceOp: _slice,
    f.TransposeOp: _transpose,
}


def _anywhere(handler: Handler) -> Handler:
    """Floats are moved outside of the graph, before they are quantised or after they came out; integers inside."""

    def lower(low: Lowering, op: Any) -> Tensor | Outside:
        if not is_float(op.output.type):
            return handler(low, op)
        return low.apply(list(op.operands), partial(op.evaluate, **op.values))

    return lower


MOVEMENTS: dict[type[HbOperation], Handler] = {
    **{kind: _anywhere(handler) for kind, handler in _MOVED.items()},
    f.AddOp: _int32,
    f.ArgmaxOp: _argmax,
    f.CastOp: _cast,
    f.MaximumOp: _extreme,
    f.MaxPoolOp: _max_pool,
    f.MinimumOp: _extreme,
    f.ReduceOp: _reduce,
    f.SubOp: _int32,
}
"""For each of these operations what turns it into TOSA ops."""
