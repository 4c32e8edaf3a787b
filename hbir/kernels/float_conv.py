"""Float kernels of the float interpreter: NHWC convolution by im2col and BLAS, pooling, matrix product."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import Pad, Pair
from hbir.kernels.conv import conv2d_output_shape
from hbir.kernels.pool import max_pool2d, pool2d_output_shape

__all__ = ["float_avg_pool2d", "float_conv2d", "float_matmul", "float_max_pool2d"]

F32 = npt.NDArray[np.float32]


def float_conv2d(
    x: F32, weight: F32, bias: F32 | None = None, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0), dilation: Pair = (1, 1), groups: int = 1
) -> F32:
    """Convolution (N, H, W, Cin) with a weight (Cout, kh, kw, Cin/groups) -> (N, OH, OW, Cout), zero padding, float32."""
    shape = conv2d_output_shape(x.shape, weight.shape, stride=stride, pad=pad, dilation=dilation)
    n, oh, ow, cout = shape
    _, kh, kw, cin = weight.shape
    top, left, bottom, right = pad
    xp = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0))) if any(pad) else x
    windows = np.lib.stride_tricks.sliding_window_view(xp, (dilation[0] * (kh - 1) + 1, dilation[1] * (kw - 1) + 1), axis=(1, 2))
    windows = windows[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]  # n oh ow c kh kw
    if cin == 1 and groups > 1:
        y = np.zeros(shape, np.float32)
        repeat = cout // groups
        for i in range(kh):
            for j in range(kw):
                tap = windows[..., i, j]
                y += (np.repeat(tap, repeat, axis=3) if repeat > 1 else tap) * weight[:, i, j, 0]
    else:
        og = cout // groups
        parts = []
        for g in range(groups):
            columns = windows[:, :, :, g * cin : (g + 1) * cin].transpose(0, 1, 2, 4, 5, 3).reshape(-1, kh * kw * cin)
            parts.append(columns @ weight[g * og : (g + 1) * og].reshape(og, -1).T)
        y = np.concatenate(parts, axis=-1).reshape(shape)
    if bias is not None:
        y += bias
    return y


def float_max_pool2d(x: F32, kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0)) -> F32:
    """Largest valid element of each window, float32 NHWC."""
    return max_pool2d(x, kernel, stride=stride, pad=pad)


def float_avg_pool2d(
    x: F32, kernel: Pair, *, stride: Pair = (1, 1), pad: Pad = (0, 0, 0, 0), count_include_pad: bool = False
) -> F32:
    """Mean of each window, float32 NHWC; the divisor counts valid elements, or the whole window."""
    shape = pool2d_output_shape(x.shape, kernel, stride=stride, pad=pad)
    top, left, bottom, right = pad
    xp = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    ones = np.pad(np.ones((1, *x.shape[1:3], 1), np.float32), ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=float(count_include_pad))
    def sums(values: F32) -> F32:
        windows = np.lib.stride_tricks.sliding_window_view(values, kernel, axis=(1, 2))
        return windows[:, :: stride[0], :: stride[1]].sum(axis=(-2, -1), dtype=np.float32)
    return (sums(xp) / sums(ones)).reshape(shape)


def float_matmul(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> F32:
    """Matrix product of float32 arrays, batch dimensions broadcast."""
    return np.matmul(a, b)
