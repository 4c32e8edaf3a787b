"""Gives the operands of every concat one grid, because a concatenated tensor has one scale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.ir import Operation, SSAValue

from hbir.dialects.hbir import ConcatOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from passes.analysis import keeps_grid, output_cone
from passes.manager import Pass, Promise
from passes.rewriting import blocks

__all__ = ["UnifyScales", "source_grid"]


def source_grid(value: SSAValue) -> FakeQuantOp | None:
    """The fake quant that a value takes its grid from, through operations that keep it; None when there is none."""
    while isinstance(value.owner, Operation):
        if isinstance(value.owner, FakeQuantOp):
            return value.owner
        if not keeps_grid(value.owner):
            return None
        value = value.owner.operands[0]
    return None


def _reach(grid: UniformQuantizedType) -> float:
    low, high = grid.limits
    return max(high - grid.zero_point, grid.zero_point - low) * grid.scale


@dataclass(frozen=True)
class UnifyScales(Pass):
    """The widest operand sets the grid. An operand that only the concat reads takes it over; one with other readers
    keeps its own for them and is rescaled for the concat. A concat that only feeds outputs works on floats and is left
    alone: boxes and scores must not share a scale."""

    name: ClassVar[str] = "unify-scales"
    promise: ClassVar[Promise] = Promise.NUMERIC

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            cone = output_cone(block)
            for op in reversed(list(block.ops)):
                if isinstance(op, ConcatOp) and op not in cone:
                    _unify(op)


def _unify(op: ConcatOp) -> None:
    sources = [source_grid(value) for value in op.inputs]
    grids = [source.grid for source in sources if source is not None]
    if not grids or len(grids) != len(sources):
        return
    # The reader behind the concat may have fixed the grid already (a concat of a concat, an imported model).
    following = [use.operation for use in op.output.uses]
    fixed = following[0].grid if len(following) == 1 and isinstance(following[0], FakeQuantOp) else None
    shared = fixed or max(grids, key=_reach)
    for index, source in enumerate(sources):
        if source is None or source.grid == shared:
            continue
        if source.output.has_one_use() and next(iter(source.output.uses)).operation is op and fixed is None:
            source.properties["grid"] = shared
        else:
            fake = FakeQuantOp.make(op.inputs[index], grid=shared)
            fake.location = source.location
            block = op.parent_block()
            if block is not None:
                block.insert_op_before(fake, op)
            op.operands[index] = fake.output
