"""Moves loads of constants ahead: as early as L1M has room for them until they are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from backends.nash.schedule.tasks import Buffer, Task

__all__ = ["hoist"]


@dataclass
class _Waiting:
    """A load that waits for the host, and the bytes that may still pass before it."""

    index: int
    room: int


def hoist(
    tasks: Sequence[Task],
    early: AbstractSet[int],
    buffers: Sequence[Buffer],
    budget: int,
    meanwhile: Mapping[int, int] | None = None,
) -> list[Task]:
    """`tasks` with those numbered in `early` moved forward; their own order stays, and no core's L1M exceeds `budget`.

    The queue is in order and what is used first has to come first: they overtake no other load, unless that one waits for
    what the host makes. `meanwhile` says for each buffer of such how many bytes may pass before it is there.
    """
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, task in enumerate(tasks):
        for region in task.operands.values():
            first.setdefault(region.buffer, index)
            last[region.buffer] = index
    cores = 1 + max((buffer.core for buffer in buffers), default=0)
    load = np.zeros((cores, len(tasks) + 1), np.int64)
    for buffer, begin in first.items():
        if buffers[buffer].space == "L1M":
            load[buffers[buffer].core, begin] += buffers[buffer].size
            load[buffers[buffer].core, last[buffer] + 1] -= buffers[buffer].size
    load = load.cumsum(axis=1)
    positions = [float(index) for index in range(len(tasks))]
    earliest = [0] * cores
    barrier = [0] * cores
    waiting: list[list[_Waiting]] = [[] for _ in range(cores)]
    loads = sorted(index for index, task in enumerate(tasks) if task.opcode == "LOAD")
    for index in loads:
        if index not in early:
            passing = (meanwhile or {}).get(tasks[index].operands["src"].buffer)
            if passing is None:
                barrier[tasks[index].core] = index + 1
            else:
                waiting[tasks[index].core].append(_Waiting(index, passing))
            continue
        region = tasks[index].operands["dst"]
        size, core = buffers[region.buffer].size, buffers[region.buffer].core
        full = (other.index + 1 for other in waiting[core] if other.room < size)
        earliest[core] = max(earliest[core], barrier[core], *full)
        begin = index
        row = load[core]
        while begin > earliest[core] and row[begin - 1] + size <= budget:
            begin -= 1
        row[begin:index] += size
        earliest[core] = begin
        positions[index] = begin - 0.5
        for overtaken in waiting[core]:
            overtaken.room -= size if overtaken.index >= begin else 0
    order = sorted(range(len(tasks)), key=lambda i: (positions[i], i))
    return [tasks[i] for i in order]
