"""Fuses what follows a convolution or linear layer into it: the residual add, then relu, relu6 or clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.ir import Operation, SSAValue

from hbir.dialects.hbir import AddOp, ClipOp, ConstantOp, Conv2dOp, LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.module import Module
from passes.common.rewriting import blocks, erase_dead, insert_before, only_user, replace
from passes.manager import Pass, Promise

__all__ = ["FuseConvAddRelu"]


def _order(block_ops: list[Operation]) -> dict[Operation, int]:
    return {op: index for index, op in enumerate(block_ops)}


def _unclamped(op: Operation) -> bool:
    return isinstance(op, Conv2dOp | LinearOp) and op.values["min"] is None and op.values["max"] is None


def _fuse_add(op: AddOp, order: dict[Operation, int]) -> Conv2dOp | None:
    """The add joins the later of the two convolutions that feed it, so that the other operand is there in time."""
    candidates: list[tuple[int, Conv2dOp, SSAValue]] = []
    for value, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        conv = value.owner
        if (
            isinstance(conv, Conv2dOp)
            and _unclamped(conv)
            and conv.residual is None
            and only_user(value) is op
            and value.type == other.type
            and value is not other
            # A residual needs a grid. What calibration will give a constant, a model that has its grids does not.
            and not (isinstance(other.owner, ConstantOp) and isinstance(conv.weight.owner, FakeQuantOp))
        ):
            candidates.append((order.get(conv, len(order)), conv, other))
    if not candidates:
        return None
    _, conv, other = max(candidates, key=lambda c: c[0])
    return insert_before(op, Conv2dOp.make(conv.input, conv.weight, conv.bias, other, **conv.values), [conv, op])


def _fuse_clip(op: ClipOp) -> Conv2dOp | LinearOp | None:
    layer = op.input.owner
    if not isinstance(layer, Conv2dOp | LinearOp) or not _unclamped(layer) or only_user(op.input) is not op:
        return None
    values = layer.values | {"min": op.values["min"], "max": op.values["max"]}
    if isinstance(layer, Conv2dOp):
        fused = Conv2dOp.make(layer.input, layer.weight, layer.bias, layer.residual, **values)
        return insert_before(op, fused, [layer, op])
    return insert_before(op, LinearOp.make(layer.input, layer.weight, layer.bias, **values), [layer, op])


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
                if fused is not None:
                    order[fused] = order[op]
                    replace(op, [fused.output])
            erase_dead(block)
