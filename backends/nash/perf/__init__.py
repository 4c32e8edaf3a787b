"""The static report of a binary: how long it takes, what limits it, and how far that is from what the machine could do.

`report` times a model without data; `write_reports` writes it as a page, JSON with the published key names, a trace and a
table by layer; `roofline` gives the lower bounds alone.
"""

from __future__ import annotations

import json
from pathlib import Path

from backends.nash.hbm import Model, read, verify_model
from backends.nash.perf.page import page
from backends.nash.perf.published import layer_table, perf_json, trace_json
from backends.nash.perf.report import LayerRow, Memory, Report, report
from backends.nash.perf.roofline import LayerBound, Roofline, roofline
from hbir.ir.files import write_text

__all__ = [
    "LayerBound",
    "LayerRow",
    "Memory",
    "Report",
    "Roofline",
    "hbm_perf",
    "layer_table",
    "page",
    "perf_json",
    "report",
    "roofline",
    "trace_json",
    "write_reports",
]


def write_reports(
    model: Model | Report, folder: str | Path, stem: str = "", *, file_bytes: int | None = None
) -> tuple[Path, ...]:
    """Write `stem`.html, .json, .csv and _trace.json into `folder`; their paths. Raises ConfigError HB0801.

    `model` is verified, or its report is at hand already; `stem` is the model's name by default.
    """
    folder = Path(folder)
    value = model if isinstance(model, Report) else report(model, file_bytes=file_bytes)
    stem = stem or _file_name(value.name)
    texts = {
        f"{stem}.html": page(value),
        f"{stem}.json": json.dumps(perf_json(value), indent=1, ensure_ascii=False) + "\n",
        f"{stem}.csv": layer_table(value),
        f"{stem}_trace.json": json.dumps(trace_json(value), separators=(",", ":"), ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return tuple(folder / name for name in texts)


def hbm_perf(path: str | Path, output_dir: str | Path | None = None) -> int:
    """Write the static report of every model of an `.hbm` into `output_dir` (by default the file's folder); 0.

    Raises what `read` and `verify_model` raise for a file that is damaged or illegal, ConfigError HB0801 when the folder
    cannot be written.
    """
    path = Path(path)
    models = read(path)
    for model in models:
        verify_model(model)
        stem = "" if len(models) > 1 else path.stem
        write_reports(model, output_dir or path.parent, stem, file_bytes=path.stat().st_size)
    return 0


def _file_name(name: str) -> str:
    """A model's name as a file name: it comes from the file and must not lead out of the folder."""
    kept = "".join(c if c.isalnum() or c in "-_." else "_" for c in name).strip(".")
    return kept or "model"
