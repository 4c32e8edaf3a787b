"""What convolutions and pools need besides the op itself: windows that leave no rest, groups, and int16 weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.testing.oracles.tosa_graph import NAMES, Graph, Tensor

__all__ = ["accumulators", "trimmed", "wide_accumulators"]

Array = npt.NDArray[Any]
Ints = Sequence[int]

_LOW = 14
"""Bits of a bias that a matrix product adds as 1 times a weight; it adds the others as 2^14 times weights."""


def _reach(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> tuple[int, int]:
    """(elements of the axis to keep, padding after) such that the stride leaves no rest, which TOSA demands."""
    rest = (size - 1 + before + after - (kernel - 1) * dilation) % stride
    return size - max(rest - after, 0), max(after - rest, 0)


def trimmed(
    graph: Graph, x: Tensor, kernel: Ints, stride: Ints, pad: Ints, dilation: Ints = (1, 1), value: int = 0
) -> tuple[Tensor, tuple[int, int, int, int]]:
    """NHWC `x` and (top, left, bottom, right) without what no window reaches; PAD with `value` where a window sees only it."""
    top, left, bottom, right = pad
    n, height, width, c = x.shape
    rows, below = _reach(height, kernel[0], stride[0], top, bottom, dilation[0])
    columns, beside = _reach(width, kernel[1], stride[1], left, right, dilation[1])
    if min(rows, columns) < 1:
        whole = graph.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), value)
        return trimmed(graph, whole, kernel, stride, (0, 0, 0, 0), dilation)
    if (rows, columns) != (height, width):
        x = graph.slice(x, (0, 0, 0, 0), (n, rows, columns, c))
    return x, (top, left, below, beside)


def _depthwise_weight(weight: Array, groups: int) -> Array:
    """OHWI with I = 1 to TOSA's [kh, kw, C, M], output channel c * M + m."""
    o, kh, kw, _ = weight.shape
    return weight.reshape(groups, o // groups, kh, kw).transpose(2, 3, 0, 1)


def accumulators(
    graph: Graph,
    x: Tensor,
    weight: Array,
    bias: Array,
    *,
    stride: Ints,
    pad: Ints,
    dilation: Ints,
    groups: int,
    zp_in: int = 0,
    zp_weight: int = 0,
) -> list[Tensor]:
    """CONV2D or DEPTHWISE_CONV2D as one tensor, or CONV2D of the slices of other groups, one tensor a group.

    INT32 for INT8 inputs, INT48 for INT16: those CONCAT does not know."""
    kind = "INT32" if x.dtype == "INT8" else "INT48"
    window: dict[str, Any] = {"pad": pad, "stride": stride, "dilation": dilation, "zp": zp_in, "zp_w": zp_weight}
    weight_kind = NAMES[weight.dtype]
    if groups == 1:
        return [graph.conv2d(x, graph.operand(weight, weight_kind), graph.const(bias, kind), **window)]
    if weight.shape[3] == 1:
        folded = graph.operand(_depthwise_weight(weight, groups), weight_kind)
        return [graph.depthwise_conv2d(x, folded, graph.const(bias, kind), **window)]
    inputs, outputs = weight.shape[3], weight.shape[0] // groups
    parts: list[Tensor] = []
    for group in range(groups):
        own = graph.slice(x, (0, 0, 0, group * inputs), (*x.shape[:3], inputs))
        chosen = slice(group * outputs, (group + 1) * outputs)
        part = graph.operand(weight[chosen], weight_kind)
        parts.append(graph.conv2d(own, part, graph.const(bias[chosen], kind), **window))
    return parts


def wide_accumulators(
    graph: Graph,
    x: Tensor,
    weight: Array,
    bias: Array,
    *,
    stride: Ints,
    pad: Ints,
    dilation: Ints,
    groups: int,
    zp: int,
) -> list[Tensor]:
    """The convolution of INT16 by int16 weights, which TOSA lacks: GATHER of all windows, and a MATMUL for each group.

    Each result is [1, N * OH * OW, O / groups] INT48. `zp` is what padding holds; the bias, already folded, becomes rows of
    the matrix, so that INT48 holds the whole sum."""
    top, left, bottom, right = pad
    x = graph.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), zp)
    n, height, width, c = x.shape
    o, kh, kw, inputs = weight.shape
    rows, columns = (
        np.arange(0, size - (k - 1) * d, step, dtype=np.int32)
        for size, k, d, step in zip((height, width), (kh, kw), dilation, stride, strict=True)
    )
    taps = np.arange(kh, dtype=np.int32)[:, None] * dilation[0] * width + np.arange(kw, dtype=np.int32) * dilation[1]
    places = (rows[:, None] * width + columns)[:, :, None, None] + taps
    count = n * rows.size * columns.size
    indices = graph.operand(np.tile(places.reshape(1, -1), (n, 1)), "INT32")
    low, high = bias & ((1 << _LOW) - 1), bias >> _LOW
    spread = max(-(-int(np.abs(high).max()) // 32767), 1)
    shares = [high * (i + 1) // spread - high * i // spread for i in range(spread)]
    factors = np.array([1] + [1 << _LOW] * spread, np.int16)
    constant = graph.operand(np.tile(factors, (1, count, 1)), "INT16")
    flat = graph.reshape(x, (n, height * width, c))
    parts: list[Tensor] = []
    for group in range(groups):
        own = graph.slice(flat, (0, 0, group * inputs), (n, height * width, inputs))
        windows = graph.reshape(graph.gather(own, indices), (1, count, kh * kw * inputs))
        chosen = slice(group * (o // groups), (group + 1) * (o // groups))
        matrix = np.concatenate([weight[chosen].reshape(o // groups, -1).T, [each[chosen] for each in (low, *shares)]])
        parts.append(graph.matmul(graph.concat([windows, constant], 2), graph.operand(matrix[None], "INT16")))
    return parts
