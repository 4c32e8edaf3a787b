"""Brings the network to NHWC: transposes sink through operations that do not care about the order of axes, and cancel.

A front end wraps each channels-last operation in a pair of transposes. One sweep in program order moves every transpose
behind its users where that leaves the same values, so that the second of a pair meets the first and both go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import HbOperation, shape_of, tensor_type
from hbir.dialects.hbir import (
    BINARY_OPS,
    BinaryOp,
    ClipOp,
    ConcatOp,
    ExpandOp,
    FunctionOp,
    LinearOp,
    PadOp,
    ReduceOp,
    ReshapeOp,
    SliceOp,
    SoftmaxOp,
    TransposeOp,
    constant,
)
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from passes.canonicalize import combine_permutations
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, only_user, replace
from passes.manager import Pass, Promise

__all__ = ["CancelTransposes"]

Permutation = tuple[int, ...]


def _inverse(permutation: Sequence[int]) -> Permutation:
    return tuple(int(i) for i in np.argsort(permutation))


def _source(value: SSAValue) -> tuple[SSAValue, Permutation] | None:
    """What a transpose transposes, and how."""
    return (
        (value.owner.input, tuple(value.owner.values["permutation"])) if isinstance(value.owner, TransposeOp) else None
    )


def _behind(op: Operation, moved: HbOperation, permutation: Permutation) -> list[SSAValue]:
    """`moved`, then the transpose that used to stand before it."""
    insert_before(op, moved, [op])
    return [insert_before(op, TransposeOp.make(moved.results[0], permutation=permutation), [op]).output]


def _pick(values: Sequence[int], permutation: Permutation) -> tuple[int, ...]:
    """Per-axis numbers of the transposed tensor, in the axis order of its source."""
    return tuple(values[axis] for axis in _inverse(permutation))


def _unary(op: FunctionOp | ClipOp | FakeQuantOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    if found is None or (isinstance(op, FakeQuantOp) and op.grid.per_axis is not None):
        return None
    return _behind(op, type(op).make(found[0], **op.values), found[1])


def _aligned(value: SSAValue, permutation: Permutation, anchor: Operation, module: Module) -> SSAValue | None:
    """`value` in the axis order of the source, when that costs nothing: the same transpose, or a constant."""
    found = _source(value)
    if found is not None:
        return found[0] if found[1] == permutation else None
    # A fake-quantised constant keeps its grid; per-axis grids stay where they are.
    inner = value.owner.input if isinstance(value.owner, FakeQuantOp) and value.owner.grid.per_axis is None else value
    array = constant_of(inner, module.constants)
    if array is None:
        shape = shape_of(value.type)
        return value if prod(shape) == 1 and len(shape) in (0, len(permutation)) else None
    full = array.reshape((1,) * (len(permutation) - array.ndim) + array.shape)
    moved = constant(
        np.ascontiguousarray(full.transpose(_inverse(permutation))),
        module.constants,
        tensor_type(inner.type).element_type,
    )
    moved.location = inner.owner.location if isinstance(inner.owner, Operation) else moved.location
    result = insert_before(anchor, moved).output
    if inner is not value and isinstance(value.owner, FakeQuantOp):
        result = insert_before(anchor, FakeQuantOp.make(result, grid=value.owner.grid), [value.owner]).output
    return result


def _binary(op: BinaryOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.lhs) or _source(op.rhs)
    if found is None or len(found[1]) != len(shape_of(op.output.type)):
        return None
    operands = [_aligned(value, found[1], op, module) for value in op.operands]
    if any(value is None for value in operands):
        return None
    return _behind(op, type(op).make(*operands), found[1])


def _concat(op: ConcatOp, module: Module) -> list[SSAValue] | None:
    found = next((f for f in map(_source, op.inputs) if f is not None), None)
    if found is None:
        return None
    operands = [_aligned(value, found[1], op, module) for value in op.inputs]
    present = [value for value in operands if value is not None]
    if len(present) != len(operands):
        return None
    return _behind(op, ConcatOp.make(present, axis=found[1][op.values["axis"]]), found[1])


def _pad(op: PadOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    if found is None:
        return None
    values = op.values
    values["before"], values["after"] = _pick(values["before"], found[1]), _pick(values["after"], found[1])
    return _behind(op, PadOp.make(found[0], **values), found[1])


def _slice(op: SliceOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    if found is None:
        return None
    moved = SliceOp.make(found[0], **{key: _pick(bounds, found[1]) for key, bounds in op.values.items()})
    return _behind(op, moved, found[1])


def _expand(op: ExpandOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    if found is None or len(found[1]) != len(op.values["shape"]):
        return None
    return _behind(op, ExpandOp.make(found[0], shape=_pick(op.values["shape"], found[1])), found[1])


def _softmax(op: SoftmaxOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    return None if found is None else _behind(op, SoftmaxOp.make(found[0], axis=found[1][op.values["axis"]]), found[1])


def _reduce(op: ReduceOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    if found is None:
        return None
    source, permutation = found
    values = op.values
    axes: Sequence[int] = values["axes"]
    values["axes"] = tuple(permutation[axis] for axis in axes)
    if values["keep"]:
        return _behind(op, ReduceOp.make(source, **values), permutation)
    left = [axis for axis in permutation if axis not in values["axes"]]
    order = sorted(left)
    return _behind(op, ReduceOp.make(source, **values), tuple(order.index(axis) for axis in left))


def _groups(before: Sequence[int], after: Sequence[int]) -> list[tuple[range, range]] | None:
    """The smallest groups of neighbouring axes that a reshape maps onto each other; None when there is no split."""
    result: list[tuple[range, range]] = []
    i = j = 0
    while i < len(before) or j < len(after):
        a, b = i, j
        left = before[i] if i < len(before) else 1
        right = after[j] if j < len(after) else 1
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while left != right:
            if left < right and i < len(before):
                left *= before[i]
                i += 1
            elif right < left and j < len(after):
                right *= after[j]
                j += 1
            else:
                return None
        result.append((range(a, i), range(b, j)))
    return result


def _reshape(op: ReshapeOp, module: Module) -> list[SSAValue] | None:
    """A reshape that merges or splits axes which are neighbours in the source, too, works on the source."""
    found = _source(op.input)
    if found is None:
        return None
    source, permutation = found
    groups = _groups(shape_of(op.input.type), op.values["shape"])
    if groups is None:
        return None
    placed: list[tuple[int, range]] = []
    for before, after in groups:
        axes = [permutation[axis] for axis in before]
        if not axes or axes != list(range(axes[0], axes[0] + len(axes))):
            return None
        placed.append((axes[0], after))
    placed.sort(key=lambda item: item[0])
    order = [axis for _, after in placed for axis in after]
    shape = tuple(op.values["shape"][axis] for axis in order)
    return _behind(op, ReshapeOp.make(source, shape=shape), _inverse(order))


def _transpose(op: TransposeOp, module: Module) -> list[SSAValue] | None:
    found = _source(op.input)
    if found is None:
        return [op.input] if list(op.values["permutation"]) == list(range(len(op.values["permutation"]))) else None
    joined = combine_permutations(found[1], op.values["permutation"])
    if joined == tuple(range(len(joined))):
        return [found[0]]
    return [insert_before(op, TransposeOp.make(found[0], permutation=joined), [op]).output]


def _linear(op: LinearOp, module: Module) -> list[SSAValue] | None:
    """A flatten of transposed axes in front of a linear layer: the weight's columns are permuted instead."""
    chain: list[FakeQuantOp | ClipOp | FunctionOp] = []
    value = op.input
    while isinstance(value.owner, FakeQuantOp | ClipOp | FunctionOp) and only_user(value) is not None:
        chain.append(value.owner)
        value = value.owner.input
    flatten = value.owner
    if not isinstance(flatten, ReshapeOp) or only_user(value) is None:
        return None
    found = _source(flatten.input)
    shape = shape_of(flatten.input.type)
    if found is None or found[1][0] != 0 or tuple(flatten.values["shape"]) != (shape[0], prod(shape[1:])):
        return None
    fake = op.weight.owner if isinstance(op.weight.owner, FakeQuantOp) else None
    raw = op.weight if fake is None else fake.input
    weight = constant_of(raw, module.constants)
    if weight is None or (fake is not None and fake.grid.per_axis == 1):
        return None
    source, permutation = found
    if any(isinstance(link, FakeQuantOp) and link.grid.per_axis is not None for link in chain):
        return None
    order = (0, *(axis for axis in _inverse(permutation)[1:]))
    columns = weight.reshape(weight.shape[0], *shape[1:]).transpose(order).reshape(weight.shape)
    element = tensor_type(raw.type).element_type
    moved = insert_before(op, constant(np.ascontiguousarray(columns), module.constants, element), [op]).output
    if fake is not None:
        moved = insert_before(op, FakeQuantOp.make(moved, grid=fake.grid), [fake]).output
    current = insert_before(op, ReshapeOp.make(source, shape=flatten.values["shape"]), [flatten]).output
    for link in reversed(chain):
        current = insert_before(op, type(link).make(current, **link.values), [link]).results[0]
    return [insert_before(op, LinearOp.make(current, moved, op.bias, **op.values), [op]).output]


