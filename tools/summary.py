"""What hb_compile says at the end: the same facts as tables, as `<prefix>_report.json` and as `<prefix>_node_info.csv`."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbir.ir.files import write_text
from tools.console import print_lines, print_table
from tools.outcome import Outcome

if TYPE_CHECKING:
    from backends.nash.perf import LayerRow

__all__ = ["node_info", "outcome_json", "print_outcome", "write_summary"]


def _layers(outcome: Outcome) -> list[dict[str, Any]]:
    """One row for each layer of the binary, as it was fused."""
    if outcome.perf is None:
        return []
    perf, cosines = outcome.perf, outcome.layer_cosines or {}

    def row(layer: LayerRow) -> dict[str, Any]:
        return {
            "layer": layer.layer,
            "op": layer.op,
            "unit": layer.unit,
            "reason": layer.reason,
            "cosine": cosines.get(layer.layer),
            "time (us)": perf.microseconds(layer.cycles),
            "roofline (us)": perf.microseconds(layer.bound.cycles),
            "limited by": layer.bound.limited_by,
            "loaded bytes": layer.bound.loaded_bytes,
            "stored bytes": layer.bound.stored_bytes,
        }

    return [row(layer) for layer in perf.layers]


def _accuracy(outcome: Outcome) -> dict[str, Any] | None:
    accuracy = outcome.evaluation.accuracy if outcome.evaluation is not None else None
    if accuracy is None:
        return None
    return {
        "samples": accuracy.samples,
        "float correct": accuracy.float_correct,
        "binary correct": accuracy.binary_correct,
    }


def _host_layers(outcome: Outcome) -> list[dict[str, Any]]:
    return [row for row in _layers(outcome) if "HOST" in row["unit"].split(", ")]


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """The report as plain values; keys whose stage did not run are left out."""
    result: dict[str, Any] = {
        "model": outcome.job.model.name,
        "march": outcome.march.name,
        "prefix": outcome.job.prefix,
        "calibration samples": outcome.calibrated_on,
    }
    if outcome.evaluation is not None:
        evaluation = outcome.evaluation
        result["evaluation"] = {
            "data": evaluation.source,
            "samples": evaluation.samples,
            # On the first sample; a run where they differ ends with an error.
            "binary equals quantised module": True,
            "outputs": [
                {
                    "name": a.output,
                    "cosine": a.cosine,
                    "smallest cosine": a.worst_cosine,
                    "largest error": a.max_error,
                    "largest float value": a.reach,
                }
                for a in evaluation.agreements
            ],
            "accuracy": _accuracy(outcome),
        }
    if outcome.perf is not None:
        perf = outcome.perf
        result["performance"] = {
            "device latency (us)": perf.device_us,
            "dispatch overhead (us)": perf.dispatch_us,
            "latency of a board run (us)": perf.board_us,
            "FPS": perf.frames_per_second if math.isfinite(perf.frames_per_second) else 0.0,
            "DDR bytes": perf.ddr_bytes,
            "compulsory DDR bytes": perf.roofline.compulsory_bytes,
            "roofline (us)": perf.roofline.microseconds,
            "limited by": perf.roofline.limited_by,
        }
        result["layers"] = _layers(outcome)
    result["files"] = [path.name for path in outcome.files]
    return result


def node_info(outcome: Outcome) -> str:
    """CSV with one line for each node of the user's model. `fused into` names the layer that a node became part of."""
    text = io.StringIO()
    columns = [
        "node",
        "ON",
        "unit",
        "type",
        "fused into",
        "output data type",
        "cosine",
        "time_us",
        "limited_by",
        "reason",
    ]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    types = {
        str(row.get("layer")): row.get("dtype", "") for row in (outcome.hbm.models[0].placements if outcome.hbm else ())
    }
    for row in _layers(outcome):
        names = row["layer"].split("+")
        for name in names:
            value = row["cosine"]
            writer.writerow(
                {
                    "node": name,
                    "ON": "CPU" if row["unit"] == "HOST" else "BPU",
                    "unit": row["unit"],
                    "type": row["op"],
                    "fused into": row["layer"] if len(names) > 1 else "",
                    "output data type": types.get(row["layer"], ""),
                    "cosine": "" if value is None else f"{value:.6f}",
                    "time_us": f"{row['time (us)']:.4f}",
                    "limited_by": row["limited by"],
                    "reason": row["reason"],
                }
            )
    return text.getvalue()


