"""Checks of what the functions of this room are given: a mistake is told at the call, not in the middle of an example."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from hbir.arguments import checked_index, checked_kind, checked_number, shown
from hbir.dialects.base import Array
from hbir.errors import IrError
from hbir.module import Function

__all__ = [
    "checked_choices",
    "checked_count",
    "checked_dtype",
    "checked_feeds",
    "checked_flag",
    "checked_function",
    "checked_scales",
    "checked_shape",
    "checked_size",
    "refusal",
]

T = TypeVar("T")


def refusal(argument: str, lever: str) -> Callable[[str, str], IrError]:
    """Makes IrError HB0245 about an argument from what was given and why it does not do."""
    return lambda given, why: IrError(45, f"{argument} is {given}", why=why, lever=lever)


def _listed(argument: str, given: object, lever: str) -> tuple[object, ...]:
    if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
        raise refusal(argument, lever)(shown(cast(object, given)), "it takes several values")
    return tuple(cast(Iterable[object], given))


def checked_choices(argument: str, given: object, choices: Collection[T]) -> tuple[T, ...]:
    """One or several of `choices`. Raises IrError HB0245."""
    lever = f"give a tuple of some of {', '.join(map(shown, choices))}"
    values = _listed(argument, given, lever)
    if not values:
        raise refusal(argument, lever)("empty", "nothing could be drawn")
    for value in values:
        if not any(type(value) is type(choice) and value == choice for choice in choices):
            raise refusal(argument, lever)(f"a list with {shown(value)}", "there is no such choice")
    return cast(tuple[T, ...], values)


def checked_count(argument: str, given: object, least: int) -> int:
    """A whole number from `least` up. Raises IrError HB0245."""
    refuse = refusal(argument, f"give a whole number from {least} up")
    value = checked_index(given, refuse)
    if value < least:
        raise refuse(shown(value), "it is too small")
    return value


def checked_size(argument: str, given: object) -> float:
    """A finite number that is not below zero. Raises IrError HB0245."""
    refuse = refusal(argument, "give a finite number from 0 up")
    value = checked_number(given, refuse)
    if not (math.isfinite(value) and value >= 0):
        raise refuse(shown(value), "it is below zero or not finite")
    return value


def checked_flag(argument: str, given: object) -> bool:
    """True or False. Raises IrError HB0245."""
    return checked_kind(given, bool, refusal(argument, "choose True or False"))


def checked_scales(given: object) -> tuple[float, ...]:
    """Scales of grids: float32 numbers above zero, at least one. Raises IrError HB0245."""
    lever = "give a tuple of finite numbers above zero"
    refuse = refusal("scales", lever)
    values = tuple(checked_number(each, refuse) for each in _listed("scales", given, lever))
    limits = np.finfo(np.float32)
    for value in values:
        if not float(limits.smallest_subnormal) <= value <= float(limits.max):
            raise refuse(f"a list with {shown(value)}", "no float32 above zero is as that")
    if not values:
        raise refuse("empty", "nothing could be drawn")
    return values


def checked_shape(given: object) -> tuple[int, ...]:
    """A shape: whole numbers that are not below zero. Raises IrError HB0245."""
    lever = "give a tuple of whole numbers from 0 up, or a strategy of such tuples"
    return tuple(checked_count("an extent of the shape", extent, 0) for extent in _listed("shape", given, lever))


def checked_dtype(given: npt.DTypeLike) -> np.dtype[Any]:
    """A dtype that tensors have: floats, integers, booleans. Raises IrError HB0245."""
    refuse = refusal("dtype", "give a dtype of floats, integers or booleans, such as np.float32")
    try:
        kind: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError) as error:
        raise refuse(shown(given), str(error)) from None
    if kind.kind not in "fiub" or given is None:
        raise refuse(shown(given) if given is None else str(kind), "no tensor has it")
    return kind


def checked_function(given: object) -> Function:
    """A function of a module. Raises IrError HB0245."""
    return checked_kind(given, Function, refusal("function", "give one of a module: module[0]"))


def checked_feeds(given: object) -> Sequence[Mapping[str, Array]]:
    """Input sets, at least one. Raises IrError HB0245; their arrays are checked when they are fed."""
    lever = "give a list of input sets, each {input name: array}"
    refuse = refusal("feeds", lever)
    feeds = _listed("feeds", given, lever)
    for feed in feeds:
        if not isinstance(feed, Mapping):
            raise refuse(f"a list with {shown(feed)}", "an input set maps names to arrays")
    if not feeds:
        raise refuse("empty", "nothing would be compared")
    return cast(Sequence[Mapping[str, Array]], feeds)