def _moves_nothing(op: TransposeOp) -> bool:
    """Whether only axes of extent 1 move: then the values stay in order, and a reshape does."""
    shape = shape_of(op.input.type)
    element = tensor_type(op.input.type).element_type
    if isinstance(element, UniformQuantizedType) and element.per_axis is not None:
        return False
    return [a for a in op.values["permutation"] if shape[a] != 1] == [a for a in range(len(shape)) if shape[a] != 1]


_RULES: dict[type[Operation], Callable[[Any, Module], list[SSAValue] | None]] = {
    **dict.fromkeys(BINARY_OPS, _binary),
    ClipOp: _unary,
    ConcatOp: _concat,
    ExpandOp: _expand,
    FakeQuantOp: _unary,
    FunctionOp: _unary,
    LinearOp: _linear,
    PadOp: _pad,
    ReduceOp: _reduce,
    ReshapeOp: _reshape,
    SliceOp: _slice,
    SoftmaxOp: _softmax,
    TransposeOp: _transpose,
}


@dataclass(frozen=True)
class CancelTransposes(Pass):
    """Sink transposes in program order; those that meet their inverse go."""

    name: ClassVar[str] = "cancel-transposes"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                rule = _RULES.get(type(op))
                values = None if rule is None else rule(op, module)
                if values is not None:
                    replace(op, values)
            erase_dead(block)
            for op in list(block.ops):
                if isinstance(op, TransposeOp) and _moves_nothing(op):
                    replace(
                        op, [insert_before(op, ReshapeOp.make(op.input, shape=shape_of(op.output.type)), [op]).output]
                    )
