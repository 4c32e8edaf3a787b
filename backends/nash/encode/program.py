"""Writes instructions, and the events that order them.

Events follow from addresses alone: a task waits for every earlier task of another queue that wrote what it reads, or read or
wrote what it writes. Data dependencies and the reuse of memory are thereby one thing, found in one place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from backends.nash.allocate.addresses import Addresses
from backends.nash.isa import Event, Program, ProgramBuilder, View
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


_PAGE_BITS = 14


@dataclass
class _Memory:
    """The accesses to one memory that later ones may still have to wait for, by the pages they touch."""

    pages: dict[int, list[_Access]] = field(default_factory=dict[int, list[_Access]])

    def conflicts(self, view: View, write: bool) -> set[Event]:
        """Events of the accesses that conflict with a new one."""
        low, high = view.address, view.end
        near = {
            id(a): a
            for page in range(low >> _PAGE_BITS, ((high - 1) >> _PAGE_BITS) + 1)
            for a in self.pages.get(page, ())
            if a.low < high and low < a.high and (write or a.write)
        }
        return {a.event for a in near.values() if overlap(a.view, view) is not None}

    def record(self, view: View, event: Event, write: bool) -> None:
        """Remember an access. A dense write ends the time of whatever it covers: it waited for it itself."""
        low, high = view.address, view.end
        access = _Access(view, low, high, event, write)
        dense = write and high - low == view.nbytes
        for page in range(low >> _PAGE_BITS, ((high - 1) >> _PAGE_BITS) + 1):
            live = self.pages.setdefault(page, [])
            if dense:
                live[:] = [a for a in live if not (low <= a.low and a.high <= high)]
            live.append(access)


def _view(region: Region, schedule: Schedule, addresses: Addresses) -> View:
    buffer = schedule.buffers[region.buffer]
    space = "DDR" if buffer.space == "CONST" else buffer.space
    core = buffer.core if space == "L1M" else 0
    return View(
        space, region.dtype, region.shape, addresses.address[region.buffer] + region.offset, region.strides, core
    )


def _accesses(task: Task, views: dict[str, View]) -> list[tuple[View, bool]]:
    written = task.written
    return [(view, role in written) for role, view in views.items()]


def _fixed(schedule: Schedule, region: Region) -> bool:
    buffer = schedule.buffers[region.buffer]
    return buffer.space == "CONST" or buffer.kind == "input"


def encode(schedule: Schedule, addresses: Addresses) -> tuple[Program, bytes]:
    """The program, and the constant bytes that DDR starts with."""
    builder = ProgramBuilder()
    memories: dict[tuple[str, int], _Memory] = {}
    for task in schedule.tasks:
        views = {role: _view(region, schedule, addresses) for role, region in task.operands.items()}
        # Nothing writes constants and inputs, so nothing has to wait for who reads them.
        fixed = {id(views[role]) for role, region in task.operands.items() if _fixed(schedule, region)}
        touched = [(view, write) for view, write in _accesses(task, views) if id(view) not in fixed]
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
