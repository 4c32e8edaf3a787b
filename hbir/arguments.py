"""Checks of what callers hand to the public functions: a value of the wrong Python type is refused like any other mistake."""

from __future__ import annotations

import os
from collections.abc import Callable
from numbers import Integral, Real
from pathlib import Path
from typing import TypeVar

from hbir.errors import HbError

__all__ = ["checked_index", "checked_kind", "checked_number", "checked_path", "checked_text", "shown"]

T = TypeVar("T")

Refuse = Callable[[str, str], HbError]
"""Makes the error from what was given and why it does not do; the caller knows code, place and lever."""


def shown(value: object) -> str:
    """A value as an error names it: short texts and numbers as they are, anything else by its type."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if isinstance(value, int) and value.bit_length() > 200:  # Python refuses to write very long ones
        return f"a number of {value.bit_length()} bits"
    if value is None or (isinstance(value, str | int | float) and len(repr(value)) <= 60):
        return repr(value)
    return f"a {type(value).__name__}"


def checked_kind(value: object, kind: type[T], refuse: Refuse) -> T:
    """`value`, known to be a `kind`; True and False do not pass for numbers."""
    if not isinstance(value, kind) or (isinstance(value, bool) and not issubclass(kind, bool)):
        raise refuse(shown(value), f"it takes a {kind.__name__}")
    return value


def checked_index(value: object, refuse: Refuse) -> int:
    """A whole number, of Python or numpy."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise refuse(shown(value), "it takes a whole number")
    return int(value)


def checked_number(value: object, refuse: Refuse) -> float:
    """A real number, of Python or numpy; NaN and infinities are numbers."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise refuse(shown(value), "it takes a number")
    try:
        return float(value)
    except OverflowError:
        raise refuse(shown(value), "no float is as large") from None


def checked_text(value: object, refuse: Refuse) -> str:
    """Text that a file can hold: a lone half of a surrogate pair has no bytes in UTF-8."""
    text = checked_kind(value, str, refuse)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise refuse(ascii(text), f"character {error.start} has no form in UTF-8") from None
    return text


def checked_path(value: object, refuse: Refuse) -> Path:
    """A path that the operating system takes: text or a `Path`, without a zero character."""
    if not isinstance(value, str | Path):
        raise refuse(shown(value), "it takes a path")
    try:
        raw = os.fsencode(value)
    except UnicodeEncodeError:
        raise refuse(ascii(str(value)), "no file name is spelt so") from None
    if b"\0" in raw:
        raise refuse(ascii(str(value)), "a path holds no zero character")
    return Path(value)
