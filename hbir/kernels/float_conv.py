"""Float kernels of the float interpreter: NHWC convolution by im2col and BLAS, pooling, matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import Pad, Pair, address, make_record
from hbir.kernels.conv import conv2d_output_shape
from hbir.kernels.pool import pool2d_output_shape

__all__ = ["float_avg_pool2d", "float_conv2d", "float_matmul", "float_max_pool2d"]

F32 = npt.NDArray[np.float32]

_PRODUCT = 0.1  # nanoseconds for one product of a depthwise convolution


def _depthwise(x: F32, weight: F32, bias: F32 | None, y: F32, stride: Pair, pad: Pad, dilation: Pair) -> None:
    from hbir.kernels.jit import workers as jit
    from hbir.kernels.jit.dense import CONV
    from hbir.kernels.jit.float_depthwise import float_depthwise_task

    channels, kernel_height, kernel_width, _ = weight.shape
    x = x if x.strides[3] == x.itemsize else np.ascontiguousarray(x)
    taps = np.ascontiguousarray(weight.reshape(channels, -1).T, np.float32)
    start = np.zeros(channels, np.float32) if bias is None else np.ascontiguousarray(bias, np.float32)
    x_n, x_h, x_w, _ = x.strides
    y_n, y_h, y_w, _ = y.strides
    tasks = jit.split(_PRODUCT * y.size * kernel_height * kernel_width, y.shape[0] * y.shape[1])
    fields = {
        "tasks": tasks, "x": address(x), "x_n": x_n, "x_h": x_h, "x_w": x_w, "batch": x.shape[0],
        "height": x.shape[1], "width": x.shape[2], "y": address(y), "y_n": y_n, "y_h": y_h, "y_w": y_w,
        "out_height": y.shape[1], "out_width": y.shape[2], "cout": channels, "weight": address(taps), "bias": address(start),
        "kernel_height": kernel_height, "kernel_width": kernel_width, "stride_y": stride[0], "stride_x": stride[1],
        "top": pad[0], "left": pad[1], "dilation_y": dilation[0], "dilation_x": dilation[1],
    }  # fmt: skip
    jit.bind_task(float_depthwise_task, tasks, make_record(CONV, fields), x, taps, start, y)()


def _columns(
    x: F32, weight_shape: tuple[int, ...], stride: Pair, pad: Pad, dilation: Pair, shape: tuple[int, ...]
) -> F32:
    """Windows of x as (positions, kh, kw, Cin), gathered tap by tap; a view of x for a plain 1x1 convolution."""
    _, kernel_height, kernel_width, _ = weight_shape
    n, out_height, out_width, _ = shape
    if kernel_height == kernel_width == 1 and not any(pad):
        return x[:, :: stride[0], :: stride[1]].reshape(-1, 1, 1, x.shape[3])
    top, left, bottom, right = pad
    padded = np.zeros((n, x.shape[1] + top + bottom, x.shape[2] + left + right, x.shape[3]), np.float32)
    padded[:, top : top + x.shape[1], left : left + x.shape[2]] = x
    columns = np.empty((n, out_height, out_width, kernel_height, kernel_width, x.shape[3]), np.float32)
    for i in range(kernel_height):
        rows = slice(i * dilation[0], i * dilation[0] + (out_height - 1) * stride[0] + 1, stride[0])
        for j in range(kernel_width):
            places = slice(j * dilation[1], j * dilation[1] + (out_width - 1) * stride[1] + 1, stride[1])
            columns[:, :, :, i, j] = padded[:, rows, places]
    return columns.reshape(-1, kernel_height, kernel_width, x.shape[3])


def float_conv2d(
    x: F32,
    weight: F32,
    bias: F32 | None = None,
    *,
    stride: Pair = (1, 1),
    pad: Pad = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> F32:
    """Float32 convolution of (N, H, W, Cin) with a weight (Cout, kh, kw, Cin/groups) -> (N, OH, OW, Cout), zero padding."""
    cout, _, _, cin = weight.shape
    shape = conv2d_output_shape(x.shape, weight.shape, stride=stride, pad=pad, dilation=dilation)
    y = np.empty(shape, np.float32)
    if cin == 1 and cout == groups > 1:
        _depthwise(x, weight, bias, y, stride, pad, dilation)
        return y
    columns = _columns(x, weight.shape, stride, pad, dilation, shape)
    per_group, rows = cout // groups, y.reshape(-1, cout)
    for group in range(groups):
        part = columns[..., group * cin : (group + 1) * cin].reshape(columns.shape[0], -1)
        filters = weight[group * per_group : (group + 1) * per_group].reshape(per_group, -1)
        rows[:, group * per_group : (group + 1) * per_group] = part @ filters.T
    if bias is not None:
        y += bias
    return y


def _windows(x: F32, kernel: Pair, stride: Pair, pad: Pad, fill: float, combine: np.ufunc) -> F32:
    """`combine` over the elements of each window, with `fill` for padding."""
    n, out_height, out_width, channels = pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad)
    top, left, bottom, right = pad
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    # Separable: columns of windows first, then rows.
    rows = padded[:, : (out_height - 1) * stride[0] + 1 : stride[0]].copy()
    for i in range(1, kernel[0]):
        combine(rows, padded[:, i : i + (out_height - 1) * stride[0] + 1 : stride[0]], out=rows)
    y = rows[:, :, : (out_width - 1) * stride[1] + 1 : stride[1]].copy()
    for j in range(1, kernel[1]):
        combine(y, rows[:, :, j : j + (out_width - 1) * stride[1] + 1 : stride[1]], out=y)
    return y.reshape(n, out_height, out_width, channels)


def float_max_pool2d(x: F32, kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0)) -> F32:
    """Largest valid element of each window, float32 NHWC; `pad` = (top, left, bottom, right)."""
    return _windows(x, kernel, stride, pad, -np.inf, np.maximum)


def float_avg_pool2d(
    x: F32, kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0), count_include_pad: bool = False
) -> F32:
    """Mean of each window, float32 NHWC; the divisor counts valid elements, or with `count_include_pad` the padding too."""
    ones = np.ones((1, x.shape[1], x.shape[2], 1), np.float32)
    counts = _windows(ones, kernel, stride, pad, float(count_include_pad), np.add)
    return _windows(x, kernel, stride, pad, 0.0, np.add) / counts


def float_matmul(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> F32:
    """Matrix product of float32 arrays, batch dimensions broadcast."""
    return np.matmul(a, b)
