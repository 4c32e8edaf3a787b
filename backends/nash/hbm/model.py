"""What one model of an `.hbm` holds: everything that the simulator and the reports need, and nothing of the
compiler."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from backends.nash.isa import DTYPES, Memories, Program, View, verify_program
from hbir.march import March

__all__ = ["Cell", "HostSegment", "Model", "Quantization", "Tensor", "verify_model"]

Cell: TypeAlias = str | int | float | bool | None
"""A value of a description."""


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = (q - zero point) * scale; one of each, or one per index of `axis`."""

    scales: tuple[float, ...]
    zero_points: tuple[int, ...]
    axis: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output: `view` is where and how it lies in DDR."""

    name: str
    view: View
    quantization: Quantization | None = None
    description: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Extents of the view."""
        return self.view.shape

    @property
    def dtype(self) -> str:
        """numpy's name of the element type, ``int8`` say."""
        return DTYPES[self.view.dtype].name

    @property
    def strides(self) -> tuple[int, ...]:
        """Strides of the view, in bytes."""
        return self.view.strides


@dataclass(frozen=True, slots=True)
class HostSegment:
    """Functions that the host CPU runs: MLIR text, and its constants by the hex sha256 that the text names them
    with."""

    text: str
    constants: Mapping[str, memoryview]


@dataclass(frozen=True)
class Model:
    """One compiled function. `constants` are the first bytes of its DDR, `memories` says how much of each memory it
    uses."""

    name: str
    march: March
    memories: Memories
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    constants: memoryview
    program: Program
    host: HostSegment | None = None
    placements: tuple[Mapping[str, Cell], ...] = ()
    """One row for each layer of the user's network: where it runs and why. Kept in the `debug` section."""
    options: Mapping[str, Cell] = field(default_factory=dict[str, Cell])
    """The options it was compiled with."""
    description: str = ""
    tool_version: str = ""

    def tensor(self, name: str) -> Tensor | None:
        """The input or output of that name."""
        return next((t for t in (*self.inputs, *self.outputs) if t.name == name), None)


def verify_model(model: Model) -> None:
    """Prove the model's program legal in its own memories. Raises what `verify_program` raises."""
    verify_program(model.program, model.memories, [t.view for t in model.inputs], [t.view for t in model.outputs])
