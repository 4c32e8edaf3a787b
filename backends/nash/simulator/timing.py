"""When each instruction starts and ends, without data: an event-driven run over the queues of all cores.

Compute instructions take the cycles of `isa.cost`. A transfer first waits for its latency, then moves its bytes at the
rate of its memory divided by the number of transfers that use it at that moment, from whatever core. Time is in whole
cycles, so that busy + stalled + idle of a unit is exactly the total.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.nash.hbm import Model
from backends.nash.isa import UNITS, Decoded, instruction_cycles
from hbir.errors import SimulationError
from hbir.march import March

__all__ = ["Timing", "UnitTime", "simulate"]


@dataclass(frozen=True, slots=True)
class UnitTime:
    """Cycles of one unit of one core: running, waiting for events with work left, and after its last instruction."""

    core: int
    unit: str
    instructions: int
    busy: int
    stalled: int
    idle: int


@dataclass(frozen=True)
class Timing:
    """The outcome of a timing run. `start` and `end` are cycles, [frame, instruction]; `slots[f]` is the first core of
    frame f."""

    march: March
    cycles: int
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    slots: tuple[int, ...]
    units: tuple[UnitTime, ...]
    ddr_read: int
    """Bytes that LOAD took from DDR, all frames."""
    ddr_written: int
    l2m_read: int
    l2m_written: int

    @property
    def seconds(self) -> float:
        """From the first start to the last end, dispatch left out."""
        return self.cycles / self.march.clock_hz

    @property
    def frame_seconds(self) -> tuple[float, ...]:
        """Device time of each frame."""
        spans = self.end.max(1, initial=0) - self.start.min(1, initial=self.cycles)
        return tuple((np.maximum(spans, 0) / self.march.clock_hz).tolist())

    @property
    def frames_per_second(self) -> float:
        """Frames over the device time of all of them."""
        return len(self.start) / self.seconds if self.cycles else math.inf


@dataclass(frozen=True, slots=True)
class _Work:
    """What timing needs of an instruction: fixed cycles, then bytes through a shared memory (-1: none)."""

    queue: int
    cycles: int
    pool: int
    size: int
    waits: tuple[tuple[int, int], ...]


_POOLS = ("DDR", "L2M")


def _work(d: Decoded, march: March) -> _Work:
    waits = tuple((wait.queue, wait.completed) for wait in d.waits)
    if d.opcode.unit in ("LOAD", "STORE"):
        far = d.operands["src" if d.opcode.unit == "LOAD" else "dst"]
        return _Work(d.queue, march.issue_cycles + march.dma_latency_cycles, _POOLS.index(far.space), far.nbytes, waits)
    return _Work(d.queue, instruction_cycles(march, d.opcode.name, d.operands, d.params), -1, 0, waits)


class _Pool:
    """Bandwidth shared equally by the transfers in flight.

    `served` counts the bytes that each transfer in flight has received since the beginning of time; one that starts at
    `served` with n bytes ends at `served + n`, whatever joins or leaves in between.
    """

    def __init__(self, bytes_per_cycle: float) -> None:
        self.rate = bytes_per_cycle
        self.served = 0.0
        self.at = 0
        self.flights: list[tuple[float, int]] = []

    def advance(self, now: int) -> None:
        if self.flights:
            self.served += (now - self.at) * self.rate / len(self.flights)
        self.at = now

    def next_end(self) -> int:
        """First whole cycle at which a transfer is complete."""
        missing = (self.flights[0][0] - self.served) * len(self.flights) / self.rate
        return self.at + max(math.ceil(missing - 1e-6), 0)

    def landed(self) -> list[int]:
        """Take out the transfers that are complete now; a millionth of a byte is rounding."""
        done: list[int] = []
        while self.flights and self.flights[0][0] <= self.served + 1e-6 * max(1.0, self.rate):
            done.append(heapq.heappop(self.flights)[1])
        return done


class _Slot:
    """The queues of one copy of the program, which runs its frames one after the other from core `core` on."""

    def __init__(self, number: int, work: Sequence[_Work], frames: Sequence[int]) -> None:
        self.number, self.work = number, work
        self.frames = list(reversed(frames))
        self.queues: dict[int, list[int]] = {}
        for index, item in enumerate(work):
            self.queues.setdefault(item.queue, []).append(index)
        self.frame = -1
        self.done: dict[int, int] = {}
        self.blocked: dict[int, list[int]] = {}
        self.left = 0

    def begin(self) -> bool:
        """Start the next frame; False when there is none."""
        if not self.frames:
            return False
        self.frame = self.frames.pop()
        self.done = dict.fromkeys(self.queues, 0)
        self.blocked = {queue: [] for queue in self.queues}
        self.left = len(self.work)
        return True

    def ready(self, queue: int) -> int | None:
        """The head of a queue if its waits are over; else note which queue it waits for."""
        position = self.done[queue]
        if position == len(self.queues[queue]):
            return None
        index = self.queues[queue][position]
        for other, count in self.work[index].waits:
            if self.done.get(other, 0) < count:
                self.blocked.setdefault(other, []).append(queue)
                return None
        return index

    def finish(self, index: int) -> list[int]:
        """Complete an instruction; the queues whose heads may now be ready."""
        queue = self.work[index].queue
        self.done[queue] += 1
        self.left -= 1
        woken, self.blocked[queue] = self.blocked[queue], []
        return [queue, *woken]


class _Machine:
    def __init__(self, slots: Sequence[_Slot], march: March, frames: int, size: int) -> None:
        self.slots, self.size = slots, size
        self.pools = [_Pool(march.ddr_bytes_per_cycle), _Pool(march.l2m_bytes_per_cycle)]
        self.start = np.zeros((frames, size), np.int64)
        self.end = np.zeros((frames, size), np.int64)
        self.events: list[
            tuple[int, int, int]
        ] = []  # cycle, instruction of a slot, 1 when the fixed cycles end in a transfer

    def issue(self, slot: _Slot, queues: Sequence[int], now: int) -> None:
        for queue in queues:
            index = slot.ready(queue)
            if index is not None:
                work = slot.work[index]
                self.start[slot.frame, index] = now
                heapq.heappush(self.events, (now + work.cycles, slot.number * self.size + index, int(work.pool >= 0)))

    def complete(self, key: int, now: int) -> None:
        slot, index = self.slots[key // self.size], key % self.size
        self.end[slot.frame, index] = now
        woken = slot.finish(index)
        if slot.left:
            self.issue(slot, woken, now)
        elif slot.begin():
            self.issue(slot, list(slot.queues), now)

    def run(self) -> int:
        now = 0
        for slot in self.slots:
            if slot.begin() and self.size:
                self.issue(slot, list(slot.queues), 0)
        while self.events or any(pool.flights for pool in self.pools):
            times = [pool.next_end() for pool in self.pools if pool.flights]
            now = min([*times, self.events[0][0]] if self.events else times)
            finished: list[int] = []
            for pool in self.pools:
                pool.advance(now)
                finished += pool.landed()
            while self.events and self.events[0][0] == now:
                _, key, transfer = heapq.heappop(self.events)
                if not transfer:
                    finished.append(key)
                    continue
                work = self.slots[key // self.size].work[key % self.size]
                pool = self.pools[work.pool]
                heapq.heappush(pool.flights, (pool.served + work.size, key))
            for key in sorted(finished):
                self.complete(key, now)
        if any(slot.left for slot in self.slots):
            raise SimulationError(
                3, "the program never ends", why="every queue waits", lever="verify the program first"
            )
        return now


def _unit_times(machine: _Machine, cycles: int, cores: int, model_cores: int) -> tuple[UnitTime, ...]:
    span = machine.end - machine.start
    rows: list[UnitTime] = []
    for core in range(cores):
        slot = machine.slots[core // model_cores] if core // model_cores < len(machine.slots) else None
        for at, unit in enumerate(UNITS):
            queue = core % model_cores * len(UNITS) + at
            indices = slot.queues.get(queue, []) if slot is not None else []
            frames = _frames_of(machine, slot) if slot is not None else []
            block = np.ix_(frames, indices)
            busy = int(span[block].sum())
            last = int(machine.end[block].max(initial=0))
            rows.append(UnitTime(core, unit, len(indices) * len(frames), busy, last - busy, cycles - last))
    return tuple(rows)


def _frames_of(machine: _Machine, slot: _Slot) -> list[int]:
    return list(range(slot.number, len(machine.start), len(machine.slots)))


def simulate(model: Model, *, frames: int = 1, slots: int = 1) -> Timing:
    """Time `frames` runs of a model on `slots` disjoint groups of its march's cores, frame f on group f mod slots.

    The program must be verified. Raises SimulationError HB0712 when the march has too few cores, HB0703 when the program
    waits for events that never come.
    """
    march, cores = model.march, model.memories.cores
    if slots < 1 or frames < 1 or slots * cores > march.cores:
        raise SimulationError(
            12,
            f"{frames} frames on {slots} groups of {cores} cores",
            why=f"{march.name} has {march.cores}",
            lever=f"ask for 1 to {march.cores // cores} groups and at least 1 frame",
        )
    decoded = model.program.decoded
    work = [_work(d, march) for d in decoded]
    groups = [_Slot(number, work, range(number, frames, slots)) for number in range(slots)]
    machine = _Machine(groups, march, frames, len(work))
    cycles = machine.run()
    moved = dict.fromkeys((("DDR", "LOAD"), ("DDR", "STORE"), ("L2M", "LOAD"), ("L2M", "STORE")), 0)
    for d, item in zip(decoded, work, strict=True):
        if item.pool >= 0:
            moved[_POOLS[item.pool], d.opcode.unit] += item.size * frames
    return Timing(
        march,
        cycles,
        machine.start,
        machine.end,
        tuple(frame % slots * cores for frame in range(frames)),
        _unit_times(machine, cycles, march.cores, cores),
        *moved.values(),
    )
