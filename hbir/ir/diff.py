"""What differs between two modules, blind to names of values and to the order of independent operations.

Operations of two functions are paired in five rounds, each linear: those that compute the same from the same inputs; those of
one kind that came from the same layer; those of one kind that read, or feed, the same operand of a pair; the float and the
integer form of one layer; and what else came from the same layer, whatever its kind. What stays alone was added or removed;
of a pair, everything that differs is stated, and the passes that did it, where a pipeline has left their names in the
locations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, OpResult, SSAValue

from hbir.ir.constants import BlobAttr
from hbir.ir.locations import layer_name, location_names, location_passes

__all__ = ["Change", "Difference", "ModuleDiff", "diff_modules"]

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]
Key: TypeAlias = Callable[[Operation], Hashable]
Numbers: TypeAlias = Callable[[Operation], Array | None]

LONGEST = 120
"""Characters of an attribute that a difference shows."""


@dataclass(frozen=True)
class Difference:
    """One thing in which a pair differs: `what` ("attribute 'pad'", "operand 0", "constant", …), and its two texts."""

    what: str
    before: str
    after: str
    note: str = ""


@dataclass(frozen=True)
class Change:
    """An operation that is in one module only, or in both. `before` and `after` are kinds, None where it is not.

    The types are those of its results. `passes` are the ones that made or changed it on the way from one module to the
    other, the first pass first; of what was removed nothing is left that could tell.
    """

    function: str
    layer: str
    before: str | None
    after: str | None
    differences: tuple[Difference, ...] = ()
    before_type: str = ""
    after_type: str = ""
    passes: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["added", "removed", "changed", "same"]:
        """What happened to it."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        return "changed" if self.differences or self.before != self.after else "same"

    @property
    def place(self) -> str:
        """Where it stands, when that is no more than a number."""
        return ""


@dataclass(frozen=True)
class ModuleDiff:
    """All changes, in program order, and how many operations are the same in both modules.

    `rows` holds every operation of both modules, each pair once, in the order of the second module; what was removed stands
    behind what stood in front of it.
    """

    changes: tuple[Change, ...]
    same: int
    rows: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes)


def diff_modules(before: ModuleOp, after: ModuleOp, numbers: tuple[Numbers, Numbers]) -> ModuleDiff:
    """The changes from one module to another. Constants are compared by their hashes; `numbers` gives the arrays of those that
    differ, for each of the two modules."""
    rows = [*_named("module", before, after)]
    functions = [{op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)} for module in (before, after)]
    types = _TypeTexts()
    for name in dict.fromkeys([*functions[0], *functions[1]]):
        one, other = (side.get(name) for side in functions)
        if one is None or other is None:
            rows.append(Change(name, "", one and one.name, other and other.name))
            continue
        rows.extend(_named(name, one, other))
        pairs = _pair(one.body.block, other.body.block)
        rows.extend(_changes(name, one.body.block, other.body.block, pairs, numbers, types))
    changes = tuple(row for row in rows if row.kind != "same")
    return ModuleDiff(changes, len(rows) - len(changes), tuple(rows))


class _TypeTexts:
    """``1x8x8x16xf32``: the texts of result types, each element type printed once."""

    def __init__(self) -> None:
        self._elements: dict[Attribute, str] = {}

    def __call__(self, op: Operation) -> str:
        return ", ".join(map(self._one, op.result_types))

    def _one(self, type_: Attribute) -> str:
        if not isinstance(type_, TensorType):
            return _text(type_)
        element = cast("TensorType[Attribute]", type_).element_type
        text = self._elements.get(element)
        if text is None:
            text = self._elements[element] = _text(element)
        return "x".join([*map(str, type_.get_shape()), text])


def _named(where: str, one: Operation, other: Operation) -> Iterator[Change]:
    """How two modules, or two functions, differ but for their operations."""
    differences = tuple(_attribute_differences(one, other))
    if differences:
        yield Change(where, "", one.name, other.name, differences)


