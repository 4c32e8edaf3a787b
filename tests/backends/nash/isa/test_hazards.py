"""Overlap and order, against brute force over bytes and over paths."""

from __future__ import annotations

import hypothesis.strategies as st
import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings

from backends.nash.isa import Event, Program, ProgramBuilder, View, accesses, hazards
from backends.nash.isa.hazards import check_hazards, overlap, vector_clocks
from backends.nash.isa.verify import _overlaps_itself  # pyright: ignore[reportPrivateUsage]
from hbir.errors import SimulationError


def bytes_of(view: View) -> list[int]:
    found = [view.address]
    for extent, stride in zip(view.shape, view.strides, strict=True):
        found = [at + i * stride for at in found for i in range(extent)]
    return [at + i for at in found for i in range(view.itemsize)]


def small_view(dtype: str, shape: tuple[int, ...], address: int, strides: tuple[int, ...]) -> View:
    return View("L1M", dtype, shape, address, strides[: len(shape)])


_small = st.builds(
    small_view,
    st.sampled_from(["i8", "i16"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple),
    st.integers(0, 40),
    st.lists(st.integers(0, 20), min_size=3, max_size=3).map(tuple),
)


@settings(max_examples=500, deadline=None)
@given(_small)
def test_a_view_without_self_overlap_has_no_byte_twice(view: View) -> None:
    if not _overlaps_itself(view) and 0 not in view.strides:
        assert len(set(bytes_of(view))) == len(bytes_of(view))


@settings(max_examples=500, deadline=None)
@given(_small.filter(lambda v: not _overlaps_itself(v)), _small.filter(lambda v: not _overlaps_itself(v)))
def test_overlap_is_exact(a: View, b: View) -> None:
    shared = set(bytes_of(a)) & set(bytes_of(b))
    found = overlap(a, b)
    assert (found is None) == (not shared)
    assert found is None or found in shared


@st.composite
def copies(draw: st.DrawFn) -> Program:
    """LOADs, COPYs and STOREs of two cores over a few small buffers, with arbitrary waits backwards."""
    b = ProgramBuilder()
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 9))):
        name, core = draw(st.sampled_from(["LOAD", "COPY", "STORE"])), draw(st.sampled_from([0, 0, 1]))
        spaces = {"LOAD": ("DDR", "L1M"), "COPY": ("L1M", "L1M"), "STORE": ("L1M", "DDR")}[name]
        addresses = draw(st.tuples(st.integers(0, 12), st.integers(0, 12)))
        src, dst = (
            View.dense(space, "i8", (4,), address, core if space == "L1M" else 0)
            for space, address in zip(spaces, addresses, strict=True)
        )
        waits = draw(st.lists(st.sampled_from(events), max_size=3)) if events else []
        events.append(b.append(name, {"src": src, "dst": dst}, waits=waits, core=core))
    return b.build()


def before(program: Program) -> nx.DiGraph[int]:
    """Which instruction stands before which, by its queue and by waits."""
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(program)))
    queues: dict[int, list[int]] = {}
    for d in program.decoded:
        mine = queues.setdefault(d.queue, [])
        graph.add_edges_from((before, d.index) for before in mine)
        graph.add_edges_from((queues[wait.queue][wait.completed - 1], d.index) for wait in d.waits)
        mine.append(d.index)
    return nx.transitive_closure_dag(graph)


def conflicts(program: Program) -> list[tuple[int, int, str, set[int]]]:
    """All pairs that nothing orders, the memory and the bytes where they meet: by the later, then by the earlier."""
    closure = before(program)
    return [
        (i, j, f"L1M{a.core}" if a.space == "L1M" else a.space, shared)
        for j, later in enumerate(program.decoded)
        for i, earlier in enumerate(program.decoded[:j])
        if not closure.has_edge(i, j)
        for _, a, write_a in accesses(earlier)
        for _, b, write_b in accesses(later)
        if (a.space, a.core) == (b.space, b.core) and (write_a or write_b)
        if (shared := set(bytes_of(a)) & set(bytes_of(b)))
    ]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([1, 2, 5, 1 << 21]), copies())
def test_hazards_are_exactly_the_unordered_conflicts(chunk: int, program: Program) -> None:
    expected = conflicts(program)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(hazards, "_CHUNK", chunk)
        found = check_hazards(program, vector_clocks(program))
    if not expected:
        assert found is None
        return
    assert found is not None
    assert found[:2] == expected[0][:2]
    assert any(found[:3] == pair[:3] and found[3] in pair[3] for pair in expected)


@settings(max_examples=100, deadline=None)
@given(copies())
def test_clocks_count_what_has_completed(program: Program) -> None:
    closure, clocks = before(program), vector_clocks(program)
    for d in program.decoded:
        for queue in range(clocks.shape[1]):
            done = [
                e.index for e in program.decoded[: d.index] if e.queue == queue and closure.has_edge(e.index, d.index)
            ]
            assert clocks[d.index, queue] == len(done)


def test_clocks_are_wide_enough_for_every_queue_that_is_named() -> None:
    assert vector_clocks(ProgramBuilder().build()).shape == (0, 1)
    b = ProgramBuilder()
    last = b.append("NOP", unit="HOST", core=3)
    b.append("NOP", unit="LOAD", waits=[last])
    clocks = vector_clocks(b.build())
    assert clocks.shape == (2, 36)
    assert clocks[1].tolist() == [0] * 35 + [1]


def fill_and_load(number: int) -> Program:
    """`number` instructions, all in two queues that nothing orders; even bytes in one, odd ones in the other."""
    b = ProgramBuilder()
    for at in range(number):
        view = View("L1M", "i8", (4,), at % 2 + at // 2 * 8, (2,))
        if at % 2:
            b.append("LOAD", {"src": View("DDR", "i8", (4,), 0, (1,)), "dst": view})
        else:
            b.append("FILL", {"dst": view})
    return b.build()


@pytest.mark.parametrize("number", [2, 4])
def test_pieces_that_are_compared_are_bounded(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    # 2^22 for any program and 2^12 more for each instruction; each pair of views counts once, with both its views.
    program = fill_and_load(number)
    clocks = vector_clocks(program)
    most = ((1 << 22) + number * (1 << 12)) // (number // 2)
    for even, odd in ((most // 2, most // 2), (most, 0), (0, most)):
        counts = {0: even, 1: odd}
        monkeypatch.setattr(hazards, "pieces", lambda view, counts=counts: counts[view.address % 2])  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
        assert check_hazards(program, clocks) is None
        counts[number // 2 % 2] += 1
        with pytest.raises(SimulationError, match="HB0701.*too many pieces of L1M0 to be compared"):
            check_hazards(program, clocks)


def test_views_that_meet_again_are_compared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    once = fill_and_load(2)
    program = Program(np.concatenate([once.instructions] * 8), once.views)
    monkeypatch.setattr(hazards, "pieces", lambda view: 1 << 20)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    assert check_hazards(program, vector_clocks(program)) is None
