"""Fake quantisation: float values held to the grid of a quantised type, where training and calibration decide scales."""

from __future__ import annotations

from xdsl.dialects.builtin import Float32Type, TensorType
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Tensor, shape_of
from hbir.dialects.quant import UniformQuantizedType

__all__ = ["FakeQuantOp", "Qat", "fake_quantize"]


def fake_quantize(x: Array, grid: UniformQuantizedType) -> Array:
    """`(q - zp) * scale` with `q = clamp(rint(x / scale) + zp)`, float32; per-axis grids run along their axis."""
    from hbir import numerics

    if grid.per_axis is None:
        return numerics.fake_quantize(x, grid.scale, grid.zero_point, *grid.limits)
    return numerics.fake_quantize(x, grid.scale_array, grid.zero_point_array, *grid.limits, axis=grid.per_axis)


@irdl_op_definition
class FakeQuantOp(HbOperation):
    """The input, rounded to the grid `grid` (half to even) and saturated: what the integer network will see there."""

    name = "qat.fake_quant"

    input = operand_def(TensorType)
    grid = prop_def(UniformQuantizedType)
    """Width, scales and zero points of the integers."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, grid: UniformQuantizedType) -> Tensor:
        if not isinstance(x.element_type, Float32Type):
            raise VerifyException(f"fake_quant takes f32, not {x.element_type}")
        axis = grid.per_axis
        if axis is not None and (axis >= len(shape_of(x)) or grid.channels != shape_of(x)[axis]):
            raise VerifyException(f"{grid.channels} scales along axis {axis} do not fit {shape_of(x)}")
        return x

    @staticmethod
    def evaluate(x: Array, *, grid: UniformQuantizedType) -> Array:
        return fake_quantize(x, grid)


Qat = Dialect("qat", [FakeQuantOp])
"""The dialect."""
