"""Two models side by side, place by place: what each computes, and with which weights."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from hbir.errors import TrainingError
from hbir.module import Function, Module
from hbir.torch.debugging.metrics import METRICS
from hbir.torch.debugging.recording import (
    Feature,
    LayerValues,
    Recording,
    aligned,
    layer_values,
    ready,
    record,
    value_of,
    weight_of,
)
from hbir.torch.debugging.tables import Chart, Table
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.kernels import held
from hbir.torch.tracing.calls import Call, operands

__all__ = [
    "LayerSimilarity",
    "WeightSimilarity",
    "compare_integers",
    "compare_recordings",
    "compare_weights",
    "featuremap_similarity",
    "similarity_table",
    "weight_table",
]


@dataclass(frozen=True)
class LayerSimilarity:
    """The value of one place in two models: `expected` and what was compared with it."""

    name: str
    base_kind: str
    """The operation in the first model, and in the second."""
    kind: str
    source: str
    """`file.py:12`."""
    shape: tuple[int, ...]
    dtype: str
    """Of the second model's grid; `float` without one."""
    scale: float | None
    cosine: float
    mse: float
    l1: float
    """Mean absolute error."""
    kl: float
    sqnr: float
    """dB."""
    atol: float
    """Largest absolute error."""
    steps: float | None
    """The same in steps of the grid."""
    base_minimum: float
    base_maximum: float
    base_mean: float
    minimum: float
    maximum: float
    mean: float
    drop: float = 0.0
    """How much lower the cosine is than that of the worst operand: what this place adds."""
    advice: str = ""


def featuremap_similarity(baseline_model: Any, analysis_model: Any, example_inputs: Any) -> list[LayerSimilarity]:
    """Compare the values of all places that both have, in the order of the first model.

    Each is a float model, or a prepared one, which runs with its grids. The second may be an exported or converted module (or
    its function): its values are those of the interpreter, where the place still exists; what it computes along with another
    place has no row. `example_inputs` are the arguments of one call. Raises TrainingError HB0970 for what is no model, HB0972
    where no place is common to both.
    """
    base = record(ready(baseline_model), example_inputs)
    if isinstance(analysis_model, Module | Function):
        return compare_integers(base, layer_values(analysis_model, example_inputs)[0])
    return compare_recordings(base, record(ready(analysis_model), example_inputs))


def compare_recordings(base: Recording, other: Recording) -> list[LayerSimilarity]:
    """The rows of two runs; see `featuremap_similarity`."""
    rows: dict[str, LayerSimilarity] = {}
    for name, feature in base.features.items():
        found = other.features.get(name)
        if found is None or found.value.shape != feature.value.shape:
            continue
        rows[name] = _compared(name, feature, found.value, found.call.kind, found.call.fake_quant)
    return _checked(base, rows)


def compare_integers(base: Recording, values: LayerValues) -> list[LayerSimilarity]:
    """The rows of a run and the values of a module's layers."""
    rows: dict[str, LayerSimilarity] = {}
    runs = Counter(feature.call.name for feature in base.features.values())
    for name, feature in base.features.items():
        found = value_of(values, feature, runs[feature.call.name])
        lined = None if found is None else aligned(found, feature.value.cpu())
        if lined is not None:
            rows[name] = _compared(name, feature, lined, feature.call.kind, feature.call.fake_quant)
    return _checked(base, rows)


def _checked(base: Recording, rows: Mapping[str, LayerSimilarity]) -> list[LayerSimilarity]:
    if not rows:
        raise TrainingError(
            72,
            "the two models have no layer in common",
            why="layers are matched by their names and shapes",
            lever="compare a model with what was prepared, exported or converted of it, on the same inputs",
        )
    names = {feature.call: name for name, feature in base.features.items()}
    return [replace(row, drop=_drop(base.features[name].call, row, rows, names)) for name, row in rows.items()]


def _drop(call: Call, row: LayerSimilarity, rows: Mapping[str, LayerSimilarity], names: Mapping[Call, str]) -> float:
    before = [rows[name].cosine for each in _sources(call, names) if (name := names[each]) in rows]
    return min(before, default=1.0) - row.cosine


def _sources(call: Call, known: Mapping[Call, str]) -> list[Call]:
    """The places whose values a call reads, past what only moves values."""
    found: list[Call] = []
    pending = [ref.call for ref in operands((call.arguments, call.keywords))]
    while pending:
        each = pending.pop()
        if each in known:
            found.append(each)
        else:
            pending += [ref.call for ref in operands((each.arguments, each.keywords))]
    return found


def _compared(name: str, feature: Feature, got: torch.Tensor, kind: str, fake: FakeQuantize | None) -> LayerSimilarity:
    expected, got = feature.value.cpu(), got.cpu()
    numbers: dict[str, Any] = {key.lower(): metric(expected, got) for key, metric in METRICS.items()}
    scale = None if fake is None else float(fake.scale.detach().max())
    limits: dict[str, Any] = {**_range("base_", expected), **_range("", got)}
    return LayerSimilarity(
        *(name, feature.call.kind, kind, feature.call.source, tuple(expected.shape)),
        dtype="float" if fake is None else fake.dtype.name,
        scale=scale,
        **numbers,
        steps=None if scale is None else numbers["atol"] / scale,
        **limits,
    )


