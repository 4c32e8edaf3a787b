"""Simplifies: operations that do nothing go, neighbours of one kind become one, products with constants become layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import HbOperation, tensor_type
from hbir.dialects.hbir import (
    AddOp,
    BinaryOp,
    ClipOp,
    ConcatOp,
    Conv2dOp,
    DivOp,
    ExpandOp,
    LinearOp,
    MatmulOp,
    MaximumOp,
    MinimumOp,
    MulOp,
    PadOp,
    ReshapeOp,
    SliceOp,
    SubOp,
    TransposeOp,
    constant,
)
from hbir.dialects.qat import FakeQuantOp
from hbir.module import Module
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, only_user, replace
from passes.manager import Pass, Promise

__all__ = ["Canonicalize", "combine_permutations"]

Rewrite = Callable[[Any, Module], SSAValue | None]


def combine_permutations(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    """The permutation that does `first`, then `second`."""
    return tuple(first[axis] for axis in second)


def _reshape(op: ReshapeOp, module: Module) -> SSAValue | None:
    if op.input.type == op.output.type:
        return op.input
    if isinstance(op.input.owner, ReshapeOp):
        return insert_before(op, ReshapeOp.make(op.input.owner.input, shape=op.values["shape"]), [op]).output
    return None


def _transpose(op: TransposeOp, module: Module) -> SSAValue | None:
    permutation = cast(tuple[int, ...], op.values["permutation"])
    if permutation == tuple(range(len(permutation))):
        return op.input
    if isinstance(op.input.owner, TransposeOp):
        joined = combine_permutations(op.input.owner.values["permutation"], permutation)
        if joined == tuple(range(len(joined))):
            return op.input.owner.input
        return insert_before(op, TransposeOp.make(op.input.owner.input, permutation=joined), [op]).output
    return None


def _of_everything(op: SliceOp | ExpandOp | PadOp, module: Module) -> SSAValue | None:
    """A slice of the whole, an expansion to the same shape, a pad by nothing."""
    return op.input if op.input.type == op.output.type else None


def _slice(op: SliceOp, module: Module) -> SSAValue | None:
    """A slice of a concat that lies in one operand is a slice of that one, whose values then need share no grid."""
    concat = op.input.owner
    if not isinstance(concat, ConcatOp):
        return _of_everything(op, module)
    axis, start = cast(int, concat.values["axis"]), 0
    low, high = op.values["begin"][axis], op.values["end"][axis]
    for part in concat.inputs:
        extent = tensor_type(part.type).get_shape()[axis]
        if start <= low < high <= start + extent:
            begin, end = list(op.values["begin"]), list(op.values["end"])
            begin[axis], end[axis] = low - start, high - start
            return insert_before(op, SliceOp.make(part, begin=begin, end=end, step=op.values["step"]), [op]).output
        start += extent
    return _of_everything(op, module)


def _concat(op: ConcatOp, module: Module) -> SSAValue | None:
    return op.inputs[0] if len(op.inputs) == 1 else None


def _clip(op: ClipOp, module: Module) -> SSAValue | None:
    low, high = op.values["min"], op.values["max"]
    if low is None and high is None:
        return op.input
    inner = op.input.owner
    if isinstance(inner, ClipOp) and only_user(inner.output) is op:
        lows = [v for v in (low, inner.values["min"]) if v is not None]
        highs = [v for v in (high, inner.values["max"]) if v is not None]
        low, high = (max(lows) if lows else None), (min(highs) if highs else None)
        if low is None or high is None or low <= high:
            return insert_before(op, ClipOp.make(inner.input, min=low, max=high), [inner, op]).output
    return None


def _conv(op: Conv2dOp, module: Module) -> SSAValue | None:
    """Zero padding of height and width in front of a convolution becomes the convolution's own."""
    pad = op.input.owner
    if not isinstance(pad, PadOp) or pad.values["mode"] != "constant" or pad.values["value"] != 0.0:
        return None
    before, after = pad.values["before"], pad.values["after"]
    if before[0] or before[3] or after[0] or after[3] or only_user(pad.output) is not op:
        return None
    values = op.values
    top, left, bottom, right = values["pad"]
    values["pad"] = (top + before[1], left + before[2], bottom + after[1], right + after[2])
    return insert_before(op, Conv2dOp.make(pad.input, op.weight, op.bias, op.residual, **values), [pad, op]).output


