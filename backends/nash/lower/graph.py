"""The network as work for units: nodes that read and write views of storages.

A storage is a stretch of memory that lives from its first write to its last read. Reshapes, slices and concatenations
mostly are no work at all: their values are views of a storage that somebody else fills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy.typing as npt

from backends.nash.isa.records import DTYPES, dense_strides
from hbir.errors import BackendError

__all__ = ["Node", "Storage", "TensorView", "UnitGraph"]


@dataclass(frozen=True, slots=True)
class Storage:
    """`size` bytes. `kind`: inputs and outputs lie in DDR; what the host works on must, too (`pinned`)."""

    size: int
    kind: Literal["input", "output", "activation"]
    name: str = ""
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class TensorView:
    """A tensor inside a storage; offset and strides in bytes."""

    storage: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str

    @staticmethod
    def dense(storage: int, shape: Sequence[int], dtype: str, offset: int = 0) -> TensorView:
        """A row-major tensor at `offset`."""
        return TensorView(storage, offset, tuple(shape), dense_strides(shape, DTYPES[dtype].itemsize), dtype)

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return prod(self.shape) * DTYPES[self.dtype].itemsize

    @property
    def is_dense(self) -> bool:
        """Whether the elements lie row-major without gaps (axes of extent 1 do not matter)."""
        wanted = dense_strides(self.shape, DTYPES[self.dtype].itemsize)
        return all(n == 1 or a == b for n, a, b in zip(self.shape, self.strides, wanted, strict=True))

    @property
    def has_dense_rows(self) -> bool:
        """Whether the last axis lies without gaps, as compute units ask."""
        return not self.shape or self.shape[-1] == 1 or self.strides[-1] == DTYPES[self.dtype].itemsize

    def same_bytes(self, other: TensorView) -> bool:
        """Whether both name the same elements in the same order (strides of axes of extent 1 do not matter)."""

        def key(view: TensorView) -> tuple[object, ...]:
            strides = tuple(s for n, s in zip(view.shape, view.strides, strict=True) if n > 1)
            return view.storage, view.offset, view.shape, strides, view.dtype

        return key(self) == key(other)

    def part(self, begin: Sequence[int], extent: Sequence[int]) -> TensorView:
        """The box of `extent` elements from `begin`."""
        offset = self.offset + sum(b * s for b, s in zip(begin, self.strides, strict=True))
        return TensorView(self.storage, offset, tuple(extent), self.strides, self.dtype)


@dataclass(frozen=True)
class Node:
    """One operation for one unit. Operand names and parameters are the opcode's; `constants` are arrays that it reads.

    A convolution's `weight` stands here as (Cout, KH, KW, Cin/groups); the tiler decides in which pieces it is packed.
    """

    opcode: str
    unit: str
    layer: str
    reads: Mapping[str, TensorView]
    writes: Mapping[str, TensorView]
    params: Mapping[str, int | float]
    constants: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict[str, npt.NDArray[Any]])
    operation: str = ""
    reason: str = ""
    macs: int = 0

    @property
    def out(self) -> TensorView:
        """The (first) result."""
        return next(iter(self.writes.values()))


@dataclass(frozen=True)
class UnitGraph:
    """Nodes in program order over storages. `host` holds one function for each HOST_CALL node, by index."""

    name: str
    storages: tuple[Storage, ...]
    nodes: tuple[Node, ...]
    inputs: tuple[tuple[str, TensorView], ...]
    outputs: tuple[tuple[str, TensorView], ...]
    host_text: str = ""
    host_constants: Mapping[str, memoryview] = field(default_factory=dict[str, memoryview])

    def __str__(self) -> str:
        lines = [f"unit graph {self.name}: {len(self.nodes)} nodes, {len(self.storages)} storages"]
        for index, node in enumerate(self.nodes):
            reads = ", ".join(f"{k}=s{v.storage}+{v.offset}{list(v.shape)}" for k, v in node.reads.items())
            writes = ", ".join(f"{k}=s{v.storage}+{v.offset}{list(v.shape)}" for k, v in node.writes.items())
            lines.append(f"  {index}: {node.unit} {node.opcode} {reads} -> {writes}  [{node.layer}]")
        return "\n".join(lines) + "\n"

    def verify(self) -> None:
        """Every view lies inside its storage, and is written before it is read. Raises BackendError HB0511."""
        written = {index for index, storage in enumerate(self.storages) if storage.kind == "input"}
        for node in self.nodes:
            for role, view in (*node.reads.items(), *node.writes.items()):
                last = sum((n - 1) * s for n, s in zip(view.shape, view.strides, strict=True))
                end = view.offset + last + DTYPES[view.dtype].itemsize
                if view.offset < 0 or end > self.storages[view.storage].size:
                    raise BackendError(11, f"operand '{role}' leaves its storage", where=f"layer '{node.layer}'")
            if any(view.storage not in written for view in node.reads.values()):
                raise BackendError(11, "an operand is read before anything writes it", where=f"layer '{node.layer}'")
            written.update(view.storage for view in node.writes.values())
