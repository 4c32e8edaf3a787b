"""Which instructions are ordered, and whether two that touch the same bytes are not.

An instruction is ordered after what came before it in its queue, after what it waits for, and after what those are
ordered after. Vector clocks hold that: `clock[i, q]` instructions of queue q are complete when i starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from backends.nash.isa.program import Program, accesses, queue_index
from backends.nash.isa.records import View
from backends.nash.isa.written import pieces, runs
from hbir.errors import SimulationError

__all__ = ["check_hazards", "overlap", "vector_clocks"]

_CHUNK = 1 << 21

_FEW = 1 << 10
"""Pieces of a view that are kept; those of others are made anew each time."""

_WORK = 1 << 22
"""Pieces that may be compared in all, and a thousandth of it more for each instruction: real programs need far fewer."""

Ints = npt.NDArray[np.int64]


def vector_clocks(program: Program) -> Ints:
    """`clock[i, q]`: how many instructions of queue q have completed when instruction i starts."""
    queues = queue_index(program.instructions)
    width = int(max([0, *queues.tolist(), *program.instructions["wait_queue"].ravel().tolist()])) + 1
    clocks = np.zeros((len(program), width), np.int64)
    members: list[list[int]] = [[] for _ in range(width)]
    counts = program.instructions["wait_count"].tolist()
    names, values = program.instructions["wait_queue"].tolist(), program.instructions["wait_value"].tolist()
    own_queues: list[int] = queues.tolist()
    for i, own in enumerate(own_queues):
        clock, mine = clocks[i], members[own]
        if mine:
            clock[:] = clocks[mine[-1]]
            clock[own] = len(mine)
        for queue, value in zip(names[i][: counts[i]], values[i][: counts[i]], strict=True):
            np.maximum(clock, clocks[members[queue][value - 1]], out=clock)
            clock[queue] = max(clock[queue], value)
        mine.append(i)
    return clocks


_few_runs = lru_cache(maxsize=1 << 12)(runs)


def _runs(view: View) -> tuple[Ints, int]:
    return _few_runs(view) if pieces(view) <= _FEW else runs(view)


@lru_cache(maxsize=1 << 13)
def overlap(a: View, b: View) -> int | None:
    """A byte that two views of one memory share, or None."""
    if a.address >= b.end or b.address >= a.end:
        return None
    starts_a, run_a = _runs(a)
    starts_b, run_b = _runs(b)
    # For each run of b, the last run of a that starts before b's end: runs of one view never overlap each other.
    before = np.searchsorted(starts_a, starts_b + run_b, "left") - 1
    meets = (before >= 0) & (starts_a[before] + run_a > starts_b)
    if not meets.any():
        return None
    at = int(np.argmax(meets))
    return int(max(starts_b[at], starts_a[before[at]]))


def _search(ascending: Ints, values: Ints) -> Ints:
    """How many of `ascending` are below each value."""
    return np.asarray(np.searchsorted(ascending, values, "left"), np.int64)


@dataclass(frozen=True, slots=True)
class _Accesses:
    """Accesses to one memory in program order, as columns."""

    instruction: Ints
    queue: Ints
    low: Ints
    high: Ints
    write: npt.NDArray[np.bool_]
    views: list[View]


def _by_memory(program: Program, queues: Ints) -> dict[str, _Accesses]:
    rows: dict[str, list[tuple[int, int, int, int, bool]]] = {}
    views: dict[str, list[View]] = {}
    ends: dict[int, int] = {}
    for d in program.decoded:
        queue = int(queues[d.index])
        for _, view, written in accesses(d):
            memory = f"L1M{view.core}" if view.space == "L1M" else view.space
            end = ends.get(id(view)) or ends.setdefault(id(view), view.end)
            rows.setdefault(memory, []).append((d.index, queue, view.address, end, written))
            views.setdefault(memory, []).append(view)
    tables: dict[str, _Accesses] = {}
    for memory, table in rows.items():
        columns = np.array(table, np.int64).T
        instruction, queue, low, high, write = columns
        tables[memory] = _Accesses(instruction, queue, low, high, write.astype(np.bool_), views[memory])
    return tables


def _candidates(table: _Accesses, clocks: Ints, before: Ints, queue: int) -> Iterator[tuple[Ints, Ints]]:
    """Pairs (earlier access of `queue`, later access of another queue) that nothing orders, in bounded pieces.

    `before[i, q]`: instructions of q that stand before i in the program. What is not complete when i starts is the
    slice of q's instructions from `clocks[i, q]` to `before[i, q]`.
    """
    mine = np.flatnonzero(table.queue == queue)
    others = np.flatnonzero(table.queue != queue)
    position = before[table.instruction[mine], queue]
    first = _search(position, clocks[table.instruction[others], queue])
    last = _search(position, before[table.instruction[others], queue])
    lengths = np.maximum(last - first, 0)
    ends = np.cumsum(lengths)
    begin = 0
    while begin < len(others):
        base = ends[begin - 1] if begin else 0
        stop = max(int(np.searchsorted(ends, base + _CHUNK, "right")), begin + 1)
        count = lengths[begin:stop]
        later = np.repeat(np.arange(begin, stop), count)
        within = np.arange(len(later)) - np.repeat(ends[begin:stop] - count - base, count)
        yield mine[first[later] + within], others[later]
        begin = stop


def check_hazards(program: Program, clocks: Ints) -> tuple[int, int, str, int] | None:
    """The first pair of conflicting accesses that nothing orders: two instructions, the memory, a byte. None when safe.

    "First" goes by the later instruction, then by the earlier one.
    Raises SimulationError HB0701 for views in so many pieces that comparing them would take long.

    Bounding intervals sort out most pairs; the rest are compared byte for byte.
    """
    queues = queue_index(program.instructions)
    before = np.zeros_like(clocks)
    for queue in np.unique(queues):
        # Exclusive count: instructions of the queue that stand before each.
        member = queues == queue
        before[:, queue] = np.cumsum(member) - member
    first: tuple[int, int, str, int] | None = None
    work, compared = _WORK + len(program) * (_WORK >> 10), set[tuple[View, View]]()
    for memory, table in _by_memory(program, queues).items():
        for queue in np.unique(table.queue):
            for early, late in _candidates(table, clocks, before, int(queue)):
                clash = (table.write[early] | table.write[late]) & (table.low[early] < table.high[late])
                clash &= table.low[late] < table.high[early]
                for a, b in zip(map(int, early[clash]), map(int, late[clash]), strict=True):
                    later, earlier = int(table.instruction[b]), int(table.instruction[a])
                    if first is not None and (later, earlier) >= (first[1], first[0]):
                        continue
                    pair = (table.views[a], table.views[b])
                    if pair not in compared:
                        compared.add(pair)
                        work -= pieces(pair[0]) + pieces(pair[1])
                    if work < 0:
                        raise SimulationError(1, f"its views lie in too many pieces of {memory} to be compared")
                    byte = overlap(*pair)
                    if byte is not None:
                        first = earlier, later, memory, byte
    return first
