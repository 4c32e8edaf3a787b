"""What the tensor engine of a march takes of a convolution: whole, in pieces of its window, or not at all."""

from __future__ import annotations

from math import ceil

import numpy as np

from hbir.dialects.base import shape_of
from hbir.dialects.quantized import Conv2dOp
from hbir.march import March

__all__ = ["conv_reason", "tap_ranges", "window_misses_the_map"]


def tap_ranges(kernel: int, dilation: int, march: March) -> tuple[tuple[int, int], ...]:
    """The taps along one axis of a window, cut into what the march takes; one range when it takes them all.

    Too long a kernel is cut evenly; taps that lie further apart than the largest dilation are taken one at a time.
    """
    parts = kernel if dilation > march.max_dilation else ceil(kernel / march.max_conv_kernel)
    step = ceil(kernel / parts)
    return tuple((low, min(low + step, kernel)) for low in range(0, kernel, step))


def window_misses_the_map(size: int, kernel: int, stride: int, before: int, after: int, dilation: int) -> bool:
    """Whether along one axis all the taps of some window lie in the padding."""
    count = (size + before + after - dilation * (kernel - 1) - 1) // stride + 1
    at = np.arange(count)[:, None] * stride - before + np.arange(kernel) * dilation
    return not bool(((at >= 0) & (at < size)).any(axis=1).all())


def conv_reason(op: Conv2dOp, march: March) -> str:
    """Why the tensor engine does not take a convolution, or empty. Long kernels and wide dilations are cut, not refused."""
    values = op.values
    if max(values["stride"]) > march.max_stride or max(values["pad"]) > march.max_pad:
        return f"the tensor engine takes strides up to {march.max_stride} and pads up to {march.max_pad}"
    for axis in (1, 2):
        size, kernel = shape_of(op.input.type)[axis], shape_of(op.weight.type)[axis]
        stride, dilation = values["stride"][axis - 1], values["dilation"][axis - 1]
        before, after = values["pad"][axis - 1], values["pad"][axis + 1]
        cut = len(tap_ranges(kernel, dilation, march)) > 1
        if cut and window_misses_the_map(size, kernel, stride, before, after, dilation):
            return "a window lies in the padding altogether: cut into pieces, none of them would read anything"
    return ""
