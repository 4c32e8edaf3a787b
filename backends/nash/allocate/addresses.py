"""First fit over live ranges, in several orders; the best plan is kept and compared with the lower bound.

The lower bound of a memory is the largest number of bytes that live at one time. Constants, inputs and outputs stand in DDR
for the whole run, constants first; workspace in DDR, L2M and each core's L1M is shared between buffers whose lives are apart.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from backends.nash.schedule.tasks import Schedule
from hbir.errors import BackendError
from hbir.march import March

__all__ = ["Addresses", "allocate", "first_fit", "lower_bound", "place"]


@dataclass(frozen=True)
class Addresses:
    """Address of every buffer in its memory; bytes used of each memory, and the lower bound for L1M."""

    address: tuple[int, ...]
    constants: int
    ddr: int
    l2m: int
    l1m: int
    l1m_bound: int

    def __str__(self) -> str:
        return (
            f"addresses: DDR {self.ddr} (constants {self.constants}), L2M {self.l2m}, "
            f"L1M {self.l1m} (lower bound {self.l1m_bound})\n"
        )


def first_fit(order: Sequence[int], sizes: Sequence[int], lives: Sequence[tuple[int, int]]) -> tuple[list[int], int]:
    """Place buffers in `order`, each at the lowest address free during its life; addresses and the peak."""
    count = len(sizes)
    address = np.zeros(count, np.int64)
    begin, end = np.array([a for a, _ in lives]), np.array([b for _, b in lives])
    placed = np.zeros(count, np.bool_)
    extent = np.asarray(sizes, np.int64)
    peak = 0
    for index in order:
        clash = np.flatnonzero(placed & (begin <= end[index]) & (end >= begin[index]))
        at = 0
        for other in clash[np.argsort(address[clash], kind="stable")]:
            if address[other] - at >= extent[index]:
                break
            at = max(at, int(address[other] + extent[other]))
        address[index] = at
        placed[index] = True
        peak = max(peak, at + int(extent[index]))
    return [int(a) for a in address], peak


def place(sizes: Sequence[int], lives: Sequence[tuple[int, int]], capacity: int | None = None) -> tuple[list[int], int]:
    """Addresses for buffers with live ranges (first, last, both included); the best of three orders, and its peak.

    Stops at the first order that fits `capacity`.
    """
    keys: list[Callable[[int], tuple[int, ...]]] = [
        lambda i: (-sizes[i], lives[i][0], i),
        lambda i: (-(lives[i][1] - lives[i][0] + 1), -sizes[i], i),
        lambda i: (lives[i][0], -sizes[i], i),
    ]
    best: tuple[list[int], int] | None = None
    for key in keys:
        found = first_fit(sorted(range(len(sizes)), key=key), sizes, lives)
        if best is None or found[1] < best[1]:
            best = found
        if capacity is not None and best[1] <= capacity:
            break
    return best or ([], 0)


def lower_bound(sizes: Sequence[int], lives: Sequence[tuple[int, int]]) -> int:
    """The largest number of bytes that live at one time: no placement has a smaller peak."""
    load = np.zeros(max((last for _, last in lives), default=0) + 2, np.int64)
    for size, (first, last) in zip(sizes, lives, strict=True):
        load[first] += size
        load[last + 1] -= size
    return int(load.cumsum().max(initial=0))


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def allocate(schedule: Schedule, march: March, *, l2m_bytes: int = 0) -> Addresses:
    """Addresses for every buffer. Raises BackendError HB0541 when L1M or L2M does not suffice, with the numbers."""
    align = march.memory_alignment
    buffers, lives = schedule.buffers, schedule.lives
    address = [0] * len(buffers)
    at = 0
    for index, buffer in enumerate(buffers):
        if buffer.space == "CONST":
            address[index], at = at, at + _up(buffer.size, align)
    constants = at
    for index, buffer in enumerate(buffers):
        if buffer.space == "DDR" and buffer.kind:
            address[index], at = at, at + _up(buffer.size, align)
    workspace = [i for i, b in enumerate(buffers) if b.space == "DDR" and not b.kind and i in lives]
    found, peak = place([_up(buffers[i].size, align) for i in workspace], [lives[i] for i in workspace])
    for index, where in zip(workspace, found, strict=True):
        address[index] = at + where
    ddr = at + peak
    l1m = l2m = bound = 0
    for space, core in sorted({(b.space, b.core) for b in buffers if b.space in ("L1M", "L2M")}):
        members = [i for i, b in enumerate(buffers) if (b.space, b.core) == (space, core) and i in lives]
        sizes = [_up(buffers[i].size, align) for i in members]
        ranges = [lives[i] for i in members]
        limit = march.l1m_bytes if space == "L1M" else l2m_bytes
        found, peak = place(sizes, ranges, limit)
        for index, where in zip(members, found, strict=True):
            address[index] = where
        lower = lower_bound(sizes, ranges)
        if peak > limit:
            raise BackendError(
                41,
                f"{space} of core {core} needs {peak:,} bytes, there are {limit:,}",
                why=f"at one time {lower:,} bytes are alive",
                lever="a march with more memory, fewer cores, or a smaller picture",
            )
        if space == "L1M":
            l1m, bound = max(l1m, peak), max(bound, lower)
        else:
            l2m = max(l2m, peak)
    return Addresses(tuple(address), constants, ddr, l2m, l1m, bound)
