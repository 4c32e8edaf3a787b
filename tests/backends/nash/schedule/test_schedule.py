"""What a schedule promises: nothing is read before it is written, every access lies inside its buffer, loads that move ahead
keep their order and the budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.nash.isa import BY_NAME
from backends.nash.lower import lower
from backends.nash.schedule import Buffer, Region, Schedule, Task, schedule
from backends.nash.schedule.prefetch import hoist
from backends.nash.tile import TileOptions, tile
from hbir.errors import BackendError
from hbir.march import load_march
from passes import convert
from tests.backends.nash.small_networks import HOST_NETWORKS, SMALL_NETWORKS, small_network, text_network


def made(name: str, size: int = 4 << 20, cores: int = 1, *, prefetch: bool = True, fuse: bool = False) -> Schedule:
    march = replace(load_march("nash-p"), l1m_bytes=size)
    graph = lower(small_network(name, "nash-p")[0], march)
    return schedule(graph, tile(graph, march, TileOptions(cores=cores, fuse=fuse)), march, prefetch=prefetch)


def offsets(region: Region) -> np.ndarray:
    """Every byte of a region, as offsets in its buffer."""
    at = np.array([region.offset])
    for extent, stride in zip(region.shape, region.strides, strict=True):
        at = (at[:, None] + np.arange(extent) * stride).ravel()
    return (at[:, None] + np.arange({"i8": 1, "u8": 1, "i16": 2, "i32": 4, "i64": 8, "f32": 4}[region.dtype])).ravel()


def writes(task: Task) -> set[str]:
    if task.opcode == "HOST_CALL":
        return {role for role in task.operands if int(role.removeprefix("operand")) >= int(task.params["inputs"])}
    return {operand.name for operand in BY_NAME[task.opcode].operands if operand.access == "w"}


@pytest.mark.parametrize(
    ("size", "cores", "fuse"), [(4 << 20, 1, False), (10240, 1, False), (10240, 3, False), (10240, 1, True)]
)
@pytest.mark.parametrize("name", [*SMALL_NETWORKS, *HOST_NETWORKS])
def test_every_byte_is_written_before_it_is_read(name: str, size: int, cores: int, fuse: bool) -> None:
    plan = made(name, size, cores, fuse=fuse)
    known = [np.zeros(b.size, np.bool_) | (b.space == "CONST" or b.kind == "input") for b in plan.buffers]
    for index, task in enumerate(plan.tasks):
        for role, region in task.operands.items():
            assert plan.buffers[region.buffer].core == task.core or plan.buffers[region.buffer].space != "L1M"
            if role not in writes(task):
                assert known[region.buffer][offsets(region)].all(), (
                    f"task {index}: {task.opcode} reads '{role}' too early"
                )
        for role in writes(task):
            buffer = task.operands[role].buffer
            assert plan.buffers[buffer].space != "CONST"
            assert plan.buffers[buffer].kind != "input"
            known[buffer][offsets(task.operands[role])] = True
    assert all(known[i].all() for i, b in enumerate(plan.buffers) if b.kind == "output")


def test_lives_reach_from_the_first_to_the_last_use() -> None:
    plan = made("residual")
    for buffer, (first, last) in plan.lives.items():
        users = [i for i, task in enumerate(plan.tasks) if buffer in [r.buffer for r in task.operands.values()]]
        assert (first, last) == (users[0], users[-1])


def test_equal_constants_are_held_once() -> None:
    plan = made("squeeze_excite")
    contents = [b.content for b in plan.buffers if b.space == "CONST"]
    assert len(set(contents)) == len(contents)


def test_the_printer_names_tasks_and_layers() -> None:
    text = str(made("chain"))
    assert text.startswith("schedule: ")
    assert "core 0 CONV" in text
    assert "[y]" in text


@pytest.mark.parametrize(("offset", "shape", "strides"), [(-1, (4,), (1,)), (61, (4,), (1,)), (0, (2, 3), (63, 1))])
def test_regions_outside_their_buffer_are_refused(
    offset: int, shape: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    good, bad = Region.dense(0, "u8", (64,)), Region(1, offset, "u8", shape, strides)
    buffers = (Buffer("CONST", 64), Buffer("L1M", 64))
    Schedule(buffers, (Task("LOAD", 0, "x", {"src": good, "dst": Region.dense(1, "u8", (64,))}, {}, 0),)).verify()
    with pytest.raises(BackendError) as refusal:
        Schedule(buffers, (Task("LOAD", 0, "x", {"src": good, "dst": bad}, {}, 0),)).verify()
    assert refusal.value.code == "HB0531"
    assert "layer 'x'" in str(refusal.value)


def peak(tasks: list[Task], buffers: list[Buffer], core: int) -> int:
    lives = Schedule(tuple(buffers), tuple(tasks)).lives
    load = np.zeros(len(tasks) + 1, np.int64)
    for buffer, (first, last) in lives.items():
        if (buffers[buffer].space, buffers[buffer].core) == ("L1M", core):
            load[first : last + 1] += buffers[buffer].size
    return int(load.max())


@given(
    st.lists(st.tuples(st.integers(1, 5), st.booleans(), st.integers(0, 1)), min_size=1, max_size=12),
    st.integers(4, 20),
)
def test_hoisted_loads_keep_their_order_and_the_budget(rows: list[tuple[int, bool, int]], budget: int) -> None:
    """A chain of computes, each with its own load of `size` bytes, movable or not, on one of two cores."""
    buffers = [Buffer("DDR", 8, name="x", kind="input")]
    tasks: list[Task] = []
    early: set[int] = set()
    for size, movable, core in rows:
        held, result = len(buffers), len(buffers) + 1
        buffers += [Buffer("L1M", size, core), Buffer("L1M", 1, core)]
        source, target = Region.dense(0, "u8", (size,)), Region.dense(held, "u8", (size,))
        if movable:
            early.add(len(tasks))
        tasks.append(Task("LOAD", core, "l", {"src": source, "dst": target}, {}, 0))
        out = Region.dense(result, "u8", (1,))
        tasks.append(Task("COPY", core, "c", {"src": Region.dense(held, "u8", (1,)), "dst": out}, {}, 0))
    found = hoist(tasks, early, buffers, budget)
    assert Counter(map(id, found)) == Counter(map(id, tasks))
    place = {id(task): index for index, task in enumerate(found)}
    fixed = [task for index, task in enumerate(tasks) if index not in early]
    assert [place[id(t)] for t in fixed] == sorted(place[id(t)] for t in fixed)
    for core in (0, 1):
        loads = [task for task in tasks if task.opcode == "LOAD" and task.core == core]
        assert [place[id(t)] for t in loads] == sorted(place[id(t)] for t in loads)
        assert peak(found, buffers, core) <= max(budget, peak(tasks, buffers, core))
    behind = {id(task) for index, task in enumerate(tasks) if index not in early}
    for index in early:
        before = [id(task) for task in tasks[:index] if id(task) in behind]
        after = [id(task) for task in found[: place[id(tasks[index])]] if id(task) in behind]
        assert after == before[: len(after)]


def test_weights_are_loaded_ahead_of_their_layer() -> None:
    late, ahead = (made("chain", prefetch=p) for p in (False, True))
    assert Counter(map(repr, late.tasks)) == Counter(map(repr, ahead.tasks))

    def last_load(plan: Schedule) -> int:
        return max(i for i, t in enumerate(plan.tasks) if t.opcode == "LOAD")

    assert last_load(ahead) < last_load(late)


@pytest.mark.parametrize(("room", "ahead"), [(0, 0), (99, 0), (100, 1), (250, 2), (1000, 3)])
def test_constants_pass_a_load_that_waits_for_the_host_while_that_works(room: int, ahead: int) -> None:
    """The host makes a map, a load brings it, and three layers read constants of 100 bytes each and then the map."""
    buffers = [Buffer("DDR", 64, name="x", kind="input"), Buffer("DDR", 64), Buffer("L1M", 64)]
    whole, held = Region.dense(1, "u8", (64,)), Region.dense(2, "u8", (64,))
    call = Task("HOST_CALL", 0, "h", {"operand0": Region.dense(0, "u8", (64,)), "operand1": whole}, {"inputs": 1}, 0)
    tasks = [call, Task("LOAD", 0, "m", {"src": whole, "dst": held}, {}, 0)]
    early: set[int] = set()
    for layer in "abc":
        constant = len(buffers)
        buffers += [Buffer("CONST", 100, content=layer.encode() * 100), Buffer("L1M", 100)]
        early.add(len(tasks))
        ends = {"src": Region.dense(constant, "u8", (100,)), "dst": Region.dense(constant + 1, "u8", (100,))}
        tasks.append(Task("LOAD", 0, layer, ends, {}, 0))
        tasks.append(Task("COPY", 0, layer, {"src": Region.dense(constant + 1, "u8", (64,)), "dst": held}, {}, 0))
    loads = [task.layer for task in hoist(tasks, early, buffers, 1 << 20, {1: room}) if task.opcode == "LOAD"]
    assert loads == [*"abc"[:ahead], "m", *"abc"[ahead:]]
    assert [task.layer for task in hoist(tasks, early, buffers, 1 << 20) if task.opcode == "LOAD"] == ["m", *"abc"]


def test_the_host_leaves_the_queue_of_loads_to_the_next_layers() -> None:
    march = load_march("nash-e")
    body, signature = (
        "a = Conv <strides = [2,2]> (x, w1) y = Conv <pads = [1,1,1,1]> (a, w3)",
        "(float[1,8,12,10] x) => (float[1,8,6,5] y)",
    )
    calibrated, _ = text_network(body, signature)
    limited = replace(march, max_stride=1)
    graph = lower(convert(calibrated, "nash-e"), limited)
    plan = schedule(graph, tile(graph, limited), limited)
    loads = [t for t in plan.tasks if t.opcode == "LOAD"]
    spaces = [plan.buffers[t.operands["src"].buffer].space for t in loads]
    assert set(spaces) == {"CONST", "DDR"}
    # What the host made comes last: the weights need not wait for it.
    assert spaces[-1] == "DDR"
