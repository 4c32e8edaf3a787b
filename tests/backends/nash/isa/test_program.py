"""The builder: events, redundant waits, waits beyond eight, and what it refuses."""

from __future__ import annotations

import pytest

from backends.nash.isa import Event, Memories, ProgramBuilder, View, queue_of, verify_program


def fill(b: ProgramBuilder, unit: str, *waits: Event, core: int = 0) -> Event:
    return b.append("NOP", core=core, unit=unit, waits=waits)


def test_an_event_is_the_queues_count() -> None:
    b = ProgramBuilder()
    assert fill(b, "TAE") == (queue_of(0, "TAE"), 1)
    assert fill(b, "TAE") == (queue_of(0, "TAE"), 2)
    assert fill(b, "VAE", core=2) == (queue_of(2, "VAE"), 1)


def test_waits_that_follow_from_others_are_dropped() -> None:
    b = ProgramBuilder()
    first = fill(b, "LOAD")
    second = fill(b, "LOAD")
    computed = fill(b, "TAE", first, second)
    fill(b, "TAE", second, computed)
    fill(b, "STORE", first, computed)
    waits = [d.waits for d in b.build().decoded]
    assert waits == [(), (), (second,), (), (computed,)]


def test_more_than_eight_waits_ride_on_nops() -> None:
    b = ProgramBuilder()
    events = [fill(b, unit, core=core) for core in range(4) for unit in ("LOAD", "TAE", "VAE")]
    last = b.append("FILL", {"dst": View.dense("L1M", "i8", (4,), 0)}, waits=events)
    program = b.build()
    assert last == (queue_of(0, "TRANS"), 2)
    assert [d.opcode.name for d in program.decoded[-2:]] == ["NOP", "FILL"]
    assert sorted((*program.decoded[-2].waits, *program.decoded[-1].waits)) == sorted(events)
    verify_program(program, Memories(ddr=0, l1m=64, cores=4), [], [])


def test_equal_views_are_held_once() -> None:
    b = ProgramBuilder()
    for _ in range(3):
        b.append("FILL", {"dst": View.dense("L1M", "i8", (4,), 0)})
    assert len(b.build().views) == 1


def test_misuse_is_refused() -> None:
    b = ProgramBuilder()
    view = View.dense("L1M", "i8", (4,), 0)
    with pytest.raises(ValueError, match="no opcode 'WALK'"):
        b.append("WALK")
    with pytest.raises(ValueError, match="no operand or parameter 'src'"):
        b.append("FILL", {"dst": view, "src": view})
    with pytest.raises(ValueError, match="needs operand 'dst'"):
        b.append("FILL")
    with pytest.raises(ValueError, match="value = "):
        b.append("FILL", {"dst": view}, {"value": 1 << 31})
    with pytest.raises(ValueError, match="not in the program yet"):
        b.append("FILL", {"dst": view}, waits=[Event(0, 1)])
    assert len(b) == 0
