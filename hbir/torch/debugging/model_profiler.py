"""All reports on a pair of models in one folder: texts, CSV files, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbir.errors import TrainingError
from hbir.module import Function, Module
from hbir.torch.debugging.advice import Advice, advice_table, advise, with_advice
from hbir.torch.debugging.check import ModelCheck, check_qat_model
from hbir.torch.debugging.device import DeviceRow, check_deploy_device, device_table
from hbir.torch.debugging.page import render_page
from hbir.torch.debugging.recording import (
    Recording,
    checked_prepared,
    integers_for,
    is_prepared,
    layer_values,
    ready,
    record,
)
from hbir.torch.debugging.similarity import (
    LayerSimilarity,
    WeightSimilarity,
    compare_integers,
    compare_recordings,
    compared_weights,
    similarity_table,
    weight_table,
)
from hbir.torch.debugging.statistics import LayerStatistics, statistics_of, statistics_tables
from hbir.torch.debugging.stepwise import (
    SensitivityRow,
    StepRow,
    sensitivity,
    sensitivity_table,
    stepwise,
    stepwise_table,
)
from hbir.torch.debugging.tables import Progress, Table, silent, write_csv, write_text
from hbir.torch.tracing.scopes import PREPARED

__all__ = ["ProfileReport", "model_profiler"]

_MODES = ("FvsQ", "QvsQ")


@dataclass(frozen=True)
class ProfileReport:
    """What `model_profiler` found."""

    check: ModelCheck
    baseline_statistics: tuple[LayerStatistics, ...]
    statistics: tuple[LayerStatistics, ...]
    """Of the second model; empty for a module."""
    similarity: tuple[LayerSimilarity, ...]
    integers: tuple[LayerSimilarity, ...]
    """The integers against the fake quantisation that they are made of."""
    weights: tuple[WeightSimilarity, ...]
    advice: tuple[Advice, ...]
    stepwise: tuple[StepRow, ...]
    sensitivity: tuple[tuple[SensitivityRow, ...], ...]
    """A table for each output."""
    metric: str
    device: tuple[DeviceRow, ...]
    folder: Path | None
    """Where it was written."""

    @property
    def page(self) -> Path | None:
        """The page, if it was written."""
        return None if self.folder is None else self.folder / "profiler.html"

    def groups(self) -> dict[str, tuple[Table, ...]]:
        """The tables by the stem of their text file."""
        tables = tuple(sensitivity_table(rows, self.metric, at) for at, rows in enumerate(self.sensitivity))
        title = "The integers against fake quantisation"
        return {
            "similarity": (similarity_table(self.similarity),),
            "abnormal_layer_advisor": (advice_table(self.advice),),
            **{table.name: (table,) for table in tables},
            "stepwise": (stepwise_table(self.stepwise),),
            "compare_weight": (weight_table(self.weights),),
            "integers": (similarity_table(self.integers, "integers", title),),
            "deploy_device": (device_table(self.device),),
            "model0_statistic": statistics_tables(self.baseline_statistics, "model0_statistic", "the first model"),
            "model1_statistic": statistics_tables(self.statistics, "model1_statistic", "the second model"),
        }

    def facts(self) -> list[tuple[str, str, str]]:
        """The cards on the page."""
        worst = min(self.similarity, key=lambda row: row.cosine)
        first = next((each for each in self.advice if each.cause != "carried"), None)
        host = [row for row in self.device if row.on_host]
        shared = [row for row in self.check.called if row.shared]
        facts = [
            ("Lowest cosine", f"{worst.cosine:.4f}", worst.name),
            ("First layer astray", "none" if first is None else first.name, "" if first is None else first.cause),
            ("Not fused", str(len(self.check.unfused)), "batch norms, sums and activations behind layers"),
            ("Shared modules", str(len(shared)), ", ".join(row.name for row in shared[:3])),
            ("On the host", str(len(host)), f"of {len(self.device)} operations"),
        ]
        if self.sensitivity and self.sensitivity[0]:
            row = self.sensitivity[0][0]
            facts.append(("Most sensitive", row.name, f"{row.sensitive_type}, {self.metric} {row.value:.4g}"))
        return facts

    def write(self, folder: Path) -> None:
        """Write all files; the folder is made where it is missing."""
        self.check.write(folder)
        groups = self.groups()
        for stem, tables in groups.items():
            write_text(folder / f"{stem}.txt", tables)
            for table in tables:
                write_csv(folder / f"{table.name}.csv", table)
        for table in self.check.tables():
            write_csv(folder / f"{table.name}.csv", table)
        tables = [table for tables in groups.values() for table in tables]
        order = [*tables[:2], *self.check.tables()[:2], *tables[2:], *self.check.tables()[2:]]
        page = render_page("Profile of a quantised model", order, self.facts())
        (folder / "profiler.html").write_text(page, encoding="utf-8")


def model_profiler(
    baseline_model: Any,
    analysis_model: Any,
    example_inputs: Any,
    mode: str = "FvsQ",
    out_dir: str | Path | None = "model_profiler",
    *,
    metric: str = "L1",
    progress: Progress = silent,
) -> ProfileReport:
    """Compare two models on the arguments of one call, and write everything into `out_dir` (None: write nothing).

    `mode` "FvsQ": a float model and what was prepared of it. "QvsQ": a prepared model, and another one or a converted module.
    The checks, steps and sensitivities are those of the second model, or of the first where the second is a module. Inputs
    should be real data: what random numbers reach is not what images reach. `progress` is told what is being done.
    Raises TrainingError HB0970 for a model of another kind, HB0971 for another mode or metric, HB0972 where the two have no
    layer in common.
    """
    if mode not in _MODES:
        raise TrainingError(71, f"the mode is {mode!r}", lever="choose FvsQ or QvsQ")
    of_module = isinstance(analysis_model, Module | Function)
    if mode == "QvsQ" or of_module:
        checked_prepared(baseline_model, f"model_profiler in the mode {mode}")
    elif is_prepared(baseline_model):
        lever = "give the float model first, or choose QvsQ"
        raise TrainingError(71, "the mode is FvsQ and the first model is prepared", lever=lever)
    quantized = baseline_model if of_module else checked_prepared(analysis_model, "model_profiler")
    progress("recording", 0.0)
    base = record(ready(baseline_model), example_inputs)
    other = base if of_module else record(quantized, example_inputs)
    progress("integers", 0.1)
    function, arrays = integers_for(quantized, example_inputs)
    integers = compare_integers(other, layer_values(function, arrays)[0])
    rows, advice = _compared(base, other, analysis_model if of_module else None, example_inputs)
    progress("checks", 0.2)
    steps = stepwise(quantized, example_inputs)
    found = sensitivity(quantized, example_inputs, metric, progress=_part(progress, 0.3, 0.95))
    folder = None if out_dir is None else Path(out_dir)
    report = ProfileReport(
        check=check_qat_model(quantized, example_inputs),
        baseline_statistics=tuple(statistics_of(base)),
        statistics=() if of_module else tuple(statistics_of(other)),
        similarity=tuple(rows),
        integers=tuple(integers),
        weights=tuple(compared_weights(base, other)),
        advice=tuple(advice),
        stepwise=tuple(steps),
        sensitivity=tuple(map(tuple, found)),
        metric=metric,
        device=tuple(check_deploy_device(function, march=str(quantized.__dict__[PREPARED]))),
        folder=folder,
    )
    if folder is not None:
        progress("writing", 0.95)
        report.write(folder)
    progress("done", 1.0)
    return report


def _part(progress: Progress, low: float, high: float) -> Progress:
    return lambda what, share: progress(what, low + (high - low) * share)


def _compared(
    base: Recording, other: Recording, module: Any, example_inputs: Any
) -> tuple[Sequence[LayerSimilarity], Sequence[Advice]]:
    if module is not None:
        return compare_integers(base, layer_values(module, example_inputs)[0]), []
    rows = compare_recordings(base, other)
    advice = advise(rows, base, other)
    return with_advice(rows, advice), advice
