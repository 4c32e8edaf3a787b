"""Moves loads of constants ahead: as early as L1M has room for them until they are used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from backends.nash.schedule.tasks import Buffer, Task

__all__ = ["hoist"]


def hoist(tasks: Sequence[Task], early: set[int], buffers: Sequence[Buffer], budget: int) -> list[Task]:
    """`tasks` with those numbered in `early` moved forward; their own order stays, and no core's L1M exceeds `budget`."""
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
    # No load overtakes another: the queue is in order, and what is used first has to come first.
    barrier = [0] * cores
    loads = sorted(index for index, task in enumerate(tasks) if task.opcode == "LOAD")
    for index in loads:
        if index not in early:
            barrier[tasks[index].core] = index + 1
            continue
        region = tasks[index].operands["dst"]
        size, core = buffers[region.buffer].size, buffers[region.buffer].core
        earliest[core] = max(earliest[core], barrier[core])
        begin = index
        row = load[core]
        while begin > earliest[core] and row[begin - 1] + size <= budget:
            begin -= 1
        row[begin:index] += size
        earliest[core] = begin
        positions[index] = begin - 0.5
    order = sorted(range(len(tasks)), key=lambda i: (positions[i], i))
    return [tasks[i] for i in order]
