"""What differs between two modules, blind to names of values and to the order of independent operations.

Operations of functions of one name are paired by what they compute, by their layers and by data flow (`hbir.ir.matching`).
What stays alone was added or removed; of a pair, everything that differs is stated, and the passes that did it, where a
pipeline has left their names in the locations. Operands differ when they are not results of a pair, so that an edit of one
operation says nothing of those that read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias, TypeVar, cast, runtime_checkable

import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation

from hbir.arguments import shown
from hbir.errors import IrError
from hbir.ir.apart import attribute_note, numbers_note
from hbir.ir.changes import Change, Difference, ModuleDiff
from hbir.ir.constants import BlobAttr, ConstantStore
from hbir.ir.graph import Numbers, OpGraph, Value, same_roles
from hbir.ir.matching import Partners, match
from hbir.ir.provenance import Blame, passes_between

__all__ = ["diff"]

T = TypeVar("T")
Array: TypeAlias = npt.NDArray[Any]


class _Module(Protocol):
    """A module and its constants, as `hbir.module.Module` is."""

    @property
    def op(self) -> ModuleOp: ...

    @property
    def constants(self) -> ConstantStore: ...


@runtime_checkable
class _HoldsArray(Protocol):
    """An operation that is a constant knows which numbers its bytes are."""

    def array(self, store: ConstantStore) -> Array:
        """The numbers."""
        ...


def diff(before: _Module, after: _Module) -> ModuleDiff:
    """What differs between two modules. Constants are compared by their hashes, and those that differ by their numbers.

    Raises IrError HB0236 for what is no module.
    """
    sides = [(_checked(module).op, module.constants) for module in (before, after)]
    (one, _), (other, _) = sides
    rows = [*_named("module", one, other)]
    functions = [{op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)} for module, _ in sides]
    comparison = _Comparison((sides[0][1], sides[1][1]))
    for name in dict.fromkeys([*functions[0], *functions[1]]):
        left, right = (side.get(name) for side in functions)
        if left is None or right is None:
            rows.append(Change(name, "", left and left.name, right and right.name))
            continue
        rows.extend(_named(name, left, right))
        rows.extend(comparison.rows(name, left.body.block, right.body.block))
    changes = tuple(row for row in rows if row.kind != "same")
    return ModuleDiff(changes, len(rows) - len(changes), tuple(rows))


def _checked(module: _Module) -> _Module:
    given: object = module
    if isinstance(getattr(given, "op", None), ModuleOp) and isinstance(
        getattr(given, "constants", None), ConstantStore
    ):
        return module
    lever = "give what hbir.export, hbir.load or passes.convert returns"
    raise IrError(36, f"{shown(given)} is no module", why="it takes a Module", lever=lever)


def _named(where: str, one: Operation, other: Operation) -> Iterator[Change]:
    """How two modules, or two functions, differ but for their operations."""
    differences = tuple(_attribute_differences(one, other))
    if differences:
        yield Change(where, "", one.name, other.name, differences)


class _Comparison:
    """Compares functions of two modules."""

    def __init__(self, stores: tuple[ConstantStore, ConstantStore]) -> None:
        self.stores = stores
        self.types = _TypeTexts()

    def rows(self, function: str, one: Block, other: Block) -> Iterator[Change]:
        """In the order of the second block, what was removed behind what stood in front of it."""
        numbers = Numbers()
        pairs = match(OpGraph(one, numbers), OpGraph(other, numbers))
        blame = Blame(pairs)
        removed: dict[int, list[int]] = defaultdict(list)
        place = -1
        for a, b in enumerate(pairs.forward):
            if b >= 0:
                place = b
            else:
                removed[place].append(a)

        def gone(behind: int) -> Iterator[Change]:
            for a in removed.get(behind, ()):
                op = pairs.one.ops[a]
                yield Change(function, pairs.one.layers[a], op.name, None, (), self.types(op), "", blame.removers(a))

        yield from gone(-1)
        for b, a in enumerate(pairs.back):
            op, layer = pairs.other.ops[b], pairs.other.layers[b]
            if a < 0:
                yield Change(function, layer, None, op.name, (), "", self.types(op), blame.makers(b))
            else:
                partner = pairs.one.ops[a]
                made = (partner.name, op.name, tuple(self._differences(pairs, a, b)))
                met = passes_between(partner.location, op.location)
                yield Change(function, layer, *made, self.types(partner), self.types(op), met)
            yield from gone(b)

    def _differences(self, pairs: Partners, a: int, b: int) -> Iterator[Difference]:
        one, other = pairs.one.ops[a], pairs.other.ops[b]
        if pairs.one.content[a] != pairs.other.content[b]:
            yield from _attribute_differences(one, other, self.stores)
            for what, left, right in _aligned("result", one.result_types, other.result_types):
                yield from _different(f"type of {what}", left, right)
        for what, value, read in _operands(pairs, a, b):
            if value is None or read is None or not pairs.same_value(value, read):
                yield Difference(what, *_value_texts(pairs, value, read))


class _TypeTexts:
    """``1x8x8x16xf32``: the texts of result types, each type printed once."""

    def __init__(self) -> None:
        self._elements: dict[Attribute, str] = {}
        self._known: dict[int, tuple[str, Attribute]] = {}

    def __call__(self, op: Operation) -> str:
        return ", ".join([self._one(result.type) for result in op.results])

    def _one(self, type_: Attribute) -> str:
        known = self._known.get(id(type_))
        if known is None:
            known = self._known[id(type_)] = self._made(type_), type_
        return known[0]

    def _made(self, type_: Attribute) -> str:
        if not isinstance(type_, TensorType):
            return str(type_)
        element = cast("TensorType[Attribute]", type_).element_type
        text = self._elements.get(element)
        if text is None:
            text = self._elements[element] = str(element)
        return "x".join([*map(str, type_.get_shape()), text])


def _aligned(what: str, ones: Sequence[T], others: Sequence[T]) -> Iterator[tuple[str, T | None, T | None]]:
    for index, (a, b) in enumerate(zip_longest(ones, others)):
        yield f"{what} {index}", a, b


def _operands(pairs: Partners, a: int, b: int) -> Iterator[tuple[str, Value | None, Value | None]]:
    """What a pair reads, role by role: an operand that has only moved, as another one in front of it is gone, is the same."""
    ones, others = pairs.one.operands[a], pairs.other.operands[b]
    if pairs.one.content[a] == pairs.other.content[b]:
        yield from _aligned("operand", ones, others)
        return
    roles, names = pairs.one.roles(a), pairs.other.roles(b)
    for slot, place in same_roles(roles, names):
        at, name = (slot, roles[slot]) if slot is not None else (place, names[place or 0])
        what = f"operand '{name}'" if slot is not None and place is not None and slot != place else f"operand {at}"
        yield what, None if slot is None else ones[slot], None if place is None else others[place]


def _value_texts(pairs: Partners, one: Value | None, other: Value | None) -> tuple[str, str]:
    """What is read on both sides; of two values that look alike, what became of the first one and where the other is new."""
    a, b = _value_text(pairs.one, one), _value_text(pairs.other, other)
    if a != b or one is None or other is None:
        return a, b
    heir = pairs.forward[one[0]] if one[0] >= 0 else -1
    old = pairs.back[other[0]] if other[0] >= 0 else -1
    if heir < 0 or old < 0:
        return a + (" (removed)" if heir < 0 else ""), b + (" (added)" if old < 0 else "")
    return f"{a} (now #{heir})", f"{b} (#{other[0]})"


def _value_text(graph: OpGraph, value: Value | None) -> str:
    if value is None:
        return "none"
    maker, index = value
    if maker < 0:
        return f"argument {index}"
    return f"{graph.kinds[maker]} '{graph.layers[maker]}'" + (f" result {index}" if index else "")


def _attribute_differences(
    one: Operation, other: Operation, stores: tuple[ConstantStore, ConstantStore] | None = None
) -> Iterator[Difference]:
    a, b = ({**op.attributes, **op.properties} for op in (one, other))
    for key in sorted({*a, *b}):
        left, right = a.get(key), b.get(key)
        if left != right and isinstance(left, BlobAttr) and isinstance(right, BlobAttr) and stores is not None:
            note = _constant_note(_array(one, left, stores[0]), _array(other, right, stores[1]))
            short = _blob_texts(left, right, 12)
            yield Difference("constant", *_blob_texts(left, right), note, short=short)
        else:
            yield from _different(f"attribute '{key}'", left, right)


def _different(what: str, one: Attribute | None, other: Attribute | None) -> Iterator[Difference]:
    """How two attributes or types differ, if they do; two NaN are the same."""
    if one == other:
        return
    a, b = ("none" if each is None else str(each) for each in (one, other))
    if a == b:
        a, b = repr(one), repr(other)
    if a != b:
        yield Difference(what, a, b, attribute_note(one, other))


def _array(op: Operation, blob: BlobAttr, store: ConstantStore) -> Array | None:
    """The numbers of a constant, None where the store lacks them."""
    return op.array(store) if isinstance(op, _HoldsArray) and blob.digest.data in store else None


def _constant_note(a: Array | None, b: Array | None) -> str:
    """How far two constants of one shape and type lie apart."""
    if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
        return ""
    return numbers_note(a, b)


def _blob_texts(one: BlobAttr, other: BlobAttr, digits: int | None = None) -> tuple[str, str]:
    """Hash and size of two constants; the first digits of the hash, where these tell them apart."""
    if one.digest.data[:digits] == other.digest.data[:digits]:
        digits = None
    more = "" if digits is None else "…"
    a, b = (f"{blob.digest.data[:digits]}{more} ({blob.size.data} bytes)" for blob in (one, other))
    return a, b
