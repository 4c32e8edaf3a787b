"""Overlap and order, against brute force over bytes and over paths."""

from __future__ import annotations

import hypothesis.strategies as st
import networkx as nx
from hypothesis import given, settings

from backends.nash.isa import Event, Program, ProgramBuilder, View, accesses
from backends.nash.isa.hazards import check_hazards, overlap, vector_clocks
from backends.nash.isa.verify import _overlaps_itself  # pyright: ignore[reportPrivateUsage]


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
    """LOADs, COPYs and STOREs over a few small buffers, with arbitrary waits backwards."""
    b = ProgramBuilder()
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 9))):
        name = draw(st.sampled_from(["LOAD", "COPY", "STORE"]))
        spaces = {"LOAD": ("DDR", "L1M"), "COPY": ("L1M", "L1M"), "STORE": ("L1M", "DDR")}[name]
        src, dst = (View.dense(space, "i8", (4,), draw(st.integers(0, 12))) for space in spaces)
        waits = draw(st.lists(st.sampled_from(events), max_size=3)) if events else []
        events.append(b.append(name, {"src": src, "dst": dst}, waits=waits))
    return b.build()


@settings(max_examples=500, deadline=None)
@given(copies())
def test_hazards_are_exactly_the_unordered_conflicts(program: Program) -> None:
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(len(program)))
    queues: dict[int, list[int]] = {}
    for d in program.decoded:
        mine = queues.setdefault(d.queue, [])
        graph.add_edges_from((before, d.index) for before in mine)
        graph.add_edges_from((queues[wait.queue][wait.completed - 1], d.index) for wait in d.waits)
        mine.append(d.index)
    closure = nx.transitive_closure_dag(graph)
    expected = [
        (i, j)
        for j, later in enumerate(program.decoded)
        for i, earlier in enumerate(program.decoded[:j])
        if not closure.has_edge(i, j)
        and any(
            a.space == b.space and (write_a or write_b) and set(bytes_of(a)) & set(bytes_of(b))
            for _, a, write_a in accesses(earlier)
            for _, b, write_b in accesses(later)
        )
    ]
    found = check_hazards(program, vector_clocks(program))
    assert (found is None) == (not expected)
    assert found is None or found[:2] in expected
