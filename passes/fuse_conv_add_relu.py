"""Fuses what follows a convolution or linear layer into it: the residual add, then relu, relu6 or clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import shape_of
from hbir.dialects.hbir import AddOp, ClipOp, ConstantOp, Conv2dOp, LinearOp, ReshapeOp, TransposeOp
from hbir.dialects.qat import FakeQuantOp
from hbir.module import Module
from passes.common.rewriting import blocks, erase_dead, insert_before, only_user, replace
from passes.manager import Pass, Promise

__all__ = ["FuseConvAddRelu"]


def _order(block_ops: list[Operation]) -> dict[Operation, int]:
    return {op: index for index, op in enumerate(block_ops)}


def _unclamped(op: Operation) -> bool:
    return isinstance(op, Conv2dOp | LinearOp) and op.values["min"] is None and op.values["max"] is None


_Move: TypeAlias = TransposeOp | ReshapeOp


def _behind(value: SSAValue, reader: Operation) -> tuple[SSAValue, list[_Move]]:
    """What a value is but for moves that nobody else reads, and these, last first."""
    moves: list[_Move] = []
    while isinstance(value.owner, TransposeOp | ReshapeOp) and only_user(value) is reader:
        reader = value.owner
        moves.append(value.owner)
        value = value.owner.input
    return value, moves


def _moved_back(value: SSAValue, moves: list[_Move], anchor: Operation) -> SSAValue:
    """A value in the order of axes that it has in front of the moves."""
    for move in moves:
        if isinstance(move, TransposeOp):
            back = tuple(int(axis) for axis in np.argsort(move.values["permutation"]))
            value = insert_before(anchor, TransposeOp.make(value, permutation=back), [move]).output
        else:
            value = insert_before(anchor, ReshapeOp.make(value, shape=shape_of(move.input.type)), [move]).output
    return value


def _moved(value: SSAValue, moves: list[_Move], anchor: Operation) -> SSAValue:
    """A value behind the moves."""
    for move in reversed(moves):
        value = insert_before(anchor, type(move).make(value, **move.values), [move]).output
    return value


def _fuse_add(op: AddOp, order: dict[Operation, int]) -> SSAValue | None:
    """The add joins the later of the two convolutions that feed it, so that the other operand is there in time."""
    candidates: list[tuple[int, Conv2dOp, SSAValue, list[_Move]]] = []
    for given, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        value, moves = _behind(given, op)
        conv = value.owner
        if (
            isinstance(conv, Conv2dOp)
            and _unclamped(conv)
            and conv.residual is None
            and only_user(value) is (moves[-1] if moves else op)
            and given.type == other.type
            and given is not other
            # Of a float model the sum has a grid of its own wherever it stands; one that has its grids relies on the fusion.
            and (not moves or isinstance(conv.weight.owner, FakeQuantOp))
            # A residual needs a grid. What calibration will give a constant, a model that has its grids does not.
            and not (isinstance(other.owner, ConstantOp) and isinstance(conv.weight.owner, FakeQuantOp))
        ):
            candidates.append((order.get(conv, len(order)), conv, other, moves))
    if not candidates:
        return None
    _, conv, other, moves = max(candidates, key=lambda c: c[0])
    residual = _moved_back(other, moves, op)
    fused = Conv2dOp.make(conv.input, conv.weight, conv.bias, residual, **conv.values)
    return _moved(insert_before(op, fused, [conv, op]).output, moves, op)


def _fuse_clip(op: ClipOp) -> SSAValue | None:
    value, moves = _behind(op.input, op)
    layer = value.owner
    if not isinstance(layer, Conv2dOp | LinearOp) or not _unclamped(layer):
        return None
    if only_user(value) is not (moves[-1] if moves else op):
        return None
    values = layer.values | {"min": op.values["min"], "max": op.values["max"]}
    made: Conv2dOp | LinearOp = (
        Conv2dOp.make(layer.input, layer.weight, layer.bias, layer.residual, **values)
        if isinstance(layer, Conv2dOp)
        else LinearOp.make(layer.input, layer.weight, layer.bias, **values)
    )
    return _moved(insert_before(op, made, [layer, op]).output, moves, op)


@dataclass(frozen=True)
class FuseConvAddRelu(Pass):
    """conv, add, clip -> conv with residual and clamp. A fused layer means its parts, so nothing is rounded differently."""

    name: ClassVar[str] = "fuse-conv-add-relu"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            ops = list(block.ops)
            order = _order(ops)
            for op in ops:
                fused = None
                if isinstance(op, AddOp):
                    fused = _fuse_add(op, order)
                elif isinstance(op, ClipOp):
                    fused = _fuse_clip(op)
                if fused is None:
                    continue
                replace(op, [fused])
                reader = only_user(fused)
                layer, moves = (fused, []) if reader is None else _behind(fused, reader)
                if isinstance(layer.owner, Operation):
                    order[layer.owner] = order[op]
                if moves and isinstance(reader, FakeQuantOp) and reader.grid.per_axis is None:
                    # Right behind the layer it says the grid of the layer's result.
                    held = insert_before(reader, FakeQuantOp.make(layer, grid=reader.grid), [reader]).output
                    replace(reader, [_moved(held, moves, reader)])
            erase_dead(block)
