"""The report as JSON under the published key names, as a trace for Perfetto or chrome://tracing, and as CSV by layer.

In the JSON, `summary`, `coreSummaryGroup` and `details` are the published schema; what it has no name for (dispatch overhead,
roofline, units) stands apart under `extensions`. A megabyte is 10^6 bytes.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import Any

from backends.nash.perf.report import Report

__all__ = ["layer_table", "perf_json", "trace_json"]

_MEGA = 1e6


def _cost(report: Report, cycles: int) -> str:
    share = 100 * cycles / report.cycles if report.cycles else 0.0
    return f"{report.microseconds(cycles):.3f} us ({share:.2f}%)"


def _layer_details(report: Report) -> list[dict[str, Any]]:
    return [
        {
            "layer name": row.layer,
            "active period of time": f"{report.microseconds(row.first):.3f} - {report.microseconds(row.last):.3f} us",
            "computing cost (no DDR)": _cost(report, row.compute),
            "load cost": _cost(report, row.load),
            "store cost": _cost(report, row.store),
            "origin ops": row.origin_ops,
        }
        for row in report.layers
    ]


def _finite(value: float) -> float:
    return value if math.isfinite(value) else 0.0


def _summary(report: Report) -> dict[str, Any]:
    memory, fps = report.memory, _finite(report.frames_per_second)
    step = report.device_us / 1e3 / len(report.intervals) if report.intervals else 0.0
    return {
        "performance": {
            "FPS": fps,
            "latency (us)": report.device_us,
            "latency (ms)": report.device_us / 1e3,
            "latency (us) by segments": [report.device_us],
        },
        "DDR access data": {
            "DDR megabytes per run": report.ddr_bytes / _MEGA,
            "DDR bytes per run": report.ddr_bytes,
            "DDR bytes per second( for n FPS)": report.ddr_bytes * fps,
            "loaded bytes per run": report.ddr_read,
            "stored bytes per run": report.ddr_written,
            "min memory requirement": memory.minimum,
            "input memory": memory.input,
            "output memory": memory.output,
            "static memory": memory.static,
            "dynamic memory": memory.dynamic,
        },
        "interval info": {
            "interval number": len(report.intervals),
            "interval time (ms)": step,
            "interval computing unit utilization": [i.utilization for i in report.intervals],
            "interval ddr loading bandwidth (megabytes/s)": [i.load_rate / _MEGA for i in report.intervals],
            "interval ddr storing bandwidth (megabytes/s)": [i.store_rate / _MEGA for i in report.intervals],
        },
        "layer details": _layer_details(report),
        "model info": {
            "BPU march": report.march.name,
            "BPU core number": report.cores,
            "compiling HBDK version": report.tool_version,
            "compiling options": ", ".join(f"{key}={value}" for key, value in sorted(report.options.items())),
            "original conv ops": report.tae_layers,
            **report.macs,
        },
    }


def _unit_rows(report: Report) -> list[dict[str, Any]]:
    us = report.microseconds
    return [
        {
            "core": u.core,
            "unit": u.unit,
            "instructions": u.instructions,
            "busy (us)": us(u.busy),
            "stalled (us)": us(u.stalled),
            "idle (us)": us(u.idle),
        }
        for u in report.units
        if u.instructions
    ]


def _extensions(report: Report) -> dict[str, Any]:
    line, us = report.roofline, report.microseconds
    return {
        "model": report.name,
        "dispatch overhead (us)": report.dispatch_us,
        "latency of a board run (us)": report.board_us,
        "cycles": report.cycles,
        "clock (Hz)": report.march.clock_hz,
        "units": _unit_rows(report),
        "memory": {
            "intermediate": report.memory.intermediate,
            "temporary": report.memory.temporary,
            "L1M per core": report.memory.l1m,
            "L2M": report.memory.l2m,
        },
        "roofline": {
            "bound (us)": line.microseconds,
            "limited by": line.limited_by,
            "latency / bound": _finite(report.over_roofline),
            "compulsory DDR bytes": line.compulsory_bytes,
            "resources (us)": {resource: us(cycles) for resource, cycles in line.resources.items()},
        },
        "layers": [layer_fields(report, index) for index in range(len(report.layers))],
    }


def perf_json(report: Report) -> dict[str, Any]:
    """The JSON report as plain values."""
    us, names = report.microseconds, report.layer_names
    details: list[list[dict[str, Any]]] = [[] for _ in range(report.cores)]
    for span in report.spans:
        if span.opcode != "NOP":
            details[span.core].append(
                {
                    "inst_type": span.unit,
                    "source_layer_names": names[span.layer],
                    "start_time (us)": us(span.start),
                    "working_time (us)": us(span.end - span.start),
                }
            )
    cores = [
        {"core": core, "units": [row for row in _unit_rows(report) if row["core"] == core]}
        for core in range(report.cores)
    ]
    return {
        "summary": _summary(report),
        "coreSummaryGroup": cores,
        "details": details,
        "extensions": _extensions(report),
    }


def trace_json(report: Report) -> dict[str, Any]:
    """Trace events: one process for each core, one thread for each unit, one slice for each instruction; µs."""
    us, names = report.microseconds, report.layer_names
    units = sorted({(span.core, span.unit) for span in report.spans})
    thread = {key: number for number, key in enumerate(units)}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "pid": core, "args": {"name": f"{report.march.name} core {core}"}}
        for core in sorted({core for core, _ in units})
    ]
    events += [
        {"ph": "M", "name": "thread_name", "pid": core, "tid": number, "args": {"name": unit}}
        for (core, unit), number in thread.items()
    ]
    for span in report.spans:
        events.append(
            {
                "ph": "X",
                "name": names[span.layer] or span.opcode,
                "cat": span.unit,
                "pid": span.core,
                "tid": thread[span.core, span.unit],
                "ts": us(span.start),
                "dur": us(span.end - span.start),
                "args": {"opcode": span.opcode, "DDR bytes": span.nbytes},
            }
        )
    width = report.device_us / len(report.intervals) if report.intervals else 0.0
    for number, interval in enumerate(report.intervals):
        rates = {"load": interval.load_rate / 1e9, "store": interval.store_rate / 1e9}
        events.append({"ph": "C", "name": "DDR GB/s", "pid": 0, "ts": number * width, "args": rates})
    return {"displayTimeUnit": "ns", "traceEvents": events}


def layer_fields(report: Report, index: int) -> Mapping[str, Any]:
    """One row of the CSV and of `extensions.layers`."""
    row, us = report.layers[index], report.microseconds
    return {
        "layer": row.layer,
        "op": row.op,
        "unit": row.unit,
        "reason": row.reason,
        "tiles": row.tiles,
        "macs": row.macs,
        "cycles": row.cycles,
        "time_us": round(us(row.cycles), 4),
        "start_us": round(us(row.first), 4),
        "end_us": round(us(row.last), 4),
        "compute_us": round(us(row.compute), 4),
        "load_us": round(us(row.load), 4),
        "store_us": round(us(row.store), 4),
        "ddr_loaded_bytes": row.bound.loaded_bytes,
        "ddr_stored_bytes": row.bound.stored_bytes,
        "roofline_us": round(us(row.bound.cycles), 4),
        "limited_by": row.bound.limited_by,
    }


def layer_table(report: Report) -> str:
    """CSV with one line for each layer and a header."""
    text = io.StringIO()
    rows = [layer_fields(report, index) for index in range(len(report.layers))]
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
