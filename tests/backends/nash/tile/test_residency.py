"""Plans cover every result exactly, and what they keep in L1M at one time is within their budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from backends.nash.isa import dtype_name
from backends.nash.lower import Node, UnitGraph, lower
from backends.nash.schedule import schedule
from backends.nash.schedule.weights import bundle
from backends.nash.tile import TileOptions, TilePlan, tile
from backends.nash.tile.costs import weight_bytes
from backends.nash.tile.plan import Piece
from hbir.errors import BackendError
from hbir.march import March, load_march
from tests.backends.nash.small_networks import SMALL_NETWORKS, deep_network, heavy_network, small_network


def small_march(size: int, name: str = "nash-e") -> March:
    return replace(load_march(name), l1m_bytes=size)


def resident_bytes(graph: UnitGraph, plan: TilePlan) -> int:
    """The largest number of bytes of storages that stay in L1M at one time."""
    lives: dict[int, tuple[int, int]] = {}
    for index, node in enumerate(graph.nodes):
        for view in (*node.reads.values(), *node.writes.values()):
            first, _ = lives.get(view.storage, (index, index))
            lives[view.storage] = (first, index)
    alive = np.zeros(len(graph.nodes) + 1, np.int64)
    for storage, (first, last) in lives.items():
        if plan.spaces[storage] == "L1M":
            alive[first : last + 1] += graph.storages[storage].size
    return int(alive.max(initial=0))


@pytest.mark.parametrize("size", [4096, 10240, 4 << 20])
@pytest.mark.parametrize("name", list(SMALL_NETWORKS))
def test_plans_cover_and_fit(name: str, size: int) -> None:
    module, _ = small_network(name)
    march = small_march(size)
    graph = lower(module, march)
    try:
        plan = tile(graph, march)
    except BackendError as refusal:
        assert size == 4096, refusal  # 10 KiB do for all of them
        assert refusal.code == "HB0521"
        return
    assert plan.budget <= size
    assert len(plan.nodes) == len(graph.nodes)
    assert resident_bytes(graph, plan) <= plan.budget
    for node, cut in zip(graph.nodes, plan.nodes, strict=True):
        assert cut.axis is not None or len(cut.tiles) == 1
        if cut.axis is not None:
            assert_covers(cut.tiles, node.out.shape[cut.axis])
        assert_covers(cut.chunks, node.out.shape[-1] if node.out.shape else 1)
    for storage, space in zip(graph.storages, plan.spaces, strict=True):
        assert space in ("L1M", "DDR")
        assert space == "DDR" or storage.kind == "activation"
    assert "tile plan: 1 core(s)" in str(plan)


def assert_covers(ranges: tuple[tuple[int, int], ...], extent: int) -> None:
    assert ranges[0][0] == 0
    assert ranges[-1][1] == extent
    assert all(low < high for low, high in ranges)
    assert all(before[1] == after[0] for before, after in pairwise(ranges))


def test_a_layer_that_cannot_be_cut_further_is_refused_by_name() -> None:
    module, _ = small_network("argmax")
    with pytest.raises(BackendError) as refusal:
        tile(lower(module, small_march(1024)), small_march(1024))
    assert refusal.value.code == "HB0521"
    assert "layer 'y'" in str(refusal.value)
    assert refusal.value.lever


def test_deep_layers_are_cut_along_their_input_channels_when_nothing_else_helps() -> None:
    module, _ = deep_network(8)
    cuts, texts = dict[int, list[tuple[Piece, ...]]](), dict[int, str]()
    for size in (48 << 10, 4 << 20):
        graph = lower(module, small_march(size))
        plan = tile(graph, small_march(size))
        texts[size] = str(plan)
        cuts[size] = [cut.pieces for node, cut in zip(graph.nodes, plan.nodes, strict=True) if node.opcode == "CONV"]
    assert cuts[4 << 20] == [(), (), ()]
    assert sum(bool(pieces) for pieces in cuts[48 << 10]) == 2
    for pieces in filter(None, cuts[48 << 10]):
        channels = tuple(piece.channels for piece in pieces)
        assert_covers(channels, 1024)
        assert all(low % 32 == 0 for low, _ in channels)
    assert "pieces of input channels" in texts[48 << 10]
    assert "pieces of input channels" not in texts[4 << 20]


def test_everything_stays_in_l1m_when_there_is_room() -> None:
    module, _ = small_network("residual")
    graph = lower(module, load_march("nash-e"))
    plan = tile(graph, load_march("nash-e"))
    assert all(
        (space == "L1M") == (s.kind == "activation") for s, space in zip(graph.storages, plan.spaces, strict=True)
    )


def test_l2m_takes_what_l1m_cannot_hold() -> None:
    module, _ = small_network("residual", "nash-p")
    march = small_march(4096, "nash-p")
    graph = lower(module, march)
    none, some = (tile(graph, march, TileOptions(l2m_bytes=size)).spaces for size in (0, 1 << 20))
    assert "L2M" not in none
    assert "L2M" in some
    assert [space == "L1M" for space in none] == [space == "L1M" for space in some]


def test_several_cores_get_at_least_a_tile_each() -> None:
    module, _ = small_network("chain", "nash-p")
    graph = lower(module, load_march("nash-p"))
    plan = tile(graph, load_march("nash-p"), TileOptions(cores=3))
    for node, cut in zip(graph.nodes, plan.nodes, strict=True):
        if node.opcode == "CONV":
            assert max(len(cut.tiles), len(cut.chunks)) >= 3


@pytest.mark.parametrize("name", ["chain", "groups", "depthwise", "many_channels", "classifier"])
def test_the_planned_weight_bytes_hold_what_is_loaded(name: str) -> None:
    module, _ = small_network(name)
    nodes = [node for node in lower(module, load_march("nash-e")).nodes if node.opcode == "CONV"]
    assert nodes
    for node in nodes:
        channels = node.out.shape[-1]
        assert len(bundle(node, (0, channels))[0]) <= weight_bytes(node, channels)
        if int(node.params["groups"]) == 1 and channels > 16:
            assert len(bundle(node, (16, channels))[0]) <= weight_bytes(node, channels - 16)


def test_bundles_hold_every_vector_aligned() -> None:
    module, _ = small_network("chain")
    node: Node = next(n for n in lower(module, load_march("nash-e")).nodes if n.opcode == "CONV")
    content, layout = bundle(node, (0, 8))
    for role in ("bias", "multiplier", "shift"):
        offset, dtype, count = layout[role]
        held = node.constants[role]
        assert dtype == dtype_name(held.dtype)
        assert offset % held.dtype.itemsize == 0
        assert (np.frombuffer(content, held.dtype, count, offset) == held).all()


@pytest.mark.parametrize(("dilation", "size"), [(1, 192 << 10), (2, 768 << 10), (1, 4 << 20)])
@pytest.mark.parametrize("pipeline", [1, 4])
def test_weights_too_many_to_stay_are_not_loaded_again_for_tiles_that_only_overlap(
    size: int, pipeline: int, dilation: int
) -> None:
    module, _ = heavy_network(dilation)
    march = replace(small_march(size), max_dilation=1)
    graph = lower(module, march)
    plan = tile(graph, march, TileOptions(pipeline=pipeline))
    made = schedule(graph, plan, march)
    loads = [t.operands["src"] for t in made.tasks if t.opcode == "LOAD"]
    sources = Counter(r.buffer for r in loads if made.buffers[r.buffer].space == "CONST" and r.shape[0] > 4096)
    assert sum(made.buffers[b].size for b in sources) > 300 << 10
    assert set(sources.values()) == {1}
