"""Max and average pooling of NHWC integers; the average is TOSA 1.0 AVG_POOL2D (valid elements, reciprocal)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import Pad, Pair, address, check_image, make_record, result_array, window_output
from hbir.numerics.rescale import reciprocal_scale

__all__ = ["avg_pool2d", "bind_avg_pool2d", "bind_max_pool2d", "max_pool2d", "pool2d_output_shape"]

Array = npt.NDArray[Any]

_MAX, _AVERAGE = 0.1, 0.2  # nanoseconds for one element of one window


def pool2d_output_shape(
    x_shape: tuple[int, ...], kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0)
) -> tuple[int, int, int, int]:
    """(N, OH, OW, C) of a pooling window over (N, H, W, C); `pad` = (top, left, bottom, right), sizes rounded down."""
    n, height, width, channels = x_shape
    top, left, bottom, right = pad
    return (
        n,
        window_output(height, kernel[0], stride[0], top, bottom),
        window_output(width, kernel[1], stride[1], left, right),
        channels,
    )


def _bind(
    average: bool, x: Array, kernel: Pair, stride: Pair, pad: Pad, out: Array, alive: Array | None, **parameters: int
) -> Callable[[], None]:
    from hbir.kernels.jit import workers as jit
    from hbir.kernels.jit.pool import POOL, avg_pool_task, max_pool_task

    shape = pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad)
    result_array(out, shape, None, out.dtype)
    for name, image in (("x", x), ("out", out)):
        check_image(name, image)
        if image.dtype.char not in "bh" and not (average and image is out):
            raise ValueError(f"pooling takes int8 or int16, not {image.dtype}")
    reads = out.size * kernel[0] * kernel[1]
    tasks = jit.split((_AVERAGE if average else _MAX) * reads, shape[0] * shape[1])
    x_n, x_h, x_w, _ = x.strides
    y_n, y_h, y_w, _ = out.strides
    fields = {
        "tasks": tasks, "x": address(x), "x_n": x_n, "x_h": x_h, "x_w": x_w, "x_c": x.itemsize,
        "height": x.shape[1], "width": x.shape[2], "channels": x.shape[3],
        "y": address(out), "y_n": y_n, "y_h": y_h, "y_w": y_w, "y_c": out.itemsize,
        "batch": shape[0], "out_height": shape[1], "out_width": shape[2],
        "kernel_height": kernel[0], "kernel_width": kernel[1], "stride_y": stride[0], "stride_x": stride[1],
        "top": pad[0], "left": pad[1], **parameters,
    }  # fmt: skip
    return jit.bind_task(avg_pool_task if average else max_pool_task, tasks, make_record(POOL, fields), x, out, alive)


def bind_max_pool2d(
    x: Array, kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0), out: Array
) -> Callable[[], None]:
    """`max_pool2d` with everything resolved: call the result to run it on what `x` then holds."""
    if out.dtype != x.dtype:
        raise ValueError(f"the maximum of {x.dtype} does not go into {out.dtype}")
    return _bind(False, x, kernel, stride, pad, out, None)


def max_pool2d(
    x: Array, kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0), out: Array | None = None
) -> Array:
    """Largest valid element of each window: (N, H, W, C) int8 or int16 -> (N, OH, OW, C) of the same dtype.

    `pad` = (top, left, bottom, right); padding never wins (a window of padding alone gives the type's lowest value).
    """
    y = result_array(out, pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad), None, x.dtype)
    bind_max_pool2d(x, kernel, stride=stride, pad=pad, out=y)()
    return y


def _counts(length: int, count: int, kernel: int, stride: int, before: int) -> npt.NDArray[np.int64]:
    """Valid elements under the window at each output position of one axis."""
    start = np.arange(count, dtype=np.int64) * stride - before
    return np.minimum(start + kernel, length) - np.maximum(start, 0)


def bind_avg_pool2d(
    x: Array,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array,
) -> Callable[[], None]:
    """`avg_pool2d` with everything resolved: call the result to run it on what `x` then holds."""
    rows = _counts(x.shape[1], out.shape[1], kernel[0], stride[0], pad[0])
    columns = _counts(x.shape[2], out.shape[2], kernel[1], stride[1], pad[1])
    if rows.min(initial=1) <= 0 or columns.min(initial=1) <= 0:
        raise ValueError("an average pooling window sees only padding")
    counts = np.unique(np.multiply.outer(rows, columns))
    scales = np.zeros((int(counts[-1]) + 1, 2), np.int64)
    for count in counts.tolist():
        scales[count] = reciprocal_scale(count)
    return _bind(
        True, x, kernel, stride, pad, out, scales, scales=address(scales), zp_in=zp_in, zp_out=zp_out, lo=lo, hi=hi
    )


def avg_pool2d(
    x: Array,
    kernel: Pair,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """TOSA 1.0 AVG_POOL2D: clamp(apply_scale(sum(x - zp_in), reciprocal_scale(count)) + zp_out, lo, hi).

    (N, H, W, C) int8 or int16 -> (N, OH, OW, C); `count` is the number of valid (not padding) elements of each window. The
    sum fits int32. Raises ValueError if a window sees only padding.
    """
    shape = pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad)
    y = result_array(out, shape, out_dtype, x.dtype)
    bind_avg_pool2d(x, kernel, stride=stride, pad=pad, zp_in=zp_in, zp_out=zp_out, lo=lo, hi=hi, out=y)()
    return y
