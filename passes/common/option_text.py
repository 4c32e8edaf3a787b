"""Options of passes as the text of a pipeline has them."""

from __future__ import annotations

from typing import cast

__all__ = ["option_text", "same_option"]

_PLAIN = (str, int, float, bool, tuple, dict, type(None))


def same_option(value: object, standard: object) -> bool:
    """Whether a value is the one that an option has by default; never for an array, whose comparison gives an array."""
    return type(value) is type(standard) and isinstance(value, _PLAIN) and value == standard


def option_text(value: object) -> str:
    """The text that the parser reads as this value; `<dict>`, which no parser takes, for a value that has none."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and "e" in (text := repr(value)):
        # The parser takes an exponent behind a point only.
        return text if "." in text else text.replace("e", ".0e")
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str) and not set(value) & set('"\\\n'):
        return f'"{value}"'
    if isinstance(value, tuple) and value:
        return ",".join(option_text(part) for part in cast(tuple[object, ...], value))
    return f"<{cast(object, value).__class__.__name__}>"
