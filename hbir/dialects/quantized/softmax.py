"""Integer softmax, defined as a chain of base operations, each of which TOSA has.

    d = x - max(x)                                                    SUB, int32, <= 0
    e = round(exp(scale_x * d) * 32767)                               TABLE
    S = sum(e)                                                        REDUCE_SUM, int32: axes of up to 65,536 values
    n = clz(S);  t = S << (n - 1)                                     t in [2^30, 2^31)
    r = reciprocal table at (t >> 14) - 98304, 22 bits                ARITHMETIC_RIGHT_SHIFT, SUB, TABLE with interpolation
    p = (e * r + 2^6) >> 7                                            MUL with shift 7
    u = (p + 2^(16 - n)) >> (17 - n)                                  ARITHMETIC_RIGHT_SHIFT, rounding; u = softmax * 2^29
    y = clamp(rescale(u, m, s) + zp, low, high)                       RESCALE

S is at least 32767, the entry of the largest value, hence n <= 17 and the last shift is never negative.
int8 looks d up directly (256 entries). int16 halves d, saturates at -32768 and interpolates between 513 entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import TensorType
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, Run, Tensor, integer, shape_of, tensor
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

__all__ = ["SoftmaxOp"]

FRACTION_BITS = 29
"""The unrounded result of the chain has this many fractional bits."""


@irdl_op_definition
class SoftmaxOp(QuantizedOperation):
    """Softmax along `axis`; `exp_table` holds 256 (int8 input) or 513 (int16 input) entries, `reciprocal_table` 513."""

    name = "quantized.softmax"

    input = operand_def(TensorType)
    exp_table = operand_def(TensorType)
    reciprocal_table = operand_def(TensorType)
    axis = integer()
    """The axis, counted from 0."""
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
        x: Tensor,
        exp_table: Tensor,
        reciprocal_table: Tensor,
        *,
        axis: int,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
    ) -> Tensor:
        shape, element = shape_of(x), per_tensor(x, "input")
        if not 0 <= axis < len(shape) or shape[axis] > 65536:
            raise VerifyException(f"softmax runs along an existing axis of at most 65536 values, not {axis} of {shape}")
        if shape_of(exp_table) != ((256,) if element.bits == 8 else (513,)) or shape_of(reciprocal_table) != (513,):
            raise VerifyException(
                "softmax takes an exponential table of 256 (int8) or 513 (int16) entries and 513 reciprocals"
            )
        check_ratio(multiplier, shift, 2.0**-FRACTION_BITS / np.float64(grid.scale), "rescale")
        check_limits(low, high, grid)
        return tensor(shape, grid)

    @staticmethod
    def bind(
        x: Array,
        exp_table: Array,
        reciprocal_table: Array,
        *,
        axis: int,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels.softmax import softmax

        return partial(
            softmax,
            x,
            exp_table,
            reciprocal_table,
            axis=axis,
            multiplier=scalar(multiplier),
            shift=scalar(shift),
            zp_out=grid.zero_point,
            lo=low,
            hi=high,
            out=out,
        )
