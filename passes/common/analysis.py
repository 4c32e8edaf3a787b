"""Which float operations have an integer form: the one table that calibration and quantisation share."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import Float32Type
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects.base import tensor_type
from hbir.dialects.hbir import (
    AddOp,
    AvgPoolOp,
    ClipOp,
    ConcatOp,
    Conv2dOp,
    ExpandOp,
    FunctionOp,
    LinearOp,
    MatmulOp,
    MaximumOp,
    MaxPoolOp,
    MinimumOp,
    MulOp,
    PadOp,
    ReduceOp,
    ReshapeOp,
    ResizeBilinearOp,
    ResizeNearestOp,
    SliceOp,
    SoftmaxOp,
    SubOp,
    TransposeOp,
)
from hbir.dialects.qat import FakeQuantOp

__all__ = [
    "grid_sources",
    "has_integer_form",
    "is_float",
    "is_high_precision",
    "keeps_grid",
    "head_values",
    "output_cone",
    "positional_values",
]

_COMPUTING = (
    *(AddOp, ClipOp, Conv2dOp, FunctionOp, LinearOp, MatmulOp, MaximumOp, MinimumOp, MulOp),
    *(ResizeBilinearOp, SoftmaxOp, SubOp),
)
_MOVING = (ConcatOp, ExpandOp, PadOp, ReshapeOp, ResizeNearestOp, SliceOp, TransposeOp)


def is_float(value: SSAValue) -> bool:
    """Whether a value is an f32 tensor."""
    return isinstance(tensor_type(value.type).element_type, Float32Type)


def keeps_grid(op: Operation) -> bool:
    """Whether results lie on the grid of the operand: moves, maxima, and the mean of a window."""
    match op:
        case ReduceOp():
            return op.values["kind"] in ("max", "min")
        case AvgPoolOp():
            return not (op.values["count_pad"] and any(op.values["pad"])) and not op.values["ceil"]
        case PadOp():
            return op.values["mode"] == "constant"
        case _:
            return isinstance(op, (*_MOVING, MaxPoolOp))


def grid_sources(value: SSAValue) -> list[FakeQuantOp] | None:
    """The fake quants that a value takes its grid from, through operations that keep it; None when one is missing, or has
    scales along an axis, as only weights have."""
    owner = value.owner
    if isinstance(owner, FakeQuantOp):
        return [owner] if owner.grid.per_axis is None else None
    if not isinstance(owner, Operation) or not keeps_grid(owner):
        return None
    found: list[FakeQuantOp] = []
    for operand in owner.operands:
        inner = grid_sources(operand)
        if inner is None:
            return None
        found.extend(inner)
    return found


def has_integer_form(op: Operation) -> bool:
    """Whether an operation, given operands on grids, has an integer form whose result needs a grid of its own."""
    if isinstance(op, ReduceOp):
        return op.values["kind"] in ("sum", "mean")
    return isinstance(op, _COMPUTING)


def is_high_precision(op: Operation) -> bool:
    """Whether an operation can hand out its int32 accumulator: a plain convolution or linear layer."""
    if not isinstance(op, Conv2dOp | LinearOp) or op.values["min"] is not None or op.values["max"] is not None:
        return False
    return isinstance(op, LinearOp) or op.residual is None


def head_values(block: Block) -> tuple[set[SSAValue], set[SSAValue]]:
    """(values that reach an output past no convolution or matrix product on some path, those of them that none reads).

    What the first lose at the ends of their range, nothing averages out: a score, a box. They keep their whole range. The
    second get sixteen bits as well, which costs little there: a convolution that comes behind an operation with a grid of its
    own (a softmax, say) reads eight bits again.
    """
    near: set[SSAValue] = set()
    feeding: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        if isinstance(op, ReturnOp):
            near.update(op.operands)
        elif isinstance(op, Conv2dOp | LinearOp | MatmulOp):
            feeding.update(op.operands)
        else:
            if any(result in near for result in op.results):
                near.update(op.operands)
            if keeps_grid(op) and any(result in feeding for result in op.results):
                feeding.update(op.operands)
    return near, {value for value in near - feeding if not _sums_many(value)}


def _sums_many(value: SSAValue) -> bool:
    """Whether a reader sums more values than fit an int32 accumulator with sixteen bits each."""
    shape = tensor_type(value.type).get_shape()
    for use in value.uses:
        if isinstance(use.operation, ReduceOp) and use.operation.values["kind"] in ("sum", "mean"):
            axes: Sequence[int] = use.operation.values["axes"]
            if prod(shape[axis] for axis in axes) > 1 << 15:
                return True
    return False


def positional_values(block: Block) -> set[SSAValue]:
    """Values that reach an output without a sum over positions on the way: an object is few positions among many there,
    and what it makes large must not count as rare noise."""
    found: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        if isinstance(op, ReturnOp):
            found.update(value for value in op.operands if len(tensor_type(value.type).get_shape()) > 2)
        elif not isinstance(op, ReduceOp | LinearOp) and any(result in found for result in op.results):
            found.update(op.operands)
    return found


def _moves_floats(op: Operation) -> bool:
    """Whether an operation may move floats as well: units resize and pad integers only, and any grid has a zero to pad with."""
    if isinstance(op, PadOp):
        return op.values["mode"] != "constant" or op.values["value"] != 0.0
    return isinstance(op, _MOVING) and not isinstance(op, ResizeNearestOp)


def output_cone(block: Block, *, resizes: bool = False) -> set[Operation]:
    """Operations that only move values and end in nothing but the function's outputs: they work on floats, where units do;
    with `resizes`, nearest resizes as well."""
    cone: set[Operation] = set()
    for op in reversed(list(block.ops)):
        moves = _moves_floats(op) or (resizes and isinstance(op, ResizeNearestOp))
        if moves and op.results[0].first_use is not None:
            if all(isinstance(use.operation, ReturnOp) or use.operation in cone for use in op.results[0].uses):
                cone.add(op)
    return cone
