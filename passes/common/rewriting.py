"""Small tools that every pass uses: insert with a location, replace, erase, look through to a constant, count readers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from xdsl.dialects.builtin import UNKNOWN_LOC
from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects.base import Array
from hbir.dialects.hbir import ConstantOp
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import fuse_locations
from hbir.module import Function, Module

__all__ = [
    "blocks",
    "constant_of",
    "erase_dead",
    "insert_before",
    "only_user",
    "refresh_signatures",
    "replace",
    "users",
]

OperationT = TypeVar("OperationT", bound=Operation)


def blocks(module: Module) -> Iterator[tuple[Function, Block]]:
    """Every function with its block."""
    for function in module:
        yield function, function.op.body.block


def users(value: SSAValue) -> list[Operation]:
    """The operations that read a value, once for each use."""
    return [use.operation for use in value.uses]


def only_user(value: SSAValue) -> Operation | None:
    """The single operation that reads a value, or None when there are more or none."""
    found = users(value)
    return found[0] if len(found) == 1 else None


def constant_of(value: SSAValue, store: ConstantStore) -> Array | None:
    """The array behind a value that is a constant, or None."""
    return value.owner.array(store) if isinstance(value.owner, ConstantOp) else None


def insert_before(anchor: Operation, op: OperationT, sources: Iterable[Operation] = ()) -> OperationT:
    """Put `op` in front of `anchor`; without a location of its own it gets those of `sources` (or of the anchor)."""
    block = anchor.parent_block()
    if block is None:
        raise ValueError("the anchor stands in no block")
    block.insert_op_before(op, anchor)
    if op.location == UNKNOWN_LOC:
        op.location = fuse_locations([source.location for source in sources] or [anchor.location])
    return op


def replace(op: Operation, values: Sequence[SSAValue]) -> None:
    """Let `values` stand for the results of `op`, and erase it."""
    for old, new in zip(op.results, values, strict=True):
        old.replace_all_uses_with(new)
    op.detach()
    op.erase()


def erase_dead(block: Block) -> int:
    """Erase operations whose results nobody reads, last first; every operation of the project is pure."""
    erased = 0
    for op in reversed(list(block.ops)):
        if op.results and all(result.first_use is None for result in op.results):
            op.detach()
            op.erase()
            erased += 1
    return erased


def refresh_signatures(module: Module) -> None:
    """Make every function's type agree with its block arguments and return."""
    for function in module:
        function.update_type()
