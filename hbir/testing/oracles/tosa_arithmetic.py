"""Elementwise operations, pools, sums and resizes of the `quantized` dialect in TOSA."""

from __future__ import annotations

import math

import numpy as np

from hbir.dialects import quantized as q
from hbir.dialects.base import Array, HbOperation
from hbir.testing.oracles.tosa_graph import Graph, Tensor
from hbir.testing.oracles.tosa_lowering import (
    Handler,
    Lowering,
    Outside,
    check_sum,
    furthest,
    inexact,
    kind_of,
    operand_shape,
)
from hbir.testing.oracles.tosa_movements import aligned, look_up
from hbir.testing.oracles.tosa_products import PRODUCTS
from hbir.testing.oracles.tosa_rescale import WHOLE, centred, clamped, finished, requantized
from hbir.testing.oracles.tosa_tables import TABLES
from hbir.testing.oracles.tosa_windows import trimmed

__all__ = ["QUANTIZED"]


def _sum(low: Lowering, op: q.AddOp | q.SubOp) -> Tensor:
    values, graph = op.values, low.graph
    sides: list[Tensor] = []
    for name, value, zero in zip(("lhs", "rhs"), (op.lhs, op.rhs), op.zero_points, strict=True):
        m, s = values[f"{name}_multiplier"], values[f"{name}_shift"]
        sides.append(requantized(graph, low.tensor(op, value), m, s, zp_in=zero, **WHOLE))
    return finished(low, op, graph.binary("ADD" if isinstance(op, q.AddOp) else "SUB", *aligned(graph, *sides)))


def _mul(low: Lowering, op: q.MulOp) -> Tensor:
    graph = low.graph
    sides = [(low.tensor(op, x), zero) for x, zero in zip((op.lhs, op.rhs), op.zero_points, strict=True)]
    check_sum(op, math.prod(furthest(x, zero) for x, zero in sides), "INT32")
    factors = [centred(graph, x, zero) for x, zero in sides]
    return finished(low, op, graph.binary("MUL", *aligned(graph, *factors)))


def _clamp(low: Lowering, op: q.ClampOp) -> Tensor:
    return clamped(low.graph, low.tensor(op, op.input), op.values["low"], op.values["high"])


def _rescale(low: Lowering, op: q.RescaleOp) -> Tensor:
    values = op.values
    lowest, highest = values["grid"].limits
    zeros = {"zp_in": op.zero_points[0], "zp_out": values["grid"].zero_point}
    x, out = low.tensor(op, op.input), kind_of(op.output.type)
    m, s = values["multiplier"], values["shift"]
    return requantized(low.graph, x, m, s, **zeros, low=lowest, high=highest, out=out)


def _avg_pool(low: Lowering, op: q.AvgPoolOp) -> Tensor:
    values, zero, x = op.values, op.zero_points[0], low.tensor(op, op.input)
    if zero and x.dtype == "INT16":
        raise inexact(op, "AVG_POOL2D takes int16 without a zero point")
    kernel, stride = values["kernel"], values["stride"]
    check_sum(op, math.prod(kernel) * furthest(x, zero), "INT32")
    x, pad = trimmed(low.graph, x, kernel, stride, values["pad"], value=zero)
    return low.graph.avg_pool2d(x, kernel=kernel, stride=stride, pad=pad, zp_in=zero, zp_out=zero)


def _reduce_sum(low: Lowering, op: q.ReduceSumOp) -> Tensor:
    total = centred(low.graph, low.tensor(op, op.input), op.zero_points[0])
    for axis in op.values["axes"]:
        total = low.graph.reduce("REDUCE_SUM", total, axis)
    shape = operand_shape(op.output.type)
    return finished(low, op, total if total.shape == shape else low.graph.reshape(total, shape))


def _extended(graph: Graph, x: Tensor, axis: int, n: int, offset: int, border: int) -> tuple[Tensor, int, int]:
    """`x` with more or fewer values at both ends of an axis, and the offset and border that then mean the same.

    TOSA bounds both. Positions outside of the input read its edge, so that copies of the edge change nothing; what no
    position reads goes."""
    first = offset // n if offset >= 16 * n else min(offset // n + 1, 0)
    behind = min(border // n + 1, 0) if border < -16 * n else max(border // n, 0)
    if first or behind:
        size = x.shape[axis]
        x = look_up(graph, x, axis, np.clip(np.arange(first, size + behind), 0, size - 1).tolist())
    return x, offset - first * n, border - behind * n


def _resize(low: Lowering, op: q.ResizeBilinearOp) -> Tensor:
    values, zero, x = op.values, op.zero_points[0], low.tensor(op, op.input)
    yn, yd, xn, xd = values["scale"]
    if x.dtype == "INT32" or (zero and x.dtype == "INT16"):
        raise inexact(op, "RESIZE takes int8, and int16 without a zero point")
    moved: list[tuple[int, int]] = []
    for axis, (n, d, offset, border) in enumerate(
        zip((yn, xn), (yd, xd), values["offset"], values["border"], strict=True)
    ):
        if n > 2048 or d >= 16 * n:
            raise inexact(op, f"RESIZE takes no scale {n}/{d}")
        x, offset, border = _extended(low.graph, x, axis + 1, n, offset, border)
        moved.append((offset, border))
    offsets, borders = zip(*moved, strict=True)
    value = low.graph.resize(x, scale=values["scale"], offset=offsets, border=borders, mode="BILINEAR")
    # Every result weighs its four values by yn * xn in all: so the zero point comes off afterwards.
    return finished(low, op, centred(low.graph, value, zero * yn * xn) if zero else value)


def _quantize(low: Lowering, op: q.QuantizeOp) -> Outside:
    x, grid = low.constant(op.input), op.values["grid"]
    if x is None:
        raise inexact(op, "its input is computed: TOSA's integer graph has no floats between operations")
    lowest, highest = grid.limits
    codes = np.rint(x / np.float32(grid.scale)).astype(np.float64) + grid.zero_point
    clipped = np.clip(np.where(np.isnan(codes), lowest, codes), lowest, highest)
    kept = clipped.astype(f"int{grid.bits}")
    return Outside((), lambda _: kept)


def _dequantize(low: Lowering, op: q.DequantizeOp) -> Outside:
    scale, zero = op.values["grid"].scale_array, op.values["grid"].zero_point_array

    def real(x: Array) -> Array:
        return ((x.astype(np.float64) - zero) * scale).astype(np.float32).reshape(x.shape)

    return low.apply([op.input], real)


QUANTIZED: dict[type[HbOperation], Handler] = {
    q.AddOp: _sum,
    q.AvgPoolOp: _avg_pool,
    q.ClampOp: _clamp,
    q.DequantizeOp: _dequantize,
    q.MulOp: _mul,
    q.QuantizeOp: _quantize,
    q.ReduceSumOp: _reduce_sum,
    q.RescaleOp: _rescale,
    q.ResizeBilinearOp: _resize,
    q.SubOp: _sum,
    **PRODUCTS,
    **TABLES,
}
"""For each operation of the dialect what turns it into TOSA ops."""
