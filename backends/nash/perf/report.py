"""The static report as data: everything that the page, the JSON, the trace and the table show, computed once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from backends.nash.hbm import Model
from backends.nash.hbm.model import Cell
from backends.nash.isa import Decoded
from backends.nash.perf.roofline import LayerBound, Roofline, roofline
from backends.nash.perf.timeline import Interval, Span, intervals, layer_cycles, spans_of
from backends.nash.simulator import UnitTime, simulate
from hbir.march import March

__all__ = ["LayerRow", "Memory", "Report", "report"]

MAC_KINDS = {
    (8, 8): "double int8 macs",
    (16, 8): "feature int16 weight int8 macs",
    (8, 16): "feature int8 weight int16 macs",
    (16, 16): "double int16 macs",
}
"""(bits of the feature, bits of the weight) -> the published name of the counter."""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes of DDR by use, and the largest use of the on-chip memories."""

    input: int
    output: int
    intermediate: int
    """Maps that live in DDR between layers."""
    temporary: int
    """Shared between models; this compiler uses none."""
    static: int
    """The file: program, constants, description."""
    l1m: int
    """Per core."""
    l2m: int

    @property
    def dynamic(self) -> int:
        """Bytes of DDR for the data of one run."""
        return self.input + self.output + self.intermediate + self.temporary

    @property
    def minimum(self) -> int:
        """Bytes of DDR that the model needs, with the file."""
        return self.dynamic + self.static


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One layer of the user's network. Times in cycles.

    `cycles` are those that the layer owns (see `timeline.layer_cycles`): over all layers, and the cycles in which nothing
    runs, they add up to the run. `first` and `last` say when its first instruction started and its last one ended.
    `compute`, `load` and `store` are the busy times of its units, which overlap with each other and with other layers.
    """

    layer: str
    op: str
    unit: str
    reason: str
    tiles: int
    macs: int
    cycles: int
    first: int
    last: int
    compute: int
    load: int
    store: int
    origin_ops: int
    bound: LayerBound


@dataclass(frozen=True)
class Report:
    """One model on one group of cores, one frame. Device time excludes the host's dispatch overhead."""

    name: str
    march: March
    cores: int
    tool_version: str
    options: Mapping[str, Cell]
    cycles: int
    idle_cycles: int
    ddr_read: int
    ddr_written: int
    memory: Memory
    macs: Mapping[str, int]
    """By the published names of the four counters."""
    tae_layers: int
    layers: tuple[LayerRow, ...]
    units: tuple[UnitTime, ...]
    intervals: tuple[Interval, ...]
    spans: tuple[Span, ...]
    layer_names: tuple[str, ...]
    roofline: Roofline

    def microseconds(self, cycles: float) -> float:
        """Cycles of the march's clock as microseconds."""
        return 1e6 * cycles / self.march.clock_hz

    @property
    def device_us(self) -> float:
        """Device time of one frame, in microseconds."""
        return self.microseconds(self.cycles)

    @property
    def dispatch_us(self) -> float:
        """Host time to start one inference, in microseconds."""
        return 1e6 * self.march.dispatch_seconds

    @property
    def board_us(self) -> float:
        """What one call from the host takes: dispatch overhead and device time."""
        return self.dispatch_us + self.device_us

    @property
    def frames_per_second(self) -> float:
        """Device only, one frame after the other on the cores that the model uses."""
        return 1e6 / self.device_us if self.cycles else math.inf

    @property
    def ddr_bytes(self) -> int:
        """Bytes read from and written to DDR."""
        return self.ddr_read + self.ddr_written

    @property
    def over_roofline(self) -> float:
        """Device cycles as a multiple of the bound; 1 is perfect."""
        return self.cycles / self.roofline.cycles if self.roofline.cycles else math.inf


