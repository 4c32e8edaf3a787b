"""The settings of a prepared model: dtype, scale, observer and rule of each place, and what leaves as an accumulator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hbir.torch.debugging.recording import checked_prepared, is_place, run
from hbir.torch.debugging.tables import Table
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.preparing.prepare import choices_of
from hbir.torch.qconfig.choices import Choice
from hbir.torch.tracing.calls import Call, Ref, operands

__all__ = ["QconfigRow", "check_qconfig", "expectations", "qconfig_tables"]

ACCUMULATOR, FUSED, FLOAT = "qint32 (accumulator)", "fused", "float"


@dataclass(frozen=True)
class Grid:
    """A fake quant, as it stands."""

    dtype: str
    scale: float
    """The largest of several."""
    smallest: float
    """The smallest of several."""
    limit: float
    """The largest value that the grid holds: scale x the largest integer."""
    observer: str
    how: str
    """`fixed`, `observed`, `frozen`, `learned`, or `never calibrated`."""
    channels: int


@dataclass(frozen=True)
class QconfigRow:
    """One place of a prepared model."""

    name: str
    kind: str
    source: str
    runs: int
    """How often it ran in one call of the model: more than 1 of a shared module."""
    output: str
    """The dtype; `qint32 (accumulator)`, `fused` into what follows, or `float`."""
    grid: Grid | None
    weight: Grid | None
    inputs: tuple[str, ...]
    """What each operand is read as."""
    leaves: bool
    """It is read by a DeQuantStub."""
    rules: tuple[str, ...]
    """Who said so, the last word last."""

    @property
    def high_precision(self) -> bool:
        """Whether it leaves without being rounded."""
        return self.leaves and self.output == ACCUMULATOR


def check_qconfig(model: Any, example_inputs: Any) -> list[QconfigRow]:
    """The settings of all places of a prepared model, in the order they run on the arguments of one call.

    Raises TrainingError HB0970 for a model that is not prepared.
    """
    prepared = checked_prepared(model, "check_qconfig")
    found, _ = run(prepared, example_inputs)
    return qconfig_rows(found.calls, choices_of(prepared))


def qconfig_rows(calls: Sequence[Call], choices: Mapping[tuple[str, int], Choice]) -> list[QconfigRow]:
    """The rows of a traced run."""
    readers: dict[Call, list[Call]] = {}
    runs: dict[tuple[str, int], int] = {}
    for call in calls:
        runs[call.key] = runs.get(call.key, 0) + 1
        for ref in operands((call.arguments, call.keywords)):
            readers.setdefault(ref.call, []).append(call)
    leaving = {call.key for call, reads in readers.items() if any(each.kind == "dequant" for each in reads)}
    rows: dict[tuple[str, int], QconfigRow] = {}
    for call in calls:
        if not is_place(call) or call.key in rows:
            continue
        choice, reads = choices.get(call.key), readers.get(call, [])
        rows[call.key] = QconfigRow(
            *(call.name, call.kind, call.source, runs[call.key]),
            output=_output(call, choice, reads),
            grid=_grid(call.fake_quant),
            weight=_grid(call.weight_fake_quant),
            inputs=tuple(_read(call, n, ref) for n, ref in enumerate(operands((call.arguments, call.keywords)))),
            leaves=call.key in leaving,
            rules=() if choice is None else choice.reasons,
        )
    return list(rows.values())


def _output(call: Call, choice: Choice | None, readers: Sequence[Call]) -> str:
    if call.fake_quant is not None:
        return call.fake_quant.dtype.name
    if choice is not None and not choice.quantized:
        return FLOAT
    # A batch norm in the weights of the layer in front hands out that layer's accumulator.
    if readers and all(each.kind in ("dequant", "quant") for each in readers):
        return ACCUMULATOR
    return FUSED


def _grid(fake: FakeQuantize | None) -> Grid | None:
    if fake is None:
        return None
    scale = fake.scale.detach()
    how = "fixed" if fake.fixed else "frozen" if fake.frozen else "learned" if fake.learned else "observed"
    if not fake.calibrated:
        how = "never calibrated"
    observer = "-" if fake.activation_post_process is None else type(fake.activation_post_process).__name__
    high = float(scale.max())
    channels = scale.numel() if fake.channel_axis is not None else 1
    return Grid(fake.dtype.name, high, float(scale.min()), high * fake.dtype.limits[1], observer, how, channels)


def _read(call: Call, number: int, ref: Ref) -> str:
    own = call.inputs.get(number)
    if own is not None:
        return f"{own.dtype.name} (own grid)"
    source = ref.call
    while not is_place(source):
        further = list(operands((source.arguments, source.keywords)))
        if not further:
            break
        source = further[0].call
    return "-" if source.fake_quant is None else source.fake_quant.dtype.name


def _named(row: QconfigRow) -> str:
    return row.name if row.runs == 1 else f"{row.name} ({row.runs})"


def _line(row: QconfigRow) -> tuple[Any, ...]:
    grid = row.grid
    numbers = (None, None, None, None) if grid is None else (grid.scale, grid.limit, grid.how, grid.observer)
    rules = "; ".join(row.rules)
    return (_named(row), row.kind, ", ".join(row.inputs), row.output, *numbers, row.leaves, row.source, rules)


def qconfig_tables(rows: Sequence[QconfigRow]) -> tuple[Table, Table, Table]:
    """Outputs; weights; how many places have which dtypes. `(n)` behind a name: the module runs n times."""
    columns = (
        *("name", "operation", "inputs", "output", "scale", "range", "how", "observer"),
        *("leaves", "source", "rules"),
    )
    marked = frozenset(i for i, row in enumerate(rows) if row.leaves and not row.high_precision)
    note = "(n): runs n times; marked: leaves through a DeQuantStub, and is rounded before"
    outputs = Table("qconfig_output", "Each layer out qconfig:", columns, tuple(map(_line, rows)), note, marked)
    layers = [row for row in rows if row.weight is not None]
    cells = tuple(
        (_named(row), row.kind, w.dtype, w.channels, w.smallest, w.scale, w.how, w.observer)
        for row in layers
        if (w := row.weight) is not None
    )
    columns = ("name", "operation", "weight", "scales", "smallest scale", "largest scale", "how", "observer")
    weights = Table("qconfig_weight", "Weight qconfig:", columns, cells)
    return outputs, weights, _dtypes(rows)


def _dtypes(rows: Sequence[QconfigRow]) -> Table:
    counts: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = (row.kind, " ".join(dict.fromkeys(row.inputs)) or "-", row.output)
        counts[key] = counts.get(key, 0) + 1
    cells = tuple((*key, count) for key, count in sorted(counts.items()))
    return Table("qconfig_dtypes", "input/output dtype statistics:", ("operation", "inputs", "output", "count"), cells)


def expectations(rows: Sequence[QconfigRow]) -> Table:
    """What is allowed and often not meant, a line each."""
    found: list[tuple[str, str, str]] = []
    for row in rows:
        grids = [("output", row.grid), ("weight", row.weight)]
        for part, grid in grids:
            if grid is not None and grid.how == "never calibrated":
                found.append((row.name, f"the {part} was never calibrated, its scale is {grid.scale:g}", _CALIBRATE))
        if row.leaves and not row.high_precision and row.weight is not None:
            found.append((row.name, f"it leaves in {row.output}", "let the layer hand out its accumulator"))
        if row.grid is not None and row.grid.how == "fixed" and row.kind != "quant":
            found.append((row.name, f"its scale is fixed at {row.grid.scale:g}", "check that its values stay inside"))
        if row.output == FLOAT:
            found.append((row.name, "it is not quantised", "it runs on the host CPU; give it a qconfig"))
        if row.runs > 1:
            found.append((row.name, f"it runs {row.runs} times with one scale", "use a module for each call"))
    return Table(
        "expectations",
        "Please check if these OPs qconfigs are expected.",
        ("name", "what", "what to do"),
        tuple(found),
    )


_CALIBRATE = "calibrate first: model.eval(), then set_fake_quantize(model, FakeQuantState.CALIBRATION), then run data"
