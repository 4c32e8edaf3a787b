"""Lookup tables: any function of one value, exact for int8, interpolated for int16. How tables are made: numerics.lut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerType, StringAttr, TensorType, f64
from xdsl.irdl import irdl_op_definition, operand_def, opt_prop_def, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, Run, Tensor, element_dtype, integer, shape_of, tensor, tensor_type
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized.common import (
    QuantizedOperation,
    check_limits,
    check_multipliers,
    grid,
    multipliers,
    per_tensor,
    scalar,
    shifts,
)

__all__ = ["FunctionOp", "InterpolateOp", "SegmentedOp", "TableOp", "ideal_results"]


def _check_table(table: Tensor, entries: int, width: int) -> None:
    if shape_of(table) != (entries,) or table.element_type != IntegerType(width):
        raise VerifyException(f"the table is a tensor<{entries}xi{width}>, not {table}")


@irdl_op_definition
class FunctionOp(QuantizedOperation):
    """A named function from one grid to another, every result rounded exactly: what a table will approximate.

    Quantisation leaves functions in this form; the pass `fix-lut` chooses the table. No backend runs it.
    """

    name = "quantized.function"

    input = operand_def(TensorType)
    function = prop_def(StringAttr)
    """Name of the function, a key of `hbir.numerics.functions.FUNCTIONS`."""
    parameters = opt_prop_def(DenseArrayBase.constr(f64))
    """Its parameters, in the order of the table; absent when it has none or all have their defaults."""
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, grid: UniformQuantizedType, function: str, parameters: tuple[float, ...] | None) -> Tensor:
        from hbir.numerics.lut import FUNCTIONS

        if function not in FUNCTIONS:
            raise VerifyException(f"there is no function '{function}'")
        if len(parameters or ()) > len(FUNCTIONS[function].parameters):
            raise VerifyException(
                f"'{function}' has parameters {list(FUNCTIONS[function].parameters)}, not {parameters}"
            )
        if per_tensor(x, "input").bits > 16 or grid.bits > 16:
            raise VerifyException("a function takes and gives int8 or int16")
        return tensor(shape_of(x), grid)

    def binder(self, constants: Sequence[Array | None]) -> Callable[..., Run]:
        source, values = per_tensor(tensor_type(self.input.type), "input"), self.values
        every = ideal_results(values["function"], values["parameters"], source, values["grid"])
        offset = 1 << (source.bits - 1)

        def bind(x: Array, *, out: Array) -> Run:
            def run() -> None:
                out[...] = every[x.astype(np.int32) + offset]

            return run

        return bind


def ideal_results(
    function: str, parameters: Sequence[float] | None, source: UniformQuantizedType, target: UniformQuantizedType
) -> Array:
    """The exactly rounded result for every input code of `source`, smallest code first."""
    from hbir.numerics.lut import Quantization, ideal_int16, int8_table

    if source.bits == 8:
        scales = (source.scale, source.zero_point, target.scale, target.zero_point)
        return int8_table(function, *scales, parameters, out_bits=target.bits)
    give, take = (Quantization(g.scale, g.zero_point, g.bits) for g in (source, target))
    return ideal_int16(function, give, take, parameters).astype(element_dtype(target))


@irdl_op_definition
class TableOp(QuantizedOperation):
    """`table[x + 128]` for int8: the 256 rounded results of a function, exact by construction.

    `function` names what the table computes, for readers; the numbers are the table's alone.
    """

    name = "quantized.table"

    input = operand_def(TensorType)
    table = operand_def(TensorType)
    function = opt_prop_def(StringAttr)
    """Name of the function that the table holds, for readers."""
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, table: Tensor, *, grid: UniformQuantizedType, function: str | None) -> Tensor:
        if per_tensor(x, "input").bits != 8 or grid.bits != 8:
            raise VerifyException("quantized.table takes int8 to int8; int16 inputs go through quantized.interpolate")
        _check_table(table, 256, 8)
        return tensor(shape_of(x), grid)

    @staticmethod
    def bind(x: Array, table: Array, *, out: Array, **_: Any) -> Run:
        from hbir.kernels import bind_table_int8

        return bind_table_int8(x, table, out=out)


@irdl_op_definition
class InterpolateOp(QuantizedOperation):
    """Table of 513 int16 entries with linear interpolation (TOSA TABLE on int16), then a rescale to `grid`.

        i = (x >> 7) + 256;  v = (table[i] << 7) + (table[i + 1] - table[i]) * (x & 127)
        y = clamp(rescale(v, m, s) + zp, low, high)

    `worst_error` is the largest difference, in units of the result, from the exactly rounded function over all inputs.
    """

    name = "quantized.interpolate"

    input = operand_def(TensorType)
    table = operand_def(TensorType)
    function = opt_prop_def(StringAttr)
    """Name of the function that the table holds, for readers."""
    worst_error = opt_prop_def(FloatAttr.constr(f64))
    """Largest difference from the exactly rounded function over all inputs, in units of the result."""
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
        table: Tensor,
        *,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
        function: str | None,
        worst_error: float | None,
    ) -> Tensor:
        if per_tensor(x, "input").bits != 16:
            raise VerifyException("quantized.interpolate takes int16; int8 inputs go through quantized.table")
        _check_table(table, 513, 16)
        check_multipliers(multiplier, shift, "rescale")
        check_limits(low, high, grid)
        return tensor(shape_of(x), grid)

    @staticmethod
    def bind(
        x: Array,
        table: Array,
        *,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
        out: Array,
        **_: Any,
    ) -> Run:
        from hbir.kernels import bind_table_int16

        return bind_table_int16(
            x,
            table,
            multiplier=scalar(multiplier),
            shift=scalar(shift),
            zp_out=grid.zero_point,
            lo=low,
            hi=high,
            out=out,
        )


@irdl_op_definition
class SegmentedOp(QuantizedOperation):
    """int16 to int16 by 1 to 64 segments of 64 entries, each with its own start and spacing (`hbir.numerics.lut`).

    Operands: `starts` tensor<Nxi16>, `spacings` tensor<Nxi8> (exponents 0 to 11), `entries` tensor<Nx64xi16>.
    """

    name = "quantized.segmented"

    input = operand_def(TensorType)
    starts = operand_def(TensorType)
    spacings = operand_def(TensorType)
    entries = operand_def(TensorType)
    function = opt_prop_def(StringAttr)
    """Name of the function that the table holds, for readers."""
    worst_error = opt_prop_def(FloatAttr.constr(f64))
    """Largest difference from the exactly rounded function over all inputs, in units of the result."""
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor,
        starts: Tensor,
        spacings: Tensor,
        entries: Tensor,
        *,
        grid: UniformQuantizedType,
        function: str | None,
        worst_error: float | None,
    ) -> Tensor:
        if per_tensor(x, "input").bits != 16 or grid.bits != 16:
            raise VerifyException("quantized.segmented takes int16 to int16")
        if len(shape_of(starts)) != 1:
            raise VerifyException("the starts of the segments are a list")
        count = shape_of(starts)[0]
        if not 1 <= count <= 64:
            raise VerifyException(f"a segmented table has 1 to 64 segments, not {count}")
        _check_table(starts, count, 16)
        _check_table(spacings, count, 8)
        if shape_of(entries) != (count, 64) or entries.element_type != IntegerType(16):
            raise VerifyException(f"the entries are a tensor<{count}x64xi16>, not {entries}")
        return tensor(shape_of(x), grid)

    @staticmethod
    def bind(x: Array, starts: Array, spacings: Array, entries: Array, *, out: Array, **_: Any) -> Run:
        from hbir.kernels import bind_table_segmented

        return bind_table_segmented(x, starts, spacings, entries, out=out)
