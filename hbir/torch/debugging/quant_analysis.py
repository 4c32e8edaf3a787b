"""From a bad accuracy to the layer that causes it: find a bad case, compare each layer on it, rank the grids, advise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils import _pytree as pytree

from hbir.errors import TrainingError
from hbir.module import Function, Module
from hbir.torch.debugging.advice import Advice, advice_table, advise, with_advice
from hbir.torch.debugging.metrics import checked_metric
from hbir.torch.debugging.page import render_page
from hbir.torch.debugging.recording import (
    LayerValues,
    Recording,
    aligned,
    checked_prepared,
    layer_values,
    ready,
    record,
    run,
)
from hbir.torch.debugging.similarity import LayerSimilarity, compare_integers, compare_recordings, similarity_table
from hbir.torch.debugging.statistics import statistics_of, statistics_tables
from hbir.torch.debugging.stepwise import SensitivityRow, entries, sensitivity, sensitivity_table
from hbir.torch.debugging.tables import Progress, Table, silent, write_csv, write_text
from hbir.torch.exporting.export import get_hbir_output_unflattener
from hbir.torch.preparing.trace import plain_outputs

__all__ = ["BadCase", "QuantAnalysis"]

_TYPES = ("fake_quant", "pre_export", "export", "convert")
_OF_TORCH = ("fake_quant", "pre_export")


@dataclass(frozen=True)
class BadCase:
    """One item of the data, and how far the outputs of the two models lie apart on it."""

    index: int
    values: tuple[float, ...]
    """The metric of each output."""


class QuantAnalysis:
    """Compares a baseline with the model whose accuracy is bad. Call `auto_find_bad_case` or `set_bad_case` first, then `run`,
    `compare_per_layer` and `sensitivity`, in this order or alone; files go to `out_dir`.

    `baseline_model` is float or prepared. `analysis_model_type` says what `analysis_model` is: "fake_quant" a prepared model,
    "export" and "convert" a module. `device_ids` is there for scripts that pass None. `post_process` is applied to the
    outputs of both models before bad cases are compared, and gives tensors. Raises TrainingError HB0970 for models of
    another kind, HB0971 for another type.
    """

    def __init__(
        self,
        baseline_model: Any,
        analysis_model: Any,
        analysis_model_type: str = "fake_quant",
        device_ids: None = None,
        post_process: Callable[[Any], Any] | None = None,
        out_dir: str | Path = "horizon_quant_analysis",
        *,
        progress: Progress = silent,
    ) -> None:
        if device_ids is not None:
            lever = "leave it out, and move the models to the device"
            raise TrainingError(71, f"device_ids is {device_ids!r}", why="models run where they are", lever=lever)
        if analysis_model_type not in _TYPES:
            lever = f"choose one of {', '.join(_TYPES)}"
            raise TrainingError(71, f"analysis_model_type is {analysis_model_type!r}", lever=lever)
        self._module: Module | Function | None = None
        self._prepared: torch.nn.Module | None = None
        if analysis_model_type in _OF_TORCH:
            self._prepared = checked_prepared(analysis_model, "QuantAnalysis")
        elif isinstance(analysis_model, Module | Function):
            self._module = analysis_model
        else:
            lever = "give what export or convert returned"
            raise TrainingError(70, f"the analysis model is a {type(analysis_model).__name__}", lever=lever)
        self.baseline = ready(baseline_model)
        self.post_process, self.out_dir, self.progress = post_process, Path(out_dir), progress
        self.bad_case: Any = None
        self._recorded: tuple[Recording, Recording | LayerValues] | None = None

    def auto_find_bad_case(
        self, data: Iterable[Any], num_steps: int | None = None, metric: str = "L1", topk: int = 10
    ) -> list[BadCase]:
        """Run both models on `data`, whose items are the arguments of one call (a tuple for several), at most `num_steps`
        of them, and keep the item that is worst in any output, by the number of the metric. `topk` of them, the worst first.

        Writes badcase.txt, all_badcase_info.pt and badcase_report.html. Raises TrainingError HB0971 for another metric, HB0974
        when there are no data, HB0972 when the outputs of the models do not match.
        """
        measure = checked_metric(metric)
        cases: list[BadCase] = []
        worst, kept = -math.inf, None
        for index, item in enumerate(itertools.islice(data, num_steps)):
            self.progress(f"data {index}", 0.0 if num_steps is None else index / num_steps)
            expected, got = self._outputs(item)
            cases.append(BadCase(index, tuple(measure(a, b) for a, b in zip(expected, got, strict=True))))
            badness = max(map(measure.badness, cases[-1].values))
            if kept is None or badness > worst:
                worst, kept = badness, item
        if not cases:
            raise TrainingError(74, "there are no data", lever="give at least one item, the arguments of one call")
        self.set_bad_case(kept)
        order = sorted(cases, key=lambda case: -max(map(measure.badness, case.values)))
        self._write_cases(order[:topk], metric, kept, cases)
        return order[:topk]

    def set_bad_case(self, data: Any) -> None:
        """Choose the arguments of one call that are looked at."""
        self.bad_case, self._recorded = data, None

    def load_bad_case(self, file: str | Path | None = None) -> None:
        """Take the case that `auto_find_bad_case` saved. Raises TrainingError HB0975 when there is no such file."""
        path = self.out_dir / "all_badcase_info.pt" if file is None else Path(file)
        if not path.is_file():
            lever = "call auto_find_bad_case first, or give its file"
            raise TrainingError(75, f"there is no file {path}", lever=lever)
        self.set_bad_case(torch.load(path)["data"])

    def run(self) -> None:
        """Run both models on the bad case, and keep the value of each layer."""
        if self.bad_case is None:
            lever = "call auto_find_bad_case, set_bad_case or load_bad_case first"
            raise TrainingError(75, "no bad case is set", lever=lever)
        base = record(self.baseline, self.bad_case)
        other = (
            record(ready(self._prepared), self.bad_case)
            if self._module is None
            else layer_values(self._module, self.bad_case)[0]
        )
        self._recorded = base, other

    def compare_per_layer(
        self, prefixes: Sequence[str] = (), types: Sequence[str] = ()
    ) -> tuple[list[LayerSimilarity], list[Advice]]:
        """Each layer of both models on the bad case, and what to change; if given, of layers whose names begin with one of
        `prefixes`, and of operations in `types`.

        Writes compare_per_layer_out.txt and .csv, abnormal_layer_advisor.csv, statistic.txt and profiler.html.
        """
        if self._recorded is None:
            self.run()
        base, other = cast("tuple[Recording, Any]", self._recorded)
        rows = compare_recordings(base, other) if isinstance(other, Recording) else compare_integers(base, other)
        wanted = [
            row
            for row in rows
            if (not prefixes or row.name.startswith(tuple(prefixes))) and (not types or row.kind in types)
        ]
        advice = advise(wanted, base, other) if isinstance(other, Recording) else []
        wanted = with_advice(wanted, advice)
        self._write_layers(wanted, advice, base, other)
        return wanted, advice

    def sensitivity(
        self, metric: str = "L1", sensitive_type: str = "both", *, leave_out: bool = False
    ) -> list[list[SensitivityRow]]:
        """The table of each output on the bad case; see `hbir.torch.profiler.sensitivity`.

        Writes output_<n>_<metric>_sensitive_ops.txt and .pt; `torch.load` of the latter is what SensitivityTemplate takes.
        Raises TrainingError HB0970 where the analysis model is a module.
        """
        prepared = checked_prepared(self._prepared, "sensitivity")
        if self.bad_case is None:
            self.run()
        found = sensitivity(
            prepared, self.bad_case, metric, sensitive_type, leave_out=leave_out, progress=self.progress
        )
        self.out_dir.mkdir(parents=True, exist_ok=True)
        for output, rows in enumerate(found):
            table = sensitivity_table(rows, metric, output)
            write_text(self.out_dir / f"{table.name}.txt", [table])
            write_csv(self.out_dir / f"{table.name}.csv", table)
            torch.save(entries(rows), self.out_dir / f"{table.name}.pt")
        return found

    def _outputs(self, item: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        expected = self._processed(plain_outputs(run(self.baseline, item)[0]))
        if self._module is not None:
            got = self._processed(_in_form(self._module, item))
        else:
            got = self._processed(plain_outputs(run(ready(self._prepared), item)[0]))
        lined = [aligned(b, a) for a, b in zip(expected, got, strict=False)]
        if len(expected) != len(got) or not expected or any(each is None for each in lined):
            shapes = [[tuple(each.shape) for each in outputs] for outputs in (expected, got)]
            raise TrainingError(
                72,
                "the outputs of the two models cannot be compared",
                why=f"their shapes are {shapes[0]} and {shapes[1]}",
                lever="give models of one network, and a post_process that returns tensors for both",
            )
        return expected, [each for each in lined if each is not None]

    def _processed(self, outputs: Any) -> list[torch.Tensor]:
        given = outputs if self.post_process is None else self.post_process(outputs)
        leaves = pytree.tree_leaves(given)
        return [leaf.detach().float().cpu() for leaf in leaves if isinstance(leaf, torch.Tensor)]

    def _write_cases(self, cases: Sequence[BadCase], metric: str, item: Any, all_cases: Sequence[BadCase]) -> None:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        outputs = len(cases[0].values)
        columns = ("data", *(f"{metric} of output {number}" for number in range(outputs)))
        rows = tuple((case.index, *case.values) for case in cases)
        note = f"{checked_metric(metric).about}; {len(all_cases)} items were run"
        table = Table("badcase", "Bad cases, the worst first", columns, rows, note, frozenset({0}), bar=columns[-1])
        write_text(self.out_dir / "badcase.txt", [table])
        write_csv(self.out_dir / "badcase.csv", table)
        saved = {"metric": metric, "cases": [(each.index, *each.values) for each in all_cases], "data": item}
        torch.save(saved, self.out_dir / "all_badcase_info.pt")
        page = render_page("Bad cases of a quantised model", [table])
        (self.out_dir / "badcase_report.html").write_text(page, encoding="utf-8")

    def _write_layers(
        self, rows: Sequence[LayerSimilarity], advice: Sequence[Advice], base: Recording, other: Any
    ) -> None:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        layers = similarity_table(rows, "compare_per_layer_out", "Each layer on the bad case")
        advised = advice_table(advice)
        statistics = [*statistics_tables(statistics_of(base), "model0_statistic", "the baseline")]
        if isinstance(other, Recording):
            statistics += statistics_tables(statistics_of(other), "model1_statistic", "the analysed model")
        write_text(self.out_dir / "compare_per_layer_out.txt", [layers])
        write_text(self.out_dir / "statistic.txt", statistics)
        for table in (layers, advised):
            write_csv(self.out_dir / f"{table.name}.csv", table)
        page = render_page("Each layer of a quantised model", [layers, advised, *statistics], _facts(rows, advice))
        (self.out_dir / "profiler.html").write_text(page, encoding="utf-8")


def _facts(rows: Sequence[LayerSimilarity], advice: Sequence[Advice]) -> list[tuple[str, str, str]]:
    if not rows:
        return []
    worst, jump = min(rows, key=lambda row: row.cosine), max(rows, key=lambda row: row.drop)
    first = next((each for each in advice if each.cause != "carried"), None)
    return [
        ("Lowest cosine", f"{worst.cosine:.4f}", worst.name),
        ("Largest drop", f"{jump.drop:.4f}", jump.name),
        ("Begin with", "nothing" if first is None else first.name, "" if first is None else first.lever),
    ]


def _in_form(module: Module | Function, item: Any) -> Any:
    """The outputs of a module in the order of the model's, where it knows that."""
    return get_hbir_output_unflattener(module)(layer_values(module, item)[1])
