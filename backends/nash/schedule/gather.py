"""Brings the constants of several layers by one transfer: each transfer costs its latency, however few bytes it moves.

Loads that follow each other become one, of at most so many bytes; the first few are kept smaller, so that compute need not
wait for constants that it takes much later. A transfer bears the name of the layer that needs it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from backends.nash.schedule.tasks import Buffer, Region, Task

__all__ = ["gather"]

_ALIGN = 16
_FIRST = 2 << 10


def _up(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


@dataclass
class _Page:
    """Constants that travel together: the loads that bring them now, and where each constant and each buffer will lie."""

    limit: int
    loads: list[int] = field(default_factory=list[int])
    content: bytearray = field(default_factory=bytearray)
    constants: dict[int, int] = field(default_factory=dict[int, int])
    buffers: dict[int, int] = field(default_factory=dict[int, int])

    def takes(self, constant: int, size: int) -> bool:
        return constant in self.constants or not self.loads or _up(len(self.content)) + size <= self.limit

    def add(self, index: int, task: Task, content: bytes) -> None:
        constant = task.operands["src"].buffer
        if constant not in self.constants:
            self.constants[constant] = _up(len(self.content))
            self.content += b"\0" * (self.constants[constant] - len(self.content))
            self.content += content
        self.buffers[task.operands["dst"].buffer] = self.constants[constant]
        self.loads.append(index)


def _pages(tasks: Sequence[Task], early: AbstractSet[int], buffers: Sequence[Buffer], limit: int) -> list[_Page]:
    pages: list[_Page] = []
    open_page: dict[int, _Page] = {}
    for index, task in enumerate(tasks):
        if index not in early:
            continue
        source = task.operands["src"].buffer
        content, page = buffers[source].content, open_page.get(task.core)
        if page is None or not page.takes(source, len(content)):
            page = _Page(min(limit, _FIRST if page is None else 2 * page.limit))
            open_page[task.core] = page
            pages.append(page)
        page.add(index, task, content)
    return [page for page in pages if len(page.loads) > 1]


def gather(
    tasks: Sequence[Task], early: AbstractSet[int], buffers: Sequence[Buffer], limit: int
) -> tuple[list[Task], list[Buffer], set[int]]:
    """`tasks` with the loads of constants numbered in `early` gathered into transfers of at most `limit` bytes; the buffers
    that they use, and the numbers of the loads of constants now. A constant that is larger still has a transfer to itself."""
    made = list(buffers)
    held = {buffer.content: index for index, buffer in enumerate(buffers) if buffer.space == "CONST"}
    moved: dict[int, tuple[int, int]] = {}
    loads: dict[int, Task] = {}
    gone: set[int] = set()
    for page in _pages(tasks, early, buffers, limit):
        first, content = tasks[page.loads[0]], bytes(page.content)
        if content not in held:
            held[content] = len(made)
            made.append(Buffer("CONST", len(content), content=content))
        target = len(made)
        made.append(Buffer("L1M", -(-len(content) // 64) * 64, first.core))
        moved |= {buffer: (target, offset) for buffer, offset in page.buffers.items()}
        operands = {
            role: Region.dense(at, "u8", (len(content),)) for role, at in (("src", held[content]), ("dst", target))
        }
        loads[page.loads[0]] = replace(first, operands=operands)
        gone.update(page.loads[1:])
    kept = [index for index in range(len(tasks)) if index not in gone]
    found = [loads.get(index) or _moved(tasks[index], moved) for index in kept]
    return *_compact(found, made), {new for new, old in enumerate(kept) if old in early}


def _moved(task: Task, places: dict[int, tuple[int, int]]) -> Task:
    """A task that finds its constants in the buffers where they are now."""
    if not any(region.buffer in places for region in task.operands.values()):
        return task
    operands = dict(task.operands)
    for role, region in task.operands.items():
        if region.buffer in places:
            buffer, offset = places[region.buffer]
            operands[role] = replace(region, buffer=buffer, offset=region.offset + offset)
    return replace(task, operands=operands)


def _compact(tasks: Sequence[Task], buffers: Sequence[Buffer]) -> tuple[list[Task], list[Buffer]]:
    """Tasks and buffers without the buffers that nothing names any more; inputs and outputs stay."""
    named = {region.buffer for task in tasks for region in task.operands.values()}
    kept = [index for index, buffer in enumerate(buffers) if index in named or buffer.kind]
    places = {old: (new, 0) for new, old in enumerate(kept)}
    return [_moved(task, places) for task in tasks], [buffers[index] for index in kept]
