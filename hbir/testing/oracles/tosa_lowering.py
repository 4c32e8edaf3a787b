"""The state of turning a function into one TOSA graph: which tensor, or which computation outside of it, each value is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.dialects.builtin import Float32Type
from xdsl.ir import Attribute, Operation, SSAValue

from hbir.dialects.base import Array, element_dtype, integer_width, shape_of, tensor_type
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import SimulationError
from hbir.ir.locations import layer_name
from hbir.testing.oracles.tosa_graph import BITS, Graph, Tensor

__all__ = [
    "Handler",
    "Lowering",
    "Outside",
    "check_shape",
    "check_sum",
    "furthest",
    "inexact",
    "is_float",
    "kind_of",
    "operand_shape",
]

_MOST_AXES = 6
"""TOSA's largest rank, at its level 8K."""


def inexact(op: Operation, why: str) -> SimulationError:
    """What is raised for an operation that no TOSA graph says exactly."""
    return SimulationError(
        94,
        f"{op.name} has no exact form in TOSA's integer profile",
        where=f"layer '{layer_name(op)}'",
        why=why,
        lever="compare the parts of the function before and behind it",
    )


@dataclass(frozen=True)
class Outside:
    """A value that is not in the graph: computed from the graph's results for `tensors`; without any, known beforehand."""

    tensors: tuple[Tensor, ...]
    compute: Callable[[Sequence[Array]], Array]


def is_float(type_: Attribute) -> bool:
    """Whether the elements are float32."""
    return isinstance(tensor_type(type_).element_type, Float32Type)


def kind_of(type_: Attribute) -> str:
    """TOSA's name of a tensor type's elements, or "" when its integer profile has none."""
    element: Any = tensor_type(type_).element_type
    width = integer_width(element.storage if isinstance(element, UniformQuantizedType) else element)
    return f"INT{width}" if width in (8, 16, 32, 48) and element_dtype(element).kind == "i" else ""


def operand_shape(type_: Attribute) -> tuple[int, ...]:
    """The shape in the graph: a tensor without axes has one of extent 1."""
    return shape_of(type_) or (1,)


def check_shape(op: Operation, type_: Attribute) -> None:
    """Raise `SimulationError` HB0794 for a shape that TOSA's tensors do not have."""
    shape = operand_shape(type_)
    if 0 in shape or len(shape) > _MOST_AXES:
        raise inexact(op, f"of its shape {shape}: TOSA's tensors have 1 to {_MOST_AXES} axes, none of them empty")


def check_sum(op: Operation, largest: int, kind: str) -> None:
    """Raise `SimulationError` HB0794 for a sum or product that may leave `kind`: the reference model would wrap it silently."""
    if largest >= 1 << (BITS[kind] - 1):
        raise inexact(op, f"its accumulator may reach {largest}, beyond {kind}, which TOSA leaves open")


def furthest(x: Tensor, zero_point: int) -> int:
    """Largest distance of a value of INT8 or INT16 from the zero point."""
    half = 1 << (BITS[x.dtype] - 1)
    return max(half + zero_point, half - 1 - zero_point)


class Lowering:
    """One graph under construction with the values that it has so far."""

    def __init__(self, known: Mapping[SSAValue, Array]) -> None:
        self.graph = Graph()
        self.known = dict(known)
        self.values: dict[SSAValue, Tensor | Outside] = {}
        self._tensors: dict[SSAValue, Tensor] = {}
        self._entered: dict[str, Array] = {}

    def tensor(self, op: Operation, value: SSAValue) -> Tensor:
        """`value` as a tensor of the graph; a known array is entered when it is first asked for.

        Raises `SimulationError` HB0794 for a value that no tensor of the integer profile is."""
        found = self._tensors.get(value, self.values.get(value))
        if isinstance(found, Tensor):
            return found
        kind, shape = kind_of(value.type), operand_shape(value.type)
        if not kind:
            raise inexact(op, f"its operand is {value.type}")
        check_shape(op, value.type)
        array = self.constant(value)
        if array is None:
            raise inexact(op, "its operand went through floats, which TOSA's integer graph does not do")
        entered = self.graph.operand(np.reshape(array, shape), kind)
        self._entered[entered.name] = array
        self._tensors[value] = entered
        return entered

    def constant(self, value: SSAValue) -> Array | None:
        """The array of a value that is known before the graph runs, else None."""
        if value in self.known:
            return self.known[value]
        found = self.values.get(value)
        return found.compute([]) if isinstance(found, Outside) and not found.tensors else None

    def outside(self, value: SSAValue) -> Outside:
        """`value` as it leaves the graph."""
        if value in self.known:
            array = self.known[value]
            return Outside((), lambda _: array)
        found = self.values[value]
        if isinstance(found, Outside):
            return found
        shape, dtype = shape_of(value.type), element_dtype(tensor_type(value.type).element_type)
        return Outside((found,), lambda results: results[0].reshape(shape).astype(dtype))

    def apply(self, values: Sequence[SSAValue], function: Callable[..., Any]) -> Outside:
        """`function` of values, outside of the graph."""
        parts = [self.outside(value) for value in values]
        starts = np.cumsum([0, *(len(part.tensors) for part in parts)]).tolist()

        def compute(results: Sequence[Array]) -> Array:
            return function(*(p.compute(results[a:]) for p, a in zip(parts, starts, strict=False)))

        return Outside(tuple(tensor for part in parts for tensor in part.tensors), compute)

    def run(self, outputs: Sequence[Outside]) -> list[Array]:
        """Every output's array, from one run of the graph: none when nothing of it is asked for."""
        wanted = {tensor.name: tensor for output in outputs for tensor in output.tensors}
        arrays = {name: self._entered[name] for name in wanted if name in self._entered}
        asked = [tensor for name, tensor in wanted.items() if name not in arrays]
        if asked:
            arrays |= dict(zip((tensor.name for tensor in asked), self.graph.run(*asked), strict=True))
        return [np.array(output.compute([arrays[tensor.name] for tensor in output.tensors])) for output in outputs]


Handler = Callable[[Lowering, Any], Tensor | Outside]
"""Turns one operation into its result."""
