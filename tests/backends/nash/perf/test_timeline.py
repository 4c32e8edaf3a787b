"""Cuts of the time axis against a count cycle by cycle."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backends.nash.perf.timeline import COMPUTE_UNITS, Span, intervals, layer_cycles

PRIORITY = ("LOAD", "STORE", "HOST", "TRANS", "SPU", "VPU", "AAE", "VAE", "TAE")


@st.composite
def schedules(draw: st.DrawFn) -> list[Span]:
    """Up to twelve instructions on two cores; those of one unit of one core do not overlap."""
    ends: dict[tuple[int, str], int] = {}
    spans: list[Span] = []
    for _ in range(draw(st.integers(1, 12))):
        core, unit = draw(st.integers(0, 1)), draw(st.sampled_from(PRIORITY))
        start = ends.get((core, unit), 0) + draw(st.integers(0, 7))
        end = start + draw(st.integers(0, 9))
        ends[core, unit] = end
        moved = draw(st.integers(1, 500)) if unit in ("LOAD", "STORE") else 0
        spans.append(Span(core, unit, unit, draw(st.integers(0, 3)), start, end, moved))
    return spans


def running(spans: list[Span], cycle: int) -> list[Span]:
    return [s for s in spans if s.start <= cycle < s.end]


@given(schedules())
def test_every_cycle_has_one_owner(spans: list[Span]) -> None:
    cycles = max(s.end for s in spans) + 2
    expected = np.zeros(5, np.int64)
    for cycle in range(cycles):
        rows = running(spans, cycle)
        top = max((PRIORITY.index(s.unit) for s in rows), default=-1)
        owners = [s.layer for s in rows if PRIORITY.index(s.unit) == top]
        # Of two cores that run the same unit, the later instruction in the program owns the cycle.
        expected[owners[-1] if owners else 4] += 1
    result = layer_cycles(spans, cycles, 4)
    assert result.tolist() == expected.tolist()
    assert result.sum() == cycles


@given(schedules(), st.integers(1, 9))
def test_intervals_count_busy_cycles_and_bytes(spans: list[Span], count: int) -> None:
    cycles = -(-max(1, *(s.end for s in spans)) // count) * count
    width = cycles // count
    rows = intervals(spans, cycles, 2, 1e9, count)
    assert len(rows) == count
    for number, row in enumerate(rows):
        slots = range(number * width, (number + 1) * width)
        busy = sum(
            any(s.unit in COMPUTE_UNITS and s.core == core for s in running(spans, c)) for c in slots for core in (0, 1)
        )
        # Sums of at most a hundred rounded terms of size one: far below 1e-9.
        assert abs(row.utilization - busy / (2 * width)) < 1e-9
    loaded = sum(s.nbytes for s in spans if s.unit == "LOAD" and s.end > s.start)
    assert abs(sum(row.load_rate for row in rows) * width / 1e9 - loaded) < 1e-6


def test_a_run_of_no_cycles_has_no_intervals() -> None:
    assert intervals([], 0, 1, 1e9) == ()
