"""Merges operations that compute the same: the work that several readers asked for, each for itself, is done once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Block, Operation
from xdsl.traits import is_side_effect_free

from hbir.ir.locations import fuse_locations
from hbir.module import Module
from passes.common.rewriting import blocks, erase_dead, replace
from passes.manager import Pass, Promise

__all__ = ["MergeDuplicates"]


@dataclass(frozen=True)
class MergeDuplicates(Pass):
    """One operation for all of one kind with the same operands, attributes and result types; it bears the names of all.

    One sweep in program order: the operands of an operation have met their own duplicates before it is looked up. Numbers
    in attributes are compared by their bits, so that 0.0 and -0.0 stay two.
    """

    name: ClassVar[str] = "merge-duplicates"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            erase_dead(block)  # what nobody reads must not lend its name to what stays
            _merge(block)


def _merge(block: Block) -> None:
    known: dict[object, Operation] = {}
    names: dict[Operation, list[LocationAttr]] = {}
    for op in list(block.ops):
        if op.regions or not op.results or not is_side_effect_free(op):
            continue
        first = known.setdefault(_key(op), op)
        if first is not op:
            names.setdefault(first, [first.location]).append(op.location)
            replace(op, first.results)
    for op, locations in names.items():
        op.location = fuse_locations(locations)


def _key(op: Operation) -> object:
    """What makes two operations the same; everything in it is compared by value, operands by identity."""
    attributes, properties = frozenset(op.attributes.items()), frozenset(op.properties.items())
    return type(op), tuple(op.operands), tuple(op.result_types), attributes, properties
