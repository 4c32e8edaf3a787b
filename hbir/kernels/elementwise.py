"""Elementwise integer kernels with numpy broadcasting: add and subtract (TOSA's rescaled pattern), multiply, extrema, rescale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import result_array
from hbir.numerics.rescale import apply_scale

__all__ = [
    "add",
    "arithmetic_right_shift",
    "bind_add",
    "bind_maximum",
    "bind_minimum",
    "bind_mul",
    "bind_rescale",
    "bind_sub",
    "clz",
    "maximum",
    "minimum",
    "mul",
    "rescale",
    "sub",
]

Array = npt.NDArray[Any]


def _combine(
    sign: int, a: Array, b: Array, zp_a: int, zp_b: int,
    multiplier_a: int, shift_a: int, multiplier_b: int, shift_b: int, multiplier_out: int, shift_out: int,
    zp_out: int, lo: int, hi: int, out: Array | None, out_dtype: npt.DTypeLike | None,
) -> Array:
    y = result_array(out, np.broadcast_shapes(a.shape, b.shape), out_dtype, a.dtype)
    left = apply_scale(a.astype(np.int64) - zp_a, np.int64(multiplier_a), np.int64(shift_a))
    right = apply_scale(b.astype(np.int64) - zp_b, np.int64(multiplier_b), np.int64(shift_b))
    total = apply_scale(left + sign * right, np.int64(multiplier_out), np.int64(shift_out))
    y[...] = np.clip(total + zp_out, lo, hi)
    return y


def add(
    a: Array, b: Array, *, zp_a: int = 0, zp_b: int = 0, multiplier_a: int, shift_a: int, multiplier_b: int, shift_b: int,
    multiplier_out: int, shift_out: int, zp_out: int = 0, lo: int = -128, hi: int = 127,
    out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    return _combine(1, a, b, zp_a, zp_b, multiplier_a, shift_a, multiplier_b, shift_b, multiplier_out, shift_out,
                    zp_out, lo, hi, out, out_dtype)


def sub(
    a: Array, b: Array, *, zp_a: int = 0, zp_b: int = 0, multiplier_a: int, shift_a: int, multiplier_b: int, shift_b: int,
    multiplier_out: int, shift_out: int, zp_out: int = 0, lo: int = -128, hi: int = 127,
    out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    return _combine(-1, a, b, zp_a, zp_b, multiplier_a, shift_a, multiplier_b, shift_b, multiplier_out, shift_out,
                    zp_out, lo, hi, out, out_dtype)


def mul(
    a: Array, b: Array, *, zp_a: int = 0, zp_b: int = 0, multiplier: int | None = None, shift: int | None = None,
    zp_out: int = 0, lo: int = -128, hi: int = 127, out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    y = result_array(out, np.broadcast_shapes(a.shape, b.shape), out_dtype, np.int32 if multiplier is None else a.dtype)
    product = (a.astype(np.int64) - zp_a) * (b.astype(np.int64) - zp_b)
    if multiplier is not None:
        product = np.clip(apply_scale(product, np.int64(multiplier), np.int64(shift)) + zp_out, lo, hi)
    y[...] = product
    return y


def maximum(a: Array, b: Array, *, out: Array | None = None) -> Array:
    return np.maximum(a, b, out=out)


def minimum(a: Array, b: Array, *, out: Array | None = None) -> Array:
    return np.minimum(a, b, out=out)


def rescale(
    x: Array, multiplier: npt.ArrayLike, shift: npt.ArrayLike, *, zp_in: int = 0, zp_out: int = 0, lo: int = -128, hi: int = 127,
    out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    y = result_array(out, x.shape, out_dtype, x.dtype)
    scaled = apply_scale(x.astype(np.int64) - zp_in, np.asarray(multiplier, np.int64), np.asarray(shift, np.int64))
    y[...] = np.clip(scaled + zp_out, lo, hi)
    return y


def bind_add(a: Array, b: Array, *, out: Array, **options: int) -> Callable[[], object]:
    return partial(add, a, b, out=out, **options)


def bind_sub(a: Array, b: Array, *, out: Array, **options: int) -> Callable[[], object]:
    return partial(sub, a, b, out=out, **options)


def bind_mul(a: Array, b: Array, *, out: Array, **options: int | None) -> Callable[[], object]:
    return partial(mul, a, b, out=out, **options)


def bind_maximum(a: Array, b: Array, *, out: Array) -> Callable[[], object]:
    return partial(np.maximum, a, b, out=out)


def bind_minimum(a: Array, b: Array, *, out: Array) -> Callable[[], object]:
    return partial(np.minimum, a, b, out=out)


def bind_rescale(x: Array, multiplier: npt.ArrayLike, shift: npt.ArrayLike, *, out: Array, **options: int) -> Callable[[], object]:
    return partial(rescale, x, multiplier, shift, out=out, **options)


def arithmetic_right_shift(x: Array, shift: npt.ArrayLike, *, round: bool, out: Array | None = None) -> Array:
    """TOSA 1.0 ARITHMETIC_RIGHT_SHIFT: x >> shift; `round` adds the last bit shifted out. Keeps the dtype of `x`."""
    amount = np.asarray(shift, np.int64)
    wide = x.astype(np.int64)
    shifted = wide >> amount
    if round:
        shifted = shifted + ((amount > 0) & ((wide >> np.maximum(amount - 1, 0)) & 1).astype(bool))
    y = result_array(out, shifted.shape, None, x.dtype)
    y[...] = shifted
    return y


def clz(x: Array, *, out: Array | None = None) -> Array:
    """Leading zero bits of the 32-bit pattern of int32 `x` (TOSA 1.0 CLZ): 32 for 0, 0 for negative numbers."""
    y = result_array(out, x.shape, None, np.int32)
    # The exponent of a float64 is the exact bit length of a positive 32-bit integer.
    y[...] = np.where(x < 0, 0, 32 - np.frexp(np.maximum(x, 0).astype(np.float64))[1])
    return y
