"""Shorter axes: an input or a constant loses elements, and what reads it is built again with the types that it infers.

Nothing here knows the operations: an operation takes its new operands as it is, or with the constants it reads, its lists of
numbers and its target shapes cut in step, or not at all. Whether what comes out is still of interest, the predicate tells.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, i64
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import HbOperation, Tensor, shape_of, tensor, tensor_type
from hbir.dialects.hbir import ConstantOp, ReshapeOp, constant
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore

__all__ = ["Resize", "Resizer", "Source", "resizes"]

Source: TypeAlias = tuple[str, int]
"""("input", its number), or ("constant", the number of its operation)."""
_Shape: TypeAlias = tuple[int, ...]
_FEW = 64
"""Inputs and constants of which each axis is tried by itself; more would take too many tests."""
_Properties: TypeAlias = dict[str, Attribute]


@dataclass(frozen=True)
class Resize:
    """`extent` becomes `target`, which is less: on one axis of one source, or (without a source) wherever a source has it."""

    extent: int
    target: int
    source: Source | None = None
    axis: int = 0

    def shape(self, shape: _Shape, source: Source) -> _Shape:
        """The shape of a source afterwards."""
        if self.source is None:
            return tuple(self.target if extent == self.extent else extent for extent in shape)
        if self.source != source or self.axis >= len(shape) or shape[self.axis] != self.extent:
            return shape
        return (*shape[: self.axis], self.target, *shape[self.axis + 1 :])

    def type(self, old: Attribute, source: Source) -> Attribute:
        """The type of a source afterwards."""
        return _resized(tensor_type(old), self.shape(shape_of(old), source))


def resizes(sources: Mapping[Source, _Shape]) -> Iterator[Resize]:
    """What may be tried: long axes first, all of one length at once, then each by itself where there are few; to 1, less
    a half, a quarter, and so on.
    """
    long = sorted({extent for shape in sources.values() for extent in shape}, reverse=True)
    for extent in long:
        for target in _targets(extent):
            yield Resize(extent, target)
    for source, shape in sources.items() if len(sources) <= _FEW else ():
        for axis, extent in enumerate(shape):
            for target in _targets(extent):
                yield Resize(extent, target, source, axis)


def _targets(extent: int) -> list[int]:
    parts = (extent >> power for power in range(1, extent.bit_length()))
    return sorted({1, *(extent - part for part in parts)}) if extent > 1 else []


def _resized(old: Tensor, shape: _Shape) -> Tensor:
    """A type of another shape; scales along an axis are cut with it."""
    element = old.element_type
    if isinstance(element, UniformQuantizedType) and element.per_axis is not None and element.per_axis < len(shape):
        element = _cut_scales(element, shape[element.per_axis])
    return old if shape == old.get_shape() else tensor(shape, element)


def _cut_scales(grid: UniformQuantizedType, count: int) -> UniformQuantizedType:
    scales, zero_points = grid.scale_array[:count], grid.zero_point_array[:count]
    return UniformQuantizedType.get(grid.bits, scales, zero_points, axis=grid.axis.data, narrow=grid.narrow)


@dataclass
class Resizer:
    """Builds the operations of one function again. Constants wait until something reads them: it may want them shorter."""

    resize: Resize
    store: ConstantStore
    waiting: dict[SSAValue, _Shape] = field(default_factory=dict[SSAValue, _Shape])

    def wait(self, op: ConstantOp, number: int) -> None:
        """Note a constant, the operation of this number."""
        self.waiting[op.output] = self.resize.shape(shape_of(op.output.type), ("constant", number))

    def constant(self, value: SSAValue) -> ConstantOp:
        """The constant that stands for a waiting one."""
        op, shape = cast(ConstantOp, value.owner), self.waiting.pop(value)
        if shape == shape_of(value.type):
            return op.clone()
        array = op.array(self.store)[tuple(slice(extent) for extent in shape)]
        return constant(array, self.store, _resized(tensor_type(value.type), shape).element_type, op.location)

    def fit(self, op: Operation, types: Mapping[SSAValue, Attribute]) -> tuple[list[Attribute], _Properties]:
        """Result types and properties for operands of other types; waiting constants are cut so that they fit.

        Raises VerifyException when nothing does.
        """
        old = [value.type for value in op.operands]
        if all(self._type(value, types) == type_ for value, type_ in zip(op.operands, old, strict=True)):
            return [result.type for result in op.results], dict(op.properties)
        if not isinstance(op, HbOperation):
            raise VerifyException(f"{op.name} infers no types")
        shorter = self._shorter(op, types)
        for shapes in self._constants(op, shorter):
            known = {**types, **{v: _resized(tensor_type(v.type), shape) for v, shape in shapes.items()}}
            operands = [None if v is None else self._type(v, known) for v in op.aligned_operands]
            for properties in _variants(op, shorter, operands):
                try:
                    results = op.inferred(operands, properties)
                except VerifyException:
                    continue
                # A list of extents that was taken for one of channels gives a result of another rank.
                if [len(shape_of(type_)) for type_ in results] == [len(shape_of(r.type)) for r in op.results]:
                    self.waiting |= shapes
                    return results, properties
        raise VerifyException(f"{op.name} does not take operands of other shapes")

    def _type(self, value: SSAValue, types: Mapping[SSAValue, Attribute]) -> Attribute:
        if value in types:
            return types[value]
        return _resized(tensor_type(value.type), self.waiting[value])

    def _shorter(self, op: Operation, types: Mapping[SSAValue, Attribute]) -> dict[int, int]:
        """Extents of the operands that became less, and what they became."""
        found: dict[int, int] = {}
        for value in op.operands:
            pairs = zip(shape_of(value.type), shape_of(self._type(value, types)), strict=True)
            found |= {before: after for before, after in pairs if after < before}
        return found

    def _constants(self, op: Operation, shorter: Mapping[int, int]) -> Iterator[dict[SSAValue, _Shape]]:
        """Shapes that waiting constants of an operation could have: as they are, one axis shorter, all of them shorter."""
        here = {value: self.waiting[value] for value in op.operands if value in self.waiting}
        yield {}
        for value, shape in here.items():
            for axis in reversed(range(len(shape))):
                if shape[axis] in shorter:
                    yield {value: (*shape[:axis], shorter[shape[axis]], *shape[axis + 1 :])}
        for last in (True, False):
            yield {v: _mapped(s[:-1], {} if last else shorter) + _mapped(s[-1:], shorter) for v, s in here.items()}


def _mapped(numbers: Sequence[int], shorter: Mapping[int, int]) -> tuple[int, ...]:
    return tuple(shorter.get(number, number) for number in numbers)


def _variants(op: Operation, shorter: Mapping[int, int], operands: Sequence[Attribute | None]) -> Iterator[_Properties]:
    """Properties as they are; with lists as long as a shorter axis cut; with extents that they name replaced."""
    plain = dict(op.properties)
    cut = {name: _cut(name, value, shorter) for name, value in plain.items()}
    yield plain
    yield cut
    for start in (plain, cut):
        yield {name: _renamed(name, value, shorter) for name, value in start.items()}
    if isinstance(op, ReshapeOp) and operands[0] is not None:
        shape, count = op.values["shape"], math.prod(shape_of(operands[0]))
        for axis in reversed(range(len(shape))):
            others = (*shape[:axis], *shape[axis + 1 :])
            if math.prod(others) and count % math.prod(others) == 0:
                target = [*shape[:axis], count // math.prod(others), *shape[axis + 1 :]]
                yield {**plain, "shape": _numbers(i64, target)}


def _numbers(element: Any, values: Sequence[Any]) -> Attribute:
    return cast(Attribute, DenseArrayBase.from_list(element, values))


def _cut(name: str, value: Attribute, shorter: Mapping[int, int]) -> Attribute:
    if isinstance(value, UniformQuantizedType) and value.per_axis is not None and value.channels in shorter:
        return _cut_scales(value, shorter[value.channels])
    anything: Any = value
    if isinstance(anything, DenseArrayBase) and name != "operandSegmentSizes" and len(cast(Any, value)) in shorter:
        values = list(cast(Any, value).iter_values())
        return _numbers(cast(Any, value).elt_type, values[: shorter[len(values)]])
    if name == "groups" and isinstance(anything, IntegerAttr) and cast(Any, value).value.data in shorter:
        return cast(Attribute, IntegerAttr(shorter[cast(Any, value).value.data], i64))
    return value


def _renamed(name: str, value: Attribute, shorter: Mapping[int, int]) -> Attribute:
    anything: Any = value
    if not isinstance(anything, DenseArrayBase) or name == "operandSegmentSizes" or cast(Any, value).elt_type != i64:
        return value
    return _numbers(i64, _mapped(tuple(cast(Any, value).iter_values()), shorter))
