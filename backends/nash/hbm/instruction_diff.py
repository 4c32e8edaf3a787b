"""What differs between two programs, instruction by instruction: each queue is aligned with its counterpart.

Alignment works on ever coarser keys, from the whole instruction down to its opcode and layer, always inside the gaps that the
finer key left. Every step is a longest increasing run of equal keys, so that 100,000 instructions take seconds. Waits count
completed instructions: two waits are the same when they wait for partners, whatever the numbers.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from backends.nash.isa import Decoded, Program, View, queue_name
from backends.nash.isa.assembly import format_params, format_view
from backends.nash.isa.program import queue_index
from backends.nash.isa.records import ABSENT, Records
from hbir.ir.changes import Change, Difference

__all__ = ["InstructionChange", "InstructionDiff", "SameRun", "diff_instructions", "renamed_layers"]

Keys: TypeAlias = list[list[int]]
"""For each level, the key of each instruction."""
Pairs: TypeAlias = list[tuple[int, int]]


@dataclass(frozen=True)
class InstructionChange(Change):
    """An instruction of one or of both programs: `function` is its queue, `before` and `after` are opcodes, and the types are
    its operands and parameters. The indices are places in the programs, None where it is not."""

    before_index: int | None = None
    after_index: int | None = None

    @property
    def place(self) -> str:
        """``#44``, or ``#44 -> #46``: its number in the programs."""
        numbers = dict.fromkeys(f"#{index}" for index in (self.before_index, self.after_index) if index is not None)
        return " -> ".join(numbers)


@dataclass(frozen=True)
class SameRun:
    """Neighbours in a queue that are the same in both programs: how many, and the layers of the first and the last."""

    queue: str
    count: int
    layers: tuple[str, str]


@dataclass(frozen=True)
class InstructionDiff:
    """Queue by queue, in order: what differs, and runs of what does not."""

    rows: tuple[InstructionChange | SameRun, ...]

    @property
    def changes(self) -> tuple[InstructionChange, ...]:
        """What differs."""
        return tuple(row for row in self.rows if isinstance(row, InstructionChange))

    @property
    def same(self) -> int:
        """How many instructions are the same in both."""
        return sum(row.count for row in self.rows if isinstance(row, SameRun))


def diff_instructions(before: Program, after: Program) -> InstructionDiff:
    """Both programs must have passed the verifier's check of their records."""
    keys = _keys(before, after, (before.layers, after.layers))
    queues = _queues(before), _queues(after)
    aligned = _aligned(keys, queues)
    forward = {a: b for pairs in aligned.values() for a, b in pairs}
    compare = _Comparison(before, after, keys[0][0], keys[1][0], queues, forward)
    rows: list[InstructionChange | SameRun] = []
    for queue, pairs in aligned.items():
        rows += _rows(queue, queues[0].get(queue, []), queues[1].get(queue, []), pairs, compare)
    return InstructionDiff(tuple(rows))


def renamed_layers(before: Program, after: Program) -> dict[str, str]:
    """The layers that have another name in the second program, by their old names.

    They are among those that only one program names. Two are one layer when most instructions of either are partners in an
    alignment that takes all such names for the same. Both programs have passed the check of their records.
    """
    sides = before.layers, after.layers
    lost, found = set(sides[0]) - set(sides[1]), set(sides[1]) - set(sides[0])
    if not lost or not found:
        return {}
    names = [[None if name in lost or name in found else name for name in side] for side in sides]
    pairs = _aligned(_keys(before, after, names), (_queues(before), _queues(after)))
    votes = Counter((before.layer_name(a), after.layer_name(b)) for queue in pairs.values() for a, b in queue)
    sizes = [Counter(map(program.layer_name, range(len(program)))) for program in (before, after)]
    return {
        a: b
        for (a, b), count in votes.items()
        if a in lost and b in found and 2 * count > sizes[0][a] and 2 * count > sizes[1][b]
    }


def _aligned(keys: tuple[Keys, Keys], queues: tuple[dict[int, list[int]], dict[int, list[int]]]) -> dict[int, Pairs]:
    """Partners in each queue."""
    aligned: dict[int, Pairs] = {}
    for queue in sorted({*queues[0], *queues[1]}):
        ones, others = (side.get(queue, []) for side in queues)
        local = [
            [[level[at] for at in part] for level in side] for part, side in zip((ones, others), keys, strict=True)
        ]
        aligned[queue] = [(ones[a], others[b]) for a, b in _align(local[0], local[1])]
    return aligned


def _queues(program: Program) -> dict[int, list[int]]:
    """The indices of each queue's instructions, in order."""
    found: dict[int, list[int]] = defaultdict(list)
    for at, queue in enumerate(queue_index(program.instructions).tolist()):
        found[queue].append(at)
    return found


