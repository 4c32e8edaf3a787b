"""Reductions over any axes: integer sums with a rescale, maxima, minima and the index of the maximum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import result_array
from hbir.numerics.rescale import apply_scale

__all__ = ["argmax", "bind_reduce_sum", "reduce_max", "reduce_min", "reduce_sum"]

Array = npt.NDArray[Any]


def _reduced_shape(shape: tuple[int, ...], axes: Sequence[int], keepdims: bool) -> tuple[int, ...]:
    reduced = {axis % len(shape) for axis in axes}
    sizes = [1 if axis in reduced else size for axis, size in enumerate(shape)]
    return tuple(size for axis, size in enumerate(sizes) if keepdims or axis not in reduced)


def reduce_sum(
    x: Array,
    axes: Sequence[int],
    *,
    keepdims: bool = True,
    zp_in: int = 0,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """clamp(apply_scale(sum(x - zp_in), multiplier, shift) + zp_out, lo, hi) over `axes`.

    `multiplier` None gives the raw int32 sum, which the caller has proven to fit.
    """
    y = result_array(
        out, _reduced_shape(x.shape, axes, keepdims), out_dtype, np.int32 if multiplier is None else x.dtype
    )
    total = x.sum(axis=tuple(axes), dtype=np.int64, keepdims=keepdims)
    if zp_in:
        total = total - zp_in * (x.size // max(total.size, 1))
    if multiplier is not None:
        total = np.clip(apply_scale(total, np.int64(multiplier), np.asarray(shift, np.int64)) + zp_out, lo, hi)
    y[...] = total
    return y


def bind_reduce_sum(x: Array, axes: Sequence[int], *, out: Array, **options: Any) -> Callable[[], object]:
    """`reduce_sum` with everything resolved: call the result to run it on what `x` then holds."""
    return partial(reduce_sum, x, axes, out=out, **options)


def reduce_max(x: Array, axes: Sequence[int], *, keepdims: bool = True, out: Array | None = None) -> Array:
    """Maximum over `axes`, in the dtype of `x`."""
    y = result_array(out, _reduced_shape(x.shape, axes, keepdims), None, x.dtype)
    np.max(x, axis=tuple(axes), keepdims=keepdims, out=y)
    return y


def reduce_min(x: Array, axes: Sequence[int], *, keepdims: bool = True, out: Array | None = None) -> Array:
    """Minimum over `axes`, in the dtype of `x`."""
    y = result_array(out, _reduced_shape(x.shape, axes, keepdims), None, x.dtype)
    np.min(x, axis=tuple(axes), keepdims=keepdims, out=y)
    return y


def argmax(x: Array, axis: int, *, keepdims: bool = False, out: Array | None = None) -> Array:
    """int32 index of the (first) maximum along `axis`."""
    y = result_array(out, _reduced_shape(x.shape, (axis,), keepdims), None, np.int32)
    y[...] = np.argmax(x, axis=axis, keepdims=keepdims)
    return y
