"""Where floats become integers and integers floats, and where one quantised type becomes another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float32Type, TensorType, f32
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Run, Tensor, shape_of, tensor
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.dialects.quantized.common import QuantizedOperation, check_ratio, grid, multipliers, per_tensor, shifts

__all__ = ["DequantizeOp", "QuantizeOp", "RescaleOp"]


@irdl_op_definition
class QuantizeOp(HbOperation):
    """`clamp(rint(x / scale) + zp)`: float32 division, half to even."""

    name = "quantized.quantize"

    input = operand_def(TensorType)
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, grid: UniformQuantizedType) -> Tensor:
        if not isinstance(x.element_type, Float32Type):
            raise VerifyException(f"quantize takes f32, not {x.element_type}")
        result = tensor(shape_of(x), grid)
        per_tensor(result, "result")
        return result

    @staticmethod
    def bind(x: Array, *, grid: UniformQuantizedType, out: Array) -> Run:
        from hbir.kernels import bind_quantize

        return bind_quantize(x, grid.scale, grid.zero_point, *grid.limits, out=out)


@irdl_op_definition
class DequantizeOp(HbOperation):
    """`(q - zp) * scale`, float32; the scale may run along the last axis (accumulators of a convolution)."""

    name = "quantized.dequantize"

    input = operand_def(TensorType)
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, grid: UniformQuantizedType) -> Tensor:
        element = quantized_element(x)
        if element != grid:
            raise VerifyException(f"dequantize of {element} states another type, {grid}")
        if element.per_axis not in (None, len(shape_of(x)) - 1):
            raise VerifyException("dequantize takes scales per tensor or along the last axis")
        if element.per_axis is not None and (element.channels != shape_of(x)[-1] or element.zero_point_array.any()):
            raise VerifyException("scales along an axis are one for each channel, and their zero points are 0")
        return tensor(shape_of(x), f32)

    @staticmethod
    def bind(x: Array, *, grid: UniformQuantizedType, out: Array) -> Run:
        from hbir.kernels import bind_dequantize

        if grid.per_axis is None:
            return bind_dequantize(x, grid.scale, grid.zero_point, out=out)
        return bind_dequantize(x, grid.scale_array, 0, axis=grid.per_axis, out=out)


@irdl_op_definition
class RescaleOp(QuantizedOperation):
    """One quantised type to another: `clamp(((x - zp_in) * m + 2^(s-1)) >> s) + zp)`."""

    name = "quantized.rescale"

    input = operand_def(TensorType)
    multiplier = multipliers()
    shift = shifts()
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor, *, multiplier: npt.NDArray[np.int32], shift: npt.NDArray[np.int8], grid: UniformQuantizedType
    ) -> Tensor:
        element = quantized_element(x)
        if element.per_axis not in (None, len(shape_of(x)) - 1):
            raise VerifyException("rescale takes scales per tensor or along the last axis")
        if element.per_axis is not None and element.zero_point_array.any():
            raise VerifyException("zero points of scales along an axis are 0")
        result = tensor(shape_of(x), grid)
        per_tensor(result, "result")
        channels = shape_of(x)[-1] if shape_of(x) else 1
        check_ratio(multiplier, shift, element.scale_array.astype(np.float64) / grid.scale, "rescale", channels)
        return result

    @staticmethod
    def bind(
        x: Array,
        *,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels import bind_rescale

        low, high = grid.limits
        return bind_rescale(
            x, multiplier, shift, zp_in=zero_points[0], zp_out=grid.zero_point, lo=low, hi=high, out=out
        )
