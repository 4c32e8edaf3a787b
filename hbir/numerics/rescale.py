"""Integer rescaling, the one place where integer rounding is written down: TOSA 1.0 `apply_scale_32`, SINGLE_ROUND.

A real factor M is carried as an odd `multiplier` m and a `shift` s with M ~ m / 2^s; odd multipliers have no ties inside
the unsaturated range, so every common rounding mode agrees with the shift below.
"""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import numpy.typing as npt

from hbir.errors import PassError

__all__ = [
    "MAX_SHIFT",
    "MIN_SHIFT",
    "apply_scale",
    "quantize_multiplier",
    "reciprocal_scale",
    "rescale",
    "storage_dtype",
]

MIN_SHIFT = 2
"""Smallest right shift of a rescale."""
MAX_SHIFT = 62
"""Largest right shift of a rescale."""


def apply_scale(x: Any, m: Any, s: Any) -> Any:
    """x * m / 2^s, rounded half up: `(x*m + 2^(s-1)) >> s`, the definition every kernel shares.

    Works on Python integers, on int64 arrays (elementwise, broadcasting) and inside `numba.njit` functions. The caller
    sees to it that |x*m| + 2^(s-1) stays below 2^63: int48 x 15 bits and int32 x 31 bits do.
    """
    return (x * m + (1 << (s - 1))) >> s


def storage_dtype(lo: int, hi: int) -> np.dtype[np.signedinteger[Any]]:
    """Smallest signed integer type that holds [lo, hi]."""
    for dtype in (np.int8, np.int16, np.int32, np.int64):
        info = np.iinfo(dtype)
        if info.min <= lo and hi <= info.max:
            return np.dtype(dtype)
    raise OverflowError(f"[{lo}, {hi}] is wider than 64 bits")


def rescale(
    x: npt.ArrayLike,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    *,
    dtype: npt.DTypeLike | None = None,
) -> npt.NDArray[Any]:
    """clamp(apply_scale(x - zp_in, multiplier, shift) + zp_out, lo, hi), exact in int64 (TOSA 1.0 RESCALE, SINGLE_ROUND).

    Shapes: `x` any; `multiplier` and `shift` scalars (per tensor) or of shape (x.shape[-1],) (per last axis).
    Returns the shape of `x` in `dtype` (default: the smallest signed type that holds [lo, hi]).
    """
    values = np.asarray(x).astype(np.int64) - zp_in
    scaled = apply_scale(values, np.asarray(multiplier, np.int64), np.asarray(shift, np.int64)) + zp_out
    return np.clip(scaled, lo, hi).astype(storage_dtype(lo, hi) if dtype is None else dtype)


@overload
def quantize_multiplier(factor: float, bits: int) -> tuple[int, int]: ...
@overload
def quantize_multiplier(
    factor: npt.NDArray[np.floating[Any]], bits: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...
def quantize_multiplier(
    factor: float | npt.NDArray[np.floating[Any]], bits: int
) -> tuple[int, int] | tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Nearest (m, s) to the real factor M = m / 2^s with m odd in [2^(bits-1), 2^bits) and 2 <= s <= 62.

    `factor`: float64 > 0, a scalar (gives Python ints) or an array (gives two int64 arrays of its shape). `bits` is the
    march's multiplier width: 15 for int8 results, 31 for int16 and int32 results.

    A factor below 2^(bits-1-62) would ask for s > 62: then s = 62 and m is the nearest odd number, smaller than
    2^(bits-1). Precision is lost only where the result is 0 or next to it: with 15 bits M < 2^-48 takes every int32 to 0;
    with 31 bits M < 2^-32 does.

    Raises PassError HB0331 when the factor is not finite and positive, or needs s < 2 (M >= 2^(bits-2)).
    """
    values = np.asarray(factor, np.float64)
    if not (np.isfinite(values).all() and (values > 0).all()):
        raise PassError(
            31,
            f"rescale factor {values.min()} is not a finite positive number",
            why="a factor is a quotient of scales, and scales are finite and positive",
            lever="look at the scales of this layer: calibrate on data that is not all zero, free of NaN and infinity",
        )
    _, exponent = np.frexp(values)  # values in [2^(exponent-1), 2^exponent)
    shift = np.minimum(bits - exponent.astype(np.int64), MAX_SHIFT)
    target = np.ldexp(values, shift.astype(np.int32))  # exact: in [2^(bits-1), 2^bits), or smaller when s is capped
    # The nearest odd number to t is 2*floor(t/2) + 1: t lies in [2k, 2k+2), whose only odd number is in the middle.
    multiplier = 2 * np.floor(target / 2).astype(np.int64) + 1
    if (shift < MIN_SHIFT).any():
        raise PassError(
            31,
            f"rescale factor {values.max():g} is too large for a {bits}-bit multiplier",
            why=f"it would need a shift below {MIN_SHIFT}; the largest factor is {2.0 ** (bits - MIN_SHIFT):g}",
            lever="the output scale is far smaller than the accumulator's: recalibrate this layer or give it a wider range",
        )
    if values.ndim == 0:
        return int(multiplier), int(shift)
    return multiplier, shift


def reciprocal_scale(value: int) -> tuple[int, int]:
    """(multiplier, shift) of 1/value for value >= 1: TOSA 1.0 `reciprocal_scale`, used by average pooling."""
    k = (value - 1).bit_length()  # 2^k / 2 < value <= 2^k
    return (((1 << 30) + 1) << k) // value, 30 + k
