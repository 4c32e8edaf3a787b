"""Convolutions and matrix products of the `quantized` dialect in TOSA, with all that follows the accumulator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

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
from hbir.testing.oracles.tosa_movements import broadcast
from hbir.testing.oracles.tosa_rescale import WHOLE, clamped, finished, requantized
from hbir.testing.oracles.tosa_tables import known_operand
from hbir.testing.oracles.tosa_windows import accumulators, trimmed, wide_accumulators

__all__ = ["PRODUCTS"]

_WIDEST_BIAS = 36
"""Bits of a bias that a matrix product is asked to carry: each bit more doubles the rows it takes."""


def _accumulated(low: Lowering, op: q.Conv2dOp) -> list[Tensor]:
    """The accumulators, one tensor for each group that TOSA has no op for, else one."""
    graph, values = low.graph, op.values
    x, zero = low.tensor(op, op.input), op.zero_points[0]
    weight = known_operand(low, op, op.weight, "weight")
    bias = np.zeros(weight.shape[0], np.int64)
    if op.bias is not None:
        bias = known_operand(low, op, op.bias, "bias").astype(np.int64)
    reached = np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)) * furthest(x, zero) + np.abs(bias)
    check_sum(op, int(reached.max()), "INT32" if x.dtype == "INT8" else "INT48")
    window: dict[str, Any] = {key: values[key] for key in ("stride", "dilation", "groups")}
    pad = values["pad"]
    if zero and x.dtype == "INT16":  # TOSA gives int16 no zero point: it goes into the bias, and padding holds it
        bias = bias - zero * weight.sum(axis=(1, 2, 3), dtype=np.int64)
        top, left, bottom, right = pad
        x, pad = graph.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), zero), (0, 0, 0, 0)
    if weight.dtype == np.int16:
        if int(np.abs(bias).max()) >= 1 << (_WIDEST_BIAS - 1):
            raise inexact(op, f"a bias of {_WIDEST_BIAS} bits or more beside int16 weights")
        return wide_accumulators(graph, x, weight, bias, pad=pad, zp=zero, **window)
    x, pad = trimmed(graph, x, weight.shape[1:3], values["stride"], pad, values["dilation"], zero)
    return accumulators(graph, x, weight, bias, pad=pad, zp_in=zero if x.dtype == "INT8" else 0, **window)


def _real(parts: list[Tensor], op: q.Conv2dOp | q.MatmulOp) -> Outside:
    """The floats of sums, which come in parts along the last axis: computed from what the graph gives for these."""
    scale, shape = op.grid.scale_array.astype(np.float64), operand_shape(op.output.type)

    def compute(results: Sequence[Array]) -> Array:
        sums = np.concatenate([result.reshape(*shape[:-1], -1) for result in results], axis=-1)
        return (sums * scale).astype(np.float32)

    return Outside(tuple(parts), compute)


def _conv2d(low: Lowering, op: q.Conv2dOp) -> Tensor | Outside:
    graph, values, grid = low.graph, op.values, op.values["grid"]
    parts, shape = _accumulated(low, op), operand_shape(op.output.type)
    if op.float_type is not None:
        return _real(parts, op)
    if values["multiplier"] is None:
        whole = parts[0] if len(parts) == 1 else graph.concat(parts, 3)
        return clamped(graph, whole, values["low"], values["high"])
    after: dict[str, Any] = {"low": values["low"], "high": values["high"], "out": kind_of(op.output.type)}
    main: dict[str, Any] = {"zp_out": grid.zero_point, **after} if op.residual is None else WHOLE
    channels = shape[3] // len(parts)
    scaled: list[Tensor] = []
    for number, part in enumerate(parts):
        chosen = slice(number * channels, (number + 1) * channels)
        m, s = (v if v.size == 1 else v[chosen] for v in (values["multiplier"], values["shift"]))
        scaled.append(graph.reshape(requantized(graph, part, m, s, **main), (*shape[:3], channels)))
    result = scaled[0] if len(scaled) == 1 else graph.concat(scaled, 3)
    if op.residual is None:
        return result
    residual = low.tensor(op, op.residual)
    m, s = values["residual_multiplier"], values["residual_shift"]
    side = requantized(graph, residual, m, s, zp_in=op.zero_points[3], **WHOLE)
    m, s = values["output_multiplier"], values["output_shift"]
    return requantized(graph, graph.binary("ADD", result, side), m, s, zp_out=grid.zero_point, **after)


def _factors(low: Lowering, op: q.MatmulOp) -> tuple[Tensor, Tensor, dict[str, int]]:
    """Both operands in one type, and the zero points that MATMUL takes. int16 has none: they become part of the sum.

    sum((a - za) * (b - zb)) = sum(a * b) + sum(a * -zb) + sum(-za * b) + sum(za * zb), side by side along the inner axis."""
    graph = low.graph
    a, b = low.tensor(op, op.lhs), low.tensor(op, op.rhs)
    za, zb = op.zero_points
    if a.dtype == b.dtype == "INT8":
        return a, b, {"zp_a": za, "zp_b": zb}
    if a.dtype == "INT8":
        a, za = graph.rescale(a, 1 << 14, 14, za, 0, "INT16"), 0
    if b.dtype == "INT8":
        b, zb = graph.rescale(b, 1 << 14, 14, zb, 0, "INT16"), 0
    if za or zb:
        a, b = _side_by_side(graph, a, b, za, zb)
    return a, b, {}


def _side_by_side(graph: Graph, a: Tensor, b: Tensor, za: int, zb: int) -> tuple[Tensor, Tensor]:
    def constants(like: Tensor, zero: int) -> list[Tensor]:
        """-zero as one value or two: the negative of -32768 is no int16."""
        values = [-zero] if zero > -32768 else [-zero // 2] * 2
        return [graph.operand(np.full(like.shape, value, np.int16), "INT16") for value in values]

    less_a, less_b = constants(a, za), constants(b, zb)
    zeros = [graph.operand(np.full(x.shape, zero, np.int16), "INT16") for x, zero in ((a, za), (b, zb))]
    left = [a, *[a] * len(less_b), *less_a, zeros[0]]
    right = [b, *less_b, *[b] * len(less_a), zeros[1]]
    return graph.concat(left, len(a.shape) - 1), graph.concat(right, len(b.shape) - 2)


def _matmul(low: Lowering, op: q.MatmulOp) -> Tensor | Outside:
    graph, shape = low.graph, operand_shape(op.output.type)
    sides = [(low.tensor(op, x), zero) for x, zero in zip((op.lhs, op.rhs), op.zero_points, strict=True)]
    kind = "INT32" if all(x.dtype == "INT8" for x, _ in sides) else "INT48"
    check_sum(op, sides[0][0].shape[-1] * math.prod(furthest(x, zero) for x, zero in sides), kind)
    a, b, zeros = _factors(low, op)
    batch = shape[:-2]
    count = int(np.prod(batch, dtype=np.int64))
    flat = [graph.reshape(broadcast(graph, x, (*batch, *x.shape[-2:])), (count, *x.shape[-2:])) for x in (a, b)]
    sums = graph.matmul(flat[0], flat[1], **zeros)
    if op.float_type is not None:
        return _real([sums], op)
    product = finished(low, op, sums)
    return graph.reshape(product, shape)


PRODUCTS: dict[type[HbOperation], Handler] = {q.Conv2dOp: _conv2d, q.MatmulOp: _matmul}
"""For each operation that multiplies matrices what turns it into TOSA ops."""
