"""Writes instructions, and the events that order them.

Events follow from addresses alone: a task waits for every earlier task of another queue that wrote what it reads, or read or
wrote what it writes. Data dependencies and the reuse of memory are thereby one thing, found in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backends.nash.allocate.addresses import Addresses
from backends.nash.isa import BY_NAME, Event, Program, ProgramBuilder, View
from backends.nash.isa.hazards import overlap
from backends.nash.schedule.tasks import Region, Schedule, Task

__all__ = ["encode"]


@dataclass(slots=True)
class _Access:
    view: View
    low: int
    high: int
    event: Event
    write: bool


@dataclass
class _Memory:
    """The accesses to one memory that later ones may still have to wait for."""

    live: list[_Access] = field(default_factory=list[_Access])

    def conflicts(self, view: View, write: bool) -> list[Event]:
        """Events of the accesses that conflict with a new one."""
        low, high = view.address, view.end
        near = [a for a in self.live if a.low < high and low < a.high and (write or a.write)]
        return [a.event for a in near if overlap(a.view, view) is not None]

    def record(self, view: View, event: Event, write: bool) -> None:
        """Remember an access. A dense write ends the time of whatever it covers: it waited for it itself."""
        low, high = view.address, view.end
        if write and high - low == view.nbytes:
            self.live = [a for a in self.live if not (low <= a.low and a.high <= high)]
        self.live.append(_Access(view, low, high, event, write))


def _view(region: Region, schedule: Schedule, addresses: Addresses) -> View:
    buffer = schedule.buffers[region.buffer]
    space = "DDR" if buffer.space == "CONST" else buffer.space
    core = buffer.core if space == "L1M" else 0
    return View(space, region.dtype, region.shape, addresses.address[region.buffer] + region.offset, region.strides, core)


def _accesses(task: Task, views: dict[str, View]) -> list[tuple[View, bool]]:
    if task.opcode == "HOST_CALL":
        reads = int(task.params["inputs"])
        return [(view, index >= reads) for index, view in enumerate(views.values())]
    written = {operand.name for operand in BY_NAME[task.opcode].operands if operand.access == "w"}
    return [(view, role in written) for role, view in views.items()]


def encode(schedule: Schedule, addresses: Addresses) -> tuple[Program, bytes]:
    """The program, and the constant bytes that DDR starts with."""
    builder = ProgramBuilder()
    memories: dict[tuple[str, int], _Memory] = {}
    for task in schedule.tasks:
        views = {role: _view(region, schedule, addresses) for role, region in task.operands.items()}
        touched = [(v, w) for v, w in _accesses(task, views) if not (v.space == "DDR" and v.end <= addresses.constants)]
        waits = {
            event
            for view, write in touched
            for event in memories.setdefault((view.space, view.core), _Memory()).conflicts(view, write)
        }
        event = builder.append(
            task.opcode, views, task.params, core=task.core, waits=sorted(waits), layer=builder.layer(task.layer)
        )
        for view, write in touched:
            memories[view.space, view.core].record(view, event, write)
    constants = bytearray(addresses.constants)
    for index, buffer in enumerate(schedule.buffers):
        if buffer.space == "CONST":
            at = addresses.address[index]
            constants[at : at + len(buffer.content)] = buffer.content
    return builder.build(), bytes(constants)
