"""Widens grids that are finer than what their operation can tell apart, so that every rescale factor has a multiplier.

A mean that is zero but for float noise, as that of a normalised row is, has an observed range of 1e-9. Its integers come
from an accumulator whose step is that of the operands' grids, and codes between two accumulator steps never occur: a grid
so fine says nothing and would need a factor that no multiplier holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import shape_of
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from passes.common.analysis import grid_sources
from passes.common.rewriting import blocks
from passes.manager import Pass, Promise
from passes.unify_scales import UnifyScales

__all__ = ["CoarsenGrids", "accumulator_step"]


def _step(value: SSAValue) -> float:
    """The widest step among the grids that a value takes its own from; 0 where it has none."""
    sources = grid_sources(value) or []
    return max((float(scale) for source in sources for scale in source.grid.scale_array), default=0.0)


def _product(op: Any) -> float:
    return _step(op.lhs) * _step(op.rhs)


def _widest(op: Any) -> float:
    return max(map(_step, op.operands))


def _weighted(op: Any) -> float:
    residual = op.residual if isinstance(op, f.Conv2dOp) else None
    return max(_step(op.input) * _step(op.weight), 0.0 if residual is None else _step(residual))


def _reduce(op: f.ReduceOp) -> float:
    shape = shape_of(op.input.type)
    axes: Sequence[int] = op.values["axes"]
    count = prod(shape[axis] for axis in axes) if op.values["kind"] == "mean" else 1
    return _step(op.input) / max(count, 1)


def _resize(op: f.ResizeBilinearOp) -> float:
    return _step(op.input) / (op.values["rows"][3] * op.values["columns"][3])


_STEPS: dict[type[Operation], Callable[[Any], float]] = {
    f.AddOp: _widest,
    f.ClipOp: _widest,
    f.Conv2dOp: _weighted,
    f.LinearOp: _weighted,
    f.MatmulOp: _product,
    f.MaximumOp: _widest,
    f.MinimumOp: _widest,
    f.MulOp: _product,
    f.ReduceOp: _reduce,
    f.ResizeBilinearOp: _resize,
    f.SubOp: _widest,
}


def accumulator_step(op: Operation) -> float:
    """The value of one accumulator step of a float operation whose operands lie on grids, as its integer form has it.

    For a sum of two values it is the wider of their steps: what is smaller has been rounded away. 0 for operations that are
    tables (any grid suits them) and where an operand has no grid.
    """
    found = _STEPS.get(type(op))
    return 0.0 if found is None else found(op)


def _coarsened(grid: UniformQuantizedType, scale: float) -> UniformQuantizedType:
    return UniformQuantizedType.get(grid.bits, scale, grid.zero_point, narrow=grid.narrow)


@dataclass(frozen=True)
class CoarsenGrids(Pass):
    """No result has a step below 2^-(bits - 4) of its accumulator's: a sixteenth for int8, a 4096th for int16.

    That keeps the range: eight accumulator steps or more. It adds at most a sixteenth to the rounding that is there, and the
    factor accumulator / result stays at or below 2^(bits - 4), which multipliers of 15 bits hold. Operands of a concat that get
    different grids so are brought together again, until nothing changes.
    """

    name: ClassVar[str] = "coarsen-grids"
    promise: ClassVar[Promise] = Promise.NUMERIC

    def run(self, module: Module) -> None:
        while any(_coarsen(block) for _, block in blocks(module)):
            UnifyScales().run(module)


def _coarsen(block: Block) -> bool:
    """One sweep in program order; whether a grid changed."""
    changed = False
    for op in block.ops:
        if not isinstance(op, FakeQuantOp) or op.grid.per_axis is not None or not isinstance(op.input.owner, Operation):
            continue
        finest = accumulator_step(op.input.owner) / 2.0 ** (op.grid.bits - 4)
        if op.grid.scale < finest * (1 - 2.0**-20):
            op.properties["grid"] = _coarsened(op.grid, finest)
            changed = True
    return changed