def _numbered(rows: Sequence[Records]) -> list[list[int]]:
    """The rows of several arrays as numbers, equal for equal bytes."""
    known: dict[bytes, int] = {}
    found: list[list[int]] = []
    for array in rows:
        data, size = array.tobytes(), array.dtype.itemsize
        found.append([known.setdefault(data[at : at + size], len(known)) for at in range(0, len(data), size)])
    return found


def _named(records: Records, views: Sequence[int], layers: Sequence[int]) -> Records:
    """Instructions whose operands and layers are numbers that both programs share, and that wait for nothing."""
    found = records.copy()
    for field in ("wait_count", "wait_queue", "wait_value"):
        found[field] = 0
    operands = found["operands"]
    table = np.array([*views, 0], np.uint32)
    found["operands"] = np.where(operands == ABSENT, ABSENT, table[np.minimum(operands, len(views))])
    names = np.array([*layers, -1], np.int64)
    found["layer"] = names[np.minimum(found["layer"], len(layers))] + 1
    return found


def _without(records: Records, *fields: str) -> Records:
    found = records.copy()
    for field in fields:
        found[field] = 0
    return found


def _keys(before: Program, after: Program, names: Sequence[Sequence[str | None]]) -> tuple[Keys, Keys]:
    """The keys of both programs, whose layers have these names; the finest first."""
    programs = before, after
    known: dict[str | None, int] = {}
    layers = [[known.setdefault(name, len(known)) for name in side] for side in names]
    whole = _numbered([program.views for program in programs])
    shapes = _numbered([_without(program.views, "core", "address", "stride") for program in programs])

    def named(views: Sequence[Sequence[int]]) -> list[Records]:
        parts = zip(programs, views, layers, strict=True)
        return [_named(program.instructions, part, layer) for program, part, layer in parts]

    exact, coarse = named(whole), [_without(part, "params") for part in named(shapes)]
    levels = [
        exact,
        [_without(part, "layer") for part in exact],
        [_without(part, "params") for part in exact],
        coarse,
        [_without(part, "operands") for part in coarse],
        [_without(part, "layer") for part in coarse],
    ]
    numbered = [_numbered(level) for level in levels]
    return [level[0] for level in numbered], [level[1] for level in numbered]


def _align(ones: Keys, others: Keys) -> Pairs:
    """Partners in two queues, in order: equal keys on some level, the finest first."""
    found: Pairs = []
    work = [(0, 0, len(ones[0]), 0, len(others[0]))]
    while work:
        level, a, a_end, b, b_end = work.pop()
        if level == len(ones) or a == a_end or b == b_end:
            continue
        pairs = [(a + i, b + j) for i, j in _matches(ones[level][a:a_end], others[level][b:b_end])]
        found += pairs
        for i, j in (*pairs, (a_end, b_end)):
            work.append((level + 1, a, i, b, j))
            a, b = i + 1, j + 1
    return sorted(found)


def _matches(ones: Sequence[int], others: Sequence[int]) -> Pairs:
    """Equal numbers at rising places: a common start and end, and between them the k-th of one side with the k-th of the
    other, as far as these do not cross."""
    shorter = min(len(ones), len(others))
    start = next((at for at in range(shorter) if ones[at] != others[at]), shorter)
    rest = shorter - start
    end = next((at for at in range(rest) if ones[-1 - at] != others[-1 - at]), rest)
    pairs = [(at, at) for at in range(start)]
    waiting: dict[int, list[int]] = defaultdict(list)
    for j in range(len(others) - end - 1, start - 1, -1):
        waiting[others[j]].append(j)
    middle = [(i, waiting[ones[i]].pop()) for i in range(start, len(ones) - end) if waiting.get(ones[i])]
    pairs += _rising(middle)
    return [*pairs, *((len(ones) - at, len(others) - at) for at in range(end, 0, -1))]


def _rising(pairs: Pairs) -> Pairs:
    """The longest run of pairs, which are sorted by their first places, whose second places rise as well."""
    tails: list[int] = []
    chain: list[int] = []
    earlier: list[int] = []
    for at, (_, place) in enumerate(pairs):
        length = bisect_left(tails, place)
        earlier.append(chain[length - 1] if length else -1)
        if length == len(tails):
            tails.append(place)
            chain.append(at)
        else:
            tails[length], chain[length] = place, at
    found: Pairs = []
    at = chain[-1] if chain else -1
    while at >= 0:
        found.append(pairs[at])
        at = earlier[at]
    return found[::-1]


