"""Float to integer and back, as the numerics fix it: float32 division, round half to even, then clamp."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.numerics.rescale import storage_dtype

__all__ = ["dequantize", "fake_quantize", "quantize", "quantized_range"]


def quantized_range(bits: int, *, narrow: bool = False) -> tuple[int, int]:
    """(qmin, qmax) of a signed integer of `bits` bits; `narrow` leaves out the most negative value."""
    return -(1 << (bits - 1)) + int(narrow), (1 << (bits - 1)) - 1


def _along(values: npt.ArrayLike, dtype: npt.DTypeLike, rank: int, axis: int | None) -> npt.NDArray[Any]:
    """`values` shaped to broadcast along `axis` of a tensor of `rank` dimensions (scalars stay scalars)."""
    array = np.asarray(values, dtype)
    if array.ndim == 0 or axis is None:
        return array
    shape = [1] * rank
    shape[axis] = array.size
    return array.reshape(shape)


def _round_and_clamp(
    x: npt.NDArray[Any], scale: npt.NDArray[Any], zero_point: npt.NDArray[Any], lo: int, hi: int
) -> npt.NDArray[np.float64]:
    """clamp(rint(x / scale) + zp, lo, hi) - zp as exact float64 integers."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # infinity is clamped, NaN is mapped below
        rounded = np.rint(np.asarray(x, np.float32) / scale).astype(np.float64)
    # fmax drops NaN: a NaN becomes `lo`, on every machine alike.
    return np.fmin(np.fmax(rounded, lo - zero_point), hi - zero_point)


def quantize(
    x: npt.NDArray[Any],
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    lo: int = -128,
    hi: int = 127,
    *,
    axis: int | None = None,
    dtype: npt.DTypeLike | None = None,
) -> npt.NDArray[Any]:
    """clamp(rint(x / scale) + zero_point, lo, hi): division in float32, ties to even, NaN to `lo`.

    `scale` float32 and `zero_point` are scalars, or vectors along `axis` of `x`. Result dtype: `dtype`, by default the
    smallest signed integer that holds [lo, hi].
    """
    zero = _along(zero_point, np.float64, x.ndim, axis)
    values = _round_and_clamp(x, _along(scale, np.float32, x.ndim, axis), zero, lo, hi) + zero
    return values.astype(storage_dtype(lo, hi) if dtype is None else dtype)


def dequantize(
    q: npt.NDArray[Any],
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    *,
    axis: int | None = None,
    dtype: npt.DTypeLike = np.float32,
) -> npt.NDArray[Any]:
    """(q - zero_point) * scale, computed in float64 and rounded once to `dtype` (float32 or float16)."""
    difference = q.astype(np.float64) - _along(zero_point, np.float64, q.ndim, axis)
    scale32 = _along(scale, np.float32, q.ndim, axis).astype(np.float64)
    with np.errstate(over="ignore"):
        return (difference * scale32).astype(dtype)


def fake_quantize(
    x: npt.NDArray[Any],
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    lo: int = -128,
    hi: int = 127,
    *,
    axis: int | None = None,
) -> npt.NDArray[np.float32]:
    """(clamp(rint(x / scale) + zero_point, lo, hi) - zero_point) * scale in float32: dequantize(quantize(x))."""
    scale32 = _along(scale, np.float32, x.ndim, axis)
    steps = _round_and_clamp(x, scale32, _along(zero_point, np.float64, x.ndim, axis), lo, hi)
    return (steps * scale32.astype(np.float64)).astype(np.float32)
