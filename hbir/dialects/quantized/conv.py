"""Integer convolution and matrix product, with the epilogue that the tensor engine has.

    acc  = bias[c] + sum((x - zp_x) * w)                                   int32 (int48, held in int64, for int16 inputs)
    y    = clamp(rescale(acc, m[c], s[c]) + zp_y, low, high)
    with a residual r:
    y    = clamp(rescale(rescale(acc, m[c], s[c]) + rescale(r - zp_r, m_r, s_r), m_y, s_y) + zp_y, low, high)

Without `multiplier` the accumulator itself is the result, and the element type has the scale of each channel. With
`float_type` it leaves the tensor engine as a float: acc * scale[c], computed in float64 and rounded once. No integer tensor
lies in between, so that int48 accumulators can leave as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float32Type, FloatAttr, TensorType, f64
from xdsl.irdl import (
    AttrSizedOperandSegments,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, Run, Tensor, integer, integer_width, integers, shape_of, tensor
from hbir.dialects.hbir.conv import conv_shape
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.dialects.quantized.common import (
    QuantizedOperation,
    check_limits,
    check_ratio,
    grid,
    opt_float_type,
    opt_multipliers,
    opt_shifts,
    per_tensor,
    scalar,
)

__all__ = ["Conv2dOp", "MatmulOp", "folded_bias"]


def folded_bias(weight: Array, bias: Array | None, zero_point: int) -> Array:
    """`bias - zp * sum(w)` per output channel (int64): turns sum((x - zp) * w) into sum(x * w), padding reading zp."""
    total: Array = np.zeros(weight.shape[0], np.int64) if bias is None else bias.astype(np.int64)
    if zero_point:
        total = total - zero_point * weight.sum(axis=(1, 2, 3), dtype=np.int64)
    return total


@irdl_op_definition
class Conv2dOp(QuantizedOperation):
    """2-D integer convolution (NHWC, weights (Cout, KH, KW, Cin/groups)) with rescale, clamp and optional residual add.

    `common_scale` is the scale of the sum when there is a residual. pad = (top, left, bottom, right). With `float_type` the
    result is `accumulator * scale` as float32, and `grid` says the scales of the accumulator.
    """

    name = "quantized.conv2d"

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
    multiplier = opt_multipliers()
    """Rescales the accumulator, one for each channel or for all; absent when it is the result itself."""
    shift = opt_shifts()
    """Right shifts that go with `multiplier`."""
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
    common_scale = opt_prop_def(FloatAttr.constr(f64))
    """Scale of the sum with the residual; absent without one."""
    residual_multiplier = opt_multipliers()
    """Rescales the residual to `common_scale`."""
    residual_shift = opt_shifts()
    """Right shift that goes with `residual_multiplier`."""
    output_multiplier = opt_multipliers()
    """Rescales the sum with the residual to `grid`."""
    output_shift = opt_shifts()
    """Right shift that goes with `output_multiplier`."""
    float_type = opt_float_type()
    """Element type of a result that the tensor engine makes of the accumulator itself; absent for an integer result."""
    grid = grid()
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
        multiplier: npt.NDArray[np.int32] | None,
        shift: npt.NDArray[np.int8] | None,
        low: int,
        high: int,
        common_scale: float | None,
        residual_multiplier: npt.NDArray[np.int32] | None,
        residual_shift: npt.NDArray[np.int8] | None,
        output_multiplier: npt.NDArray[np.int32] | None,
        output_shift: npt.NDArray[np.int8] | None,
        grid: UniformQuantizedType,
        float_type: Float32Type | None = None,
    ) -> Tensor:
        shape = conv_shape(shape_of(x), shape_of(w), stride, pad, dilation, groups)
        xe, we = per_tensor(x, "input"), quantized_element(w)
        if we.per_axis not in (None, 0) or we.zero_point_array.any():
            raise VerifyException("weights are symmetric, with scales per tensor or along axis 0")
        if xe.bits not in (8, 16) or we.bits not in (8, xe.bits):
            raise VerifyException(f"there is no product of int{xe.bits} activations and int{we.bits} weights")
        if we.per_axis == 0 and we.channels != shape[3]:
            raise VerifyException(f"{we.channels} weight scales for {shape[3]} output channels")
        products = np.float64(xe.scale) * we.scale_array.astype(np.float64)
        if bias is not None:
            _check_bias(bias, shape[3], xe.bits)
        check_limits(low, high, grid)
        if multiplier is None or shift is None:
            _check_raw(grid, products, residual)
            _check_float(float_type, low, high, grid)
            return tensor(shape, float_type or grid)
        _no_multiplier(float_type)
        result = tensor(shape, grid)
        per_tensor(result, "result")
        if residual is None:
            check_ratio(multiplier, shift, products / grid.scale, "rescale", shape[3])
            return result
        if shape_of(residual) != shape:
            raise VerifyException(f"residual {shape_of(residual)} has another shape than the result {shape}")
        if common_scale is None or any(
            v is None for v in (residual_multiplier, residual_shift, output_multiplier, output_shift)
        ):
            raise VerifyException("a residual needs common_scale and the multipliers of residual and output")
        if residual_multiplier is not None and residual_shift is not None:
            ratio = per_tensor(residual, "residual").scale / common_scale
            check_ratio(residual_multiplier, residual_shift, ratio, "residual rescale")
        if output_multiplier is not None and output_shift is not None:
            check_ratio(output_multiplier, output_shift, common_scale / grid.scale, "output rescale")
        check_ratio(multiplier, shift, products / common_scale, "accumulator rescale", shape[3])
        return result

    def binder(self, constants: Sequence[Array | None]) -> Callable[..., Run] | None:
        weight, bias = constants[1], constants[2]
        if weight is None or (bias is None and self.bias is not None):
            return super().binder(constants)
        from hbir.kernels import bind_conv2d, bind_float_result, pack_weight

        values, input_bits = self.values, quantized_element(self.input.type).bits
        packed = pack_weight(weight, groups=values["groups"])
        folded = folded_bias(weight, bias, self.zero_points[0]).astype(np.int32 if input_bits == 8 else np.int64)
        options = _kernel_options(values, self.zero_points, weight.shape)
        scales = [None if v is None else np.ascontiguousarray(np.broadcast_to(v, weight.shape[0])) for v in
                  (values["multiplier"], values["shift"])]  # fmt: skip

        def bind(x: Array, w: Array, bias: Array | None, residual: Array | None, *, out: Array) -> Run:
            if values["float_type"] is not None:
                return bind_float_result(
                    lambda sums: bind_conv2d(x, packed, folded, None, None, **options, out=sums),
                    *(folded.dtype, values["grid"].scale_array, out),
                )
            return bind_conv2d(x, packed, folded, *scales, residual=residual, **options, out=out)

        return bind

    @staticmethod
    def bind(
        x: Array,
        w: Array,
        bias: Array | None,
        residual: Array | None,
        *,
        zero_points: Sequence[int],
        out: Array,
        **values: Any,
    ) -> Run:
        from hbir.kernels import bind_float_result, conv2d, pack_weight

        options = _kernel_options(values, zero_points, w.shape)

        def into(y: Array) -> Run:
            def run() -> None:
                # The weights are computed, so that every run packs them again.
                packed, total = pack_weight(w, groups=values["groups"]), folded_bias(w, bias, zero_points[0])
                conv2d(x, packed, total, values["multiplier"], values["shift"], residual=residual, **options, out=y)

            return run

        if values["float_type"] is None:
            return into(out)
        sums = np.dtype(np.int32 if x.itemsize == 1 else np.int64)
        return bind_float_result(into, sums, values["grid"].scale_array, out)


def _kernel_options(values: dict[str, Any], zero_points: Sequence[int], weight_shape: Sequence[int]) -> dict[str, Any]:
    """The keyword arguments of the convolution kernel, but for operands and result."""
    grid, raw = values["grid"], values["multiplier"] is None
    options = {
        "weight_shape": tuple(weight_shape),
        **{key: tuple(values[key]) for key in ("stride", "pad", "dilation")},
        "groups": values["groups"],
        "pad_value": zero_points[0],
        "zp_out": 0 if raw else grid.zero_point,
        "lo": values["low"],
        "hi": values["high"],
    }
    if values["output_multiplier"] is not None:
        options |= {
            "residual_multiplier": scalar(values["residual_multiplier"]),
            "residual_shift": scalar(values["residual_shift"]),
            "residual_zp": zero_points[3],
            "out_multiplier": scalar(values["output_multiplier"]),
            "out_shift": scalar(values["output_shift"]),
        }
    return options


def _check_bias(bias: Tensor, channels: int, input_bits: int) -> None:
    width = integer_width(bias.element_type)
    if shape_of(bias) != (channels,) or width not in ((32,) if input_bits == 8 else (32, 48)):
        raise VerifyException(f"bias {bias} is not one accumulator integer for each of {channels} output channels")


def _check_raw(grid: UniformQuantizedType, products: npt.NDArray[np.float64], residual: Tensor | None) -> None:
    if residual is not None or grid.bits != 32:
        raise VerifyException("without a multiplier the result is the int32 accumulator, and there is no residual")
    if grid.channels != products.size or (products.size > 1 and grid.per_axis != 3):
        raise VerifyException("the accumulator's type has one scale for each output channel, along axis 3")
    if (products.astype(np.float32) != grid.scale_array).any() or grid.zero_point_array.any():
        raise VerifyException("the accumulator's scale is the product of input and weight scale, its zero point 0")


def _check_float(
    float_type: Float32Type | None, low: int, high: int, grid: UniformQuantizedType, *, raw: bool = True
) -> None:
    """Of a result without a multiplier; `raw`: it may be the integer accumulator as well."""
    if float_type is None and not raw:
        raise VerifyException("without a multiplier the result is a float, and float_type says so")
    if float_type is not None and (low, high) != grid.limits:
        raise VerifyException(f"a float result is not clamped: low and high are {grid.limits}")


def _no_multiplier(float_type: Float32Type | None) -> None:
    if float_type is not None:
        raise VerifyException("a float result is the accumulator times its scale: it has no multiplier")


@irdl_op_definition
class MatmulOp(QuantizedOperation):
    """Matrix product of two quantised tensors (numpy's batch rules), rescaled to `grid`.

    With `float_type` the result is `sum * scale` as float32, and `grid` says the scale of the sum.
    """

    name = "quantized.matmul"

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    multiplier = opt_multipliers()
    """Rescales the sum; absent when the result is a float."""
    shift = opt_shifts()
    """Right shift that goes with `multiplier`."""
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
    float_type = opt_float_type()
    """Element type of a result that the tensor engine makes of the sum itself; absent for an integer result."""
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        a: Tensor,
        b: Tensor,
        *,
        multiplier: npt.NDArray[np.int32] | None,
        shift: npt.NDArray[np.int8] | None,
        low: int,
        high: int,
        grid: UniformQuantizedType,
        float_type: Float32Type | None = None,
    ) -> Tensor:
        from hbir.dialects.hbir.conv import MatmulOp as FloatMatmul

        shape = shape_of(FloatMatmul.infer(a, b))
        left, right = per_tensor(a, "left operand"), per_tensor(b, "right operand")
        if left.bits not in (8, 16) or right.bits not in (8, 16):
            raise VerifyException(f"there is no product of int{left.bits} and int{right.bits} matrices")
        product = np.float64(left.scale) * right.scale
        check_limits(low, high, grid)
        if multiplier is None or shift is None:
            _check_raw(grid, np.atleast_1d(product), None)
            _check_float(float_type, low, high, grid, raw=False)
            return tensor(shape, float_type or grid)
        _no_multiplier(float_type)
        check_ratio(multiplier, shift, product / grid.scale, "rescale")
        return tensor(shape, grid)

    @staticmethod
    def bind(
        a: Array,
        b: Array,
        *,
        multiplier: npt.NDArray[np.int32] | None,
        shift: npt.NDArray[np.int8] | None,
        low: int,
        high: int,
        grid: UniformQuantizedType,
        float_type: Float32Type | None,
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels import bind_float_result, bind_matmul

        zeros = {"zp_a": zero_points[0], "zp_b": zero_points[1]}
        if multiplier is None or shift is None:
            sums = np.dtype(np.int32 if max(a.itemsize, b.itemsize) == 1 else np.int64)
            return bind_float_result(lambda y: bind_matmul(a, b, **zeros, out=y), sums, grid.scale_array, out)
        scales = {"multiplier": scalar(multiplier), "shift": scalar(shift), "zp_out": grid.zero_point}
        return bind_matmul(a, b, **zeros, **scales, lo=low, hi=high, out=out)
