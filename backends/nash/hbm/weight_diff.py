"""Which constants differ between two models, by the layer and the operand that they become.

A load brings the constants of one or more layers into L1M at once. Walking a program in order tells which instruction reads
which of these bytes, and so what they are: weights, biases, multipliers, shifts, tables.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from backends.nash.hbm.model import Model
from backends.nash.isa import DTYPES, Decoded, View, accesses
from backends.nash.isa.records import dense_strides

__all__ = ["WeightChange", "diff_weights"]

Bytes: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class WeightChange:
    """A constant operand of a layer: how many of its numbers differ, and by how much at most.

    `numbers` is how many there are after, and `dtype` what they are: "i32"; "u8" for bytes whose meaning is unknown, and
    nothing for several types. The first one that differs is number `first`, and was `before`. `differing`, `largest` and
    `first` are None where the two sides are cut into other pieces, or hold numbers of another type.
    """

    layer: str
    operand: str
    before_bytes: int
    after_bytes: int
    differing: int | None
    largest: float | None
    numbers: int
    dtype: str
    first: int | None = None
    before: str = ""
    after: str = ""


def diff_weights(before: Model, after: Model) -> tuple[WeightChange, ...]:
    """The constants that differ. Both programs have passed the check of their records."""
    if before.constants == after.constants and before.program == after.program:
        return ()
    ones, others = (_parts(model) for model in (before, after))
    found = [_change(*key, ones.get(key, {}), others.get(key, {})) for key in dict.fromkeys([*ones, *others])]
    changes = [change for change in found if change is not None]
    if not changes and len(before.constants) == len(after.constants) and before.constants != after.constants:
        x, y = (np.frombuffer(model.constants, np.uint8) for model in (before, after))
        apart, sizes = _apart(x, y), (len(x), len(y))
        what = "bytes that no instruction reads"
        changes.append(WeightChange("", what, *sizes, apart.differing, apart.largest, len(y), "u8", *apart.first))
    return tuple(changes)


@dataclass(frozen=True)
class _Place:
    """Bytes among the constants, and the type of their numbers."""

    address: int
    size: int
    dtype: str


_Parts: TypeAlias = dict[_Place, Bytes]


def _change(layer: str, operand: str, ones: _Parts, others: _Parts) -> WeightChange | None:
    """The pieces of one operand on both sides, in the order in which they are read."""
    whole = [np.concatenate([*parts.values(), np.empty(0, np.uint8)]) for parts in (ones, others)]
    kinds = [[(place.size, place.dtype) for place in parts] for parts in (ones, others)]
    dtypes = [sorted({dtype for _, dtype in each}) for each in kinds]
    if dtypes[0] == dtypes[1] and np.array_equal(whole[0], whole[1]):
        return None
    sizes = len(whole[0]), len(whole[1])
    numbers = sum(size // DTYPES[dtype].itemsize for size, dtype in kinds[1])
    dtype = dtypes[1][0] if len(dtypes[1]) == 1 else ""
    if kinds[0] != kinds[1]:
        return WeightChange(layer, operand, *sizes, None, None, numbers, dtype)
    apart = [_apart(x, y, place.dtype) for place, x, y in zip(ones, ones.values(), others.values(), strict=True)]
    differing, largest = sum(each.differing for each in apart), max(each.largest for each in apart)
    at = next(at for at, each in enumerate(apart) if each.differing)
    in_front = sum(size // DTYPES[dtype].itemsize for size, dtype in kinds[1][:at])
    first, one, other = apart[at].first
    return WeightChange(layer, operand, *sizes, differing, largest, numbers, dtype, in_front + first, one, other)


@dataclass(frozen=True)
class _Apart:
    """How many numbers have other bytes, the largest difference of two of them, and the first: its place, and both values."""

    differing: int
    largest: float
    first: tuple[int, str, str]


def _apart(x: Bytes, y: Bytes, dtype: str = "u8") -> _Apart:
    numbers = [data.view(DTYPES[dtype]) for data in (x, y)]
    with np.errstate(invalid="ignore"):
        distances = np.abs(numbers[0].astype(np.float64) - numbers[1].astype(np.float64))
    other = (x != y).reshape(-1, DTYPES[dtype].itemsize).any(axis=1)
    at = int(np.argmax(other)) if other.any() else 0
    before, after = (str(each[at]) if other.any() else "" for each in numbers)
    return _Apart(int(np.count_nonzero(other)), float(np.nanmax(distances, initial=0.0)), (at, before, after))


def _parts(model: Model) -> dict[tuple[str, str], _Parts]:
    """(layer, operand) -> the constants that its instructions read, each piece once."""
    data: Bytes = np.frombuffer(model.constants, np.uint8)
    found: dict[tuple[str, str], _Parts] = defaultdict(dict)
    for instruction, operand, place in _reads(model.program.decoded, len(data)):
        content = data[place.address : place.address + place.size]
        found[model.program.layer_name(instruction.index), operand].setdefault(place, content)
    return found


def _reads(instructions: Iterable[Decoded], constants: int) -> Iterator[tuple[Decoded, str, _Place]]:
    """Which constants each instruction reads, in DDR or where a load has put them."""
    memories: dict[int, _Loaded] = defaultdict(_Loaded)
    for instruction in instructions:
        loads = instruction.opcode.name == "LOAD"
        for name, view, writes in accesses(instruction):
            if view.space == "DDR":
                if not writes and not loads and view.end <= constants:
                    yield instruction, name, _place(view, view.address)
            elif view.space == "L1M" and writes:
                source = instruction.operands["src"] if loads else None
                memories[view.core].write(view, None if source is None or source.end > constants else source)
            elif view.space == "L1M" and (at := memories[view.core].source(view)) is not None:
                yield instruction, name, _place(view, at)


def _place(view: View, address: int) -> _Place:
    """The bytes of a view that begins at `address` among the constants; with gaps they are no row of numbers."""
    return _Place(address, view.end - view.address, view.dtype if _dense(view) else "u8")


class _Loaded:
    """Where in one L1M loads have put constants: ranges that do not overlap, by address."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ranges: list[tuple[int, int]] = []
        """(one past the last byte, address among the constants)."""

    def write(self, view: View, source: View | None) -> None:
        """Whatever lay there is gone; with a `source`, its constants lie there now."""
        low = bisect_right(self._starts, view.address)
        if low and self._ranges[low - 1][0] > view.address:
            low -= 1
        high = bisect_left(self._starts, view.end)
        del self._starts[low:high], self._ranges[low:high]
        if source is not None and source.space == "DDR" and _dense(view) and _dense(source):
            self._starts.insert(low, view.address)
            self._ranges.insert(low, (view.end, source.address))

    def source(self, view: View) -> int | None:
        """Where among the constants the bytes of a view come from; None when they are none."""
        at = bisect_right(self._starts, view.address) - 1
        if at < 0 or view.end > self._ranges[at][0]:
            return None
        return self._ranges[at][1] + view.address - self._starts[at]


def _dense(view: View) -> bool:
    return view.strides == dense_strides(view.shape, view.itemsize)
