"""Time: what must hold of any schedule, and small cases worked out by hand."""

from __future__ import annotations

import math
import time
from dataclasses import replace

import numpy as np
import pytest

from backends.nash.hbm import Model
from backends.nash.isa import UNITS, Memories, assemble, instruction_cycles
from backends.nash.isa.cost import dma_cycles
from backends.nash.simulator import Timing, simulate
from hbir.errors import SimulationError
from hbir.march import MARCHES, load_march
from tests.backends.nash.samples import ConvLayer, pool_model, tiled_conv_model


def chain(march: str = "nash-e", layers: int = 3, tile: int = 4, size: int = 16) -> Model:
    rng = np.random.default_rng(0)
    return tiled_conv_model([ConvLayer.random(rng, 16, 3, 16) for _ in range(layers)], size, size, tile, march)


def program_model(text: str, march: str = "nash-p", cores: int = 1) -> Model:
    """A model of which only the time matters."""
    memories = Memories(ddr=1 << 30, l1m=1 << 22, l2m=1 << 20, cores=cores)
    return replace(pool_model(), march=load_march(march), program=assemble(text), memories=memories)


def check_invariants(model: Model, timing: Timing) -> None:
    decoded, march = model.program.decoded, model.march
    assert len(timing.units) == march.cores * len(UNITS)
    for unit in timing.units:
        assert unit.busy + unit.stalled + unit.idle == timing.cycles
        assert min(unit.busy, unit.stalled, unit.idle) >= 0
    for start, end in zip(timing.start, timing.end, strict=True):
        ends: dict[int, list[int]] = {}
        for d in decoded:
            i = d.index
            mine = ends.setdefault(d.queue, [])
            assert not mine or start[i] >= mine[-1]
            assert all(start[i] >= ends[wait.queue][wait.completed - 1] for wait in d.waits)
            alone = instruction_cycles(march, d.opcode.name, d.operands, d.params)
            if d.opcode.unit in ("LOAD", "STORE"):
                # Rounding to whole cycles may save one and cost one for every change of the number of transfers.
                assert end[i] - start[i] >= alone - 1
            else:
                assert end[i] - start[i] == alone
            mine.append(int(end[i]))
    assert timing.cycles == timing.end.max()
    moved = timing.ddr_read + timing.ddr_written
    assert timing.cycles >= math.floor(moved / march.ddr_bytes_per_cycle) - 1


@pytest.mark.parametrize("march", MARCHES)
@pytest.mark.parametrize("tile", [2, 16])
def test_invariants_hold(march: str, tile: int) -> None:
    model = chain(march, tile=tile)
    check_invariants(model, simulate(model))
    many = model.march.cores
    check_invariants(model, simulate(model, frames=2 * many + 1, slots=many))


def test_bytes_are_those_of_the_transfers() -> None:
    model = chain(layers=1, tile=16)
    timing = simulate(model, frames=3)
    weights = 9 * 16 * 16 + 16 * 4 + 16 * 4 + 16
    assert timing.ddr_read == 3 * (weights + 16 * 16 * 16)
    assert timing.ddr_written == 3 * 16 * 16 * 16
    assert (timing.l2m_read, timing.l2m_written) == (0, 0)


def test_time_is_deterministic_and_needs_no_data() -> None:
    model = chain()
    assert simulate(model).end.tolist() == simulate(replace(model, constants=memoryview(b""))).end.tolist()


BIG = "1048576"


def test_a_lone_transfer_takes_its_cost() -> None:
    march = load_march("nash-p")
    timing = simulate(program_model(f"LOAD@0 src=DDR[0] i8 {BIG}, dst=L1M0[0] i8 {BIG}\n"))
    assert timing.cycles == dma_cycles(march, 1 << 20)
    timing = simulate(program_model(f"STORE@0 src=L1M0[0] i8 {BIG}, dst=L2M[0] i8 {BIG}\n"))
    assert timing.cycles == dma_cycles(march, 1 << 20, l2m=True)
    assert timing.l2m_written == 1 << 20


