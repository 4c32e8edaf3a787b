"""Evaluates operations whose operands are all constants."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from hbir.dialects.base import HbOperation, shape_of, tensor_type
from hbir.dialects.hbir import ConstantOp, constant
from hbir.dialects.qat import FakeQuantOp
from hbir.errors import PassError
from hbir.ir.locations import layer_name
from hbir.module import Module
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, replace
from passes.manager import Pass, Promise

__all__ = ["FoldConstants"]


@dataclass(frozen=True)
class FoldConstants(Pass):
    """Replace operations on constants by their result. A fake-quantised constant stays: its grid is still needed.

    Results above `largest` elements that are bigger than all operands together stay unfolded, to keep files small.
    """

    name: ClassVar[str] = "fold-constants"
    promise: ClassVar[Promise] = Promise.EXACT

    largest: int = 65536
    """Elements up to which a result is folded in any case."""

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if not isinstance(op, HbOperation) or isinstance(op, ConstantOp | FakeQuantOp) or len(op.results) != 1:
                    continue
                aligned = op.aligned_operands
                arrays = [None if value is None else constant_of(value, module.constants) for value in aligned]
                if not aligned or any(a is None and v is not None for a, v in zip(arrays, aligned, strict=True)):
                    continue
                size = prod(shape_of(op.results[0].type))
                if size > self.largest and size > sum(array.size for array in arrays if array is not None):
                    continue
                try:
                    result = op.evaluator(arrays)(*arrays)
                except (ValueError, IndexError, ZeroDivisionError) as error:
                    where = f"layer '{layer_name(op)}'"
                    what, lever = (
                        f"{op.name} of constants has no value",
                        "mend the constants of this layer in the model",
                    )
                    raise PassError(24, what, where=where, why=str(error), lever=lever) from error
                element = tensor_type(op.results[0].type).element_type
                folded = insert_before(op, constant(result, module.constants, element), [op])
                replace(op, [folded.output])
            erase_dead(block)
