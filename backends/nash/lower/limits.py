"""What the tensor engine of a march takes: of a convolution, the whole, pieces of its window, or nothing at all."""

from __future__ import annotations

from math import ceil, prod

import numpy as np

from hbir.dialects.base import element_dtype, shape_of, tensor_type
from hbir.dialects.quantized import Conv2dOp, MatmulOp
from hbir.march import March

__all__ = ["conv_reason", "engine_reason", "tap_ranges", "window_misses_the_map"]


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


def engine_reason(op: Conv2dOp | MatmulOp, march: March) -> str:
    """Why the tensor engine takes neither the operands of a product nor hands out its result, or empty."""
    if op.float_type is not None and not march.has_float_results:
        return f"the tensor engine of {march.name} gives {', '.join(march.conv_output_types)}, no float32"
    taken, operands = march.matmul_types, op.operands
    if isinstance(op, Conv2dOp):
        taken, operands = march.conv_weight_types, (op.weight,)
    for operand in operands:
        dtype = element_dtype(tensor_type(operand.type).element_type).name
        if dtype not in taken:
            role = "weights" if isinstance(op, Conv2dOp) else "matrices"
            return f"the tensor engine of {march.name} takes {role} of {', '.join(taken)}, not of {dtype}"
    return conv_reason(op, march) if isinstance(op, Conv2dOp) else ""


def conv_reason(op: Conv2dOp, march: March) -> str:
    """Why the tensor engine does not take a convolution, or empty. Long kernels and wide dilations are cut, not refused."""
    values = op.values
    if max(values["stride"]) > march.max_stride or max(values["pad"]) > march.max_pad:
        return f"the tensor engine takes strides up to {march.max_stride} and pads up to {march.max_pad}"
    if max(values["dilation"]) > 1 and max(values["stride"]) > march.max_dilated_stride:
        return f"the tensor engine takes strides up to {march.max_dilated_stride} where taps lie apart"
    if prod(shape_of(op.weight.type)[1:]) > march.max_kernel_elements:
        return f"the tensor engine sums over at most {march.max_kernel_elements} weights"
    for axis in (1, 2):
        size, kernel = shape_of(op.input.type)[axis], shape_of(op.weight.type)[axis]
        stride, dilation = values["stride"][axis - 1], values["dilation"][axis - 1]
        before, after = values["pad"][axis - 1], values["pad"][axis + 1]
        cut = len(tap_ranges(kernel, dilation, march)) > 1
        if cut and window_misses_the_map(size, kernel, stride, before, after, dilation):
            return "a window lies in the padding altogether: cut into pieces, none of them would read anything"
    return ""
