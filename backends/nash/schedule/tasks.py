"""What scheduling decides, as plain data: the border between scheduler, allocator and encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from backends.nash.isa.opcodes import BY_NAME
from backends.nash.isa.records import DTYPES, dense_strides
from hbir.errors import BackendError

__all__ = ["Buffer", "Region", "Schedule", "Task"]


@dataclass(frozen=True, slots=True)
class Buffer:
    """`size` bytes in a memory. `space` CONST is DDR with known `content`; inputs and outputs are DDR with a `name`."""

    space: Literal["L1M", "L2M", "DDR", "CONST"]
    size: int
    core: int = 0
    name: str = ""
    kind: Literal["input", "output", ""] = ""
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Region:
    """A strided box inside a buffer; offset and strides in bytes."""

    buffer: int
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @staticmethod
    def dense(buffer: int, dtype: str, shape: tuple[int, ...], offset: int = 0) -> Region:
        """A row-major box."""
        return Region(buffer, offset, dtype, shape, dense_strides(shape, DTYPES[dtype].itemsize))


@dataclass(frozen=True, slots=True)
class Task:
    """One instruction to be, before addresses: opcode, operands, parameters, the core that runs it and the user's layer."""

    opcode: str
    core: int
    layer: str
    operands: Mapping[str, Region]
    params: Mapping[str, int | float]
    node: int

    @property
    def written(self) -> frozenset[str]:
        """The roles of the operands that it writes; it reads all others."""
        if self.opcode == "HOST_CALL":
            return frozenset(list(self.operands)[int(self.params["inputs"]) :])
        return frozenset(operand.name for operand in BY_NAME[self.opcode].operands if operand.access == "w")


@dataclass(frozen=True)
class Schedule:
    """Tasks in the order in which their queues take them. A buffer lives from the first task that names it to the last."""

    buffers: tuple[Buffer, ...]
    tasks: tuple[Task, ...]

    @cached_property
    def lives(self) -> dict[int, tuple[int, int]]:
        """(first, last) task index of every buffer that a task names."""
        found: dict[int, tuple[int, int]] = {}
        for index, task in enumerate(self.tasks):
            for region in task.operands.values():
                first, _ = found.get(region.buffer, (index, index))
                found[region.buffer] = (first, index)
        return found

    def __str__(self) -> str:
        lines = [f"schedule: {len(self.tasks)} tasks, {len(self.buffers)} buffers"]
        for index, task in enumerate(self.tasks):
            operands = ", ".join(f"{k}=b{r.buffer}+{r.offset}{list(r.shape)}" for k, r in task.operands.items())
            lines.append(f"  {index}: core {task.core} {task.opcode} {operands}  [{task.layer}]")
        return "\n".join(lines) + "\n"

    def verify(self) -> None:
        """Every region lies inside its buffer. Raises BackendError HB0531."""
        for task in self.tasks:
            for role, region in task.operands.items():
                reach = sum((n - 1) * s for n, s in zip(region.shape, region.strides, strict=True))
                end = region.offset + reach + DTYPES[region.dtype].itemsize
                if region.offset < 0 or end > self.buffers[region.buffer].size:
                    what = f"operand '{role}' of {task.opcode} leaves its buffer"
                    raise BackendError(31, what, where=f"layer '{task.layer}'")
