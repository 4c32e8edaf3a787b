"""Depth-first groups: they hold what they need, save traffic, and change no bit."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from backends.nash.lower import UnitGraph, lower
from backends.nash.simulator import simulate
from backends.nash.tile import Group, TileOptions, TilePlan, input_part, output_part, tile
from backends.nash.tile.fusion import row_bytes, rows_needed
from hbir.errors import BackendError
from hbir.march import March, load_march
from tests.backends.nash.small_networks import SMALL_NETWORKS, small_network
from tests.compiled import assert_equal_outputs, compiled, integer_module


def small_march(size: int) -> March:
    return replace(load_march("nash-e"), l1m_bytes=size)


def planned(name: str, size: int) -> tuple[UnitGraph, TilePlan]:
    module, _ = small_network(name)
    march = small_march(size)
    graph = lower(module, march)
    return graph, tile(graph, march, TileOptions(fuse=True))


@pytest.mark.parametrize("size", [6144, 10240])
@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_every_reader_finds_its_rows(name: str, size: int) -> None:
    try:
        graph, plan = planned(name, size)
    except BackendError as refusal:
        assert refusal.code == "HB0521"
        return
    inner = {storage for group in plan.groups for storage in group.inner}
    assert {storage for storage, space in enumerate(plan.spaces) if space == "TILE"} == inner
    for group in plan.groups:
        goal = plan.nodes[group.last].tiles
        assert goal[0][0] == 0
        assert goal[-1][1] == graph.nodes[group.last].out.shape[1]
        assert all(before[1] == after[0] for before, after in pairwise(goal))
        check_rows(graph, plan, group)


def check_rows(graph: UnitGraph, plan: TilePlan, group: Group) -> None:
    for tile_number in range(len(plan.nodes[group.last].tiles)):
        made: dict[int, tuple[int, int]] = {}
        for index in range(group.first, group.last + 1):
            node, rows = graph.nodes[index], plan.nodes[index].tiles[tile_number]
            out = output_part(node, 1, rows, None)
            for role, view in node.reads.items():
                if view.storage in group.inner:
                    part, _ = input_part(node, role, view, 1, out)
                    low, high = made[view.storage]
                    assert low <= part.begin[1]
                    assert part.begin[1] + part.extent[1] <= high
            assert made.setdefault(node.out.storage, rows) == rows, "writers of one storage make the same rows"


def test_groups_are_formed_where_maps_do_not_fit() -> None:
    assert planned("chain", 4 << 20)[1].groups == ()
    graph, plan = planned("chain", 6144)
    assert plan.groups
    assert "depth first: nodes" in str(plan)
    group = plan.groups[0]
    assert rows_needed(graph, group.first, group.last, group.inner, plan.nodes[group.last].tiles[0])
    assert all(row_bytes(graph.nodes[i].out) for i in range(group.first, group.last))


@pytest.mark.parametrize("size", [6144, 8192])
@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_binaries_with_groups_give_the_same_bits(name: str, size: int) -> None:
    module, feeds = small_network(name)
    try:
        binary = compiled(module, small_march(size), opt=1)
    except BackendError as refusal:
        assert refusal.code in ("HB0521", "HB0541")
        return
    assert_equal_outputs(module, binary, feeds)
    assert_equal_outputs(module, binary, feeds[:1], check=True)


@pytest.mark.xdist_group("mobilenetv2")
def test_a_network_in_an_eighth_of_the_memory_moves_little_more() -> None:
    module = integer_module("mobilenetv2")
    traffic = {}
    for opt in (0, 1):
        timing = simulate(compiled(module, small_march(512 << 10), opt=opt).models[0])
        traffic[opt] = timing.ddr_read + timing.ddr_written
    # Opt 0 has no groups, and stores every map of the first half of the network.
    assert 2 * traffic[1] < traffic[0]