def _neutral(op: BinaryOp, module: Module) -> SSAValue | None:
    neutral = 0.0 if isinstance(op, AddOp | SubOp) else 1.0
    pairs = [(op.lhs, op.rhs)] if isinstance(op, SubOp | DivOp) else [(op.lhs, op.rhs), (op.rhs, op.lhs)]
    for value, other in pairs:
        array = constant_of(other, module.constants)
        if array is not None and value.type == op.output.type and array.size and bool((array == neutral).all()):
            return value
    return None


def _binary(op: BinaryOp, module: Module) -> SSAValue | None:
    """What changes nothing goes; what is expanded only to be combined is not expanded: the operation broadcasts."""
    same = _neutral(op, module) if isinstance(op, AddOp | DivOp | MulOp | SubOp) else None
    if same is not None:
        return same
    inner = [v.owner.input if isinstance(v.owner, ExpandOp) else v for v in (op.lhs, op.rhs)]
    for pair in ((inner[0], inner[1]), (inner[0], op.rhs), (op.lhs, inner[1])):
        shapes = [tensor_type(value.type).get_shape() for value in pair]
        if pair != (op.lhs, op.rhs) and np.broadcast_shapes(*shapes) == tensor_type(op.output.type).get_shape():
            return insert_before(op, type(op).make(*pair), [op]).output
    return None


def _div(op: DivOp, module: Module) -> SSAValue | None:
    """Division by a constant power of two is a product, exactly."""
    same = _binary(op, module)
    if same is not None:
        return same
    array = constant_of(op.rhs, module.constants)
    if array is None or not np.issubdtype(array.dtype, np.floating):
        return None
    if not array.size or not bool((np.frexp(array)[0] == 0.5).all()):
        return None
    with np.errstate(over="ignore"):
        reciprocal = 1 / array
    if not bool(np.isfinite(reciprocal).all()):
        return None
    inverse = insert_before(op, constant(reciprocal, module.constants, tensor_type(op.rhs.type).element_type), [op])
    return insert_before(op, MulOp.make(op.lhs, inverse.output), [op]).output


def _matmul(op: MatmulOp, module: Module) -> SSAValue | None:
    """A product with a constant matrix is a linear layer."""
    value, grid = op.rhs, None
    if isinstance(value.owner, FakeQuantOp):
        value, grid = value.owner.input, value.owner.grid
    array = constant_of(value, module.constants)
    if array is None or array.ndim != 2:
        return None
    element = tensor_type(value.type).element_type
    weight = insert_before(op, constant(np.ascontiguousarray(array.T), module.constants, element), [op]).output
    if grid is not None:
        moved = grid.along(-1 if grid.per_axis is None else 1 - grid.per_axis)
        weight = insert_before(op, FakeQuantOp.make(weight, grid=moved), [op]).output
    return insert_before(op, LinearOp.make(op.lhs, weight, None, min=None, max=None), [op]).output


_REWRITES: dict[type[Operation], Rewrite] = {
    AddOp: _binary,
    ClipOp: _clip,
    ConcatOp: _concat,
    Conv2dOp: _conv,
    DivOp: _div,
    ExpandOp: _of_everything,
    MatmulOp: _matmul,
    MaximumOp: _binary,
    MinimumOp: _binary,
    MulOp: _binary,
    PadOp: _of_everything,
    ReshapeOp: _reshape,
    SliceOp: _slice,
    SubOp: _binary,
    TransposeOp: _transpose,
}


@dataclass(frozen=True)
class Canonicalize(Pass):
    """One sweep in program order; a rewrite sees operands that are already simplified."""

    name: ClassVar[str] = "canonicalize"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                work: HbOperation | None = op if isinstance(op, HbOperation) else None
                while work is not None and (rewrite := _REWRITES.get(type(work))) is not None:
                    value = rewrite(work, module)
                    if value is None:
                        break
                    replace(work, [value])
                    work = value.owner if isinstance(value.owner, HbOperation) else None
            erase_dead(block)
