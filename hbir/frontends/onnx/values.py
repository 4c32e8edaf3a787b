"""What a tensor of an ONNX graph is during import: known numbers, an SSA value, or integers still waiting for their
DequantizeLinear."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from xdsl.ir import SSAValue

from hbir.dialects.base import Array, shape_of
from hbir.dialects.quant import UniformQuantizedType

__all__ = ["Quantized", "Static", "Value", "extent_text", "value_shape"]


@dataclass(frozen=True, slots=True, eq=False)
class Static:
    """Numbers known at import. `grid` says that they lie on a quantised grid (a weight behind its DequantizeLinear).

    `name` is the tensor they came from, for messages.
    """

    array: Array
    name: str = ""
    grid: UniformQuantizedType | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """The result of QuantizeLinear on a computed tensor: `value` is the float behind it, already on `grid`.

    `unsigned` remembers that the model stores it as uint8 or uint16; the grid is signed.
    """

    value: SSAValue
    grid: UniformQuantizedType
    unsigned: bool


Value: TypeAlias = Static | Quantized | SSAValue
"""What a tensor of the model has become: known numbers, integers with their grid, or a value of the graph."""


def value_shape(value: Value) -> tuple[int, ...]:
    """The shape of a tensor, which import always knows."""
    if isinstance(value, Static):
        return value.array.shape
    return shape_of(value.value.type if isinstance(value, Quantized) else value.type)


def extent_text(shape: tuple[int, ...]) -> str:
    """`1x3x224x224`, or `scalar`."""
    return "x".join(map(str, shape)) or "scalar"
