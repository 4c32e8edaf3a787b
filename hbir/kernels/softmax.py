"""Integer softmax: the chain of base operations that `quantized.softmax` is defined as."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.numerics.rescale import apply_scale

__all__ = ["softmax"]

IntArray = npt.NDArray[Any]


def _exponentials(x: IntArray, table: IntArray, axis: int) -> IntArray:
    wide = x.astype(np.int32)
    d = wide - wide.max(axis=axis, keepdims=True)
    entries = table.astype(np.int64)
    if x.dtype == np.int8:
        return entries[d + 255]
    halved = np.maximum(apply_scale(d, 2, 2), -32768)
    if halved.size <= 32769:
        return apply_scale(_interpolated(entries, halved), 1, 7)
    # Every exponential there can be, once: then looking up is all there is to do.
    return apply_scale(_interpolated(entries, np.arange(-32768, 1)), 1, 7).take(halved + 32768)


def _interpolated(entries: IntArray, x: IntArray) -> IntArray:
    """TOSA's TABLE of int16 `x`, with its seven bits of fraction."""
    at, fraction = (x >> 7) + 256, x & 127
    return (entries[at] << 7) + (entries[at + 1] - entries[at]) * fraction


def _leading_zeros(total: IntArray) -> IntArray:
    # frexp is exact for integers below 2^53: total = f * 2^e with f in [0.5, 1).
    return 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)


def softmax(
    x: IntArray,
    exp_table: IntArray,
    reciprocal_table: IntArray,
    *,
    axis: int,
    multiplier: int,
    shift: int,
    zp_out: int,
    lo: int,
    hi: int,
    out: IntArray | None = None,
    out_dtype: npt.DTypeLike = np.int8,
) -> IntArray:
    """Softmax of int8 or int16 `x` along `axis` into `out_dtype`; `out` may be a strided view of the result's shape."""
    e = _exponentials(x, exp_table, axis)
    total = e.sum(axis=axis, keepdims=True)
    zeros = _leading_zeros(total)
    index = ((total << (zeros - 1)) >> 14) - 98304
    reciprocal = _interpolated(reciprocal_table.astype(np.int64), index)
    product = apply_scale(e * reciprocal, 1, 7)
    # ARITHMETIC_RIGHT_SHIFT with rounding adds the last bit shifted out; a shift of 0 adds nothing.
    right = 17 - zeros
    unrounded = (product >> right) + np.where(right > 0, (product >> np.maximum(right - 1, 0)) & 1, 0)
    y = np.clip(apply_scale(unrounded, multiplier, shift) + zp_out, lo, hi)
    if out is None:
        return y.astype(out_dtype)
    out[...] = y
    return out
