"""Nearest and bilinear resizing with the integer semantics of TOSA 1.0 RESIZE."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import Pair, address, check_image, make_record, result_array
from hbir.kernels.elementwise import bind_rescale

__all__ = ["bind_resize", "resize", "resize_output_shape"]

Array = npt.NDArray[Any]

_BILINEAR = 1.1  # nanoseconds for one element of the result


def _output_size(size: int, numerator: int, denominator: int, offset: int, border: int) -> int:
    span = (size - 1) * numerator - offset + border
    if span < 0 or span % denominator:
        raise ValueError(
            f"resize of {size}: ({size} - 1) * {numerator} - {offset} + {border} is no multiple of {denominator}"
        )
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


def _bind_nearest(
    x: Array, out: Array, rows: Array, columns: Array, rescaled: dict[str, int] | None
) -> Callable[[], None]:
    if rescaled is None:
        grid = (slice(None), rows[:, None], columns[None, :])

        def copy() -> None:
            out[...] = x[grid]

        return copy
    # Rescaling the small input first gives the same values: every output is one input.
    scaled = np.empty(x.shape, out.dtype)
    rescale, copy_scaled = bind_rescale(x, out=scaled, **rescaled), _bind_nearest(scaled, out, rows, columns, None)

    def run() -> None:
        rescale()
        copy_scaled()

    return run


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
) -> Callable[[], None]:
    """`resize` with everything resolved: call the result to run it on what `x` then holds."""
    shape = resize_output_shape(x.shape, scale=scale, offset=offset, border=border)
    result_array(out, shape, None, out.dtype)
    check_image("x", x)
    check_image("out", out)
    y0, y1, dy = _positions(x.shape[1], shape[1], scale[0], scale[1], offset[0])
    x0, x1, dx = _positions(x.shape[2], shape[2], scale[2], scale[3], offset[1])
    rescaled = None
    if multiplier is not None and shift is not None:
        rescaled = {"multiplier": multiplier, "shift": shift, "zp_in": zp_in, "zp_out": zp_out, "lo": lo, "hi": hi}
    if mode == "nearest":
        rows, columns = np.where(2 * dy >= scale[0], y1, y0), np.where(2 * dx >= scale[2], x1, x0)
        return _bind_nearest(x, out, rows, columns, rescaled)

    from hbir.kernels.jit import workers as jit
    from hbir.kernels.jit.pool import RESIZE, bilinear_task

    lines, places = np.stack([y0, y1, dy], axis=1), np.stack([x0, x1, dx], axis=1)
    tasks = jit.split(_BILINEAR * out.size, shape[0] * shape[1])
    x_n, x_h, x_w, _ = x.strides
    y_n, y_h, y_w, _ = out.strides
    fields = {
        "tasks": tasks, "x": address(x), "x_n": x_n, "x_h": x_h, "x_w": x_w, "x_c": x.itemsize, "channels": shape[3],
        "y": address(out), "y_n": y_n, "y_h": y_h, "y_w": y_w, "y_c": out.itemsize,
        "batch": shape[0], "out_height": shape[1], "out_width": shape[2],
        "rows": address(lines), "columns": address(places), "unit_y": scale[0], "unit_x": scale[2],
        "rescaled": int(rescaled is not None), **(rescaled or {}),
    }  # fmt: skip
    return jit.bind_task(bilinear_task, tasks, make_record(RESIZE, fields), x, out, lines, places)


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
        x,
        mode=mode,
        scale=scale,
        offset=offset,
        border=border,
        multiplier=multiplier,
        shift=shift,
        zp_in=zp_in,
        zp_out=zp_out,
        lo=lo,
        hi=hi,
        out=y,
    )()
    return y