def test_transfers_of_all_cores_share_ddr_equally() -> None:
    march = load_march("nash-p")
    text = "".join(f"LOAD@{core} src=DDR[0] i8 {BIG}, dst=L1M{core}[0] i8 {BIG}\n" for core in range(4))
    timing = simulate(program_model(text, cores=4))
    assert len(set(timing.end[0].tolist())) == 1
    assert timing.cycles == pytest.approx(dma_cycles(march, 4 << 20), abs=2)


def test_a_short_transfer_leaves_and_the_long_one_speeds_up() -> None:
    # Both move at half rate until the short one (n bytes) ends at 2n / rate; the other has 3n - n left at full rate.
    march = load_march("nash-p")
    text = "LOAD@0 src=DDR[0] i8 300000, dst=L1M0[0] i8 300000\n"
    text += "STORE@0 src=L1M0[1048576] i8 100000, dst=DDR[4194304] i8 100000\n"
    timing = simulate(program_model(text))
    fixed = march.issue_cycles + march.dma_latency_cycles
    rate = march.ddr_bytes_per_cycle
    assert timing.end[0].tolist() == pytest.approx([fixed + 400000 / rate, fixed + 200000 / rate], abs=2)


def test_memories_do_not_share_bandwidth_with_each_other() -> None:
    march = load_march("nash-p")
    text = (
        f"LOAD@0 src=DDR[0] i8 {BIG}, dst=L1M0[0] i8 {BIG}\nSTORE@0 src=L1M0[2097152] i8 {BIG}, dst=L2M[0] i8 {BIG}\n"
    )
    timing = simulate(program_model(text))
    assert timing.end[0].tolist() == [dma_cycles(march, 1 << 20), dma_cycles(march, 1 << 20, l2m=True)]


def test_double_buffering_hides_transfers_behind_computation() -> None:
    model = chain(layers=1, tile=4, size=64)
    timing = simulate(model)
    one_by_one = sum(
        instruction_cycles(model.march, d.opcode.name, d.operands, d.params) for d in model.program.decoded
    )
    assert timing.cycles < one_by_one


def test_frames_on_other_cores_run_beside_each_other() -> None:
    compute = program_model("FILL@0 dst=L1M0[0] i8 1048576\n")
    one = simulate(compute)
    four = simulate(compute, frames=4, slots=4)
    assert four.cycles == one.cycles
    assert four.frames_per_second == pytest.approx(4 * one.frames_per_second)
    assert four.slots == (0, 1, 2, 3)
    in_turn = simulate(compute, frames=4)
    assert in_turn.cycles == 4 * one.cycles
    assert in_turn.frame_seconds == (one.seconds,) * 4
    transfer = program_model(f"LOAD@0 src=DDR[0] i8 {BIG}, dst=L1M0[0] i8 {BIG}\n")
    assert simulate(transfer, frames=4, slots=4).cycles > 3 * simulate(transfer).cycles


def test_more_groups_than_cores_are_refused() -> None:
    for frames, slots in ((1, 5), (1, 0), (0, 1)):
        with pytest.raises(SimulationError) as caught:
            simulate(chain("nash-p"), frames=frames, slots=slots)
        assert caught.value.code == "HB0712"


def test_a_program_that_waits_for_ever_is_an_error() -> None:
    for wait in ("LOAD0>=1", "TRANS0>=1", "AAE0>=1"):
        text = f"FILL@0 dst=L1M0[0] i8 64 ; wait {wait}\nNOP.AAE@0 ; wait TRANS0>=1\n"
        with pytest.raises(SimulationError, match="never ends"):
            simulate(program_model(text))


def test_an_empty_program_takes_no_time() -> None:
    timing = simulate(program_model(""))
    assert (timing.cycles, timing.frame_seconds) == (0, (0.0,))


def test_thousands_of_instructions_are_timed_in_well_under_a_second() -> None:
    model = chain(layers=40, tile=1, size=32)
    assert len(model.program) > 3900
    begin = time.process_time()
    simulate(model)
    assert time.process_time() - begin < 1.0
