"""Matrix product of two integer activations, with zero points and a fused rescale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import accumulator_dtype, result_array
from hbir.kernels.elementwise import rescale

__all__ = ["bind_matmul", "matmul"]

Array = npt.NDArray[Any]


def matmul(
    a: Array,
    b: Array,
    *,
    zp_a: int = 0,
    zp_b: int = 0,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """sum((a - zp_a) * (b - zp_b)): (..., M, K) x (..., K, N) -> (..., M, N), batch dimensions broadcast.

    int8 or int16 operands; `multiplier` None gives the raw accumulator (int32, int64 holding int48 with an int16 operand),
    else clamp(apply_scale(acc, multiplier, shift) + zp_out, lo, hi) in the dtype of `a`. |a - zp_a| * |b - zp_b| * K must
    stay below 2^53, which any int8 or int16 matrices with K <= 2^21 do.
    """
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    default = accumulator_dtype(a, b) if multiplier is None else a.dtype
    y = result_array(out, (*batch, a.shape[-2], b.shape[-1]), out_dtype, default)
    # Every partial sum is an integer that the float type holds, so BLAS is exact in any order of summation.
    bound = (_largest(a) + abs(zp_a)) * (_largest(b) + abs(zp_b)) * a.shape[-1]
    if bound >= 1 << 53:
        raise ValueError(f"sums up to {bound} are not exact in float64")
    real = np.float32 if bound < 1 << 24 else np.float64
    acc = (a.astype(real) - real(zp_a)) @ (b.astype(real) - real(zp_b))
    if multiplier is None or shift is None:
        y[...] = acc
    else:
        wide = acc.astype(np.int32 if bound < 1 << 31 else np.int64)
        rescale(wide, multiplier, shift, zp_out=zp_out, lo=lo, hi=hi, out=y)
    return y


def _largest(x: Array) -> int:
    return -int(np.iinfo(x.dtype).min)


def bind_matmul(a: Array, b: Array, *, out: Array, **options: Any) -> Callable[[], object]:
    """`matmul` with everything resolved: call the result to run it on what `a` and `b` then hold."""
    return partial(matmul, a, b, out=out, **options)
