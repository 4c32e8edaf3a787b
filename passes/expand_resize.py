"""Rewrites nearest resizes behind the last layer as movement that units do on floats: the layer keeps its accumulator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.ir import SSAValue

from hbir.dialects.base import HbOperation, shape_of
from hbir.dialects.hbir import ExpandOp, ReshapeOp, ResizeNearestOp
from hbir.module import Module
from passes.common.analysis import is_float, output_cone
from passes.common.rewriting import blocks, insert_before, replace
from passes.manager import Pass, Promise

__all__ = ["ExpandResize"]


def _factor(picked: tuple[int, ...], size: int) -> int | None:
    """How often each of `size` positions is repeated, or None when that is not all there is to it."""
    factor = len(picked) // max(size, 1)
    return factor if picked == tuple(at for at in range(size) for _ in range(factor)) else None


def _expanded(op: ResizeNearestOp) -> SSAValue | None:
    n, height, width, depth = shape_of(op.input.type)
    if not is_float(op.input):
        return None
    down, across = _factor(op.values["rows"], height), _factor(op.values["columns"], width)
    if not down or not across:
        return None

    def put(made: HbOperation) -> SSAValue:
        return insert_before(op, made, [op]).results[0]

    split = put(ReshapeOp.make(op.input, shape=(n, height, 1, width, 1, depth)))
    repeated = put(ExpandOp.make(split, shape=(n, height, down, width, across, depth)))
    return put(ReshapeOp.make(repeated, shape=(n, height * down, width * across, depth)))


@dataclass(frozen=True)
class ExpandResize(Pass):
    """A nearest resize by whole factors becomes reshape, expand and reshape, where nothing but movement leads from it to
    the outputs. Others stay: on integers one unit does them at once."""

    name: ClassVar[str] = "expand-resize"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            cone = output_cone(block, resizes=True)
            for op in list(block.ops):
                value = _expanded(op) if isinstance(op, ResizeNearestOp) and op in cone else None
                if value is not None:
                    replace(op, [value])
