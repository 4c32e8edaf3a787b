"""Moves bytes in place of floats: `dequantize` sinks behind what only moves values, `quantize` rises in front of it.

A grid with one scale is applied to each element by itself, so that the order of the two makes no difference to any value; a
transpose of int8 reads and writes a quarter of the bytes of a transpose of float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.ir import Operation, SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, element_dtype
from hbir.dialects.hbir import (
    ConcatOp,
    ConstantOp,
    ExpandOp,
    PadOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
)
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from hbir.numerics import quantize as quantize_array
from passes.common.rewriting import blocks, erase_dead, insert_before, only_user, replace, users
from passes.manager import Pass, Promise

__all__ = ["NarrowMovement"]

# Moves whose results are no larger than their operands: behind them there is no more to dequantize than in front.
_SHRINKING = (ReshapeOp, SliceOp, TransposeOp)
# Moves whose results are no smaller than their operands: in front of them there is no more to quantize than behind.
_GROWING = (ConcatOp, ExpandOp, PadOp, ReshapeOp, ResizeNearestOp, TransposeOp)


@dataclass(frozen=True)
class NarrowMovement(Pass):
    """Let transposes, reshapes, slices, concats and their kin work on int8 and int16 where floats have one scale.

    What other operations read as well stays: nothing is computed twice. Accumulators stay: they are as wide as floats.
    """

    name: ClassVar[str] = "narrow-movement"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if isinstance(op, (*_SHRINKING, ConcatOp)):
                    _sink(op)
            for op in list(block.ops):
                if isinstance(op, q.QuantizeOp):
                    _raise(op)
            erase_dead(block)


def _narrow(value: SSAValue) -> q.DequantizeOp | None:
    """The operation that makes floats of int8 or int16 with one scale, for nobody but moves that it can pass."""
    op = value.owner
    if not isinstance(op, q.DequantizeOp) or op.grid.per_axis is not None or op.grid.bits > 16:
        return None
    readers = users(value)
    passable = len(readers) == 1 or all(isinstance(reader, _SHRINKING) for reader in readers)
    return op if passable else None


def _moved(op: HbOperation, source: q.DequantizeOp) -> SSAValue:
    """`op` on the integers, then the floats of what it gives."""
    moved = insert_before(op, type(op).make(source.input, **op.values), [op])
    return insert_before(op, q.DequantizeOp.make(moved.results[0], grid=source.grid), [source]).output


def _sink(op: HbOperation) -> None:
    if isinstance(op, ConcatOp):
        sources = _sources(op)
        if sources is not None and len({source.grid for source in sources}) == 1:
            joined = insert_before(op, ConcatOp.make([source.input for source in sources], **op.values), [op])
            made = q.DequantizeOp.make(joined.output, grid=sources[0].grid)
            replace(op, [insert_before(op, made, sources).output])
        return
    source = _narrow(op.operands[0])
    if source is not None:
        replace(op, [_moved(op, source)])
        return
    concat = op.operands[0].owner
    if isinstance(op, TransposeOp) and isinstance(concat, ConcatOp) and only_user(concat.output) is op:
        # Operands with grids of their own, such as boxes and scores: each is transposed by itself.
        sources = _sources(concat)
        if sources is not None:
            axis = op.values["permutation"].index(concat.values["axis"])
            parts = [_moved(op, source) for source in sources]
            replace(op, [insert_before(op, ConcatOp.make(parts, axis=axis), [concat]).output])


def _sources(op: ConcatOp) -> list[q.DequantizeOp] | None:
    """What makes the operands of a concat from integers, when that is so for all of them."""
    found = [_narrow(value) for value in op.inputs if only_user(value) is op]
    present = [source for source in found if source is not None]
    return present if len(present) == len(op.inputs) else None


def _raise(op: q.QuantizeOp) -> None:
    work = [op]
    while work:
        quantize = work.pop()
        move = quantize.input.owner
        if not isinstance(move, _GROWING) or only_user(quantize.input) is not quantize:
            continue
        if any(isinstance(value.owner, ConstantOp) for value in move.operands):
            continue
        made = [
            insert_before(move, q.QuantizeOp.make(value, grid=quantize.grid), [quantize]) for value in move.operands
        ]
        values = move.values
        if isinstance(move, PadOp) and values["mode"] == "constant":
            values["value"] = _code(values["value"], quantize.grid)
        operands = [each.output for each in made]
        moved = (
            ConcatOp.make(operands, **values) if isinstance(move, ConcatOp) else type(move).make(*operands, **values)
        )
        replace(quantize, [insert_before(move, moved, [move]).results[0]])
        work.extend(made)
        _erase(move)


def _code(value: float, grid: UniformQuantizedType) -> float:
    """The number that stands for a float on a grid: what `quantize` makes of a padding value."""
    filler = np.array([value], np.float32)
    codes = quantize_array(filler, grid.scale, grid.zero_point, *grid.limits, dtype=element_dtype(grid))
    return float(codes[0])


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()
