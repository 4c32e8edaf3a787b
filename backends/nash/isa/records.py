"""Fixed-size little-endian records of the Nash ISA, and the names of memories, units and element types.

An instruction is 176 bytes, a view (a strided box of elements in a memory) is 64; instructions name views by index.
Every (core, unit) has one queue that runs in order; an instruction waits until other queues have completed so many
instructions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

__all__ = [
    "ABSENT",
    "DDR",
    "DTYPES",
    "DTYPE_NAMES",
    "INSTRUCTION",
    "L1M",
    "L2M",
    "MAX_OPERANDS",
    "MAX_PARAMS",
    "MAX_RANK",
    "MAX_WAITS",
    "SPACES",
    "UNITS",
    "VIEW",
    "Records",
    "View",
    "dense_strides",
    "dtype_name",
    "queue_name",
    "queue_of",
]

Records: TypeAlias = npt.NDArray[np.void]
"""An array of records."""

SPACES: tuple[str, ...] = ("DDR", "L2M", "L1M")
"""The memories, the largest first."""
DDR, L2M, L1M = SPACES
"""The memories: shared by all, shared by the cores, and private to one core."""

UNITS = ("LOAD", "STORE", "TAE", "VAE", "AAE", "TRANS", "VPU", "SPU", "HOST")
"""The units of a core, in the order of their queues."""

DTYPE_NAMES: tuple[str, ...] = ("i8", "i16", "i32", "i64", "u8", "u16", "f16", "f32", "f64", "b8")
"""The element types, in the order of their numbers."""
DTYPES: dict[str, np.dtype[Any]] = dict(
    zip(
        DTYPE_NAMES,
        map(np.dtype, ("i1", "<i2", "<i4", "<i8", "u1", "<u2", "<f2", "<f4", "<f8", "?")),
        strict=True,
    )
)
"""The element types by name, as numpy has them."""

ABSENT = 0xFFFFFFFF
"""The index of a view that stands for no operand."""
MAX_WAITS, MAX_OPERANDS, MAX_PARAMS, MAX_RANK = 8, 8, 24, 6
"""What an instruction has room for, and the most axes of a view."""

INSTRUCTION = np.dtype(
    [
        ("opcode", "<u2"),
        ("core", "u1"),
        ("wait_count", "u1"),
        ("layer", "<u4"),
        ("wait_queue", "u1", (MAX_WAITS,)),
        ("wait_value", "<u4", (MAX_WAITS,)),
        ("operands", "<u4", (MAX_OPERANDS,)),
        ("params", "<i4", (MAX_PARAMS,)),
    ]
)
"""The record of an instruction."""
VIEW = np.dtype(
    [
        ("space", "u1"),
        ("dtype", "u1"),
        ("rank", "u1"),
        ("core", "u1"),
        ("pad", "<u4"),
        ("address", "<u8"),
        ("shape", "<u4", (MAX_RANK,)),
        ("stride", "<i4", (MAX_RANK,)),
    ]
)
"""The record of a view."""


def queue_of(core: int, unit: str) -> int:
    """Number of the queue of one unit of one core."""
    return core * len(UNITS) + UNITS.index(unit)


def queue_name(queue: int) -> str:
    """``TAE0``: unit and core of a queue."""
    return f"{UNITS[queue % len(UNITS)]}{queue // len(UNITS)}"


def dtype_name(dtype: npt.DTypeLike) -> str:
    """The ISA's name of a numpy dtype. Raises ValueError for one that no memory holds."""
    wanted = np.dtype(dtype).newbyteorder("<")
    for name, known in DTYPES.items():
        if known == wanted:
            return name
    raise ValueError(f"no memory holds elements of {np.dtype(dtype)}")


def dense_strides(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides, in bytes, of a C-ordered array without gaps."""
    strides: list[int] = []
    step = itemsize
    for extent in reversed(shape):
        strides.append(step)
        step *= extent
    return tuple(reversed(strides))


@dataclass(frozen=True, slots=True)
class View:
    """A strided box of elements: `shape` elements of `dtype` from byte `address` of a memory, `strides` bytes apart.

    `core` chooses the L1M; it is 0 for DDR and L2M. A stride of 0 repeats an element and is for reading only.
    """

    space: str
    dtype: str
    shape: tuple[int, ...]
    address: int
    strides: tuple[int, ...]
    core: int = 0

    @staticmethod
    def dense(space: str, dtype: str, shape: Sequence[int], address: int, core: int = 0) -> View:
        """A view without gaps, C order."""
        return View(space, dtype, tuple(shape), address, dense_strides(shape, DTYPES[dtype].itemsize), core)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return DTYPES[self.dtype].itemsize

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the elements, gaps left out."""
        return self.elements * self.itemsize

    @property
    def end(self) -> int:
        """One past the last byte."""
        return self.address + sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)) + self.itemsize

    @property
    def bits(self) -> int:
        """Bits of an element."""
        return 8 * self.itemsize

    def pack(self) -> tuple[Any, ...]:
        """Field values of the record. Raises ValueError for what the record cannot hold."""
        rank = len(self.shape)
        if rank > MAX_RANK or len(self.strides) != rank:
            raise ValueError(f"a view has at most {MAX_RANK} axes, each with a stride: {self}")
        fill = (0,) * (MAX_RANK - rank)
        space, dtype = SPACES.index(self.space), DTYPE_NAMES.index(self.dtype)
        return (space, dtype, rank, self.core, 0, self.address, self.shape + fill, self.strides + fill)

    @staticmethod
    def unpack(record: Any) -> View:
        """The view that a record of valid numbers holds."""
        space, dtype, rank, core, _, address, shape, strides = cast(tuple[Any, ...], record.item())
        return View(
            SPACES[int(space)],
            DTYPE_NAMES[int(dtype)],
            tuple(shape[:rank].tolist()),
            address,
            tuple(strides[:rank].tolist()),
            core,
        )
