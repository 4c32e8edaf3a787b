"""The border between float and integer tensors: quantize and dequantize into a given buffer, and floats of accumulators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import address, result_array
from hbir.numerics import rounding
from hbir.numerics.rescale import storage_dtype

__all__ = ["bind_dequantize", "bind_float_result", "bind_quantize", "dequantize", "quantize"]

Array = npt.NDArray[Any]

_ELEMENT = 0.2  # nanoseconds for one element, either way


def _bind(
    inward: bool, real: Array, integer: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike, lo: int, hi: int,
    axis: int | None,
) -> Callable[[], None] | None:  # fmt: skip
    """The compiled loop, or None for what only numpy does: strided or other than float32 tensors, wide bounds, and vectors
    but for the scales along the last axis of a dequantize."""
    scales = np.ascontiguousarray(scale, np.float32).reshape(-1)
    along_last = not inward and axis == real.ndim - 1 and scales.size == real.shape[-1]
    suited = np.size(zero_point) == 1 and (scales.size == 1 or along_last)
    contiguous = real.flags.c_contiguous and integer.flags.c_contiguous
    if not (suited and contiguous and real.dtype == np.float32 and integer.dtype.kind == "i") or real.size == 0:
        return None
    zero = int(np.asarray(zero_point).reshape(()))
    if max(abs(lo - zero), abs(hi - zero)) > 1 << 24:  # the loop clamps in float32
        return None
    from hbir.kernels.jit import workers as jit
    from hbir.kernels.jit.boundary import BOUNDARY, dequantize_task, quantize_task

    record = np.zeros(1, BOUNDARY)
    r = record[0]
    r["count"], r["real"], r["integer"], r["size"] = real.size, address(real), address(integer), integer.itemsize
    r["zero_point"], r["lo"], r["hi"], r["scale"] = zero, lo, hi, scales[0]
    r["scales"], r["channels"] = address(scales), scales.size
    r["tasks"] = tasks = jit.split(_ELEMENT * real.size, real.size)
    return jit.bind_task(quantize_task if inward else dequantize_task, tasks, record, real, integer, scales)


def bind_quantize(
    x: Array,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    lo: int = -128,
    hi: int = 127,
    *,
    axis: int | None = None,
    out: Array,
) -> Callable[[], None]:
    """`quantize` with everything resolved: call the result to run it on what `x` then holds."""
    result_array(out, x.shape, None, out.dtype)
    compiled = _bind(True, x, out, scale, zero_point, lo, hi, axis)
    if compiled is not None:
        return compiled

    def run() -> None:
        out[...] = rounding.quantize(x, scale, zero_point, lo, hi, axis=axis, dtype=out.dtype)

    return run


def quantize(
    x: Array,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    lo: int = -128,
    hi: int = 127,
    *,
    axis: int | None = None,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """`hbir.numerics.quantize` into `out`: clamp(rint(x / scale) + zero_point, lo, hi) of float32 `x` of any shape."""
    y = result_array(out, x.shape, out_dtype, storage_dtype(lo, hi))
    bind_quantize(x, scale, zero_point, lo, hi, axis=axis, out=y)()
    return y


def bind_dequantize(
    q: Array, scale: npt.ArrayLike, zero_point: npt.ArrayLike = 0, *, axis: int | None = None, out: Array
) -> Callable[[], None]:
    """`dequantize` with everything resolved: call the result to run it on what `q` then holds."""
    result_array(out, q.shape, None, out.dtype)
    compiled = _bind(False, out, q, scale, zero_point, 0, 0, axis)
    if compiled is not None:
        return compiled

    def run() -> None:
        out[...] = rounding.dequantize(q, scale, zero_point, axis=axis, dtype=out.dtype)

    return run


def dequantize(
    q: Array,
    scale: npt.ArrayLike,
    zero_point: npt.ArrayLike = 0,
    *,
    axis: int | None = None,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """`hbir.numerics.dequantize` into `out`: (q - zero_point) * scale in float64, rounded once (float32 by default)."""
    y = result_array(out, q.shape, out_dtype, np.float32)
    bind_dequantize(q, scale, zero_point, axis=axis, out=y)()
    return y


def bind_float_result(
    sums_into: Callable[[Array], Callable[[], object]], dtype: npt.DTypeLike, scale: npt.ArrayLike, out: Array
) -> Callable[[], None]:
    """`sums * scale` into float32 `out`, computed in float64 and rounded once, where `sums_into(y)` binds what makes the sums.

    `dtype` of the sums is int32 or int64; `scale` is float32, one for all or one for each channel of the last axis. It may be
    a view of memory that is filled later: it is read in every run.
    """
    # int32 sums lie where their floats will: each is read before its float is written.
    sums = out.view(np.int32) if np.dtype(dtype) == np.int32 else np.empty(out.shape, dtype)
    make, scales = sums_into(sums), np.asarray(scale, np.float32).reshape(-1)

    def run() -> None:
        make()
        if scales.size > 1:
            bind_dequantize(sums, scales, axis=out.ndim - 1, out=out)()
        else:
            bind_dequantize(sums, scales[0], out=out)()

    return run
