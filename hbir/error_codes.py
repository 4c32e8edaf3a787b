"""The table of error codes: for each its meaning and the usual remedy, one row each in `error_codes.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

from hbir.errors import HbError

__all__ = ["ErrorCode", "error_codes", "family_of"]


@dataclass(frozen=True, slots=True)
class ErrorCode:
    """One row of the table."""

    code: str
    """`HB` and four digits; the first two are the family."""
    meaning: str
    """What has happened, in one sentence."""
    remedy: str
    """What usually helps; the error itself says what would have helped in its case."""
    rooms: tuple[str, ...] = ()
    """The packages that raise it, named only where there are several."""


def family_of(code: str) -> type[HbError]:
    """The class of error that has codes of these hundreds; `HbError` when there is none."""
    hundreds = int(code[2:]) // 100 * 100
    return next((family for family in HbError.__subclasses__() if family.family == hundreds), HbError)


@cache
def error_codes() -> Mapping[str, ErrorCode]:
    """All rows by code, in order."""
    table = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    rows = {
        code: ErrorCode(code, row["meaning"], row["remedy"], tuple(row.get("rooms", ())))
        for code, row in sorted(table.items())
    }
    return MappingProxyType(rows)
