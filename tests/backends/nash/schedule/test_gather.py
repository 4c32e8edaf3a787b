"""Constants that come together: fewer transfers bring the same bytes, and nothing is left of those that they replace."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.nash.lower import lower
from backends.nash.schedule import Buffer, Region, Task, schedule
from backends.nash.schedule.gather import gather
from backends.nash.simulator import simulate
from backends.nash.tile import TileOptions, tile
from hbir.march import load_march
from tests.backends.nash.small_networks import SMALL_NETWORKS, small_network
from tests.compiled import assert_equal_outputs, compiled

Rows = list[tuple[int, bool, int]]


def chain(rows: Rows) -> tuple[list[Task], set[int], list[Buffer]]:
    """For each (content, is constant, core) a load and a computation that reads it at an offset; content n is n bytes of n."""
    buffers = [Buffer("DDR", 300, name="x", kind="input")]
    tasks: list[Task] = []
    early: set[int] = set()
    constants: dict[int, int] = {}
    for size, constant, core in rows:
        if constant and size not in constants:
            constants[size] = len(buffers)
            buffers.append(Buffer("CONST", size, content=bytes([size]) * size))
        source = Region.dense(constants[size] if constant else 0, "u8", (size,))
        held = len(buffers)
        buffers += [Buffer("L1M", -(-size // 64) * 64, core), Buffer("L1M", 64, core)]
        if constant:
            early.add(len(tasks))
        tasks.append(Task("LOAD", core, "l", {"src": source, "dst": Region.dense(held, "u8", (size,))}, {}, 0))
        read, made = Region.dense(held, "u8", (1,), size - 1), Region.dense(held + 1, "u8", (1,))
        tasks.append(Task("COPY", core, f"{size}", {"src": read, "dst": made}, {}, 0))
    return tasks, early, buffers


def seen(tasks: list[Task], buffers: list[Buffer]) -> list[tuple[str, int, bytes | None]]:
    """(layer, core, byte read, or None from the input) of every computation, in order."""
    memory: dict[int, bytes | None] = {}
    found: list[tuple[str, int, bytes | None]] = []
    for task in tasks:
        source, target = task.operands["src"], task.operands["dst"]
        if task.opcode == "LOAD":
            assert buffers[target.buffer].core == task.core
            memory[target.buffer] = buffers[source.buffer].content or None
        else:
            held = memory[source.buffer]
            found.append((task.layer, task.core, None if held is None else held[source.offset : source.offset + 1]))
    return found


@given(
    st.lists(st.tuples(st.integers(1, 250), st.booleans(), st.integers(0, 1)), max_size=20),
    st.sampled_from([1, 64, 300, 1 << 20]),
)
def test_every_reader_finds_the_bytes_that_it_found_before(rows: Rows, limit: int) -> None:
    tasks, early, buffers = chain(rows)
    after, held, loads = gather(tasks, early, buffers, limit)
    assert seen(after, held) == seen(tasks, buffers)
    assert all(after[index].opcode == "LOAD" and held[after[index].operands["src"].buffer].content for index in loads)
    other = sum(not constant for _, constant, _ in rows)
    assert sum(task.opcode == "LOAD" for task in after) == len(loads) + other
    named = {region.buffer for task in after for region in task.operands.values()}
    assert named | {0} == set(range(len(held)))
    largest = max((size for size, _, _ in rows), default=0)
    assert all(len(b.content) <= max(limit, largest) for b in held)
    contents = [b.content for b in held if b.space == "CONST"]
    assert len(set(contents)) == len(contents)


def test_small_constants_travel_together_and_each_only_once() -> None:
    tasks, early, buffers = chain([(100, True, 0), (30, True, 0), (100, True, 0), (200, False, 0), (30, True, 0)])
    after, held, loads = gather(tasks, early, buffers, 4096)
    assert len(loads) == 1
    # The second constant begins at the next multiple of sixteen.
    assert [len(b.content) for b in held if b.space == "CONST"] == [112 + 30]
    assert sum(task.opcode == "LOAD" for task in after) == 2


def test_the_first_transfers_are_small_so_that_work_begins_early() -> None:
    tasks, early, buffers = chain([(1 + n % 250, True, 0) for n in range(250)])
    after, held, loads = gather(tasks, early, buffers, 16 << 10)
    sizes = [len(held[after[index].operands["src"].buffer].content) for index in sorted(loads)]
    assert 1024 < sizes[0] <= 2048 < sizes[1] <= 4096 < sizes[2] <= 8192
    assert sizes == sorted(sizes[:-1]) + sizes[-1:]


@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_a_network_loads_its_constants_in_fewer_transfers(name: str) -> None:
    march = load_march("nash-e")
    graph = lower(small_network(name)[0], march)
    plan = tile(graph, march, TileOptions())
    apart, together = (schedule(graph, plan, march, transfer=size) for size in (0, 64 << 10))

    def constants(found: object) -> int:
        assert hasattr(found, "tasks")
        return sum(t.opcode == "LOAD" and found.buffers[t.operands["src"].buffer].space == "CONST" for t in found.tasks)

    assert constants(together) == min(constants(apart), 1 + (constants(together) > 1))
    kinds = Counter(t.opcode for t in apart.tasks if t.opcode != "LOAD")
    assert Counter(t.opcode for t in together.tasks if t.opcode != "LOAD") == kinds


def test_gathering_pays_where_constants_are_small() -> None:
    module, feeds = small_network("activations")
    cycles: list[int] = []
    for opt in (0, 1):
        binary = compiled(module, "nash-e", opt=opt)
        cycles.append(simulate(binary.models[0]).cycles)
        assert_equal_outputs(module, binary, feeds, check=True)
    assert cycles[1] < 0.75 * cycles[0]
