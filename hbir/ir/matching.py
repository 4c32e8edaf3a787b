"""Which operations of two blocks are the same one: partners, found by what they compute, by their layers and by data flow.

What is beyond doubt comes first: equal computations of one layer; equal computations of which the same becomes; the only
operation of a kind in a layer; operations of which the same becomes, which is where an edit in front of them leaves those
behind it; and equal computations. From such pairs the rest is found along the data flow, the surest step first (`_Level`), so
that an edit never makes its neighbours strangers. Constants are paired by what they are to a pair, weight with weight, and by
their layer only where their types are equal. Every step is linear in the number of operations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from enum import IntEnum
from heapq import heappop, heappush
from math import prod
from typing import TypeAlias, cast

from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute

from hbir.ir.graph import OUTSIDE, OpGraph, Value, same_roles

__all__ = ["Partners", "match"]

Key: TypeAlias = Callable[[OpGraph, int], Hashable]
"""What an operation, by its place, is matched by; None for what takes no part."""
_NOBODY = -1


@dataclass
class Partners:
    """The partner, by its place, of each operation of either block; -1 for none."""

    one: OpGraph
    other: OpGraph
    forward: list[int] = field(init=False)
    back: list[int] = field(init=False)

    def __post_init__(self) -> None:
        self.forward, self.back = [_NOBODY] * len(self.one.ops), [_NOBODY] * len(self.other.ops)

    def same_value(self, a: Value, b: Value) -> bool:
        """Whether two values are one: of partners, or of equal computations that nothing tells apart."""
        (maker, index), (other, other_index) = a, b
        if index != other_index or maker < 0 or other < 0:
            return a == b
        if self.forward[maker] == other:
            return True
        return self.one.down[maker] == self.other.down[other] and self.one.names[maker] == self.other.names[other]

    def add(self, a: int, b: int) -> None:
        """Make two operations partners."""
        self.forward[a], self.back[b] = b, a

    @property
    def alone(self) -> tuple[list[int], list[int]]:
        """What has no partner."""
        return [a for a, b in enumerate(self.forward) if b < 0], [b for b, a in enumerate(self.back) if a < 0]

    def add_equal(self, key: Key, *, only: bool = False) -> None:
        """Pair what has equal keys, in order; `only`: where there is one on each side and no more."""
        ones, others = self.alone
        if not ones or not others:
            return
        waiting: dict[Hashable, list[int]] = defaultdict(list)
        for b in others:
            if (label := key(self.other, b)) is not None:
                waiting[label].append(b)
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for a in ones:
            if (label := key(self.one, a)) is not None and label in waiting:
                groups[label].append(a)
        for label, group in groups.items():
            if not only or len(group) == len(waiting[label]) == 1:
                for a, b in zip(group, waiting[label], strict=False):
                    self.add(a, b)


def match(one: OpGraph, other: OpGraph) -> Partners:
    """Partners in two blocks whose numbers are shared. Layers count where both blocks have one in common at least."""
    if one.known_layers.isdisjoint(other.known_layers):
        one.forget_layers()
        other.forget_layers()
    pairs = Partners(one, other)
    by = pairs.add_equal
    by(lambda graph, at: (graph.names[at], graph.down[at]), only=True)
    by(lambda graph, at: (graph.names[at], graph.down[at], graph.up[at]))
    by(lambda graph, at: (graph.down[at], graph.up[at]))
    by(lambda graph, at: None if graph.ops[at].results else graph.kinds[at])  # the returns
    for key in (_kind, _shape, _up, _content):
        by(_of_layer(key), only=True)
    by(_up, only=True)
    by(_down, only=True)
    steps = _Steps(pairs)
    steps.follow(_Level.KIND)
    by(_of_layer(_constant_type), only=True)
    steps.follow()
    by(_of_layer(_down))
    by(_of_layer(_kind))
    by(_down)
    for key in (_form, _of_layer(_fixed_operands), _of_layer(_fixed)):
        by(key)
        steps.follow()
    _pair_sources(pairs)
    by(_of_layer(_constant_type))
    steps.follow(_Level.PLACE)
    by(lambda graph, at: None if graph.names[at] else graph.content[at], only=True)  # what moved
    by(lambda graph, at: None if graph.names[at] else _constant_type(graph, at), only=True)
    steps.follow(_Level.PLACE)
    return pairs


def _kind(graph: OpGraph, at: int) -> Hashable:
    """The kind of what computes: of constants it tells nothing."""
    return None if graph.constant(at) else graph.kinds[at]


def _shape(graph: OpGraph, at: int) -> Hashable:
    return None if graph.constant(at) else graph.shapes[at]


def _constant_type(graph: OpGraph, at: int) -> Hashable:
    return graph.shapes[at] if graph.constant(at) else None


def _content(graph: OpGraph, at: int) -> Hashable:
    return graph.content[at]


def _down(graph: OpGraph, at: int) -> Hashable:
    return graph.down[at]


def _up(graph: OpGraph, at: int) -> Hashable:
    return graph.up[at]


def _form(graph: OpGraph, at: int) -> Hashable:
    """``("reduce", "pool")`` for the float reduction, the integer sum, and what they were fused with."""
    names = graph.names[at]
    return (graph.kinds[at].rsplit(".", 1)[-1].split("_")[0], names[0]) if names and not graph.constant(at) else None


def _fixed_operands(graph: OpGraph, at: int) -> Hashable:
    """Which operands come of constants alone: a linear layer and the convolution that it became read the same."""
    return tuple([maker >= 0 and graph.fixed[maker] for maker, _ in graph.operands[at]]) or None


def _fixed(graph: OpGraph, at: int) -> Hashable:
    """Whether it comes of constants alone; a constant is no partner of what computes."""
    return None if graph.constant(at) else graph.fixed[at]


def _of_layer(key: Key) -> Key:
    """The layer, and another key; what has no layer takes no part."""

    def of(graph: OpGraph, at: int) -> Hashable:
        found = key(graph, at) if graph.names[at] else None
        return None if found is None else (graph.names[at], found)

    return of


def _pair_sources(pairs: Partners) -> None:
    """Pair constants that are the same operand of a pair behind what has no partner: a weight, and the same weight rounded."""
    one, other = pairs.one, pairs.other
    sources, targets = _sources(one, pairs.forward), _sources(other, pairs.back)
    if max(sources, default=_NOBODY) < 0 or max(targets, default=_NOBODY) < 0:
        return
    for a, b in enumerate(pairs.forward.copy()):
        if b < 0:
            continue
        for slot, place in same_roles(one.roles(a), other.roles(b)):
            if slot is None or place is None:
                continue
            maker, read = one.operands[a][slot][0], other.operands[b][place][0]
            x, y = (sources[maker] if maker >= 0 else _NOBODY), (targets[read] if read >= 0 else _NOBODY)
            if x >= 0 and y >= 0 and pairs.forward[x] < 0 and pairs.back[y] < 0 and _compatible(one, x, other, y):
                pairs.add(x, y)


def _sources(graph: OpGraph, partners: list[int]) -> list[int]:
    """For each operation without a partner, the constant that it, and what it reads, makes something else of; -1 for none."""
    found = [_NOBODY] * len(graph.ops)
    for at, values in enumerate(graph.operands):
        if partners[at] >= 0:
            continue
        if graph.constant(at):
            found[at] = at
        elif len(values) == 1 and values[0][0] >= 0:
            found[at] = found[values[0][0]]
    return found


def _compatible(one: OpGraph, a: int, other: OpGraph, b: int) -> bool:
    """Whether two constants may stand in one place: as many numbers, or a tensor of one rank and kind of element."""
    types = [[result.type for result in graph.ops[at].results] for graph, at in ((one, a), (other, b))]
    return len(types[0]) == len(types[1]) and all(map(_compatible_types, *types))


def _compatible_types(one: Attribute, other: Attribute) -> bool:
    if not isinstance(one, TensorType) or not isinstance(other, TensorType):
        return one == other
    left, right = cast("TensorType[Attribute]", one), cast("TensorType[Attribute]", other)
    shapes = left.get_shape(), right.get_shape()
    alike = len(shapes[0]) == len(shapes[1]) and type(left.element_type) is type(right.element_type)
    return alike or prod(shapes[0]) == prod(shapes[1])


class _Level(IntEnum):
    """How sure a step along the data flow is, the surest first: what has to be equal."""

    COMPUTATION = 0
    CONTENT_HERE = 1
    """The content, and the operands, all of which are known."""
    KIND_HERE = 2
    CONTENT = 3
    SHAPE = 4
    """Kind and result types."""
    KIND = 5
    KIND_OF_ANY_LAYER = 6
    IN_ORDER = 7
    """The kind, where several have it, in order."""
    PLACE = 8
    """Last, and on request: what makes the same operand of a pair, whatever its kind."""


_OF_A_LAYER = frozenset((_Level.CONTENT, _Level.SHAPE, _Level.KIND, _Level.PLACE))
"""Levels whose steps are not taken between layers that have nothing in common."""


class _Steps:
    """Walks from pairs to what they read and what reads them."""

    def __init__(self, pairs: Partners) -> None:
        self.pairs, self.one, self.other = pairs, pairs.one, pairs.other
        self._work: list[tuple[int, int, int]] = []

    def follow(self, last: int = _Level.IN_ORDER) -> None:
        """Pair what steps up to the level `last` find; each new pair is followed at once, from the surest level on."""
        ones, others = self.pairs.alone
        if not ones or not others:
            return
        near = {OUTSIDE}
        for a in ones:
            near.update(maker for maker, _ in self.one.operands[a] if maker >= 0)
            near.update(reader for _, reader, _ in self.one.readers[a])
        self._work = [(0, a, self._partner(a)) for a in sorted(near) if a < 0 or self.pairs.forward[a] >= 0]
        while self._work:
            level, a, b = heappop(self._work)
            if a >= 0:
                self._makers(level, a, b)
            if level < _Level.PLACE:
                self._readers(level, a, b)
            if level < last:
                self._later(level, last, a, b)

    def _partner(self, a: int) -> int:
        return OUTSIDE if a < 0 else self.pairs.forward[a]

    def _later(self, level: int, last: int, a: int, b: int) -> None:
        """Come back to a pair on the next level, or on the first on which a step may still be found."""
        if level + 1 < _Level.PLACE and self._hopeful(a, b):
            heappush(self._work, (level + 1, a, b))
        elif last == _Level.PLACE and a >= 0 and any(self._both_alone(*makers) for makers in self._read(a, b)):
            heappush(self._work, (_Level.PLACE, a, b))

    def _hopeful(self, a: int, b: int) -> bool:
        """Whether a step in front of the level `PLACE` may be found beside two partners: all of those need one kind."""
        forward, back, kinds = self.pairs.forward, self.pairs.back, self.other.kinds
        alone = {self.one.kinds[reader] for _, reader, _ in self.one.readers[a] if forward[reader] < 0}
        if alone and any(back[reader] < 0 and kinds[reader] in alone for _, reader, _ in self.other.readers[b]):
            return True
        return a >= 0 and any(
            self._both_alone(one, other) and self.one.kinds[one[0]] == kinds[other[0]]
            for one, other in self._read(a, b)
        )

    def _both_alone(self, one: Value, other: Value) -> bool:
        """Whether the makers of two values have no partner."""
        return one[0] >= 0 > self.pairs.forward[one[0]] and other[0] >= 0 > self.pairs.back[other[0]]

    def _add(self, a: int, b: int) -> None:
        self.pairs.add(a, b)
        heappush(self._work, (0, a, b))

    def _makers(self, level: int, a: int, b: int) -> None:
        forward, back = self.pairs.forward, self.pairs.back
        for (maker, index), (other, other_index) in self._read(a, b):
            if maker < 0 or other < 0 or forward[maker] >= 0 or back[other] >= 0 or index != other_index:
                continue
            key = self._key(level, self.one, maker)
            if key is not None and key == self._key(level, self.other, other) and self._agree(level, maker, other):
                self._add(maker, other)

    def _read(self, a: int, b: int) -> Iterable[tuple[Value, Value]]:
        """What two partners read as the same operand."""
        ones, others = self.one.operands[a], self.other.operands[b]
        if self.one.content[a] == self.other.content[b]:
            return zip(ones, others, strict=False)
        slots = same_roles(self.one.roles(a), self.other.roles(b))
        return [(ones[x], others[y]) for x, y in slots if x is not None and y is not None]

    def _readers(self, level: int, a: int, b: int) -> None:
        """Readers of one result as one operand; in front of the level `IN_ORDER`, where there is one on each side."""
        found: list[dict[Hashable, list[int]]] = []
        for graph, at, partners in ((self.one, a, self.pairs.forward), (self.other, b, self.pairs.back)):
            groups: dict[Hashable, list[int]] = defaultdict(list)
            for index, reader, slot in graph.readers[at]:
                if partners[reader] < 0 and (key := self._key(level, graph, reader)) is not None:
                    groups[index, slot, key].append(reader)
            if not groups:
                return
            found.append(groups)
        for label, ones in found[0].items():
            others = found[1].get(label, [])
            if level == _Level.IN_ORDER or len(ones) == len(others) == 1:
                for x, y in zip(ones, others, strict=False):
                    if self._agree(level, x, y) and self.pairs.forward[x] < 0 and self.pairs.back[y] < 0:
                        self._add(x, y)

    def _key(self, level: int, graph: OpGraph, at: int) -> Hashable:
        """What has to be equal for a step of this level; None for what it cannot be told of."""
        match level:
            case _Level.COMPUTATION:
                return graph.down[at]
            case _Level.CONTENT_HERE | _Level.KIND_HERE:
                operands = self._operands(graph, at)
                return operands and (graph.content[at] if level == _Level.CONTENT_HERE else graph.kinds[at], operands)
            case _Level.CONTENT:
                return graph.content[at]
            case _Level.SHAPE:
                return graph.shapes[at]
            case _Level.PLACE:
                return graph.constant(at)
            case _:
                return graph.kinds[at]

    def _operands(self, graph: OpGraph, at: int) -> tuple[Value, ...] | None:
        """The operands, as values of the second block; None where not every one is known, or there is none."""
        values = graph.operands[at]
        if graph is self.one:
            forward = self.pairs.forward
            values = [(forward[maker], index) if maker >= 0 else (OUTSIDE - 1, index) for maker, index in values]
            if any(maker == _NOBODY for maker, _ in values):
                return None
        else:
            values = [(maker, index) if maker >= 0 else (OUTSIDE - 1, index) for maker, index in values]
        return tuple(values) or None

    def _agree(self, level: int, a: int, b: int) -> bool:
        """Whether the layers allow a step: less sure ones are not taken between layers that have nothing in common.

        Two constants have to be of one size or form, too.
        """
        if level > _Level.SHAPE and self.one.constant(a) and self.other.constant(b):
            if not _compatible(self.one, a, self.other, b):
                return False
        names, others = self.one.names[a], self.other.names[b]
        return level not in _OF_A_LAYER or not names or not others or not set(names).isdisjoint(others)