@dataclass
class _Pairs:
    forward: dict[Operation, Operation] = field(default_factory=dict[Operation, Operation])
    back: dict[Operation, Operation] = field(default_factory=dict[Operation, Operation])

    def add(self, one: Operation, other: Operation) -> None:
        self.forward[one], self.back[other] = other, one

    def add_groups(
        self, ones: Iterable[Operation], others: Iterable[Operation], key: Key
    ) -> list[tuple[Operation, Operation]]:
        """Pair, in order, what has no partner and equal keys; None is no key."""
        waiting: dict[Hashable, list[Operation]] = defaultdict(list)
        for other in others:
            if other not in self.back and (label := key(other)) is not None:
                waiting[label].append(other)
        for group in waiting.values():
            group.reverse()
        made: list[tuple[Operation, Operation]] = []
        for one in ones:
            if one not in self.forward and (group := waiting.get(key(one))):
                made.append((one, group.pop()))
                self.add(*made[-1])
        return made


def _pair(one: Block, other: Block) -> _Pairs:
    pairs, known = _Pairs(), dict[Hashable, int]()
    same = {**_computations(one, known), **_computations(other, known)}
    ops = list(one.ops), list(other.ops)
    # Equal computations of one layer first: of two equal constants each keeps its own name.
    pairs.add_groups(*ops, lambda op: (same[op], location_names(op)))
    pairs.add_groups(*ops, lambda op: same[op])
    pairs.add_groups(*ops, lambda op: None if op.results else op.name)  # the returns
    pairs.add_groups(*ops, lambda op: (op.name, location_names(op)) if location_names(op) else None)
    _follow_data(pairs, list(pairs.forward.items()))
    _follow_data(pairs, pairs.add_groups(*ops, _form))
    _follow_data(pairs, pairs.add_groups(*ops, _layer))
    return pairs


def _form(op: Operation) -> Hashable:
    """``("reduce", "pool")`` for the float reduction, the integer sum, and what they were fused with."""
    names = location_names(op)
    return (op.name.rsplit(".", 1)[-1].split("_")[0], names[0]) if names else None


def _layer(op: Operation) -> Hashable:
    """The layer; a constant is no partner of what computes."""
    names = location_names(op)
    return (any(isinstance(value, BlobAttr) for value in op.properties.values()), names) if names else None


def _computations(block: Block, known: dict[Hashable, int]) -> dict[Operation, int]:
    """A number for each operation: equal for equal operations on equal operands."""
    numbers: dict[Operation, int] = {}

    def operand(value: SSAValue) -> Hashable:
        made = _producer(value)
        return ("argument", _index(value), value.type) if made is None else (numbers[made], _index(value))

    for op in block.ops:
        attributes = frozenset(op.attributes.items()), frozenset(op.properties.items())
        label = op.name, attributes, tuple(op.result_types), tuple(map(operand, op.operands))
        numbers[op] = known.setdefault(label, len(known))
    return numbers


def _kind(op: Operation) -> str:
    return op.name


def _readers(value: SSAValue) -> list[Operation]:
    return [use.operation for use in value.uses]


def _follow_data(pairs: _Pairs, work: list[tuple[Operation, Operation]]) -> None:
    """Pair what feeds, and what reads, the same operands of pairs."""
    while work:
        one, other = work.pop()
        for a, b in zip(one.operands, other.operands, strict=False):
            one_maker, other_maker = _producer(a), _producer(b)
            if one_maker is not None and other_maker is not None:
                work += pairs.add_groups([one_maker], [other_maker], _kind)
        for a, b in zip(one.results, other.results, strict=False):
            work += pairs.add_groups(_readers(a), _readers(b), _kind)