def _range(prefix: str, value: torch.Tensor) -> dict[str, float]:
    if not value.numel():
        return {f"{prefix}{part}": 0.0 for part in ("minimum", "maximum", "mean")}
    wide = value.double()
    numbers = {"minimum": wide.min(), "maximum": wide.max(), "mean": wide.mean()}
    return {f"{prefix}{part}": float(number) for part, number in numbers.items()}


_COLUMNS = (
    *("mod_name", "base_op_type", "analy_op_type", "shape", "quant_dtype", "qscale"),
    *("COSINE", "drop", "SQNR", "MSE", "L1", "KL", "ATOL", "max_qscale_diff"),
    *("base_min", "base_max", "base_mean", "analy_min", "analy_max", "analy_mean", "source", "advice"),
)


def similarity_table(
    rows: Sequence[LayerSimilarity], name: str = "similarity", title: str = "Similarity of feature maps"
) -> Table:
    """In model order; rows with an advice or a cosine below 0.95 are marked."""
    cells = tuple(
        (
            *(row.name, row.base_kind, row.kind, "x".join(map(str, row.shape)), row.dtype, row.scale),
            *(row.cosine, row.drop, row.sqnr, row.mse, row.l1, row.kl, row.atol, row.steps),
            *(row.base_minimum, row.base_maximum, row.base_mean, row.minimum, row.maximum, row.mean),
            *(row.source, row.advice),
        )
        for row in rows
    )
    marked = frozenset(i for i, row in enumerate(rows) if row.advice or not row.cosine >= 0.95)
    low = min((row.cosine for row in rows if math.isfinite(row.cosine)), default=0.0)
    # A line that is nearly 1 everywhere shows nothing on a scale from 0.
    chart = Chart("COSINE", max(min(0.95, math.floor(low * 20) / 20), -1.0), 1.0, "cosine, layer by layer")
    note = "drop: how much lower the cosine is than that of the worst operand"
    return Table(name, title, _COLUMNS, cells, note, marked, chart=chart)


@dataclass(frozen=True)
class WeightSimilarity:
    """The weight of one layer in two models, with its batch norm folded in, as each computes with it."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale_minimum: float | None
    scale_maximum: float | None
    cosine: float
    sqnr: float
    atol: float
    minimum: float
    maximum: float


def compare_weights(baseline_model: Any, analysis_model: Any, example_inputs: Any) -> list[WeightSimilarity]:
    """Compare the weights of all layers that both models have; each is float or prepared.

    Weights of the second are held to their grids where it is prepared. Batch norms that the second folds are folded in both.
    Raises as `featuremap_similarity` does.
    """
    base, other = (record(ready(model), example_inputs) for model in (baseline_model, analysis_model))
    return compared_weights(base, other)


def compared_weights(base: Recording, other: Recording) -> list[WeightSimilarity]:
    """The rows of two runs."""
    norms = {feature.call.key: feature.call.module for feature in base.features.values()}
    found: list[WeightSimilarity] = []
    for name, feature in other.features.items():
        match = base.features.get(name)
        weight = weight_of(feature.call)
        if match is None or weight is None:
            continue
        expected = _expected_weight(match.call, feature.call, other, norms)
        fake = feature.call.weight_fake_quant
        got = weight if fake is None else _held(weight, fake)
        if expected is None or expected.shape != got.shape:
            continue
        cosine, sqnr, atol = (METRICS[key](expected, got) for key in ("Cosine", "SQNR", "ATOL"))
        scales = None if fake is None else fake.scale.detach()
        low, high = (None, None) if scales is None else (float(scales.min()), float(scales.max()))
        limits = (float(expected.min()), float(expected.max())) if expected.numel() else (0.0, 0.0)
        dtype = "float" if fake is None else fake.dtype.name
        found.append(WeightSimilarity(name, tuple(got.shape), dtype, low, high, cosine, sqnr, atol, *limits))
    return found


def _expected_weight(
    call: Call, other: Call, recording: Recording, norms: Mapping[tuple[str, int], torch.nn.Module | None]
) -> torch.Tensor | None:
    """The weight of the first model, with the batch norm that the second folds; in a float model nothing is folded yet."""
    if other.batch_norm is None or call.batch_norm is not None:
        return weight_of(call)
    key = next((f.call.key for f in recording.features.values() if f.call.module is other.batch_norm), None)
    if key is None or norms.get(key) is None:
        return None
    return weight_of(replace(call, batch_norm=norms[key], weight_fake_quant=other.weight_fake_quant))


def _held(weight: torch.Tensor, fake: FakeQuantize) -> torch.Tensor:
    return held(weight, fake.scale.detach(), fake.channel_axis, fake.dtype.limits)


def weight_table(rows: Sequence[WeightSimilarity]) -> Table:
    """In model order; a cosine below 0.99 is marked."""
    columns = ("name", "shape", "dtype", "smallest scale", "largest scale", "COSINE", "SQNR", "ATOL", "min", "max")
    cells = tuple(
        (
            *(row.name, "x".join(map(str, row.shape)), row.dtype, row.scale_minimum, row.scale_maximum),
            *(row.cosine, row.sqnr, row.atol, row.minimum, row.maximum),
        )
        for row in rows
    )
    marked = frozenset(i for i, row in enumerate(rows) if not row.cosine >= 0.99)
    return Table("compare_weight", "Weights, with batch norms folded in", columns, cells, marked=marked)
