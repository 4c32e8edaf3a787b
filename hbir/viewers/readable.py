"""Types, properties and names of values as people read them; what every viewer shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import cast

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Operation, SSAValue

from hbir.dialects.base import HbOperation, Tensor
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Function

__all__ = [
    "element_text",
    "named_operands",
    "properties_of",
    "readable_property",
    "readable_type",
    "shape_text",
    "value_names",
]

_MOST = 12
"""Entries of a list that are shown; the others are counted."""


def _number(value: float) -> str:
    return f"{value:.6g}"


def element_text(element: Attribute) -> str:
    """``int8, scale 0.05, zero point 3``: the element type of a tensor."""
    if not isinstance(element, UniformQuantizedType):
        return str(element)
    text = f"int{element.bits}"
    if element.limits != (-(1 << (element.bits - 1)), (1 << (element.bits - 1)) - 1):
        text += f" in {element.limits[0]}…{element.limits[1]}"
    scales, zeros = element.scale_array, element.zero_point_array
    if element.per_axis is None:
        return f"{text}, scale {_number(element.scale)}, zero point {element.zero_point}"
    spread = f"{_number(float(scales.min()))}…{_number(float(scales.max()))}"
    offsets = f"zero points {int(zeros.min())}…{int(zeros.max())}" if np.any(zeros) else "zero points 0"
    return f"{text}, {element.channels} scales along axis {element.per_axis}: {spread}, {offsets}"


def shape_text(type_: Attribute) -> str:
    """``1x56x56x64``; ``scalar`` for a tensor of rank 0, "" for what is no tensor."""
    if not isinstance(type_, TensorType):
        return ""
    return "x".join(str(extent) for extent in cast(Tensor, type_).get_shape()) or "scalar"


def readable_type(type_: Attribute) -> str:
    """``1x56x56x64 int8, scale 0.05, zero point 3``: a type for people; one that is no tensor as it is written."""
    if not isinstance(type_, TensorType):
        return str(type_)
    tensor = cast(Tensor, type_)
    return f"{shape_text(tensor)} {element_text(tensor.element_type)}"


def properties_of(op: Operation) -> Mapping[str, object]:
    """The properties of an operation as Python values, absent ones left out; attributes where it has no meaning of its own."""
    if isinstance(op, HbOperation):
        return {name: value for name, value in op.values.items() if value is not None}
    return dict(op.properties)


def readable_property(value: object) -> str:
    """A property's value as text, a long list cut."""
    if isinstance(value, UniformQuantizedType):
        return element_text(value)
    if isinstance(value, np.ndarray):
        value = tuple(cast(list[object], value.tolist()))
    if isinstance(value, tuple | list):
        items = tuple(cast(list[object], value))
        shown = ", ".join(readable_property(item) for item in items[:_MOST])
        return f"[{shown}{f', … {len(items)} values' if len(items) > _MOST else ''}]"
    if isinstance(value, float):
        return _number(value) if math.isfinite(value) else str(value)
    return str(value)


def named_operands(op: Operation) -> list[tuple[str, SSAValue]]:
    """The operands that are there, each with its name in the definition: ``input``, ``weight``; ``inputs0``, ``inputs1``, …"""
    if not isinstance(op, HbOperation):
        return [(f"operand{i}", value) for i, value in enumerate(op.operands)]
    slots = op.aligned_operands
    names = [name for name, _ in op.get_irdl_definition().operands]
    if len(slots) > len(names):  # the last one is variadic
        names = [*names[:-1], *(f"{names[-1]}{i}" for i in range(len(slots) - len(names) + 1))]
    return [(name, value) for name, value in zip(names, slots, strict=False) if value is not None]


def value_names(function: Function) -> dict[SSAValue, str]:
    """The names of a function's values in its text: %arg0, %arg1, … and %0, %1, …"""
    names: dict[SSAValue, str] = {argument.value: f"%arg{i}" for i, argument in enumerate(function.flatten_inputs)}
    results = (result for op in function.operations for result in op.results)
    return names | {result: f"%{number}" for number, result in enumerate(results)}
