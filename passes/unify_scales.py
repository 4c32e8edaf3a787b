"""Gives the operands of every concat one grid, because a concatenated tensor has one scale."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects.hbir import ConcatOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from passes.common.analysis import grid_sources, output_cone
from passes.common.observers import grid_for
from passes.common.rewriting import blocks, insert_before, only_user
from passes.manager import Pass, Promise

__all__ = ["UnifyScales"]


def _exclusive(value: SSAValue) -> bool:
    """Whether nobody but one reader sees the value or what it is made of, up to the fake quants."""
    if not value.has_one_use():
        return False
    owner = value.owner
    return isinstance(owner, FakeQuantOp) or (isinstance(owner, Operation) and all(map(_exclusive, owner.operands)))


def _reach(grid: UniformQuantizedType) -> float:
    low, high = grid.limits
    return max(high - grid.zero_point, grid.zero_point - low) * grid.scale


def _bounds(grid: UniformQuantizedType) -> tuple[float, float]:
    low, high = grid.limits
    return (low - grid.zero_point) * grid.scale, (high - grid.zero_point) * grid.scale


def _joint(a: UniformQuantizedType, b: UniformQuantizedType) -> UniformQuantizedType:
    """A grid over the ranges of both: one of them where it covers the other, as the wider of two symmetric ones does."""
    (a_low, a_high), (b_low, b_high) = _bounds(a), _bounds(b)
    if a_low <= b_low and b_high <= a_high:
        return a
    if b_low <= a_low and a_high <= b_high:
        return b
    return grid_for((min(a_low, b_low), max(a_high, b_high)), max(a.bits, b.bits), False)


@dataclass
class _Classes:
    """Fake quants that must share a grid, which covers the ranges of all."""

    parent: dict[FakeQuantOp, FakeQuantOp] = field(default_factory=dict[FakeQuantOp, FakeQuantOp])
    grids: dict[FakeQuantOp, UniformQuantizedType] = field(default_factory=dict[FakeQuantOp, UniformQuantizedType])

    def root(self, op: FakeQuantOp) -> FakeQuantOp:
        while op in self.parent:
            op = self.parent[op]
        return op

    def join(self, a: FakeQuantOp, b: FakeQuantOp) -> None:
        first, second = self.root(a), self.root(b)
        if first is second:
            return
        self.grids[first] = _joint(self.grid(first), self.grid(second))
        self.parent[second] = first

    def grid(self, op: FakeQuantOp) -> UniformQuantizedType:
        """The grid of an operation's class."""
        root = self.root(op)
        return self.grids.get(root, root.grid)


@dataclass(frozen=True)
class UnifyScales(Pass):
    """The widest operand sets the grid. An operand with other readers follows when that costs it at most a factor
    `ratio` of resolution; otherwise it keeps its grid for them and is rescaled for the concat. A concat that only feeds
    outputs works on floats and is left alone: boxes and scores must not share a scale. A fake quant right behind a concat
    (an imported model) moves in front of it, which changes no value."""

    name: ClassVar[str] = "unify-scales"
    promise: ClassVar[Promise] = Promise.NUMERIC

    ratio: int | float = 2.0
    """Largest loss of resolution, as a factor, for which an operand with other readers follows."""

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            self._unify(block)

    def _unify(self, block: Block) -> None:
        cone, classes = output_cone(block), _Classes()
        for op in list(block.ops):
            if not isinstance(op, ConcatOp) or op in cone:
                continue
            follower = only_user(op.output)
            if isinstance(follower, FakeQuantOp) and follower.grid.per_axis is None:
                for index, value in enumerate(op.inputs):
                    if not (isinstance(value.owner, FakeQuantOp) and value.owner.grid == follower.grid):
                        op.operands[index] = insert_before(op, FakeQuantOp.make(value, grid=follower.grid), [op]).output
                continue
            found = [grid_sources(value) for value in op.inputs]
            sources = [source for source in found if source]
            if not sources or len(sources) != len(op.inputs):
                continue
            widest = max((classes.root(s) for many in sources for s in many), key=lambda s: _reach(classes.grid(s)))
            for index, many in enumerate(sources):
                value = op.inputs[index]
                near = all(_reach(classes.grid(s)) * self.ratio >= _reach(classes.grid(widest)) for s in many)
                if near or _exclusive(value):
                    for source in many:
                        classes.join(source, widest)
                else:
                    fake = insert_before(op, FakeQuantOp.make(value, grid=classes.grid(widest)), [many[0]])
                    op.operands[index] = fake.output
                    classes.join(fake, widest)
        for member in dict.fromkeys((*classes.parent, *classes.grids)):
            member.properties["grid"] = classes.grid(member)
