"""Nearest and bilinear resizing with the integer semantics of TOSA 1.0 RESIZE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import Pair, result_array
from hbir.numerics.rescale import apply_scale

__all__ = ["bind_resize", "resize", "resize_output_shape"]

Array = npt.NDArray[Any]


def _output_size(size: int, numerator: int, denominator: int, offset: int, border: int) -> int:
    span = (size - 1) * numerator - offset + border
    if span < 0 or span % denominator:
        raise ValueError(f"resize of {size}: ({size} - 1) * {numerator} - {offset} + {border} is no multiple of {denominator}")
    return span // denominator + 1


def resize_output_shape(
    x_shape: tuple[int, ...], *, scale: tuple[int, int, int, int], offset: Pair, border: Pair
) -> tuple[int, int, int, int]:
    """(N, OH, OW, C); `scale` = (y numerator, y denominator, x numerator, x denominator). ValueError if not integral."""
    n, height, width, channels = x_shape
    return (
        n,
        _output_size(height, scale[0], scale[1], offset[0], border[0]),
        _output_size(width, scale[2], scale[3], offset[1], border[1]),
        channels,
    )


def _positions(
    size: int, count: int, numerator: int, denominator: int, offset: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Lower and upper source index and the fraction (in 1/numerator) of each output position of one axis."""
    position = np.arange(count, dtype=np.int64) * denominator + offset
    index = position // numerator
    lower, upper = np.clip(index, 0, size - 1), np.clip(index + 1, 0, size - 1)
    return lower, upper, position - index * numerator


def bind_resize(
    x: Array,
    *,
    mode: Literal["nearest", "bilinear"],
    scale: tuple[int, int, int, int],
    offset: Pair,
    border: Pair,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array,
) -> Callable[[], object]:
    """`resize` with everything resolved: call the result to run it on what `x` then holds."""
    shape = resize_output_shape(x.shape, scale=scale, offset=offset, border=border)
    y = result_array(out, shape, None, x.dtype)
    y0, y1, dy = _positions(x.shape[1], shape[1], scale[0], scale[1], offset[0])
    x0, x1, dx = _positions(x.shape[2], shape[2], scale[2], scale[3], offset[1])

    def finish(values: Array) -> None:
        if multiplier is None:
            y[...] = values
        else:
            wide = values.astype(np.int64, copy=False)
            y[...] = np.clip(apply_scale(wide, np.int64(multiplier), np.asarray(shift, np.int64)) + zp_out, lo, hi)

    if mode == "nearest":
        rows, columns = np.where(2 * dy >= scale[0], y1, y0), np.where(2 * dx >= scale[2], x1, x0)

        def run_nearest() -> None:
            picked = x[:, rows][:, :, columns]
            finish(picked if multiplier is None else picked.astype(np.int64) - zp_in)

        return run_nearest

    fy, fx = dy[:, None, None], dx[:, None]
    gy, gx = scale[0] - fy, scale[2] - fx

    def run_bilinear() -> None:
        wide = x.astype(np.int64) - zp_in if multiplier is not None else x.astype(np.int64)
        mixed = wide[:, y0] * gy + wide[:, y1] * fy
        finish(mixed[:, :, x0] * gx + mixed[:, :, x1] * fx)

    return run_bilinear


def resize(
    x: Array,
    *,
    mode: Literal["nearest", "bilinear"],
    scale: tuple[int, int, int, int],
    offset: Pair,
    border: Pair,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """TOSA 1.0 RESIZE of (N, H, W, C) int8 or int16, optionally followed by a rescale.

    `scale` = (y numerator, y denominator, x numerator, x denominator), `offset` and `border` = (y, x), in 1/numerator.
    `multiplier` None: the raw result, int8/int16 for nearest; for bilinear int32 (int8 input) or int64 holding int48 (int16
    input), which is the interpolated value times both numerators. With a multiplier:
    clamp(apply_scale(raw of (x - zp_in), multiplier, shift) + zp_out, lo, hi).
    """
    raw = x.dtype if mode == "nearest" else np.dtype(np.int32 if x.dtype.itemsize == 1 else np.int64)
    shape = resize_output_shape(x.shape, scale=scale, offset=offset, border=border)
    y = result_array(out, shape, out_dtype, raw if multiplier is None else x.dtype)
    bind_resize(
        x, mode=mode, scale=scale, offset=offset, border=border, multiplier=multiplier, shift=shift,
        zp_in=zp_in, zp_out=zp_out, lo=lo, hi=hi, out=y,
    )()
    return y
