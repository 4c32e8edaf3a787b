"""Emits operations, or computes them at once when every operand is known: one description of an operator serves both
the data of a network and its shape arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from xdsl.dialects.builtin import IntegerType, LocationAttr, f32
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Tensor, shape_of, tensor
from hbir.dialects.hbir import (
    BINARY_OPS,
    ClipOp,
    ConcatOp,
    ExpandOp,
    FunctionOp,
    MaxPoolOp,
    PadOp,
    ReduceOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
    constant,
)
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import ImportModelError
from hbir.frontends.onnx.errors import Refusal, check_axes
from hbir.frontends.onnx.values import Quantized, Static, Value, extent_text
from hbir.ir.constants import ConstantStore

__all__ = ["MAX_STATIC_ELEMENTS", "Builder"]

Operand: TypeAlias = "Value | Sequence[Value] | None"

MAX_ELEMENTS = 1 << 34
"""Elements of one tensor of the network; more is a damaged or hostile shape."""
MAX_STATIC_ELEMENTS = 1 << 27
"""Elements of one tensor that is computed during import."""

MAX_COMPUTED = 1 << 22
"""Elements that import computes in all, before those that stand in the file allow for more: a small file asks for little."""
_PER_BYTE = 16
"""Elements that each byte of a constant in the file allows for."""

_MOVEMENT = (ConcatOp, ExpandOp, ReshapeOp, ResizeNearestOp, SliceOp, TransposeOp)
_KEEP_GRID = (*_MOVEMENT, MaxPoolOp)
_FOLDED = frozenset({*_MOVEMENT, *BINARY_OPS, ClipOp, FunctionOp, PadOp, ReduceOp})


class Builder:
    """Collects the operations of one function and the constants they need."""

    def __init__(self, store: ConstantStore) -> None:
        self.store = store
        self.operations: list[Operation] = []
        self._left = MAX_COMPUTED
        # Keyed by identity; the value is kept in the entry, so that its identity is not given to another.
        self._constants: dict[int, tuple[Static, SSAValue]] = {}
        self.replaced: dict[SSAValue, SSAValue] = {}
        """Inputs whose type changed, with their new value."""

    def emit(
        self, cls: type[HbOperation], operands: Sequence[Operand], attributes: dict[str, Any], location: LocationAttr
    ) -> Value:
        """The result of an operation: a known value when all operands are known, otherwise an SSA value.

        Raises VerifyException when the operands do not fit, ImportModelError HB0122, HB0130, HB0151, HB0152.
        """
        flat: list[Value | None] = []
        for operand in operands:
            flat.extend(operand) if isinstance(operand, Sequence) else flat.append(operand)
        if cls in _FOLDED and all(isinstance(value, Static) for value in flat):
            folded = self._fold(cls, cast(list[Static], flat), attributes)
            if folded is not None:
                return folded
        grids = [value for value in flat if isinstance(value, Quantized)]
        if grids:
            return self._emit_quantized(cls, flat, grids, operands, attributes, location)

        def operand_of(operand: Operand) -> SSAValue | list[SSAValue] | None:
            if isinstance(operand, Sequence):
                return [self.ssa(value, location) for value in operand]
            return None if operand is None else self.ssa(operand, location)

        values = [operand_of(operand) for operand in operands]
        op = cls.make(*values, location=location, **attributes)
        self.operations.append(op)
        result = op.results[0]
        self._check_size(shape_of(result.type), MAX_ELEMENTS)
        return result

    def _emit_quantized(
        self,
        cls: type[HbOperation],
        flat: Sequence[Value | None],
        grids: Sequence[Quantized],
        operands: Sequence[Operand],
        attributes: dict[str, Any],
        location: LocationAttr,
    ) -> Value:
        # Moving integers, then dequantising them, is the same as moving the floats behind them.
        first = grids[0]
        same = len(grids) == len(flat) and all(
            value.grid == first.grid and value.unsigned == first.unsigned for value in grids
        )
        if cls not in _KEEP_GRID or not same or first.grid.per_axis is not None:
            raise ImportModelError(
                Refusal.INTEGER_DATA,
                "quantised integers are used without DequantizeLinear",
                why="between QuantizeLinear and DequantizeLinear only operators that move values may stand",
                lever="export the model in QDQ form (QuantFormat.QDQ)",
            )
        inner = [
            [cast(Quantized, v).value for v in o] if isinstance(o, Sequence) else cast(Quantized, o).value
            for o in operands
        ]
        moved = self.emit(cls, inner, attributes, location)
        return Quantized(cast(SSAValue, moved), first.grid, first.unsigned)

    def _fold(self, cls: type[HbOperation], values: Sequence[Static], attributes: dict[str, Any]) -> Static | None:
        grid = self._folded_grid(cls, values, attributes)
        if grid is None and any(value.grid is not None for value in values):
            return None
        stand_ins: list[Tensor] = [tensor(value.array.shape, f32) for value in values]
        absent = {name: None for name in cls.get_irdl_definition().properties if name not in attributes}
        inferred = cast(Tensor, cls.infer(*stand_ins, **attributes, **absent))
        self._check_size(inferred.get_shape(), MAX_STATIC_ELEMENTS)
        arrays = [value.array for value in values]
        self.charge(math.prod(inferred.get_shape()) + sum(array.size for array in arrays))
        try:
            with np.errstate(all="ignore"):
                array = np.asarray(cls.evaluate(*arrays, **attributes, **absent))
        except TypeError as error:
            # numpy's word for an operation that a dtype does not have, such as the difference of bools.
            raise VerifyException(f"{', '.join(str(a.dtype) for a in arrays)}: {error}") from None
        return Static(array, next((value.name for value in values if value.name), ""), grid)

    @staticmethod
    def _folded_grid(
        kind: type[HbOperation], values: Sequence[Static], attributes: dict[str, Any]
    ) -> UniformQuantizedType | None:
        grid = values[0].grid if len(values) == 1 else None
        if grid is None or kind not in _MOVEMENT:
            return None
        if grid.per_axis is None:
            return grid
        return grid.along(list(attributes["permutation"]).index(grid.per_axis)) if kind is TransposeOp else None

    def ssa(self, value: Value, location: LocationAttr) -> SSAValue:
        """The value as an operand: known numbers become a constant (floats in float32), fake-quantised if on a grid.

        Raises ImportModelError HB0130 for NaN and infinities, HB0152 for integers that wait for DequantizeLinear.
        """
        if isinstance(value, SSAValue):
            return value
        if isinstance(value, Quantized):
            raise ImportModelError(
                Refusal.INTEGER_DATA,
                "quantised integers are used without DequantizeLinear",
                lever="export the model in QDQ form",
            )
        known = self._constants.get(id(value))
        if known is not None:
            return known[1]
        array, element = _constant_form(value)
        op: Operation = constant(array, self.store, element, location)
        self.operations.append(op)
        result: SSAValue = op.results[0]
        if value.grid is not None:
            op = FakeQuantOp.make(result, grid=value.grid, location=location)
            self.operations.append(op)
            result = op.results[0]
        self._constants[id(value)] = (value, result)
        return result

    def allow(self, array: Array) -> Array:
        """A constant of the file: what is computed from it may be large where it is."""
        self._left += _PER_BYTE * array.nbytes
        return array

    def charge(self, elements: int) -> None:
        """Count elements before they are computed during import. Raises ImportModelError HB0122 when there are too many."""
        self._left -= elements
        if self._left < 0:
            raise ImportModelError(
                Refusal.TOO_LARGE_TENSOR,
                "constants that the model computes from others are too large",
                why=f"the limit is {MAX_COMPUTED} elements, and {_PER_BYTE} for each byte of constants in the file",
                lever="check the model's shapes; else store the constants in the model (onnxsim does)",
            )

    def retype(self, argument: SSAValue, type_: Attribute) -> SSAValue:
        """An input that nothing has used yet, with another type."""
        new = Rewriter.replace_value_with_new_type(argument, type_)
        if isinstance(new, BlockArgument) and isinstance(argument, BlockArgument):
            new.location = argument.location
        self.replaced[argument] = new
        return new

    @staticmethod
    def _check_size(shape: Sequence[int], limit: int) -> None:
        check_axes(shape)
        if math.prod(shape) > limit or max(shape, default=0) > limit:
            raise ImportModelError(
                Refusal.TOO_LARGE_TENSOR,
                f"a tensor of {extent_text(tuple(shape))} is too large",
                why=f"the limit is {limit} elements",
                lever="check the model's shapes; this one is probably damaged",
            )


def _constant_form(value: Static) -> tuple[Array, Attribute]:
    array = value.array
    if np.issubdtype(array.dtype, np.floating):
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise ImportModelError(
                Refusal.NOT_FINITE,
                f"constant '{value.name}' holds NaN or infinity" if value.name else "a constant holds NaN or infinity",
                why="no quantised value can stand for it; constants are held in float32",
                lever="repair the weights, or clip the constant to a finite value",
            )
        return array, f32
    if array.dtype.kind == "i":
        return array, IntegerType(8 * array.dtype.itemsize)
    raise VerifyException(f"a constant of {array.dtype} has no place among the data of a network")