def _changes(
    function: str, one: Block, other: Block, pairs: _Pairs, numbers: tuple[Numbers, Numbers], types: _TypeTexts
) -> Iterator[Change]:
    """In the order of the second block, what was removed behind what stood in front of it."""
    removed: dict[Operation | None, list[Operation]] = defaultdict(list)
    place: Operation | None = None
    for op in one.ops:
        if op in pairs.forward:
            place = pairs.forward[op]
        else:
            removed[place].append(op)

    def gone(behind: Operation | None) -> Iterator[Change]:
        return (Change(function, layer_name(op), op.name, None, (), types(op)) for op in removed[behind])

    yield from gone(None)
    for op in other.ops:
        partner = pairs.back.get(op)
        if partner is None:
            yield Change(function, layer_name(op), None, op.name, (), "", types(op), location_passes(op.location))
        else:
            differences = tuple(_differences(partner, op, pairs, numbers))
            made = (partner.name, op.name, differences, types(partner), types(op))
            yield Change(function, layer_name(op), *made, _passes_between(partner, op))
        yield from gone(op)


def _passes_between(one: Operation, other: Operation) -> tuple[str, ...]:
    """The passes that `other` has met and `one` has not, each once."""
    before, after = location_passes(one.location), location_passes(other.location)
    met = next(
        (at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after))
    )
    return tuple(dict.fromkeys(after[met:]))


def _differences(
    one: Operation, other: Operation, pairs: _Pairs, numbers: tuple[Numbers, Numbers]
) -> Iterator[Difference]:
    yield from _attribute_differences(one, other, numbers)
    for what, a, b in _aligned("result", one.result_types, other.result_types):
        if a != b:
            yield Difference(f"type of {what}", _text(a), _text(b))
    for what, a, b in _aligned("operand", one.operands, other.operands):
        if a is None or b is None or not _same_value(a, b, pairs):
            yield Difference(what, _value_text(a), _value_text(b))


def _aligned(what: str, ones: Sequence[T], others: Sequence[T]) -> Iterator[tuple[str, T | None, T | None]]:
    for index, (a, b) in enumerate(zip_longest(ones, others)):
        yield f"{what} {index}", a, b


def _producer(value: SSAValue) -> Operation | None:
    """The operation whose result a value is, None for an argument."""
    return value.owner if isinstance(value.owner, Operation) else None


def _index(value: SSAValue) -> int:
    return cast("OpResult | BlockArgument", value).index


def _same_value(a: SSAValue, b: SSAValue, pairs: _Pairs) -> bool:
    one, other = _producer(a), _producer(b)
    makers = (one is None and other is None) or (one is not None and pairs.forward.get(one) is other)
    return makers and _index(a) == _index(b)


def _value_text(value: SSAValue | None) -> str:
    if value is None:
        return "none"
    made = _producer(value)
    if made is None:
        return f"argument {_index(value)}"
    return f"{made.name} '{layer_name(made)}'" + (f" result {_index(value)}" if _index(value) else "")


def _attribute_differences(
    one: Operation, other: Operation, numbers: tuple[Numbers, Numbers] | None = None
) -> Iterator[Difference]:
    a, b = ({**op.attributes, **op.properties} for op in (one, other))
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if left == right:
            continue
        if isinstance(left, BlobAttr) and isinstance(right, BlobAttr) and numbers is not None:
            note = _largest_difference(numbers[0](one), numbers[1](other))
            yield Difference("constant", _blob_text(left), _blob_text(right), note)
        else:
            yield Difference(f"attribute '{key}'", _text(left), _text(right))


def _largest_difference(a: Array | None, b: Array | None) -> str:
    """How far two constants of one shape and type lie apart."""
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return ""
    other = ~((a == b) | ((a != a) & (b != b)))
    if not other.any():
        return "no number differs in value"
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(a[other].astype(np.float64) - b[other].astype(np.float64))
    by = f"by {apart.max():.6g} at most" if np.isfinite(apart).all() else "some from NaN or infinity"
    return f"{int(np.count_nonzero(other))} of {a.size} numbers differ, {by}"


def _blob_text(blob: BlobAttr) -> str:
    return f"{blob.digest.data[:12]}… ({blob.size.data} bytes)"


def _text(value: Attribute | None) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
