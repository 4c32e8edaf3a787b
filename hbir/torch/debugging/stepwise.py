"""What each part of the quantisation does to the model's outputs: weights, activations, and every place by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hbir.errors import TrainingError
from hbir.torch.debugging.metrics import Metric, checked_metric
from hbir.torch.debugging.recording import checked_prepared, only, run
from hbir.torch.debugging.tables import Progress, Table, silent
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.tracing.calls import Call

__all__ = ["SensitivityRow", "StepRow", "entries", "sensitivity", "sensitivity_table", "stepwise", "stepwise_table"]

_TYPES = ("activation", "weight", "both")
PostProcess = Callable[[Any], Any]


@dataclass(frozen=True)
class StepRow:
    """The outputs with a part of the quantisation, against those without any."""

    step: str
    values: tuple[float, ...]
    """The metric of each output."""


@dataclass(frozen=True)
class SensitivityRow:
    """What one place's grid does to one output."""

    name: str
    sensitive_type: str
    """`activation` or `weight`."""
    kind: str
    """The operation."""
    value: float
    """The metric of the output."""


@dataclass(frozen=True)
class _Parts:
    """The grids of a model by place: those of values, and those of weights."""

    activations: dict[str, list[FakeQuantize]]
    weights: dict[str, list[FakeQuantize]]
    kinds: dict[str, str]


def _parts(calls: Sequence[Call]) -> _Parts:
    found = _Parts({}, {}, {})
    for call in calls:
        held = [*([call.fake_quant] if call.fake_quant is not None else []), *call.inputs.values()]
        if held:
            found.activations.setdefault(call.name, held)
        if call.weight_fake_quant is not None:
            found.weights.setdefault(call.name, [call.weight_fake_quant])
        found.kinds.setdefault(call.name, call.kind)
    return found


def _outputs(model: torch.nn.Module, example_inputs: Any, fakes: Sequence[FakeQuantize]) -> tuple[torch.Tensor, ...]:
    outputs = run(model, example_inputs, on=only(fakes))[1]
    return tuple(each for each in outputs if each.is_floating_point())


def _checked(outputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    if not outputs:
        lever = "return the floats that the integers are made of"
        raise TrainingError(73, "the model gives no tensor of floats, so nothing can be measured", lever=lever)
    return outputs


def stepwise(model: Any, example_inputs: Any, metric: str = "SQNR") -> list[StepRow]:
    """The outputs of a prepared model with no quantisation but that of: inputs, weights, activations, all.

    Raises TrainingError HB0970 for a model that is not prepared, HB0971 for a metric that does not exist, HB0973 without an
    output of floats.
    """
    prepared, measure = checked_prepared(model, "stepwise"), checked_metric(metric)
    parts = _parts(run(prepared, example_inputs)[0].calls)
    inputs = [fake for name, held in parts.activations.items() if parts.kinds[name] == "quant" for fake in held]
    weights = [fake for held in parts.weights.values() for fake in held]
    activations = [fake for held in parts.activations.values() for fake in held]
    expected = _checked(_outputs(prepared, example_inputs, []))
    steps = {
        "inputs alone": inputs,
        "weights alone": weights,
        "activations alone": activations,
        "all": [*weights, *activations],
    }
    return [
        StepRow(name, _measured(measure, expected, _outputs(prepared, example_inputs, fakes)))
        for name, fakes in steps.items()
    ]


def _measured(measure: Metric, expected: Sequence[torch.Tensor], got: Sequence[torch.Tensor]) -> tuple[float, ...]:
    return tuple(measure(a, b) for a, b in zip(expected, got, strict=True))


def sensitivity(
    model: Any,
    example_inputs: Any,
    metric: str = "L1",
    sensitive_type: str = "both",
    *,
    leave_out: bool = False,
    progress: Progress = silent,
) -> list[list[SensitivityRow]]:
    """For each output of floats a table, the most sensitive place first: what SensitivityTemplate and the `sensitive_op_`
    setters take, as it is or as `entries(table)`, which is saved for `torch.load`.

    Each place is quantised by itself, and its outputs are compared with the float ones. With `leave_out` it is the other way
    round: all but one are quantised, and the table begins with the place whose absence helps most. Raises as `stepwise` does,
    and TrainingError HB0971 for a type that does not exist.
    """
    prepared, measure = checked_prepared(model, "sensitivity"), checked_metric(metric)
    if sensitive_type not in _TYPES:
        raise TrainingError(71, f"sensitive_type is {sensitive_type!r}", lever=f"choose one of {', '.join(_TYPES)}")
    parts = _parts(run(prepared, example_inputs)[0].calls)
    expected = _checked(_outputs(prepared, example_inputs, []))
    wanted = [
        (name, kind, fakes)
        for kind, held in (("activation", parts.activations), ("weight", parts.weights))
        if sensitive_type in (kind, "both")
        for name, fakes in held.items()
    ]
    every = [fake for held in (parts.activations, parts.weights) for fakes in held.values() for fake in fakes]
    tables: list[list[SensitivityRow]] = [[] for _ in expected]
    for number, (name, kind, fakes) in enumerate(wanted):
        progress(f"sensitivity of {name}", number / len(wanted))
        mine = {id(fake) for fake in fakes}
        held = [fake for fake in every if (id(fake) in mine) is not leave_out]
        for table, value in zip(
            tables, _measured(measure, expected, _outputs(prepared, example_inputs, held)), strict=True
        ):
            table.append(SensitivityRow(name, kind, parts.kinds[name], value))
    progress("sensitivity", 1.0)
    sign = -1 if leave_out else 1
    return [sorted(table, key=lambda row: -sign * measure.badness(row.value)) for table in tables]


def entries(rows: Sequence[SensitivityRow]) -> list[tuple[str, str, float]]:
    """The rows as SensitivityTemplate and the setters take them: name, type, number."""
    return [(row.name, row.sensitive_type, row.value) for row in rows]


def stepwise_table(rows: Sequence[StepRow], metric: str = "SQNR") -> Table:
    """One column for each output."""
    outputs = len(rows[0].values) if rows else 0
    columns = ("quantised", *(f"{metric} of output {number}" for number in range(outputs)))
    cells = tuple((row.step, *row.values) for row in rows)
    note = f"{checked_metric(metric).about}; the outputs against those of the same model without quantisation"
    return Table("stepwise", "Quantisation step by step", columns, cells, note)


def sensitivity_table(rows: Sequence[SensitivityRow], metric: str, output: int = 0) -> Table:
    """The most sensitive place first."""
    cells = tuple((row.name, row.sensitive_type, row.kind, row.value) for row in rows)
    columns = ("op_name", "sensitive_type", "op_type", metric)
    name, title = f"output_{output}_{metric}_sensitive_ops", f"Sensitivity of output {output}"
    note = "each place quantised by itself, the most sensitive first"
    return Table(name, title, columns, cells, note, bar=metric if checked_metric(metric).larger_is_worse else "")
