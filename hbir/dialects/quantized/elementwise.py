"""Integer elementwise arithmetic: operands brought to a common scale, combined in int32, rescaled to the result."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import FloatAttr, TensorType, f64
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from hbir.dialects.base import Array, Tensor, element_dtype, integer, tensor
from hbir.dialects.hbir.elementwise import broadcast_shape
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized.common import (
    QuantizedOperation,
    check_limits,
    check_ratio,
    grid,
    multipliers,
    per_tensor,
    scalar,
    shifts,
)

__all__ = ["AddOp", "ClampOp", "MulOp", "SubOp"]

Multipliers = npt.NDArray[np.int32]
Shifts = npt.NDArray[np.int8]


class _SumOp(QuantizedOperation):
    """Base of add and sub: TOSA's pattern of two rescales to int32, the sum, and one rescale out."""

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    common_scale = prop_def(FloatAttr.constr(f64))
    lhs_multiplier = multipliers()
    lhs_shift = shifts()
    rhs_multiplier = multipliers()
    rhs_shift = shifts()
    multiplier = multipliers()
    shift = shifts()
    low = integer()
    high = integer()
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        a: Tensor,
        b: Tensor,
        *,
        common_scale: float,
        lhs_multiplier: Multipliers,
        lhs_shift: Shifts,
        rhs_multiplier: Multipliers,
        rhs_shift: Shifts,
        multiplier: Multipliers,
        shift: Shifts,
        low: int,
        high: int,
        grid: UniformQuantizedType,
    ) -> Tensor:
        check_ratio(lhs_multiplier, lhs_shift, per_tensor(a, "left operand").scale / common_scale, "left rescale")
        check_ratio(rhs_multiplier, rhs_shift, per_tensor(b, "right operand").scale / common_scale, "right rescale")
        check_ratio(multiplier, shift, common_scale / grid.scale, "output rescale")
        check_limits(low, high, grid)
        result = tensor(broadcast_shape(a, b), grid)
        per_tensor(result, "result")
        return result


def _evaluate_sum(
    kernel: str,
    a: Array,
    b: Array,
    *,
    lhs_multiplier: Multipliers,
    lhs_shift: Shifts,
    rhs_multiplier: Multipliers,
    rhs_shift: Shifts,
    multiplier: Multipliers,
    shift: Shifts,
    low: int,
    high: int,
    grid: UniformQuantizedType,
    zero_points: Sequence[int],
    **_: Any,
) -> Array:
    from hbir import kernels

    return getattr(kernels, kernel)(
        a,
        b,
        zp_a=zero_points[0],
        multiplier_a=scalar(lhs_multiplier),
        shift_a=scalar(lhs_shift),
        zp_b=zero_points[1],
        multiplier_b=scalar(rhs_multiplier),
        shift_b=scalar(rhs_shift),
        multiplier_out=scalar(multiplier),
        shift_out=scalar(shift),
        zp_out=grid.zero_point,
        lo=low,
        hi=high,
        out_dtype=element_dtype(grid),
    )


@irdl_op_definition
class AddOp(_SumOp):
    """lhs + rhs."""

    name = "quantized.add"

    evaluate = staticmethod(partial(_evaluate_sum, "add"))


@irdl_op_definition
class SubOp(_SumOp):
    """lhs - rhs."""

    name = "quantized.sub"

    evaluate = staticmethod(partial(_evaluate_sum, "sub"))


@irdl_op_definition
class MulOp(QuantizedOperation):
    """lhs * rhs: the int32 product of the centred values, rescaled to `grid`."""

    name = "quantized.mul"

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    multiplier = multipliers()
    shift = shifts()
    low = integer()
    high = integer()
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        a: Tensor, b: Tensor, *, multiplier: Multipliers, shift: Shifts, low: int, high: int, grid: UniformQuantizedType
    ) -> Tensor:
        product = np.float64(per_tensor(a, "left operand").scale) * per_tensor(b, "right operand").scale
        check_ratio(multiplier, shift, product / grid.scale, "rescale")
        check_limits(low, high, grid)
        return tensor(broadcast_shape(a, b), grid)

    @staticmethod
    def evaluate(
        a: Array,
        b: Array,
        *,
        multiplier: Multipliers,
        shift: Shifts,
        low: int,
        high: int,
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
    ) -> Array:
        from hbir.kernels import mul

        return mul(
            a,
            b,
            zp_a=zero_points[0],
            zp_b=zero_points[1],
            multiplier=scalar(multiplier),
            shift=scalar(shift),
            zp_out=grid.zero_point,
            lo=low,
            hi=high,
            out_dtype=element_dtype(grid),
        )


@irdl_op_definition
class ClampOp(QuantizedOperation):
    """Values held between `low` and `high`, in storage units; the type stays."""

    name = "quantized.clamp"

    input = operand_def(TensorType)
    low = integer()
    high = integer()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, low: int, high: int) -> Tensor:
        check_limits(low, high, per_tensor(x, "input"))
        return x

    @staticmethod
    def evaluate(x: Array, *, low: int, high: int, zero_points: Sequence[int]) -> Array:
        del zero_points
        return np.clip(x, low, high)
