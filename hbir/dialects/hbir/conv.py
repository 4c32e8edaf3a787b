"""Convolutions and matrix products of the float graph. Activations are NHWC, weights (Cout, KH, KW, Cin/groups).

The operations carry what a fused layer carries: an optional bias, an optional residual added before the clamp, and the
clamp of relu, relu6 or clip. A fused layer means its parts: `clamp(conv(x, w) + bias + residual, min, max)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.irdl import AttrSizedOperandSegments, irdl_op_definition, operand_def, opt_operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import (
    Array,
    HbOperation,
    Tensor,
    integer,
    integers,
    not_quantized,
    opt_number,
    shape_of,
    tensor,
)

__all__ = ["Conv2dOp", "ConvTranspose2dOp", "LinearOp", "MatmulOp", "clamp", "conv_shape", "window_extent"]


def clamp(x: Array, low: float | None, high: float | None) -> Array:
    """`min(max(x, low), high)` with absent bounds left out."""
    if low is None and high is None:
        return x
    return np.clip(x, None if low is None else x.dtype.type(low), None if high is None else x.dtype.type(high))


def window_extent(
    size: int, kernel: int, stride: int, before: int, after: int, dilation: int, *, ceil: bool = False
) -> int:
    """Output extent of a sliding window. Raises VerifyException when the window does not fit once."""
    room = size + before + after - dilation * (kernel - 1) - 1
    if room < 0:
        raise VerifyException(
            f"a window of {dilation * (kernel - 1) + 1} does not fit an input of {size + before + after}"
        )
    steps = -(-room // stride) if ceil else room // stride
    # A window that would start behind the input and its leading padding reads nothing: it is dropped.
    if ceil and steps * stride >= size + before:
        steps -= 1
    return steps + 1


def conv_shape(
    x: Sequence[int], w: Sequence[int], stride: Sequence[int], pad: Sequence[int], dilation: Sequence[int], groups: int
) -> tuple[int, int, int, int]:
    """NHWC output shape of a convolution. Raises VerifyException when channels or windows do not fit."""
    if len(x) != 4 or len(w) != 4:
        raise VerifyException(f"conv2d takes an NHWC input and a rank-4 weight, not ranks {len(x)} and {len(w)}")
    if groups < 1 or w[3] * groups != x[3] or w[0] % groups:
        raise VerifyException(f"input of {x[3]} channels, weight {tuple(w)} and groups {groups} do not fit together")
    if (len(stride), len(dilation), len(pad)) != (2, 2, 4) or min(*stride, *dilation) < 1 or min(pad) < 0:
        raise VerifyException("two strides and dilations of at least 1, and four pads of at least 0")
    top, left, bottom, right = pad
    height = window_extent(x[1], w[1], stride[0], top, bottom, dilation[0])
    width = window_extent(x[2], w[2], stride[1], left, right, dilation[1])
    return x[0], height, width, w[0]


def _check_bias(bias: Tensor | None, channels: int) -> None:
    if bias is not None and shape_of(bias) != (channels,):
        raise VerifyException(f"bias has shape {shape_of(bias)}, the layer has {channels} output channels")


@irdl_op_definition
class Conv2dOp(HbOperation):
    """2-D convolution, with an optional bias, residual and clamp. pad = (top, left, bottom, right); padding reads 0."""

    name = "hbir.conv2d"

    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    residual = opt_operand_def(TensorType)
    stride = integers()
    """Steps of the window: (rows, columns)."""
    pad = integers()
    """Padding: (top, left, bottom, right)."""
    dilation = integers()
    """Distance of neighbouring taps: (rows, columns)."""
    groups = integer()
    """Number of groups that the channels fall into; each output channel reads the inputs of its group."""
    min = opt_number()
    """Lower bound of the result; absent for none."""
    max = opt_number()
    """Upper bound of the result; absent for none."""
    output = result_def(TensorType)

    irdl_options = (AttrSizedOperandSegments(as_property=True),)
    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        residual: Tensor | None,
        *,
        stride: Sequence[int],
        pad: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        **_: Any,
    ) -> Tensor:
        not_quantized(x, w)
        shape = conv_shape(shape_of(x), shape_of(w), stride, pad, dilation, groups)
        _check_bias(bias, shape[3])
        if residual is not None and shape_of(residual) != shape:
            raise VerifyException(f"residual {shape_of(residual)} has another shape than the result {shape}")
        return tensor(shape, x.element_type)

    @staticmethod
    def evaluate(
        x: Array,
        w: Array,
        bias: Array | None,
        residual: Array | None,
        *,
        stride: Sequence[int],
        pad: Sequence[int],
        dilation: Sequence[int],
        groups: int,
        min: float | None,
        max: float | None,
    ) -> Array:
        from hbir.kernels import float_conv2d

        y = float_conv2d(x, w, bias, stride=stride, pad=pad, dilation=dilation, groups=groups)
        return clamp(y if residual is None else y + residual, min, max)


@irdl_op_definition
class ConvTranspose2dOp(HbOperation):
    """Transposed 2-D convolution. Weight is (Cout, KH, KW, Cin/groups); pad crops the result; `output_pad` extends it."""

    name = "hbir.conv_transpose2d"

    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    stride = integers()
    """Steps of the window: (rows, columns)."""
    pad = integers()
    """What is cut off the result: (top, left, bottom, right)."""
    output_pad = integers()
    """Rows and columns added behind the result."""
    groups = integer()
    """Number of groups that the channels fall into; each output channel reads the inputs of its group."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor,
        w: Tensor,
        bias: Tensor | None,
        *,
        stride: Sequence[int],
        pad: Sequence[int],
        output_pad: Sequence[int],
        groups: int,
    ) -> Tensor:
        (n, h, width, c), ws = shape_of(x), shape_of(w)
        not_quantized(x, w)
        if groups < 1 or ws[3] * groups != c or ws[0] % groups:
            raise VerifyException(f"input of {c} channels does not fit weight {ws} with groups {groups}")
        if (len(stride), len(pad), len(output_pad)) != (2, 4, 2) or min(stride) < 1 or min(*pad, *output_pad) < 0:
            raise VerifyException("two strides of at least 1, four pads and two output pads of at least 0")
        _check_bias(bias, ws[0])
        height = (h - 1) * stride[0] + ws[1] - pad[0] - pad[2] + output_pad[0]
        across = (width - 1) * stride[1] + ws[2] - pad[1] - pad[3] + output_pad[1]
        if min(height, across) < 1:
            raise VerifyException(f"pads {tuple(pad)} crop all of the result")
        return tensor((n, height, across, ws[0]), x.element_type)

    @staticmethod
    def evaluate(
        x: Array,
        w: Array,
        bias: Array | None,
        *,
        stride: Sequence[int],
        pad: Sequence[int],
        output_pad: Sequence[int],
        groups: int,
    ) -> Array:
        from hbir.kernels import float_conv2d

        n, h, width, c = x.shape
        spread = np.zeros((n, (h - 1) * stride[0] + 1, (width - 1) * stride[1] + 1, c), x.dtype)
        spread[:, :: stride[0], :: stride[1]] = x
        kh, kw = w.shape[1:3]
        # A negative border is a crop, which conv2d does not take: pad fully, then cut.
        full = float_conv2d(
            spread,
            np.ascontiguousarray(w[:, ::-1, ::-1]),
            bias,
            stride=(1, 1),
            pad=(kh - 1, kw - 1, kh - 1 + output_pad[0], kw - 1 + output_pad[1]),
            dilation=(1, 1),
            groups=groups,
        )
        return full[:, pad[0] : full.shape[1] - pad[2], pad[1] : full.shape[2] - pad[3]]


