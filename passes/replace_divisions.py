"""Replaces divisions, which no unit has, by products: with a constant's reciprocal, or with one more table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.ir import SSAValue

from hbir.dialects.base import tensor_type
from hbir.dialects.hbir import ClipOp, DivOp, FunctionOp, MulOp, constant
from hbir.dialects.qat import FakeQuantOp
from hbir.module import Module
from passes.common.analysis import is_float
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, replace
from passes.manager import Pass, Promise

__all__ = ["ReplaceDivisions"]


def _reciprocal_constant(op: DivOp, module: Module) -> SSAValue | None:
    """`1 / c` of a constant divisor, None where it is not finite: then a quotient can be finite where a product is not."""
    array = constant_of(op.rhs, module.constants)
    if array is None:
        return None
    with np.errstate(divide="ignore", over="ignore"):
        reciprocal = (1 / array.astype(np.float64)).astype(array.dtype)
    if not bool(np.isfinite(reciprocal).all()):
        return None
    element = tensor_type(op.rhs.type).element_type
    return insert_before(op, constant(reciprocal, module.constants, element), [op]).output


def _square_root_of(value: SSAValue) -> tuple[SSAValue, float | None] | None:
    """(v, low) when a divisor is `max(sqrt(v), low)`, low None without a bound: the norms that exporters write."""
    bound = value.owner
    low = None
    if isinstance(bound, ClipOp):
        low, high = bound.values["min"], bound.values["max"]
        if low is None or low < 0 or high is not None:
            return None
        value = bound.input
    root = value.owner
    return (root.input, low) if isinstance(root, FunctionOp) and root.values["function"] == "sqrt" else None


def _reciprocal(op: DivOp) -> SSAValue:
    """`1 / y` as one function: of a root's operand rather than of the root, which would be rounded once more."""
    found = _square_root_of(op.rhs)
    if found is None:
        return insert_before(op, FunctionOp.make(op.rhs, function="reciprocal"), [op]).output
    value, low = found
    if low is not None:
        value = insert_before(op, ClipOp.make(value, min=low * low, max=None), [op]).output
    return insert_before(op, FunctionOp.make(value, function="rsqrt"), [op]).output


def _on_grid(op: DivOp) -> bool:
    """Whether the model says the grids around a division: what is put in between would have none."""
    return any(isinstance(value.owner, FakeQuantOp) for value in op.operands)


@dataclass(frozen=True)
class ReplaceDivisions(Pass):
    """`x / c` becomes `x * (1 / c)`, `x / y` becomes `x * reciprocal(y)`, and `x / sqrt(v)` becomes `x * rsqrt(v)`.

    Float tensors only. A constant whose reciprocal overflows stays a divisor, and so does what reads fake-quantised values,
    unless the divisor is a constant.
    """

    name: ClassVar[str] = "replace-divisions"
    promise: ClassVar[Promise] = Promise.NUMERIC

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if not isinstance(op, DivOp) or not is_float(op.output):
                    continue
                factor = _reciprocal_constant(op, module)
                if factor is None:
                    if constant_of(op.rhs, module.constants) is not None or _on_grid(op):
                        continue
                    factor = _reciprocal(op)
                replace(op, [insert_before(op, MulOp.make(op.lhs, factor), [op]).output])
            erase_dead(block)
