"""The bounds against sums worked out by hand from the shapes of small models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from backends.nash.isa import instruction_cycles
from backends.nash.perf import roofline
from backends.nash.simulator import simulate
from hbir.kernels import packed_size
from tests.backends.nash.samples import ConvLayer, pool_model, tiled_conv_model


def layers() -> list[ConvLayer]:
    random = np.random.default_rng(0)
    return [ConvLayer.random(random, 64, 3, 32), ConvLayer.random(random, 64, 1, 64)]


def test_compute_and_traffic_of_a_chain_of_convolutions() -> None:
    model = tiled_conv_model(layers(), 32, 32, 8)
    bounds, march = roofline(model), model.march
    pixels = 32 * 32
    # Extents are multiples of the array's, so that padding adds nothing; halo rows are not computed twice either.
    macs = pixels * 9 * 32 * 64 + pixels * 64 * 64
    epilogue = 2 * pixels * 64 / march.tae_output_elements_per_cycle
    # Each of the eight tiles rounds its cycles up.
    exact = macs / march.tae_macs_per_cycle + epilogue
    assert exact <= bounds.resources["TAE"] <= exact + 8
    constants = sum(packed_size(layer.weight.shape) + 64 * (4 + 4 + 1) for layer in layers())
    assert bounds.compulsory_bytes == constants + pixels * 32 + pixels * 64
    assert bounds.resources["DDR"] == bounds.compulsory_bytes / march.ddr_bytes_per_cycle
    assert bounds.cycles == max(bounds.resources.values())
    # 221 kB at 49 bytes a cycle take longer than 22 million multiply-accumulates at 17,800.
    assert bounds.limited_by == "DDR"
    assert bounds.microseconds == pytest.approx(1e6 * bounds.cycles / march.clock_hz, rel=1e-12)


def test_bytes_of_a_layer_are_those_it_moves() -> None:
    model = tiled_conv_model(layers(), 32, 32, 8)
    first, second = roofline(model).layers
    timing = simulate(model)
    assert (first.layer, second.layer) == ("conv0", "conv1")
    assert first.loaded_bytes + second.loaded_bytes == timing.ddr_read
    assert first.stored_bytes + second.stored_bytes == timing.ddr_written
    # Four tiles of a 3x3 convolution read six halo rows twice.
    assert first.loaded_bytes == packed_size(layers()[0].weight.shape) + 64 * 9 + (32 + 6) * 32 * 32
    assert first.stored_bytes == 32 * 32 * 64


def test_a_bound_is_below_the_simulated_time() -> None:
    for tile in (4, 8, 32):
        model = tiled_conv_model(layers(), 32, 32, tile)
        assert roofline(model).cycles < simulate(model).cycles


def test_the_larger_of_load_and_store_names_the_limit() -> None:
    bound = roofline(pool_model()).layers[0]
    # 1024 bytes in, 256 bytes out, against 256 outputs of a 2x2 window at 1024 taps a cycle.
    assert (bound.loaded_bytes, bound.stored_bytes, bound.limited_by) == (1024, 256, "load")
    assert bound.cycles == 1280 / pool_model().march.ddr_bytes_per_cycle
    assert bound.work == {"AAE": 1.0}


def test_work_that_a_placement_states_replaces_that_of_its_tiles() -> None:
    model = tiled_conv_model(layers(), 32, 32, 8)
    full = roofline(model).resources["TAE"]
    rows = ({"layer": "conv0", "unit": "TAE", "cycles": 100.0},)
    first = sum(
        instruction_cycles(model.march, d.opcode.name, d.operands, d.params) - model.march.issue_cycles
        for d in model.program.decoded
        if d.opcode.name == "CONV" and d.layer == 0
    )
    assert roofline(replace(model, placements=rows)).resources["TAE"] == full - first + 100


def test_cores_share_the_work_but_not_the_memory() -> None:
    one = tiled_conv_model(layers(), 32, 32, 8, "nash-p")
    two = replace(one, memories=replace(one.memories, cores=2))
    assert roofline(two).resources["TAE"] == roofline(one).resources["TAE"] / 2
    assert roofline(two).resources["DDR"] == roofline(one).resources["DDR"]
