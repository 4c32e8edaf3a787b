"""Events are enough, and hardly more than enough; the constants stand where the addresses say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.nash.allocate import allocate
from backends.nash.encode import encode
from backends.nash.hbm import Model, verify_model
from backends.nash.isa import Program
from backends.nash.lower import lower
from backends.nash.schedule import schedule
from backends.nash.tile import TileOptions, tile
from hbir.errors import SimulationError
from hbir.march import load_march
from tests.backends.nash.small_networks import SMALL_NETWORKS, small_network
from tests.compiled import assert_equal_outputs, compiled


def model(name: str, size: int, cores: int = 1) -> Model:
    march = replace(load_march("nash-p"), l1m_bytes=size)
    module, feeds = small_network(name, "nash-p")
    binary = compiled(module, march, opt=1, core_num=cores)
    assert_equal_outputs(module, binary, feeds[:1], check=True)
    return binary.models[0]


def verified(model: Model, program: Program) -> bool:
    """Whether the verifier accepts another program for a model."""
    try:
        verify_model(replace(model, program=program))
    except SimulationError:
        return False
    return True


def without_wait(program: Program, index: int, wait: int) -> Program:
    """The program with one wait of one instruction removed."""
    instructions = program.instructions.copy()
    row = instructions[index]
    count = int(row["wait_count"])
    for field in ("wait_queue", "wait_value"):
        row[field][wait : count - 1] = row[field][wait + 1 : count].copy()
        row[field][count - 1 :] = 0
    row["wait_count"] = count - 1
    return Program(instructions, program.views, program.layers)


@pytest.mark.parametrize(("size", "cores"), [(4 << 20, 1), (10240, 1), (10240, 2)])
@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_the_events_order_all_conflicts(name: str, size: int, cores: int) -> None:
    found = model(name, size, cores)
    assert verified(found, found.program)


@pytest.mark.parametrize(
    ("name", "size", "cores"), [("residual", 4 << 20, 1), ("residual", 4096, 1), ("nested_concat", 4096, 2)]
)
def test_every_event_is_needed(name: str, size: int, cores: int) -> None:
    found = model(name, size, cores)
    waits = [(i, w) for i, row in enumerate(found.program.instructions) for w in range(row["wait_count"])]
    assert len(waits) >= 9
    needless = [wait for wait in waits if verified(found, without_wait(found.program, *wait))]
    assert needless == []


def test_constants_stand_where_the_addresses_say() -> None:
    march = load_march("nash-e")
    graph = lower(small_network("squeeze_excite")[0], march)
    tasks = schedule(graph, tile(graph, march, TileOptions()), march)
    addresses = allocate(tasks, march)
    program, constants = encode(tasks, addresses)
    assert len(constants) == addresses.constants
    for index, buffer in enumerate(tasks.buffers):
        if buffer.space == "CONST":
            at = addresses.address[index]
            assert constants[at : at + len(buffer.content)] == buffer.content
    again, same = encode(tasks, addresses)
    assert again == program
    assert same == constants


def test_instructions_carry_their_layers() -> None:
    found = model("chain", 4 << 20)
    names = {found.program.layer_name(i) for i in range(len(found.program))}
    assert "y" in names
    assert np.all(found.program.instructions["layer"] < len(found.program.layers))
