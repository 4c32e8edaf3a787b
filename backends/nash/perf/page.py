"""The report as one self-contained HTML page: no network, no fonts, no libraries; light and dark."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files
from typing import Any

from backends.nash.isa import UNITS
from backends.nash.perf.published import layer_fields
from backends.nash.perf.report import Report

__all__ = ["page"]

_CHART = (1000, 160)


def _bytes(count: float) -> str:
    """``1.23 MB``: three digits with a decimal unit."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _time(us: float) -> str:
    """Microseconds below a thousand, milliseconds from there on."""
    return f"{us:.2f} µs" if us < 1000 else f"{us / 1000:.3f} ms"


def _short(operations: str) -> str:
    """Operation names without their dialects."""
    return ", ".join(name.rsplit(".", 1)[-1] for name in operations.split(", "))


def _count(value: float) -> str:
    for unit in ("", " k", " M", " G"):
        if value < 1000:
            return f"{value:.0f}" if not unit else f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g} T"


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    # Layer names come from files of others: everything is escaped, also what stands inside the script (`tojson`).
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(bytes=_bytes, time=_time, count=_count, short=_short)
    return environment.from_string(files("backends.nash.perf").joinpath("page.html.j2").read_text(encoding="utf-8"))


def _steps(values: list[float], top: float) -> str:
    """Points of an SVG polyline: one horizontal step for each value, `top` at the upper edge."""
    width, height = _CHART
    points: list[str] = []
    for index, value in enumerate(values):
        y = height * (1 - min(value / top, 1.0)) if top else height
        points += [f"{width * (index + edge) / len(values):.1f},{y:.1f}" for edge in (0, 1)]
    return " ".join(points)


def _interval_chart(report: Report) -> dict[str, Any]:
    """Compute utilisation in percent of the time, load plus store in percent of the DDR rate: one axis for both."""
    rate = report.march.ddr_bytes_per_second
    compute = [i.utilization for i in report.intervals]
    load = [i.load_rate / rate for i in report.intervals]
    both = [(i.load_rate + i.store_rate) / rate for i in report.intervals]
    rows = [
        (round(100 * c, 1), round(l * rate / 1e9, 2), round((b - l) * rate / 1e9, 2))
        for c, l, b in zip(compute, load, both, strict=True)
    ]
    return {
        "width": _CHART[0],
        "height": _CHART[1],
        "compute": _steps(compute, 1.0),
        "load": _steps(load, 1.0),
        "both": _steps(both, 1.0),
        "rows": rows,
        "bound": sum(b > c for b, c in zip(both, compute, strict=True)),
    }


def _timeline(report: Report) -> dict[str, Any]:
    """Lanes and slices for the script: [lane, layer, opcode, start µs, length µs, DDR bytes]."""
    lanes = sorted({(s.core, UNITS.index(s.unit)) for s in report.spans if s.opcode != "NOP"})
    order = {"LOAD": 0, "TAE": 1, "VAE": 2, "AAE": 3, "TRANS": 4, "VPU": 5, "SPU": 6, "HOST": 7, "STORE": 8}
    lanes.sort(key=lambda lane: (lane[0], order[UNITS[lane[1]]]))
    number = {lane: at for at, lane in enumerate(lanes)}
    opcodes = sorted({s.opcode for s in report.spans})
    us = report.microseconds
    slices = [
        [
            *(number[s.core, UNITS.index(s.unit)], s.layer, opcodes.index(s.opcode)),
            *(round(us(s.start), 4), round(us(s.end - s.start), 4), s.nbytes),
        ]
        for s in report.spans
        if s.opcode != "NOP"
    ]
    return {
        "total": report.device_us,
        "lanes": [
            {"name": UNITS[unit] + (str(core) if report.cores > 1 else ""), "unit": UNITS[unit]} for core, unit in lanes
        ],
        "layers": list(report.layer_names),
        "opcodes": opcodes,
        "slices": slices,
    }


def page(report: Report) -> str:
    """The page's text."""
    line = report.roofline
    resources = sorted(((k, report.microseconds(v)) for k, v in line.resources.items() if v), key=lambda item: -item[1])
    limits: dict[str, int] = {}
    for row in report.layers:
        limits[row.bound.limited_by or "nothing"] = limits.get(row.bound.limited_by or "nothing", 0) + row.cycles
    return _template().render(
        report=report,
        rows=[layer_fields(report, index) for index in range(len(report.layers))],
        resources=resources,
        limits=sorted(limits.items(), key=lambda item: -item[1]),
        chart=_interval_chart(report),
        timeline=_timeline(report),
        units=[unit for unit in report.units if unit.instructions],
        over=f"{report.over_roofline:.2f} ×" if math.isfinite(report.over_roofline) else "–",
        total_macs=sum(report.macs.values()),
        interval_us=report.device_us / len(report.intervals) if report.intervals else 0.0,
    )
