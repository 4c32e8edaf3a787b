"""How far two values lie apart, in words: lists of numbers, types with a scale per channel, and texts too long to be shown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    Float32Type,
    FloatAttr,
    IntegerAttr,
)
from xdsl.ir import Attribute, ParametrizedAttribute

__all__ = ["LONGEST", "attribute_note", "distance_text", "excerpts", "numbers_note"]

Array: TypeAlias = npt.NDArray[Any]

LONGEST = 120
"""Characters of a value that a line shows."""
_EXACT = 1 << 53
"""Whole numbers up to here are floats."""


@runtime_checkable
class _HoldsScales(Protocol):
    """A type whose values stand for others, with a scale and a zero point for each channel."""

    @property
    def scale_array(self) -> Array: ...

    @property
    def zero_point_array(self) -> Array: ...


def excerpts(one: str, other: str) -> tuple[str, str]:
    """Two texts; long ones cut to what stands around the first difference, which both excerpts hold, or behind their start."""
    if max(len(one), len(other)) <= LONGEST:
        return one, other
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    low = 0 if one == other else low
    start = max(0, low - LONGEST // 3)
    if start:  # no number is cut at its front where that can be helped
        start = next((at for at in range(start, low + 1) if one[at - 1] in ", "), start)

    def cut(text: str) -> str:
        end = start + LONGEST
        if end < len(text):
            whole = text.rfind(",", low + 1, end) + 1
            end = whole or end
        return ("…" if start else "") + text[start:end] + ("…" if end < len(text) else "")

    return cut(one), cut(other)


def distance_text(distance: float) -> str:
    """Whole numbers in full, others with six digits."""
    whole = abs(distance) < _EXACT and float(distance).is_integer()
    return str(int(distance)) if whole else f"{distance:.6g}"


def numbers_note(one: Array, other: Array) -> str:
    """How many numbers differ, by how much at most, and the first of them.

    Takes two arrays of one shape, or two lists; lists of two lengths are told with their lengths.
    """
    if one.shape != other.shape:
        return _lengths_note(one, other)
    apart = ~((one == other) | ((one != one) & (other != other)))
    if not apart.any():
        return "no number differs in value"
    at = np.unravel_index(int(np.argmax(apart)), apart.shape)
    place = ", ".join(str(int(index)) for index in at)
    place = f"[{place}]" if len(at) > 1 else place
    by = _largest(one[apart], other[apart])
    first = f"{one[at]!s} -> {other[at]!s}"
    first = f"first at {place}: {first}" if at else first
    return f"{int(np.count_nonzero(apart))} of {one.size} numbers differ, {by}; {first}"


def _largest(one: Array, other: Array) -> str:
    """By how much numbers differ at most."""
    if one.dtype.kind in "iub" and one.dtype == other.dtype:
        # Modulo 2^64 the distance of two 64-bit integers is right; as floats, neighbours would be equal.
        high, low = (pick(one, other).astype(np.uint64) for pick in (np.maximum, np.minimum))
        return f"by {int((high - low).max())} at most"
    if one.dtype == other.dtype == object:
        return f"by {max(abs(a - b) for a, b in zip(one.tolist(), other.tolist(), strict=True))} at most"
    with np.errstate(invalid="ignore", over="ignore"):
        distances = np.abs(one.astype(np.float64) - other.astype(np.float64))
    finite = np.isfinite(distances).all()
    return f"by {distance_text(float(distances.max()))} at most" if finite else "some from NaN or infinity"


def _lengths_note(one: Array, other: Array) -> str:
    sides = one.tolist(), other.tolist()
    at = next((at for at, (a, b) in enumerate(zip(*sides, strict=False)) if a != b), min(map(len, sides)))
    a, b = (str(side[at]) if at < len(side) else "none" for side in (one, other))
    return f"{len(one)} -> {len(other)} numbers; first at {at}: {a} -> {b}"


def attribute_note(one: Attribute | None, other: Attribute | None) -> str:
    """What differs in the lists of numbers of two attributes or types; nothing where there is no list on both sides."""
    notes = [
        f"{what}: {numbers_note(a, b)}" if what else numbers_note(a, b)
        for what, a, b in _number_lists(one, other)
        if max(a.size, b.size) > 1
    ]
    return "; ".join(dict.fromkeys(notes))


def _number_lists(one: Attribute | None, other: Attribute | None) -> Iterator[tuple[str, Array, Array]]:
    """(what they are, numbers of one, numbers of the other) of all lists that differ."""
    if one is None or other is None or one == other:
        return
    if isinstance(one, _HoldsScales) and isinstance(other, _HoldsScales):
        pairs = (
            ("scales", one.scale_array, other.scale_array),
            (*("zero points", one.zero_point_array, other.zero_point_array),),
        )
        yield from (each for each in pairs if not np.array_equal(each[1], each[2]))
        return
    a, b = _numbers(one), _numbers(other)
    if a is not None and b is not None:
        yield "", a, b
    elif isinstance(one, ArrayAttr) and isinstance(other, ArrayAttr):
        for left, right in zip_longest(cast(ArrayAttr[Attribute], one).data, cast(ArrayAttr[Attribute], other).data):
            yield from _number_lists(left, right)
    elif isinstance(one, ParametrizedAttribute) and type(one) is type(other):
        for left, right in zip(one.parameters, cast(ParametrizedAttribute, other).parameters, strict=True):
            yield from _number_lists(left, right)


def _numbers(attribute: Attribute) -> Array | None:
    """The numbers of a list; None for what is none."""
    if isinstance(attribute, DenseArrayBase | DenseIntOrFPElementsAttr):
        dense = cast(Any, attribute)
        element = dense.elt_type if isinstance(attribute, DenseArrayBase) else dense.get_element_type()
        values = list(dense.get_values())
        return np.array(values, np.float32) if isinstance(element, Float32Type) else _list(values)
    if isinstance(attribute, ArrayAttr):
        items = cast(ArrayAttr[Attribute], attribute).data
        if items and all(isinstance(item, IntegerAttr | FloatAttr) for item in items):
            return _list([cast(Any, item).value.data for item in items])
    return None


def _list(values: list[Any]) -> Array:
    """Integers of any size stay exact."""
    wide = any(isinstance(value, int) and not -(1 << 63) <= value < 1 << 63 for value in values)
    return np.array(values, object) if wide or not values else np.array(values)
