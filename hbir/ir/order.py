"""Definition before use: the check that xDSL's verifier leaves out (its issues 1033 and 4023)."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block

from hbir.errors import IrError
from hbir.ir.locations import layer_name

__all__ = ["check_order"]


def check_order(module: ModuleOp) -> None:
    """Raise IrError HB0203 when an operand is used before it is defined; linear in the number of operations."""
    seen: set[int] = set()

    def visit(block: Block) -> None:
        seen.update(id(argument) for argument in block.args)
        for op in block.ops:
            for index, value in enumerate(op.operands):
                if id(value) not in seen:
                    raise IrError(
                        3,
                        f"operand {index} of {op.name} is used before it is defined",
                        where=f"layer '{layer_name(op)}'",
                        lever="move the operation behind the one that defines its operand",
                    )
            for region in op.regions:
                for inner in region.blocks:
                    visit(inner)
            seen.update(id(result) for result in op.results)

    for block in module.body.blocks:
        visit(block)