class _Comparison:
    """Says what differs between two partners."""

    def __init__(
        self,
        before: Program,
        after: Program,
        before_keys: Sequence[int],
        after_keys: Sequence[int],
        queues: Sequence[dict[int, list[int]]],
        forward: dict[int, int],
    ) -> None:
        self.programs = before, after
        self._keys, self._queues, self._forward = (before_keys, after_keys), queues, forward
        self._waits = [_waits(program.instructions) for program in self.programs]

    def differences(self, one: int, other: int) -> tuple[Difference, ...]:
        """What differs; empty when nothing does."""
        found: list[Difference] = []
        if self._keys[0][one] != self._keys[1][other]:
            a, b = self.programs[0].decoded[one], self.programs[1].decoded[other]
            found += _field_differences(a, b)
            if all(program.layers for program in self.programs):
                found += _differing("layer", self.layer(0, one), self.layer(1, other))
        waits = self._waits[0][one], self._waits[1][other]
        if waits != ((), ()) and self._targets(0, waits[0]) != self._targets(1, waits[1]):
            found.append(Difference("waits", *(_wait_text(each) for each in waits)))
        return tuple(found)

    def layer(self, side: int, index: int) -> str:
        return self.programs[side].layer_name(index)

    def _targets(self, side: int, waits: Iterable[tuple[int, int]]) -> set[object]:
        """The instructions that are waited for, as indices of the second program where they have a partner there."""
        found: set[object] = set()
        for queue, completed in waits:
            members = self._queues[side].get(queue, [])
            index = members[completed - 1] if 1 <= completed <= len(members) else None
            partner = index if side else None if index is None else self._forward.get(index)
            found.add(("unknown", queue, completed, side) if partner is None else partner)
        return found


def _waits(instructions: Records) -> list[tuple[tuple[int, int], ...]]:
    counts: list[int] = instructions["wait_count"].tolist()
    queues: list[list[int]] = instructions["wait_queue"].tolist()
    values: list[list[int]] = instructions["wait_value"].tolist()
    return [tuple(zip(q[:n], v[:n], strict=True)) for n, q, v in zip(counts, queues, values, strict=True)]


def _wait_text(waits: Iterable[tuple[int, int]]) -> str:
    return " ".join(f"{queue_name(queue)}>={completed}" for queue, completed in waits) or "none"


def _differing(what: str, a: object, b: object) -> Iterator[Difference]:
    if a != b:
        yield Difference(what, str(a), str(b))


def _field_differences(a: Decoded, b: Decoded) -> Iterator[Difference]:
    yield from _differing("opcode", a.opcode.name, b.opcode.name)
    for name in dict.fromkeys([*a.operands, *b.operands]):
        one, other = a.operands.get(name), b.operands.get(name)
        if one is None or other is None:
            yield Difference(f"operand {name}", *("none" if v is None else format_view(v) for v in (one, other)))
        elif one != other:
            yield from _view_differences(name, one, other)
    for name in dict.fromkeys([*a.params, *b.params]):
        yield from _differing(name, a.params.get(name, "none"), b.params.get(name, "none"))


def _view_differences(name: str, a: View, b: View) -> Iterator[Difference]:
    yield from _differing(f"{name} memory", *(f"{v.space}{v.core}" if v.space == "L1M" else v.space for v in (a, b)))
    yield from _differing(f"{name} address", f"{a.address:#x}", f"{b.address:#x}")
    yield from _differing(f"{name} type", a.dtype, b.dtype)
    yield from _differing(f"{name} shape", *("x".join(map(str, v.shape)) or "scalar" for v in (a, b)))
    # Of different shapes the strides differ anyway.
    if a.shape == b.shape:
        yield from _differing(f"{name} strides", *("x".join(map(str, v.strides)) for v in (a, b)))


def _text(instruction: Decoded) -> str:
    operands = ", ".join(f"{name}={format_view(view)}" for name, view in instruction.operands.items())
    return " ; ".join(part for part in (operands, format_params(instruction)) if part)


def _rows(
    queue: int, ones: Sequence[int], others: Sequence[int], pairs: Pairs, compare: _Comparison
) -> Iterator[InstructionChange | SameRun]:
    name, run, first, last = queue_name(queue), 0, 0, 0
    a, b = iter(ones), iter(others)

    def alone(side: int, index: int) -> InstructionChange:
        d = compare.programs[side].decoded[index]
        kind, text = d.opcode.name, _text(d)
        if side == 0:
            return InstructionChange(name, compare.layer(0, index), kind, None, (), text, "", (), index, None)
        return InstructionChange(name, compare.layer(1, index), None, kind, (), "", text, (), None, index)

    def ended() -> Iterator[SameRun]:
        if run:
            yield SameRun(name, run, (compare.layer(1, first), compare.layer(1, last)))

    for one, other in [*pairs, (-1, -1)]:
        gone = [alone(0, index) for index in iter(lambda: next(a, -1), one)]
        new = [alone(1, index) for index in iter(lambda: next(b, -1), other)]
        differences = compare.differences(one, other) if one >= 0 else ()
        if gone or new or differences or one < 0:
            yield from ended()
            run = 0
            yield from (*gone, *new)
        if differences:
            before, after = compare.programs[0].decoded[one], compare.programs[1].decoded[other]
            yield InstructionChange(
                name, compare.layer(1, other), before.opcode.name, after.opcode.name, differences,
                _text(before), _text(after), (), one, other,
            )  # fmt: skip
        elif one >= 0:
            first, last, run = (first if run else other), other, run + 1
