"""The border between float and integer tensors: quantize and dequantize into a given buffer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import result_array
from hbir.numerics import rounding
from hbir.numerics.rescale import storage_dtype

__all__ = ["bind_dequantize", "bind_quantize", "dequantize", "quantize"]

Array = npt.NDArray[Any]


def quantize(
    x: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0, lo: int = -128, hi: int = 127, *,
    axis: int | None = None, out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """`hbir.numerics.quantize` into `out`: clamp(rint(x / scale) + zero_point, lo, hi) of float32 `x` of any shape."""
    y = result_array(out, x.shape, out_dtype, storage_dtype(lo, hi))
    y[...] = rounding.quantize(x, scale, zero_point, lo, hi, axis=axis, dtype=y.dtype)
    return y


def bind_quantize(
    x: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0, lo: int = -128, hi: int = 127, *,
    axis: int | None = None, out: Array,
) -> Callable[[], object]:
    """`quantize` with everything resolved: call the result to run it on what `x` then holds."""
    return partial(quantize, x, scale, zero_point, lo, hi, axis=axis, out=out)


def dequantize(
    q: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0, *,
    axis: int | None = None, out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """`hbir.numerics.dequantize` into `out`: (q - zero_point) * scale in float64, rounded once (float32 by default)."""
    y = result_array(out, q.shape, out_dtype, np.float32)
    y[...] = rounding.dequantize(q, scale, zero_point, axis=axis, dtype=y.dtype)
    return y


def bind_dequantize(
    q: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0, *, axis: int | None = None, out: Array
) -> Callable[[], object]:
    """`dequantize` with everything resolved: call the result to run it on what `q` then holds."""
    return partial(dequantize, q, scale, zero_point, axis=axis, out=out)
