"""Statistics of what each place reads, gives, and weighs with; in model order, and by range, the largest first.

A wide range is the usual reason why eight bits are too few: one step is range / 255 wide, whatever most values are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hbir.torch.debugging.recording import Recording, is_place, ready, record, weight_of
from hbir.torch.debugging.tables import Table
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.kernels import held
from hbir.torch.tracing.calls import Call, operands
from hbir.torch.tracing.qtensor import plain

__all__ = ["LayerStatistics", "clipped_share", "profile_featuremap", "statistics_of", "statistics_tables"]


@dataclass(frozen=True)
class LayerStatistics:
    """One tensor of one place."""

    name: str
    kind: str
    """The operation."""
    part: str
    """`input 0`, `output` or `weight`."""
    shape: tuple[int, ...]
    dtype: str
    """`qint8`, `qint16`, or `float` without a grid."""
    scale: float | None
    """The largest of a weight's scales."""
    minimum: float
    maximum: float
    mean: float
    variance: float
    """Of the population."""
    saturated: float | None
    """The share of values more than half a step beyond the ends of the grid; None without one."""

    @property
    def range(self) -> float:
        """The largest absolute value."""
        return max(abs(self.minimum), abs(self.maximum))


def statistics_of(recording: Recording) -> list[LayerStatistics]:
    """Of all places of a run, in order. Values are those before they are held to their grids."""
    made = {feature.call: feature for feature in recording.features.values()}
    found: list[LayerStatistics] = []
    for name, feature in recording.features.items():
        call = feature.call
        for number, ref in enumerate(operands((call.arguments, call.keywords))):
            source = made.get(_maker(ref.call))
            if source is not None:
                fake = call.inputs.get(number, source.call.fake_quant)
                found.append(_of(name, call.kind, f"input {number}", source.before, fake))
        if (weight := weight_of(call)) is not None:
            found.append(_of(name, call.kind, "weight", weight, call.weight_fake_quant))
        found.append(_of(name, call.kind, "output", feature.before, call.fake_quant))
    return found


def _maker(call: Call) -> Call:
    """The place whose values a call moves."""
    while not is_place(call):
        sources = list(operands((call.arguments, call.keywords)))
        if not sources:
            break
        call = sources[0].call
    return call


def _of(name: str, kind: str, part: str, value: torch.Tensor, fake: FakeQuantize | None) -> LayerStatistics:
    wide = plain(value).double()
    known = wide.numel() > 0
    return LayerStatistics(
        *(name, kind, part, tuple(value.shape)),
        dtype="float" if fake is None else fake.dtype.name,
        scale=None if fake is None else float(fake.scale.detach().max()),
        minimum=float(wide.min()) if known else 0.0,
        maximum=float(wide.max()) if known else 0.0,
        mean=float(wide.mean()) if known else 0.0,
        variance=float(wide.var(correction=0)) if known else 0.0,
        saturated=None if fake is None else clipped_share(value, fake),
    )


def clipped_share(value: torch.Tensor, fake: FakeQuantize) -> float:
    """The share of values that lie more than half a step beyond the grid of `fake`."""
    if not value.numel():
        return 0.0
    scale = _spread(fake, value)
    low, high = fake.dtype.limits
    steps = plain(value).detach() / scale
    return float(((steps < low - 0.5) | (steps > high + 0.5)).double().mean())


def errors_of_grid(value: torch.Tensor, fake: FakeQuantize) -> tuple[float, float]:
    """The sums of squared errors that holding `value` to a grid makes: by clipping, and by rounding."""
    given = plain(value).detach()
    on_grid = held(given, fake.scale.detach(), fake.channel_axis, fake.dtype.limits)
    squares = (on_grid.double() - given.double()).square()
    low, high = fake.dtype.limits
    steps = given / _spread(fake, given)
    beyond = (steps < low - 0.5) | (steps > high + 0.5)
    return float(squares[beyond].sum()), float(squares[~beyond].sum())


def _spread(fake: FakeQuantize, value: torch.Tensor) -> torch.Tensor:
    scale = fake.scale.detach()
    if fake.channel_axis is None:
        return scale
    shape = [1] * value.dim()
    shape[fake.channel_axis] = -1
    return scale.reshape(shape)


_COLUMNS = (
    *("name", "operation", "part", "shape", "dtype", "scale"),
    *("min", "max", "mean", "var", "range", "saturated %"),
)


def statistics_tables(rows: Sequence[LayerStatistics], stem: str = "statistic", of: str = "") -> tuple[Table, Table]:
    """The two tables: in model order, and by range, the largest first. More than 1 % of saturated values are marked."""
    title = f"Statistics{f' of {of}' if of else ''}"

    def table(name: str, order: str, sorted_rows: Sequence[LayerStatistics]) -> Table:
        marked = frozenset(i for i, row in enumerate(sorted_rows) if (row.saturated or 0.0) > 0.01)
        cells = tuple(map(_row, sorted_rows))
        return Table(name, f"{title}, {order}", _COLUMNS, cells, marked=marked, bar="range")

    by_range = sorted((row for row in rows if not row.part.startswith("input")), key=lambda row: -row.range)
    return table(stem, "in model order", rows), table(f"{stem}_by_range", "by range, the largest first", by_range)


def _row(row: LayerStatistics) -> tuple[Any, ...]:
    shape = "x".join(map(str, row.shape))
    saturated = None if row.saturated is None else 100 * row.saturated
    numbers = (row.minimum, row.maximum, row.mean, row.variance, row.range, saturated)
    return (row.name, row.kind, row.part, shape, row.dtype, row.scale, *numbers)


def profile_featuremap(model: Any, example_inputs: Any) -> list[LayerStatistics]:
    """Statistics of a float or prepared model on the arguments of one call; a prepared model runs with its grids.

    Raises TrainingError HB0970 for what is no model.
    """
    return statistics_of(record(ready(model), example_inputs))
