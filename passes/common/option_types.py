"""Whether the options of a pass have the types that its fields say, as far as the text of a pipeline knows types."""

from __future__ import annotations

from dataclasses import fields
from numbers import Integral, Real
from types import EllipsisType, NoneType, UnionType
from typing import Any, Union, cast, get_args, get_origin, get_type_hints

__all__ = ["misfit"]

_TAKEN: dict[object, type] = {int: Integral, float: Real, str: str, bool: bool, NoneType: NoneType}
"""What a value has to be for each type of the text: a whole number does for a float, one of numpy for one of Python."""


def misfit(step: Any) -> tuple[str, object] | None:
    """The first option of a pass, a dataclass, whose value is none of its type, and that type; None where all fit.

    Text is converted while it is read; an object is built with whatever its author writes.
    """
    try:
        hints = get_type_hints(cast(type[object], type(step)))
    except (AttributeError, NameError, TypeError):  # a type that only a type checker knows: what cannot be told passes
        return None
    for each in fields(step):
        if each.init and not _fits(getattr(step, each.name), hints[each.name]):
            return each.name, hints[each.name]
    return None


def _fits(value: object, hint: object) -> bool:
    """Whether a value is of a type: a number, text, flag, tuple or choice of these. Of other types nothing is said."""
    parts, origin = get_args(hint), get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        return isinstance(value, tuple) and _all_fit(cast(tuple[object, ...], value), parts)
    return isinstance(value, _TAKEN.get(hint, object))


def _all_fit(values: tuple[object, ...], parts: tuple[object, ...]) -> bool:
    if len(parts) == 2 and isinstance(parts[1], EllipsisType):
        return all(_fits(value, parts[0]) for value in values)
    return len(values) == len(parts) and all(map(_fits, values, parts))
