"""The operations of a block as numbers, for comparing blocks: what each is, what it computes, and what becomes of it.

Two operations have one `content` when kind, attributes and types are equal; one `down` when, beside that, they compute the
same from the same arguments; and one `up` when, beside that, everything that comes of their results is equal. No two
operations of a block whose results reach the return have one `up`: an operand has one maker.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

from xdsl.dialects.builtin import DenseArrayBase
from xdsl.ir import Attribute, Block, Operation
from xdsl.irdl import IRDLOperation, OptOperandDef, VarOperandDef

from hbir.ir.constants import BlobAttr
from hbir.ir.locations import location_names

__all__ = ["OUTSIDE", "Numbers", "OpGraph", "Value", "same_roles"]

Value: TypeAlias = tuple[int, int]
"""(number of the operation, result), or (`OUTSIDE`, argument)."""
OUTSIDE = -1
"""In place of an operation: the block around it."""


class Numbers:
    """Equal numbers for equal things. Attributes are looked at once: modules share them among operations."""

    def __init__(self) -> None:
        self._things: dict[Hashable, int] = {}
        self._attributes: dict[int, tuple[int, Attribute]] = {}

    def of(self, thing: Hashable) -> int:
        """The number of a thing."""
        return self._things.setdefault(thing, len(self._things))

    def attribute(self, attribute: Attribute) -> int:
        """The number of an attribute or type; it is kept, so that no other takes its place in memory."""
        found = self._attributes.get(id(attribute))
        if found is None:
            found = self._attributes[id(attribute)] = self.of(attribute), attribute
        return found[0]

    def content(self, op: Operation) -> tuple[int, int]:
        """The numbers of an operation's content, and of its kind and types."""
        types = tuple([self.attribute(result.type) for result in op.results])
        shape = self.of((op.name, types))
        parts = [(key, self.attribute(value)) for key, value in op.properties.items()]
        parts.sort()
        if op.attributes:
            parts += [("", -1), *sorted((key, self.attribute(value)) for key, value in op.attributes.items())]
        return self.of((shape, *parts)), shape


