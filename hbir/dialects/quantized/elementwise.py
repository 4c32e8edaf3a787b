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

from hbir.dialects.base import Array, Run, Tensor, integer, tensor
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
    """Scale to which both operands are brought before they are added."""
    lhs_multiplier = multipliers()
    """Rescales lhs to `common_scale`."""
    lhs_shift = shifts()
    """Right shift that goes with `lhs_multiplier`."""
    rhs_multiplier = multipliers()
    """Rescales rhs to `common_scale`."""
    rhs_shift = shifts()
    """Right shift that goes with `rhs_multiplier`."""
    multiplier = multipliers()
    """Rescales the sum to `grid`."""
    shift = shifts()
    """Right shift that goes with `multiplier`."""
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
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


def _bind_sum(
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
    out: Array,
    **_: Any,
) -> Run:
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
        out=out,
    )


@irdl_op_definition
class AddOp(_SumOp):
    """lhs + rhs: both rescaled to `common_scale`, added in int32, rescaled to `grid` and held between `low` and `high`."""

    name = "quantized.add"

    bind = staticmethod(partial(_bind_sum, "bind_add"))


@irdl_op_definition
class SubOp(_SumOp):
    """lhs - rhs: both rescaled to `common_scale`, subtracted in int32, rescaled to `grid`, held between `low` and `high`."""

    name = "quantized.sub"

    bind = staticmethod(partial(_bind_sum, "bind_sub"))


@irdl_op_definition
class MulOp(QuantizedOperation):
    """lhs * rhs: the exact product of the centred values, rescaled to `grid`."""

    name = "quantized.mul"

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    multiplier = multipliers()
    shift = shifts()
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
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
    def bind(
        a: Array,
        b: Array,
        *,
        multiplier: Multipliers,
        shift: Shifts,
        low: int,
        high: int,
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels import bind_mul

        return bind_mul(
            a,
            b,
            zp_a=zero_points[0],
            zp_b=zero_points[1],
            multiplier=scalar(multiplier),
            shift=scalar(shift),
            zp_out=grid.zero_point,
            lo=low,
            hi=high,
            out=out,
        )


@irdl_op_definition
class ClampOp(QuantizedOperation):
    """Values held between `low` and `high`, in storage units; the type stays."""

    name = "quantized.clamp"

    input = operand_def(TensorType)
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, low: int, high: int) -> Tensor:
        check_limits(low, high, per_tensor(x, "input"))
        return x

    @staticmethod
    def bind(x: Array, *, low: int, high: int, zero_points: Sequence[int], out: Array) -> Run:
        del zero_points
        return partial(np.clip, x, low, high, out=out)
