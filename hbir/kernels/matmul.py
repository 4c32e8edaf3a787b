"""Matrix product of two integer activations, with zero points and a fused rescale."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import accumulator_dtype, result_array
from hbir.numerics.rescale import apply_scale

__all__ = ["bind_matmul", "matmul"]

Array = npt.NDArray[Any]


def matmul(
    a: Array, b: Array, *, zp_a: int = 0, zp_b: int = 0, multiplier: int | None = None, shift: int | None = None,
    zp_out: int = 0, lo: int = -128, hi: int = 127, out: Array | None = None, out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """sum((a - zp_a) * (b - zp_b)): (..., M, K) x (..., K, N) -> (..., M, N), batch dimensions broadcast.

    int8 or int16 operands; `multiplier` None gives the raw accumulator (int32, int64 holding int48 with an int16 operand),
    else clamp(apply_scale(acc, multiplier, shift) + zp_out, lo, hi) in the dtype of `a`. |a - zp_a| * |b - zp_b| * K must
    stay below 2^53, which any int8 or int16 matrices with K <= 2^21 do.
    """
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    default = accumulator_dtype(a, b) if multiplier is None else a.dtype
    y = result_array(out, (*batch, a.shape[-2], b.shape[-1]), out_dtype, default)
    # Every partial sum is an integer below 2^53, so BLAS in float64 is exact in any order of summation.
    acc = (a.astype(np.float64) - zp_a) @ (b.astype(np.float64) - zp_b)
    if multiplier is not None:
        scaled = apply_scale(acc.astype(np.int64), np.int64(multiplier), np.asarray(shift, np.int64))
        acc = np.clip(scaled + zp_out, lo, hi)
    y[...] = acc
    return y


def bind_matmul(a: Array, b: Array, *, out: Array, **options: Any) -> Callable[[], object]:
    """`matmul` with everything resolved: call the result to run it on what `a` and `b` then hold."""
    return partial(matmul, a, b, out=out, **options)