@irdl_op_definition
class LinearOp(HbOperation):
    """Fully connected layer over the last axis: `clamp(x @ weight.T + bias, min, max)`; weight is (Cout, Cin)."""

    name = "hbir.linear"

    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    min = opt_number()
    """Lower bound of the result; absent for none."""
    max = opt_number()
    """Upper bound of the result; absent for none."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, w: Tensor, bias: Tensor | None, **_: Any) -> Tensor:
        not_quantized(x, w)
        xs, ws = shape_of(x), shape_of(w)
        if len(ws) != 2 or not xs or xs[-1] != ws[1]:
            raise VerifyException(f"input {xs} does not fit weight {ws}, which is (Cout, Cin)")
        _check_bias(bias, ws[0])
        return tensor((*xs[:-1], ws[0]), x.element_type)

    @staticmethod
    def evaluate(x: Array, w: Array, bias: Array | None, *, min: float | None, max: float | None) -> Array:
        y = x @ w.T
        return clamp(y if bias is None else y + bias, min, max)


@irdl_op_definition
class MatmulOp(HbOperation):
    """Matrix product of two tensors with numpy's rules for batch axes."""

    name = "hbir.matmul"

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(a: Tensor, b: Tensor) -> Tensor:
        (xs, ys) = shape_of(a), shape_of(b)
        if len(xs) < 2 or len(ys) < 2 or xs[-1] != ys[-2]:
            raise VerifyException(f"shapes {xs} and {ys} do not multiply")
        try:
            batch = np.broadcast_shapes(xs[:-2], ys[:-2])
        except ValueError:
            raise VerifyException(f"batch axes of {xs} and {ys} do not broadcast") from None
        return tensor((*batch, xs[-2], ys[-1]), a.element_type)

    def verify_(self) -> None:
        """Neither operand is quantised. Raises VerifyException."""
        not_quantized(self.lhs.type, self.rhs.type)
        super().verify_()

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        return np.matmul(a, b)
