"""What a timing run says when it is cut along time: whose layer each cycle belongs to, and how busy each interval was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from backends.nash.isa import DDR, UNITS, Decoded
from backends.nash.simulator import Timing

__all__ = ["COMPUTE_UNITS", "Interval", "Span", "intervals", "layer_cycles", "spans_of"]

COMPUTE_UNITS = ("TAE", "VAE", "AAE", "TRANS", "VPU", "SPU")
"""The units that compute; the others move data."""

# Who owns a cycle in which several units run: the last of these.
_ORDER = ("LOAD", "STORE", "HOST", "TRANS", "SPU", "VPU", "AAE", "VAE", "TAE")

Cycles = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Span:
    """One instruction on the time axis, in cycles; `nbytes` is what it moves from or to DDR, 0 for others."""

    core: int
    unit: str
    opcode: str
    layer: int
    start: int
    end: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Interval:
    """A slice of the run: the share of it in which a compute unit ran (mean of the cores), and bytes per second."""

    utilization: float
    load_rate: float
    store_rate: float


def spans_of(decoded: Sequence[Decoded], timing: Timing) -> tuple[Span, ...]:
    """Every instruction of the first frame that takes part in it, in program order."""
    starts, ends = timing.start[0].tolist(), timing.end[0].tolist()
    spans: list[Span] = []
    for d, start, end in zip(decoded, starts, ends, strict=True):
        unit, nbytes = UNITS[d.queue % len(UNITS)], 0
        if d.opcode.unit in ("LOAD", "STORE"):
            far = d.operands["src" if d.opcode.unit == "LOAD" else "dst"]
            nbytes = far.nbytes if far.space == DDR else 0
        spans.append(Span(d.core, unit, d.opcode.name, d.layer, start, end, nbytes))
    return tuple(spans)


def _edges(spans: Sequence[Span], cycles: int) -> Cycles:
    return np.unique(np.array([0, cycles, *(s.start for s in spans), *(s.end for s in spans)], np.int64))


def layer_cycles(spans: Sequence[Span], cycles: int, layers: int) -> Cycles:
    """Cycles of each layer, int64 [layers + 1]: every cycle of the run is counted once, so that the sum is `cycles`.

    A cycle belongs to the layer of the most specialised unit that runs in it (TAE before VAE before … before LOAD); the last
    entry holds the cycles in which no unit runs.
    """
    edges = _edges(spans, cycles)
    owner = np.full(len(edges) - 1, layers, np.int64)
    for unit in _ORDER:
        mine = [s for s in spans if s.unit == unit and s.end > s.start]
        first = np.searchsorted(edges, [s.start for s in mine])
        last = np.searchsorted(edges, [s.end for s in mine])
        for span, low, high in zip(mine, first.tolist(), last.tolist(), strict=True):
            owner[low:high] = span.layer
    return np.bincount(owner, np.diff(edges), layers + 1).astype(np.int64)


def _busy(spans: Sequence[Span], edges: Cycles) -> npt.NDArray[np.float64]:
    """Cycles up to each edge in which at least one of the spans runs."""
    steps = np.zeros(len(edges), np.int64)
    np.add.at(steps, np.searchsorted(edges, [s.start for s in spans]), 1)
    np.add.at(steps, np.searchsorted(edges, [s.end for s in spans]), -1)
    running = np.cumsum(steps)[:-1] > 0
    return np.concatenate([[0.0], np.cumsum(np.diff(edges) * running)])


def _moved(spans: Sequence[Span], edges: Cycles) -> npt.NDArray[np.float64]:
    """Bytes moved up to each edge, each transfer spread evenly over its time."""
    rates = np.zeros(len(edges))
    moving = [s for s in spans if s.nbytes and s.end > s.start]
    rate = np.array([s.nbytes / (s.end - s.start) for s in moving])
    np.add.at(rates, np.searchsorted(edges, [s.start for s in moving]), rate)
    np.add.at(rates, np.searchsorted(edges, [s.end for s in moving]), -rate)
    return np.concatenate([[0.0], np.cumsum(np.diff(edges) * np.maximum(np.cumsum(rates)[:-1], 0))])


def intervals(
    spans: Sequence[Span], cycles: int, cores: int, clock_hz: float, count: int = 100
) -> tuple[Interval, ...]:
    """The run in `count` equal slices (fewer when it has fewer cycles)."""
    count = min(count, cycles)
    if not count:
        return ()
    edges, cuts = _edges(spans, cycles), np.linspace(0, cycles, count + 1)
    width = cycles / count

    def per_slice(cumulative: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.diff(np.interp(cuts, edges, cumulative)) / width

    compute = [s for s in spans if s.unit in COMPUTE_UNITS]
    used = sum(
        (per_slice(_busy([s for s in compute if s.core == core], edges)) for core in range(cores)), np.zeros(count)
    )
    load = per_slice(_moved([s for s in spans if s.unit == "LOAD"], edges)) * clock_hz
    store = per_slice(_moved([s for s in spans if s.unit == "STORE"], edges)) * clock_hz
    rows = zip((used / cores).tolist(), load.tolist(), store.tolist(), strict=True)
    return tuple(Interval(*row) for row in rows)
