"""Max and average pooling of NHWC activations; the average is TOSA 1.0 AVG_POOL2D (valid elements, reciprocal, single round)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import Pad, Pair, result_array, window_output
from hbir.numerics.rescale import apply_scale, reciprocal_scale

__all__ = ["avg_pool2d", "bind_avg_pool2d", "bind_max_pool2d", "max_pool2d", "pool2d_output_shape"]


def pool2d_output_shape(
    x_shape: tuple[int, ...], kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0)
) -> tuple[int, int, int, int]:
    """(N, OH, OW, C) of a pooling window over (N, H, W, C); `pad` = (top, left, bottom, right), sizes rounded down."""
    n, height, width, channels = x_shape
    top, left, bottom, right = pad
    return (
        n,
        window_output(height, kernel[0], stride[0], top, bottom),
        window_output(width, kernel[1], stride[1], left, right),
        channels,
    )


def _taps(length: int, count: int, tap: int, stride: int, before: int) -> tuple[slice, slice]:
    """Output positions that see an element of the input at window offset `tap`, and those elements."""
    first = max(0, -(-(before - tap) // stride))
    last = min(count, (length - 1 + before - tap) // stride + 1)
    if last <= first:
        return slice(0, 0), slice(0, 0)
    start = first * stride + tap - before
    return slice(first, last), slice(start, start + (last - first - 1) * stride + 1, stride)


def max_pool2d(
    x: npt.NDArray[Any],
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    out: npt.NDArray[Any] | None = None,
) -> npt.NDArray[Any]:
    """Largest valid element of each window: (N, H, W, C) integers -> (N, OH, OW, C) of the same dtype.

    `pad` = (top, left, bottom, right); padding never wins (a window of padding alone gives the type's lowest value).
    """
    y = result_array(out, pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad), None, x.dtype)
    y[...] = np.iinfo(x.dtype).min if x.dtype.kind == "i" else -np.inf
    for i in range(kernel[0]):
        to_rows, from_rows = _taps(x.shape[1], y.shape[1], i, stride[0], pad[0])
        for j in range(kernel[1]):
            to_columns, from_columns = _taps(x.shape[2], y.shape[2], j, stride[1], pad[1])
            target = y[:, to_rows, to_columns]
            np.maximum(target, x[:, from_rows, from_columns], out=target)
    return y


def bind_max_pool2d(
    x: npt.NDArray[Any],
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    out: npt.NDArray[Any],
) -> Callable[[], object]:
    """`max_pool2d` with everything resolved: call the result to run it on what `x` then holds."""
    return partial(max_pool2d, x, kernel, stride=stride, pad=pad, out=out)


def _window_sums(
    x: npt.NDArray[Any], shape: tuple[int, int, int, int], kernel: Pair, stride: Pair, pad: Pad
) -> npt.NDArray[np.int64]:
    """Sum over the valid elements of each window."""
    rows = np.zeros((shape[0], shape[1], x.shape[2], shape[3]), np.int64)
    for i in range(kernel[0]):
        to_rows, from_rows = _taps(x.shape[1], shape[1], i, stride[0], pad[0])
        rows[:, to_rows] += x[:, from_rows]
    sums = np.zeros(shape, np.int64)
    for j in range(kernel[1]):
        to_columns, from_columns = _taps(x.shape[2], shape[2], j, stride[1], pad[1])
        sums[:, :, to_columns] += rows[:, :, from_columns]
    return sums


def _counts(length: int, count: int, kernel: int, stride: int, before: int) -> npt.NDArray[np.int64]:
    """Valid elements under the window at each output position of one axis."""
    start = np.arange(count, dtype=np.int64) * stride - before
    return np.minimum(start + kernel, length) - np.maximum(start, 0)


def avg_pool2d(
    x: npt.NDArray[Any],
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: npt.NDArray[Any] | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> npt.NDArray[Any]:
    """TOSA 1.0 AVG_POOL2D: clamp(apply_scale(sum(x - zp_in), reciprocal_scale(count)) + zp_out, lo, hi).

    (N, H, W, C) int8 or int16 -> (N, OH, OW, C); `count` is the number of valid (not padding) elements of each window.
    Raises ValueError if a window sees only padding.
    """
    shape = pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad)
    y = result_array(out, shape, out_dtype, x.dtype)
    counts = np.multiply.outer(
        _counts(x.shape[1], shape[1], kernel[0], stride[0], pad[0]),
        _counts(x.shape[2], shape[2], kernel[1], stride[1], pad[1]),
    )[:, :, None]
    if (counts <= 0).any():
        raise ValueError("an average pooling window sees only padding")
    values, inverse = np.unique(counts, return_inverse=True)
    scales = np.array([reciprocal_scale(int(v)) for v in values], np.int64)[inverse.reshape(counts.shape)]
    sums = _window_sums(x, shape, kernel, stride, pad) - zp_in * counts
    y[...] = np.clip(apply_scale(sums, scales[..., 0], scales[..., 1]) + zp_out, lo, hi)
    return y


def bind_avg_pool2d(
    x: npt.NDArray[Any],
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: npt.NDArray[Any],
) -> Callable[[], object]:
    """`avg_pool2d` with everything resolved: call the result to run it on what `x` then holds."""
    return partial(
        avg_pool2d, x, kernel, stride=stride, pad=pad, zp_in=zp_in, zp_out=zp_out, lo=lo, hi=hi, out=out
    )
