"""Values that one number carries for many: statistics of rows, what they normalise, and what is divided by.

A rounding error of a feature is one among hundreds that a layer sums; that of a row's deviation changes the whole row. The
statistics are few, so that sixteen bits cost next to nothing there.
"""

from __future__ import annotations

from math import prod

from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects.base import shape_of
from hbir.dialects.hbir import (
    AddOp,
    BinaryOp,
    ClipOp,
    ConcatOp,
    ConstantOp,
    Conv2dOp,
    DivOp,
    ExpandOp,
    FunctionOp,
    LinearOp,
    MatmulOp,
    MulOp,
    PadOp,
    ReduceOp,
    ReshapeOp,
    SliceOp,
    SubOp,
    TransposeOp,
)
from passes.common.analysis import is_float, keeps_grid

__all__ = ["denominators", "statistics_values"]

SHARE = 8
"""How many elements of the result share an element of a statistic, at least."""

MOST_SUMMED = 1 << 15
"""Values of sixteen bits that an int32 accumulator sums."""

_POLES = frozenset({"log", "reciprocal", "rsqrt"})
"""Functions that leave every bound at 0."""


_MOVES = (ExpandOp, PadOp, ReshapeOp, SliceOp, TransposeOp)
_MOVES_AND_JOINS = (ConcatOp, *_MOVES)


def _size(value: SSAValue) -> int:
    return prod(shape_of(value.type))


def _sums(op: Operation) -> bool:
    return isinstance(op, ReduceOp) and op.values["kind"] in ("sum", "mean")


def _elementwise(op: Operation) -> bool:
    return isinstance(op, (BinaryOp, ClipOp, FunctionOp, *_MOVES))


def _operands(op: Operation) -> list[SSAValue]:
    """The float operands of an operation that are computed."""
    return [v for v in op.operands if is_float(v) and not isinstance(v.owner, ConstantOp)]


def statistics_values(block: Block) -> set[SSAValue]:
    """The values that get sixteen bits and keep their whole range because an error there hits many results at once.

    A statistic is computed from sums or means by elementwise operations alone, and spread over a tensor at least `SHARE` times
    as large (a mean and a deviation that normalise a row, a norm; a gate that comes out of convolutions is none). With it
    come the squares that it sums; the values that it is taken of, back through sums of two and moves, unless a layer or a
    matrix product reads them, which would pay for the width; and denominators, with what a function that has a pole at 0
    reads and gives.
    """
    reduced = _reduced(block)
    found: set[SSAValue] = denominators(block)
    normalised: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        if not op.results:
            continue
        result = op.results[0]
        if isinstance(op, BinaryOp | ExpandOp):
            found.update(v for v in _operands(op) if v in reduced and _size(v) * SHARE <= _size(result))
        if result in found and result in reduced:
            if _sums(op) and _size(op.operands[0]) // max(_size(result), 1) <= MOST_SUMMED:
                normalised.add(op.operands[0])
            elif _elementwise(op):
                found.update(v for v in _operands(op) if v in reduced)
        if result in normalised:
            if _is_square(op):
                found.add(result)
                normalised.remove(result)
                normalised.add(op.operands[0])
            elif isinstance(op, (AddOp, SubOp, *_MOVES_AND_JOINS)):
                normalised.update(v for v in _operands(op) if v not in reduced)
    layers = _read_by_layers(block)
    return (found | normalised) - layers


def _reduced(block: Block) -> set[SSAValue]:
    """What sums and means become by elementwise operations on nothing but themselves and constants, in their size."""
    found: set[SSAValue] = set()
    for op in block.ops:
        operands = _operands(op) if op.results else []
        if _sums(op):
            found.add(op.results[0])
        elif operands and _elementwise(op) and all(v in found for v in operands):
            if _size(op.results[0]) <= max(map(_size, operands)):
                found.add(op.results[0])
    return found


def _is_square(op: Operation) -> bool:
    if isinstance(op, FunctionOp):
        return op.values["function"] == "square"
    return isinstance(op, MulOp) and op.lhs is op.rhs


def denominators(block: Block, *, functions: bool = True) -> set[SSAValue]:
    """What is divided by, and with `functions` what functions with a pole at 0 read and give; back through moves."""
    found: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        if isinstance(op, DivOp):
            found.add(op.rhs)
        elif functions and isinstance(op, FunctionOp) and op.values["function"] in _POLES:
            found.update((op.input, op.output))
        elif isinstance(op, _MOVES) and op.results[0] in found:
            found.update(op.operands)
    return {v for v in found if is_float(v) and not isinstance(v.owner, ConstantOp)}


def _read_by_layers(block: Block) -> set[SSAValue]:
    """What a layer or a matrix product reads on the grid it has: its operands, back through what keeps grids."""
    found: set[SSAValue] = set()
    for op in reversed(list(block.ops)):
        if isinstance(op, Conv2dOp | LinearOp | MatmulOp) or (keeps_grid(op) and op.results[0] in found):
            found.update(op.operands)
    return found