@dataclass
class OpGraph:
    """A block's operations in order, by their places. Blocks that are to be compared share their numbers."""

    block: Block
    numbers: Numbers
    ops: list[Operation] = field(init=False)
    kinds: list[str] = field(init=False)
    names: list[tuple[str, ...]] = field(init=False)
    """The layers that each operation is matched by."""
    layers: list[str] = field(init=False)
    """The layers that a report shows, as `hbir.ir.locations.layer_name`."""
    content: list[int] = field(init=False)
    shapes: list[int] = field(init=False)
    """Numbers of kind and result types."""
    operands: list[list[Value]] = field(init=False)
    readers: list[list[tuple[int, int, int]]] = field(init=False)
    """(result, reader, operand) of each operation; those of the arguments are the last entry."""
    down: list[int] = field(init=False)
    _roles: dict[Hashable, tuple[str, ...]] = field(init=False, default_factory=dict[Hashable, tuple[str, ...]])

    def __post_init__(self) -> None:
        self.ops = list(self.block.ops)
        self.kinds = [op.name for op in self.ops]
        self.names = [location_names(op) for op in self.ops]
        self.layers = ["+".join(names) or kind for names, kind in zip(self.names, self.kinds, strict=True)]
        both = [self.numbers.content(op) for op in self.ops]
        self.content, self.shapes = [each[0] for each in both], [each[1] for each in both]
        self._link()
        self.down = self._down()

    def _link(self) -> None:
        places: dict[int, Value] = {id(value): (OUTSIDE, at) for at, value in enumerate(self.block.args)}
        for at, op in enumerate(self.ops):
            for index, result in enumerate(op.results):
                places[id(result)] = at, index
        self.readers = [[] for _ in range(len(self.ops) + 1)]
        self.operands = []
        for at, op in enumerate(self.ops):
            values = [places.get(id(value), (OUTSIDE, OUTSIDE)) for value in op.operands]
            self.operands.append(values)
            for slot, (maker, index) in enumerate(values):
                self.readers[maker].append((index, at, slot))

    def _down(self) -> list[int]:
        types = [self.numbers.attribute(value.type) for value in self.block.args]
        arguments = [self.numbers.of(("argument", at, type_)) for at, type_ in enumerate(types)]
        down = [OUTSIDE] * len(self.ops)  # of what is used before it is defined nothing is known
        for at, values in enumerate(self.operands):
            makers = [
                (down[maker], index) if maker >= 0 else (OUTSIDE, arguments[index] if index >= 0 else OUTSIDE)
                for maker, index in values
            ]
            down[at] = self.numbers.of(("down", self.content[at], *makers))
        return down

    @cached_property
    def up(self) -> list[int]:
        """A number for what each operation is and what comes of it: who reads which result as which operand, to the end."""
        up = [OUTSIDE] * len(self.ops)
        for at in range(len(self.ops) - 1, -1, -1):
            uses = sorted([(index, slot, up[reader]) for index, reader, slot in self.readers[at]])
            up[at] = self.numbers.of(("up", self.content[at], *uses))
        return up

    def constant(self, at: int) -> bool:
        """Whether an operation is a constant: it holds bytes and reads nothing."""
        return not self.operands[at] and any(isinstance(value, BlobAttr) for value in self.ops[at].properties.values())

    @cached_property
    def fixed(self) -> list[bool]:
        """Whether each operation comes of constants alone."""
        fixed = [False] * len(self.ops)
        for at, values in enumerate(self.operands):
            makers = [maker >= 0 and fixed[maker] for maker, _ in values]
            fixed[at] = all(makers) if makers else self.constant(at)
        return fixed

    def roles(self, at: int) -> tuple[str, ...]:
        """What each operand of an operation is: its name, with a number where one name has several, or its place."""
        op = self.ops[at]
        sizes = op.properties.get("operandSegmentSizes", op.attributes.get("operandSegmentSizes"))
        key = type(op), len(self.operands[at]), sizes
        known = self._roles.get(key)
        if known is None:
            known = self._roles[key] = _roles(op, len(self.operands[at]), sizes)
        return known

    @property
    def known_layers(self) -> set[str]:
        """Every layer that an operation has."""
        return {name for names in self.names for name in names}

    def forget_layers(self) -> None:
        """From now on nothing is matched by layers."""
        self.names = [()] * len(self.ops)


def _roles(op: Operation, count: int, segments: Attribute | None) -> tuple[str, ...]:
    places = tuple(map(str, range(count)))
    if not isinstance(op, IRDLOperation):
        return places
    operands = op.get_irdl_definition().operands
    if isinstance(segments, DenseArrayBase):
        sizes = [int(size) for size in segments.get_values()]
    else:
        sizes = [count - len(operands) + 1 if isinstance(each, VarOperandDef) else 1 for _, each in operands]
    if len(sizes) != len(operands) or min(sizes, default=0) < 0 or sum(sizes) != count:
        return places  # nobody has verified it
    roles: list[str] = []
    for (name, each), size in zip(operands, sizes, strict=True):
        several = isinstance(each, VarOperandDef) and not isinstance(each, OptOperandDef)
        roles += [f"{name} {at}" for at in range(size)] if several or size > 1 else [name] * size
    return tuple(roles)


def same_roles(ones: Sequence[str], others: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """Which operands of two operations are the same one: those of one name, then what is left, by its place."""
    if ones == others:
        return [(slot, slot) for slot in range(len(ones))]
    places = {name: slot for slot, name in enumerate(others)}
    known = set(ones)
    rest = {slot for slot, name in enumerate(others) if name not in known}
    found: list[tuple[int | None, int | None]] = []
    for slot, name in enumerate(ones):
        partner = places.get(name, slot if slot in rest else None)
        rest.discard(-1 if partner is None else partner)
        found.append((slot, partner))
    return [*found, *((None, slot) for slot in sorted(rest))]