def _macs_of(d: Decoded) -> tuple[str, int] | None:
    """The counter and the multiply-accumulates of an instruction, padding left out."""
    if d.opcode.name == "CONV":
        x, out, p = d.operands["x"], d.operands["out"], d.params
        count = math.prod(out.shape) * p["kernel_h"] * p["kernel_w"] * (x.shape[3] // p["groups"])
        return MAC_KINDS[x.bits, 8 if p["weight_bits"] <= 8 else 16], count
    if d.opcode.name == "MATMUL":
        a, b = d.operands["a"], d.operands["b"]
        return MAC_KINDS[a.bits, b.bits], math.prod(d.operands["out"].shape) * a.shape[-1]
    return None


def _memory(model: Model, file_bytes: int | None) -> Memory:
    inputs, outputs = (sum(t.view.nbytes for t in side) for side in (model.inputs, model.outputs))
    m, program = model.memories, model.program
    static = file_bytes or m.constants + program.instructions.nbytes + program.views.nbytes
    return Memory(inputs, outputs, max(m.ddr - m.constants - inputs - outputs, 0), 0, static, m.l1m, m.l2m)


def _placed(model: Model) -> dict[str, list[Mapping[str, Cell]]]:
    """Placement rows by layer: a layer of the user's network may have become several operations."""
    found: dict[str, list[Mapping[str, Cell]]] = {}
    for row in model.placements:
        found.setdefault(str(row.get("layer", "")), []).append(row)
    return found


def _joined(rows: Sequence[Mapping[str, Cell]], key: str) -> str:
    """The different texts of a column, in order."""
    return ", ".join(dict.fromkeys(str(row[key]) for row in rows if row.get(key)))


def _count(row: Mapping[str, Cell], key: str) -> int:
    value = row.get(key)
    return int(value) if isinstance(value, int | float) else 0


def _main_unit(bound: LayerBound) -> str:
    return max(bound.work, key=lambda unit: bound.work[unit], default="LOAD")


@dataclass(slots=True)
class _LayerSums:
    first: int
    last: int = 0
    compute: int = 0
    load: int = 0
    store: int = 0
    tiles: int = 0
    macs: int = 0


def _layer_sums(spans: Sequence[Span], decoded: Sequence[Decoded], cycles: int) -> dict[int, _LayerSums]:
    found: dict[int, _LayerSums] = {}
    for span, d in zip(spans, decoded, strict=True):
        sums = found.setdefault(span.layer, _LayerSums(cycles))
        sums.first, sums.last = min(sums.first, span.start), max(sums.last, span.end)
        busy = span.end - span.start
        if span.unit == "LOAD":
            sums.load += busy
        elif span.unit == "STORE":
            sums.store += busy
        else:
            sums.compute += busy
            sums.tiles += int(d.opcode.name != "NOP")
        counted = _macs_of(d)
        sums.macs += counted[1] if counted else 0
    return found


def _layer_rows(model: Model, spans: Sequence[Span], cycles: int, bounds: Roofline) -> tuple[tuple[LayerRow, ...], int]:
    decoded, names = model.program.decoded, model.program.layers
    sums = _layer_sums(spans, decoded, cycles)
    owned = layer_cycles(spans, cycles, max(sums, default=0) + 1)
    placed = _placed(model)
    rows: list[LayerRow] = []
    for (index, s), bound in zip(sorted(sums.items()), bounds.layers, strict=True):
        name = names[index] if index < len(names) else f"layer {index}"
        placements = placed.get(name, [])
        stated = sum(_count(row, "macs") for row in placements)
        units = _joined(placements, "unit")
        rows.append(
            LayerRow(
                *(name, _joined(placements, "op"), units or _main_unit(bound), _joined(placements, "reason")),
                *(sum(_count(row, "tiles") for row in placements) or s.tiles, stated or s.macs, int(owned[index])),
                *(s.first, s.last, s.compute, s.load, s.store, len(name.split("+")), bound),
            )
        )
    order = {name: number for number, name in enumerate(placed)}
    rows.sort(key=lambda row: (order.get(row.layer, len(order)), row.first))
    return tuple(rows), int(owned[-1])


def report(model: Model, *, file_bytes: int | None = None, intervals_wanted: int = 100) -> Report:
    """Time a verified model and put everything that its reports say into one value.

    `file_bytes` is the size of the `.hbm`; without it the static memory is that of program and constants. Needs no data.
    """
    timing, bounds = simulate(model), roofline(model)
    decoded, cores = model.program.decoded, model.memories.cores
    spans = spans_of(decoded, timing)
    macs = dict.fromkeys(MAC_KINDS.values(), 0)
    for counted in map(_macs_of, decoded):
        if counted is not None:
            macs[counted[0]] += counted[1]
    rows, idle = _layer_rows(model, spans, timing.cycles, bounds)
    used = np.unique([span.layer for span in spans])
    names = tuple(
        model.program.layers[i] if i < len(model.program.layers) else f"layer {i}"
        for i in range(int(used.max(initial=-1)) + 1)
    )
    return Report(
        name=model.name,
        march=model.march,
        cores=cores,
        tool_version=model.tool_version,
        options=model.options,
        cycles=timing.cycles,
        idle_cycles=idle,
        ddr_read=timing.ddr_read,
        ddr_written=timing.ddr_written,
        memory=_memory(model, file_bytes),
        macs=macs,
        tae_layers=sum(1 for layer in bounds.layers if "TAE" in layer.work),
        layers=rows,
        units=tuple(unit for unit in timing.units if unit.core < cores),
        intervals=intervals(spans, timing.cycles, cores, model.march.clock_hz, intervals_wanted),
        spans=spans,
        layer_names=names,
        roofline=bounds,
    )
