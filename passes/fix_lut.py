"""Makes every function a table: exact for int8; for int16 the form with the smaller worst error, which is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.hbir import constant
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.dialects.quantized.table import ideal_results
from hbir.errors import PassError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.numerics import quantize_multiplier
from hbir.numerics.lut import (
    InterpolatedTable,
    SegmentedTable,
    best_int16_table,
    ideal_int16,
    int16_interpolated_table,
    worst_error,
)
from hbir.numerics.lut import Quantization as Grid
from passes.common.rewriting import blocks, insert_before, replace
from passes.manager import Pass, Promise

__all__ = ["FixLut"]

i8, i16 = IntegerType(8), IntegerType(16)


NARROW_BITS = 15
"""Multiplier bits of rescales to int8 on every march."""


def _fine(grid: UniformQuantizedType) -> UniformQuantizedType:
    """The int16 grid without a zero point that reaches as far as an int8 grid."""
    low, high = grid.limits
    return UniformQuantizedType.get(16, max(high - grid.zero_point, grid.zero_point - low) * grid.scale / 32767)


@dataclass(frozen=True)
class FixLut(Pass):
    """Replace `quantized.function` by a table. `bound` is the largest error of an int16 table, in steps of its result,
    that is accepted; a function that no table reaches within it is refused. A function that jumps inside the range of int16
    inputs has its int8 results by way of int16."""

    name: ClassVar[str] = "fix-lut"
    promise: ClassVar[Promise] = Promise.RECORDED

    bound: int | float = 64.0
    """Largest accepted error of an int16 table, in steps of its result."""

    def __post_init__(self) -> None:
        if not 0 <= self.bound < np.inf:
            why = f"bound is {self.bound}"
            raise PassError(
                4, f"options of '{self.name}' do not fit", why=why, lever="choose a number of steps from 0 up"
            )

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if not isinstance(op, q.FunctionOp):
                    continue
                source = quantized_element(op.input.type)
                if source.bits == 16:
                    replace(op, [self._interpolated(op, source, op.grid, op.input, module)])
                elif op.grid.bits == 16:
                    replace(op, [self._widened(op, source, module)])
                else:
                    replace(op, [self._exact(op, source, module)])

    def _exact(self, op: q.FunctionOp, source: UniformQuantizedType, module: Module) -> SSAValue:
        values = op.values
        entries = ideal_results(values["function"], values["parameters"], source, op.grid)
        table = insert_before(op, constant(entries, module.constants, i8), [op]).output
        made = q.TableOp.make(op.input, table, function=values["function"], grid=op.grid)
        return insert_before(op, made, [op]).output

    def _widened(self, op: q.FunctionOp, source: UniformQuantizedType, module: Module) -> SSAValue:
        """int8 to int16: the input times 128 lands on table entries, so that interpolation never happens."""
        wide = UniformQuantizedType.get(16, source.scale / 128, source.zero_point * 128)
        # 128 is a power of two: multiplier 2^22, shift 15 says it exactly, where the nearest odd one would not.
        m, s = np.array([1 << 22], np.int32), np.array([15], np.int8)
        x = insert_before(op, q.RescaleOp.make(op.input, multiplier=m, shift=s, grid=wide), [op]).output
        return self._interpolated(op, wide, op.grid, x, module)

    def _interpolated(
        self, op: q.FunctionOp, source: UniformQuantizedType, target: UniformQuantizedType, x: SSAValue, module: Module
    ) -> SSAValue:
        values = op.values
        scales = (source.scale, source.zero_point, target.scale, target.zero_point)
        chosen: InterpolatedTable | SegmentedTable
        if target.bits == 16:
            chosen, error = best_int16_table(values["function"], *scales, values["parameters"])
        else:
            chosen = int16_interpolated_table(values["function"], *scales, values["parameters"], out_bits=8)
            give, take = (Grid(g.scale, g.zero_point, g.bits) for g in (source, target))
            error = worst_error(chosen, ideal_int16(values["function"], give, take, values["parameters"]))
        if error > 1 and target.bits == 8:
            fine = _fine(target)
            jumping, off = best_int16_table(
                values["function"], source.scale, source.zero_point, fine.scale, 0, values["parameters"]
            )
            # A function that jumps (1 / x at 0) or bends needs segments, which give int16; 256 of its steps are one of the
            # result, whose rounding adds at most one more.
            if (
                1 + off * fine.scale / target.scale < error
                and off <= self.bound
                and isinstance(jumping, SegmentedTable)
            ):
                wide = self._interpolated(op, source, fine, x, module)
                m, s = quantize_multiplier(np.array([fine.scale / np.float64(target.scale)]), NARROW_BITS)
                narrowed = q.RescaleOp.make(wide, multiplier=m.astype(np.int32), shift=s.astype(np.int8), grid=target)
                return insert_before(op, narrowed, [op]).output
        if error > self.bound:
            raise PassError(
                23,
                f"no table of '{values['function']}' comes within {self.bound:g} steps: the best is off by {error}",
                where=f"layer '{layer_name(op)}'",
                why=f"inputs reach {32767 * source.scale:.3g}, and the function bends sharply inside that range",
                lever="clip the input to a smaller range, give the result a coarser scale, or raise fix-lut{bound=…}",
            )
        note = {"function": values["function"], "worst_error": float(error), "grid": target}
        if isinstance(chosen, SegmentedTable):
            parts = [
                insert_before(op, constant(array, module.constants, element), [op]).output
                for array, element in ((chosen.starts, i16), (chosen.shifts.astype(np.int8), i8), (chosen.entries, i16))
            ]
            return insert_before(op, q.SegmentedOp.make(x, *parts, **note), [op]).output
        table = insert_before(op, constant(chosen.entries, module.constants, i16), [op]).output
        m, s = np.array([chosen.multiplier], np.int32), np.array([chosen.shift], np.int8)
        low, high = target.limits
        made = q.InterpolateOp.make(x, table, multiplier=m, shift=s, low=low, high=high, **note)
        return insert_before(op, made, [op]).output
