"""Tables: what every report is made of. The same rows become text, CSV, and a section of the page."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Chart", "Progress", "Table", "shown", "silent", "write_csv", "write_text"]

Progress = Callable[[str, float], None]
"""Told what is being done, and which share of it is done, 0 to 1."""


def silent(what: str, share: float) -> None:
    """Progress that nobody wants to see."""
    del what, share


@dataclass(frozen=True)
class Chart:
    """A line over the rows: one column's numbers, from `low` to `high`."""

    column: str
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Table:
    """Rows under a title."""

    name: str
    """The stem of its files."""
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    """Texts, numbers, booleans, None for what there is not."""
    note: str = ""
    marked: frozenset[int] = frozenset()
    """Numbers of rows to look at first."""
    bar: str = ""
    """The column whose numbers are drawn as bars."""
    chart: Chart | None = None

    def text(self) -> str:
        """The table in columns, with its title; marked rows begin with `!`."""
        cells = [[shown(value) for value in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]
        right = [self.is_number(at) for at in range(len(self.columns))]
        lines = [self.title, *([self.note] if self.note else []), ""]
        if not self.rows:
            return "\n".join([*lines, "(nothing)", ""])
        for number, row in enumerate([self.columns, ["-" * width for width in widths], *cells]):
            parts = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
            lines.append(("! " if number - 2 in self.marked else "  ") + "  ".join(parts).rstrip())
        return "\n".join([*lines, ""])

    def is_number(self, column: int) -> bool:
        """Whether a column holds numbers."""
        values = [row[column] for row in self.rows if row[column] is not None]
        return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def shown(value: Any) -> str:
    """A cell as people read it: six digits of a float, `-` for nothing."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def write_text(path: Path, tables: Sequence[Table], head: str = "") -> None:
    """All tables in one text file, under each other."""
    parts = [head] if head else []
    path.write_text("\n".join([*parts, *(table.text() for table in tables)]), encoding="utf-8")


def write_csv(path: Path, table: Table) -> None:
    """One table; floats with all their digits, nothing as an empty cell."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(table.columns)
        for row in table.rows:
            writer.writerow(["" if each is None else _exact(each) for each in row])


def _exact(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return repr(value) if math.isfinite(value) else str(value)
