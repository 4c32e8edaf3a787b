"""Which bytes of the memories hold something, asked and set through strided views."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from backends.nash.isa.records import View
from hbir.errors import SimulationError

__all__ = ["MemorySizes", "WrittenBytes", "byte_box", "pieces", "runs"]

_FLAGS = 48 << 20
"""Bytes of a memory (L1M: of all cores) up to which each has a flag."""

_MOST = 1 << 16
"""Intervals of a larger memory."""

Ints = npt.NDArray[np.int64]


class MemorySizes(Protocol):
    """Sizes in bytes; the first `constants` bytes of DDR hold the constants."""

    @property
    def constants(self) -> int:
        """Bytes of constants at the start of DDR."""
        ...

    @property
    def cores(self) -> int:
        """Cores, each of which has an L1M."""
        ...

    def size_of(self, space: str) -> int:
        """Bytes of a memory."""
        ...


@lru_cache(maxsize=1 << 14)
def byte_box(view: View) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents and strides of the view's bytes: outermost first, adjacent axes merged, repeats left out, a dense run
    last."""
    run = view.itemsize
    outer: list[tuple[int, int]] = []
    for stride, extent in sorted((s, n) for n, s in zip(view.shape, view.strides, strict=True) if n > 1 and s):
        if not outer and stride == run:
            run *= extent
        elif outer and stride == outer[-1][0] * outer[-1][1]:
            outer[-1] = (outer[-1][0], outer[-1][1] * extent)
        else:
            outer.append((stride, extent))
    outer.reverse()
    return (*(extent for _, extent in outer), run), (*(stride for stride, _ in outer), 1)


def pieces(view: View) -> int:
    """How many dense runs of bytes a view is made of."""
    return math.prod(byte_box(view)[0][:-1])


def runs(view: View) -> tuple[Ints, int]:
    """First byte of every dense run, ascending, and the length of a run."""
    shape, strides = byte_box(view)
    starts = np.array([view.address], np.int64)
    for extent, stride in zip(shape[:-1], strides[:-1], strict=True):
        starts = (starts[:, None] + np.arange(extent, dtype=np.int64) * stride).ravel()
    return np.sort(starts), shape[-1]


class _Flags:
    """One flag for each byte from `start` on: for memories of a size that real programs have."""

    def __init__(self, start: int, size: int) -> None:
        self._start, self._flags = start, np.zeros(size - start, np.bool_)

    def _box(self, view: View) -> npt.NDArray[np.bool_]:
        shape, strides = byte_box(view)
        return as_strided(self._flags[view.address - self._start :], shape, strides)

    def write(self, view: View) -> None:
        self._box(view)[...] = True

    def all(self, view: View) -> bool:
        return bool(self._box(view).all())


class _Intervals:
    """Ascending intervals that do not touch: for memories so large that flags would not do, whatever a file says."""

    def __init__(self) -> None:
        self._begin, self._end = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def write(self, view: View) -> None:
        starts, length = runs(view)
        begin = np.concatenate([self._begin, starts])
        order = np.argsort(begin, kind="stable")
        begin, end = begin[order], np.concatenate([self._end, starts + length])[order]
        end = np.maximum.accumulate(end)
        first = np.append(True, begin[1:] > end[:-1])
        self._begin, self._end = begin[first], end[np.append(first[1:], True)]
        if len(self._begin) > _MOST:
            raise SimulationError(1, f"what is written lies in more than {_MOST} pieces", why=str(view))

    def all(self, view: View) -> bool:
        starts, length = runs(view)
        holder = np.searchsorted(self._begin, starts, "right") - 1
        return bool((holder >= 0).all() and (self._end[holder] >= starts + length).all())


class WrittenBytes:
    """Every byte of DDR behind the constants, of L2M and of each L1M: written or not. Memories start unwritten."""

    def __init__(self, sizes: MemorySizes) -> None:
        self._sizes = sizes
        self._memories: dict[tuple[str, int], _Flags | _Intervals] = {}

    def _memory(self, view: View) -> _Flags | _Intervals:
        key = (view.space, view.core)
        found = self._memories.get(key)
        if found is None:
            start = self._sizes.constants if view.space == "DDR" else 0
            size = self._sizes.size_of(view.space)
            cores = self._sizes.cores if view.space == "L1M" else 1
            found = _Flags(start, size) if (size - start) * cores <= _FLAGS else _Intervals()
            self._memories[key] = found
        return found

    def write(self, view: View) -> None:
        """Mark every byte of a view that lies behind the constants. Raises SimulationError HB0701 for too many pieces."""
        self._memory(view).write(view)

    def all(self, view: View) -> bool:
        """Whether every byte was written. A view that is half in the constants counts as not written."""
        if view.space == "DDR" and view.address < self._sizes.constants:
            return view.end <= self._sizes.constants
        return self._memory(view).all(view)