def write_summary(outcome: Outcome, folder: Path) -> None:
    """Write `<prefix>_node_info.csv` and `<prefix>_report.json`. Raises ConfigError HB0801."""
    prefix = outcome.job.prefix
    write_text(folder / f"{prefix}_node_info.csv", node_info(outcome))
    listed = {
        **outcome_json(outcome),
        "files": sorted([*(p.name for p in folder.iterdir()), f"{prefix}_report.json", "hb_compile.log"]),
    }
    listed["files"] = [name for name in listed["files"] if not name.startswith(".")]
    write_text(folder / f"{prefix}_report.json", json.dumps(listed, indent=1, ensure_ascii=False) + "\n")


def _percent(part: int | None, whole: int) -> str:
    return "–" if part is None else f"{part}/{whole} ({100 * part / whole:.1f} %)"


def _short(operations: str) -> str:
    """Operation names without their dialects."""
    return ", ".join(name.rsplit(".", 1)[-1] for name in operations.split(", "))


def _bytes(count: int) -> str:
    return f"{count:,}"


def _print_evaluation(outcome: Outcome) -> None:
    evaluation = outcome.evaluation
    if evaluation is None:
        return
    print_table(
        f"Outputs: binary against float on {evaluation.samples} {evaluation.source} samples",
        ("output", "#cosine", "#smallest cosine", "#largest error", "#largest float value"),
        [
            (a.output, f"{a.cosine:.6f}", f"{a.worst_cosine:.6f}", f"{a.max_error:.4g}", f"{a.reach:.4g}")
            for a in evaluation.agreements
        ],
    )
    print_lines("The binary equals the quantised module bit for bit (first sample).")
    accuracy = evaluation.accuracy
    if accuracy is not None:
        print_lines(
            f"Accuracy, float:  {_percent(accuracy.float_correct, accuracy.samples)}",
            f"Accuracy, binary: {_percent(accuracy.binary_correct, accuracy.samples)}",
        )


def print_outcome(outcome: Outcome) -> None:
    """The tables on stdout."""
    perf = outcome.perf
    if perf is not None:
        cells = [
            (
                *(r["layer"], _short(r["op"]), r["unit"], "" if r["cosine"] is None else f"{r['cosine']:.5f}"),
                *(f"{r['time (us)']:.2f}", f"{r['roofline (us)']:.2f}", r["limited by"]),
                *(_bytes(r["loaded bytes"]), _bytes(r["stored bytes"])),
            )
            for r in _layers(outcome)
        ]
        columns = ("layer", "op", "unit", "#cosine", "#time µs", "#roofline µs", "limited by", "#loaded B", "#stored B")
        print_table(f"Layers of {outcome.job.prefix} on {perf.march.name}", columns, cells)
        print_lines("time: cycles that the layer owns; its loads may run ahead, under the time of other layers.")
        for row in _host_layers(outcome):
            print_lines(f"on the host CPU: {row['layer']} ({row['op']}): {row['reason']}")
    _print_evaluation(outcome)
    if perf is not None:
        line = perf.roofline
        print_lines(
            "",
            f"Device latency:          {perf.device_us / 1000:.3f} ms ({perf.frames_per_second:.1f} frames/s)",
            f"Latency of a board run:  {perf.board_us / 1000:.3f} ms, with {perf.dispatch_us / 1000:.2f} ms dispatch overhead",
            f"DDR bytes per run:       {_bytes(perf.ddr_bytes)} ({_bytes(line.compulsory_bytes)} compulsory)",
            f"Roofline:                {line.microseconds / 1000:.3f} ms, {line.limited_by};"
            f" the device takes {perf.over_roofline:.2f} times that",
        )
        slow = [
            row
            for row in perf.layers
            if outcome.job.advice_us and perf.microseconds(row.cycles) > outcome.job.advice_us
        ]
        for row in slow:
            print_lines(
                f"advice: {row.layer} takes {perf.microseconds(row.cycles):.1f} µs, limited by {row.bound.limited_by};"
                f" its own bound is {perf.microseconds(row.bound.cycles):.1f} µs"
            )
    print_lines("", f"Files in {outcome.job.folder}:", *(f"  {path.name}" for path in outcome.files))
