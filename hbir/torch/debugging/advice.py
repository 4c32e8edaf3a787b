"""What to change about a layer whose values went astray: clipping, rounding, or neither of its own making.

Clipping and rounding are told apart by what the layer's grid does to the values of the baseline: the squared error of those
beyond its ends, and of those inside. An error that came in from layers in front has an advice there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hbir.torch.debugging.recording import Recording
from hbir.torch.debugging.similarity import LayerSimilarity
from hbir.torch.debugging.statistics import clipped_share, errors_of_grid
from hbir.torch.debugging.tables import Table
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.observers import SMALLEST_SCALE

__all__ = ["CLIPPING", "LOW_COSINE", "Advice", "advice_table", "advise", "with_advice"]

LOW_COSINE = 0.95
"""Below this a layer's values are no longer those of the baseline."""
CLIPPING = 0.01
"""The share of the values' energy that clipping may take away: a signal-to-noise ratio of 20 dB."""


@dataclass(frozen=True)
class Advice:
    """What is wrong with one layer, and what to change."""

    name: str
    cause: str
    """`truncation`, `rounding`, `weight`, or `carried` from a layer in front."""
    clipped: float
    """The share of the baseline's values beyond the grid."""
    lever: str
    fixed_scale: float | None = None
    """Of truncation: the scale that holds the whole range of the baseline."""


def advise(rows: Sequence[LayerSimilarity], base: Recording, other: Recording) -> list[Advice]:
    """The advice for the rows of two runs, in their order; layers that are well have none."""
    found: list[Advice] = []
    for row in rows:
        feature, twin = base.features[row.name], other.features.get(row.name)
        fake = None if twin is None else twin.call.fake_quant
        advice = None if fake is None else _of_grid(row, feature.value, fake)
        if advice is None and not row.cosine >= LOW_COSINE:
            advice = _elsewhere(row, is_layer=twin is not None and twin.call.weight_fake_quant is not None)
        if advice is not None:
            found.append(advice)
    return found


def _of_grid(row: LayerSimilarity, value: torch.Tensor, fake: FakeQuantize) -> Advice | None:
    clipping, rounding = errors_of_grid(value, fake)
    energy = _energy(value)
    share = clipped_share(value, fake)
    if clipping > max(CLIPPING * energy, rounding):
        scale = float(value.abs().max()) / fake.dtype.limits[1]
        percent = f"{100 * share:.3g} % of the values are clamped"
        if fake.fixed:
            lever = f"{percent}: the fixed scale is too small; set fixed scale {scale:.6g}, or leave it out"
        else:
            lever = f"{percent}: set fixed scale {scale:.6g}, or calibrate with more data"
        return Advice(row.name, "truncation", share, lever, scale)
    # The layer's own cosine is 1 / sqrt(1 + noise / signal) for noise that is independent of the signal.
    own = 1.0 if energy == 0 else (1 + rounding / energy) ** -0.5
    if not row.cosine >= LOW_COSINE and (own < LOW_COSINE or 1 - own > 0.5 * (1 - row.cosine)):
        wider = "qint16" if fake.dtype.bits < 16 else "a smaller range (a batch norm, a clamp)"
        if float(fake.scale.detach().max()) <= SMALLEST_SCALE:
            lever = "its values are next to 0, below the smallest scale that there is: check the float model"
            return Advice(row.name, "rounding", share, lever)
        step = f"the range is held, a step of {float(fake.scale.detach().max()):.3g} is too wide"
        return Advice(row.name, "rounding", share, f"{step}: use {wider} for the output")
    return None


def _energy(value: torch.Tensor) -> float:
    """The sum of squares around the mean: what tells values apart. Of a constant, around 0."""
    wide = value.double()
    spread = float((wide - wide.mean()).square().sum()) if wide.numel() else 0.0
    return spread or float(wide.square().sum())


def _elsewhere(row: LayerSimilarity, *, is_layer: bool) -> Advice:
    if row.drop > 0.5 * (1 - row.cosine) and is_layer:
        lever = "the error arises in the layer: try qint16 for its weight, or its input"
        return Advice(row.name, "weight", 0.0, lever)
    return Advice(row.name, "carried", 0.0, "the error came in with the operands: mend the layers in front first")


def with_advice(rows: Sequence[LayerSimilarity], found: Sequence[Advice]) -> list[LayerSimilarity]:
    """The rows, with the advice for each."""
    texts = {each.name: f"{each.cause}: {each.lever}" for each in found}
    return [replace(row, advice=texts.get(row.name, "")) for row in rows]


def advice_table(found: Sequence[Advice]) -> Table:
    """In model order: the first that is not `carried` is where to begin."""
    first = next((i for i, each in enumerate(found) if each.cause != "carried"), None)
    columns = ("name", "cause", "clamped %", "fixed scale", "advice")
    cells = tuple((each.name, each.cause, 100 * each.clipped, each.fixed_scale, each.lever) for each in found)
    marked = frozenset[int]() if first is None else frozenset({first})
    return Table("abnormal_layer_advisor", "Layers that went astray, and what to change", columns, cells, marked=marked)
