"""Tables as one self-contained HTML page: no network, no fonts, no libraries; light and dark; sorted and filtered in place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from hbir.torch.debugging.tables import Chart, Table, shown

__all__ = ["render_page"]

_WIDTH, _HEIGHT = 1000, 150


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    # Names of layers are the user's: everything is escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("hbir.torch.debugging").joinpath("page.html.j2").read_text(encoding="utf-8"))


def render_page(title: str, tables: Sequence[Table], facts: Sequence[tuple[str, str, str]] = ()) -> str:
    """The page. `facts` are (name, value, remark) of the cards on top."""
    return _template().render(title=title, facts=facts, sections=[_section(table) for table in tables])


def _section(table: Table) -> dict[str, Any]:
    numbers = [table.is_number(at) for at in range(len(table.columns))]
    bar = table.columns.index(table.bar) if table.bar in table.columns else -1
    widths = _widths(table, bar) if bar >= 0 else []
    rows = [
        {
            "marked": at in table.marked,
            "cells": [
                {
                    "text": _short(value),
                    "sort": _sort_key(value) if number else "",
                    "number": number,
                    "bar": widths[at] if column == bar else None,
                }
                for column, (value, number) in enumerate(zip(row, numbers, strict=True))
            ],
        }
        for at, row in enumerate(table.rows)
    ]
    chart = None if table.chart is None or len(table.rows) < 2 else _chart(table, table.chart)
    heads = list(zip(table.columns, numbers, strict=True))
    title = table.title.rstrip(":")
    return {"id": table.name, "title": title, "note": table.note, "heads": heads, "rows": rows, "chart": chart}


def _short(value: Any) -> str:
    """Four digits: a page is for reading, and the CSV file has them all."""
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _sort_key(value: Any) -> str:
    if value is None:
        return ""
    number = float(value)
    return (
        ""
        if math.isnan(number)
        else "1e999"
        if number == math.inf
        else "-1e999"
        if number == -math.inf
        else f"{number!r}"
    )


def _widths(table: Table, column: int) -> list[float]:
    """Per cent of the largest, on a logarithmic scale of six decades: ranges differ by orders of magnitude."""
    values = [abs(float(row[column])) if isinstance(row[column], int | float) else 0.0 for row in table.rows]
    finite = [value for value in values if math.isfinite(value)]
    top = max(finite, default=0.0)

    def width(value: float) -> float:
        if not value or not top:
            return 0.0
        if not math.isfinite(value):
            return 100.0
        return max(1.0, 100 * (1 + math.log10(value / top) / 6))

    return [width(value) for value in values]


def _chart(table: Table, chart: Chart) -> dict[str, Any]:
    column = table.columns.index(chart.column)
    span = (chart.high - chart.low) or 1.0
    points: list[dict[str, Any]] = []
    for at, row in enumerate(table.rows):
        if row[column] is None:
            continue
        value = float(row[column])
        share = (min(max(value, chart.low), chart.high) - chart.low) / span if math.isfinite(value) else 0.0
        x, y = _WIDTH * (at + 0.5) / len(table.rows), _HEIGHT * (1 - share)
        points.append(
            {"x": f"{x:.1f}", "y": f"{y:.1f}", "marked": at in table.marked, "label": f"{row[0]}: {_short(value)}"}
        )
    ticks = [(f"{_HEIGHT * (1 - part / 4):.1f}", f"{chart.low + span * part / 4:.4g}") for part in range(5)]
    line = " ".join(f"{point['x']},{point['y']}" for point in points)
    return {"width": _WIDTH, "height": _HEIGHT, "points": points, "line": line, "ticks": ticks, "label": chart.label}
