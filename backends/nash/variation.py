"""Other decisions than the stock ones, drawn at random: the model must compute the same, bit for bit. For tests.

`varied(seed)` gives the `Stages` for `compile_model`. What may vary is whatever the stages promise not to matter:

- tiles: into how many ranges a node is cut along its tile axis, and where; chunks of the output channels of a convolution
  that has one group; ranges of its input channels and of the taps of its window that are accumulated; which loop is the outer
  one and whether weights stay; runs of nodes that are worked through depth first, with any rows for a tile;
- homes: an activation may lie in DDR although L1M has room for it;
- order: any order of the tasks that keeps every two in order of which one writes what the other touches; loads of constants
  gathered or not, early or late;
- addresses: any order of constants, inputs and outputs in DDR, any place in L1M, L2M and workspace where nothing else lives
  at the time, with gaps, at multiples of the march's alignment.

A draw that does not fit its memory is drawn again, smaller; the last attempts of `compile_model` use the stock decisions, so
that a module is refused only if these refuse it.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from backends.nash.allocate import Addresses, allocate
from backends.nash.allocate.addresses import first_fit, lower_bound
from backends.nash.compiler import Stages
from backends.nash.lower import UnitGraph
from backends.nash.lower.graph import Node
from backends.nash.schedule import Region, Schedule, Task, schedule
from backends.nash.tile import Group, NodePlan, TileOptions, TilePlan, tile, tile_axis
from backends.nash.tile.fusion import inner_storages, rows_needed
from backends.nash.tile.pieces import takes_whole_window, window_taps
from backends.nash.tile.plan import Piece, Range
from hbir.march import March

__all__ = ["varied"]

_ATTEMPTS = 3
"""Plans that are drawn before the stock ones are taken."""
_ROWS = 1
_GAPS = (0, 0, 0, 1, 2, 5)
"""Units of alignment that are left free behind a buffer."""
_JITTERS = (0.0, 1.0, 4.0, 30.0)
"""How many places a task may be drawn ahead, at most."""


def varied(seed: int) -> Stages:
    """Stages that draw their decisions from a seed; the same seed gives the same model."""
    drawn = _Drawn(random.Random(seed))
    return Stages(drawn.tile, drawn.schedule, drawn.allocate)


@dataclass
class _Drawn:
    rng: random.Random
    attempts: int = 0

    def tile(self, graph: UnitGraph, march: March, options: TileOptions) -> TilePlan:
        """A stock plan for drawn options, with its cuts drawn again."""
        self.attempts += 1
        if self.attempts > _ATTEMPTS:
            return tile(graph, march, options)
        rng = self.rng
        wanted = replace(options, pipeline=rng.choice((1, 2, 4, 8)), smallest=rng.choice((1, 100, 1500)))
        wanted = replace(wanted, fuse=rng.random() < 0.5, budget=options.budget * rng.choice((1.0, 1.0, 0.7, 0.4)))
        return _varied_plan(graph, march, tile(graph, march, wanted), rng)

    def schedule(
        self, graph: UnitGraph, plan: TilePlan, march: March, *, prefetch: bool = True, transfer: int = 0
    ) -> Schedule:
        """The plan's tasks in another order that keeps what depends on each other in order."""
        if self.attempts > _ATTEMPTS:
            return schedule(graph, plan, march, prefetch=prefetch, transfer=transfer)
        rng = self.rng
        transfer = rng.choice((0, 512, transfer))
        stock = schedule(graph, plan, march, prefetch=rng.random() < 0.7, transfer=transfer)
        for jitter in sorted(rng.sample(_JITTERS, 2), reverse=True):
            found = Schedule(stock.buffers, tuple(stock.tasks[i] for i in _legal_order(stock.tasks, jitter, rng)))
            if _fits(found, march):
                return found
        return stock

    def allocate(self, schedule: Schedule, march: March, *, l2m_bytes: int = 0) -> Addresses:
        """Drawn places; the stock ones where these do not fit."""
        return _varied_addresses(schedule, march, l2m_bytes, self.rng) or allocate(schedule, march, l2m_bytes=l2m_bytes)


def _cut(extent: int, parts: int, rng: random.Random) -> tuple[Range, ...]:
    """An extent cut into so many ranges at drawn places."""
    bounds = [0, *sorted(rng.sample(range(1, extent), min(parts, extent) - 1)), extent]
    return tuple(pairwise(bounds))


def _parts(extent: int, at_least: int, rng: random.Random) -> int:
    """Into how many ranges an extent is cut: mostly few, now and then as many as there are."""
    least = min(at_least, extent)
    most = min(extent, 64) if rng.random() < 0.1 else min(extent, least + 4)
    return rng.randint(least, max(least, most))


def _varied_plan(graph: UnitGraph, march: March, plan: TilePlan, rng: random.Random) -> TilePlan:
    nodes, spaces = list(plan.nodes), list(plan.spaces)
    # What the stock plan works through depth first keeps that, with rows of its own.
    grouped = {index for group in plan.groups for index in range(group.first, group.last + 1)}
    groups = list(plan.groups)
    for index, node in enumerate(graph.nodes):
        if index in grouped or node.opcode == "HOST_CALL":
            continue
        if rng.random() < 0.7:
            nodes[index] = _varied_node(node, march, nodes[index], rng)
    for storage, space in enumerate(spaces):
        if space == "L1M" and rng.random() < 0.15:
            spaces[storage] = "DDR"
    if plan.cores == 1 and rng.random() < 0.4:
        groups += _new_groups(graph, march, grouped, rng)
    for group in groups:
        nodes[group.first : group.last + 1] = _varied_group(graph, group, len(nodes[group.first].tiles), rng)
        for storage in group.inner:
            spaces[storage] = "TILE"
    groups.sort(key=lambda group: group.first)
    return replace(plan, nodes=tuple(nodes), spaces=tuple(spaces), groups=tuple(groups))


def _varied_node(node: Node, march: March, plan: NodePlan, rng: random.Random) -> NodePlan:
    axis = tile_axis(node)
    tiles: tuple[Range, ...] = plan.tiles
    if axis is not None:
        extent = node.out.shape[axis]
        tiles = _cut(extent, _parts(extent, len(plan.tiles), rng), rng)
    if len(tiles) == 1:
        axis = None
    if node.opcode != "CONV":
        return replace(plan, axis=axis, tiles=tiles)
    chunks, channels = plan.chunks, node.out.shape[3]
    if int(node.params["groups"]) == 1 and rng.random() < 0.5:
        chunks = _cut(channels, rng.randint(len(plan.chunks), len(plan.chunks) + 3), rng)
    pieces = _varied_pieces(node, march, rng) if plan.pieces or rng.random() < 0.3 else ()
    return NodePlan(axis, tiles, chunks, rng.choice(("tiles", "chunks")), rng.random() < 0.5, pieces or plan.pieces)


def _varied_pieces(node: Node, march: March, rng: random.Random) -> tuple[Piece, ...]:
    """Ranges of input channels, and of taps within those that the march takes; none for a convolution done at once."""
    depth = node.constants["weight"].shape[3]
    channels: tuple[Range, ...] = ((0, depth),)
    if int(node.params["groups"]) == 1 and rng.random() < 0.7:
        channels = _cut(depth, rng.randint(1, 3), rng)
    taps = [
        tuple(
            (low + a, low + b)
            for low, high in found
            for a, b in _cut(high - low, rng.randint(1, min(2, high - low)), rng)
        )
        for found in window_taps(node, march)
    ]
    pieces = tuple(Piece(c, y, x) for c in channels for y in taps[0] for x in taps[1])
    return pieces if len(pieces) > 1 else ()


def _new_groups(graph: UnitGraph, march: March, taken: set[int], rng: random.Random) -> list[Group]:
    """Runs of nodes that may be worked through depth first, whether that pays or not."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for view in (*node.reads.values(), *node.writes.values()):
            first.setdefault(view.storage, index)
            last[view.storage] = index
    groups: list[Group] = []
    index = 0
    while index < len(graph.nodes) - 1:
        end = min(index + rng.randint(1, 4), len(graph.nodes) - 1)
        run = range(index, end + 1)
        whole = all(takes_whole_window(graph.nodes[i], march) for i in run)
        inner = inner_storages(graph, index, end, first, last) if whole and not taken & set(run) else None
        if inner and rng.random() < 0.7:
            groups.append(Group(index, end, inner))
            index = end
        index += 1
    return groups


def _varied_group(graph: UnitGraph, group: Group, at_least: int, rng: random.Random) -> list[NodePlan]:
    rows = graph.nodes[group.last].out.shape[_ROWS]
    spans = _cut(rows, _parts(rows, at_least, rng), rng)
    needed = [rows_needed(graph, group.first, group.last, group.inner, span) for span in spans]
    return [
        NodePlan(_ROWS, tuple(need[index] for need in needed), ((0, graph.nodes[index].out.shape[-1]),))
        for index in range(group.first, group.last + 1)
    ]


def _span(region: Region) -> Range:
    """First byte and one past the last byte that a region may touch in its buffer, or a little more."""
    return region.offset, region.offset + sum(
        (n - 1) * s for n, s in zip(region.shape, region.strides, strict=True)
    ) + 8


def _legal_order(tasks: Sequence[Task], jitter: float, rng: random.Random) -> list[int]:
    """Numbers of the tasks in a drawn order in which none overtakes another that it depends on."""
    after: list[list[int]] = [[] for _ in tasks]
    waits = [0] * len(tasks)
    touched: dict[int, list[tuple[int, Range, bool]]] = {}
    for index, task in enumerate(tasks):
        written = task.written
        before: set[int] = set()
        mine = [(region.buffer, _span(region), role in written) for role, region in task.operands.items()]
        for buffer, (low, high), writes in mine:
            for other, (a, b), wrote in touched.get(buffer, ()):
                if (writes or wrote) and a < high and low < b:
                    before.add(other)
        for buffer, span, writes in mine:
            touched.setdefault(buffer, []).append((index, span, writes))
        waits[index] = len(before)
        for other in before:
            after[other].append(index)
    keys = [index - rng.random() * jitter for index in range(len(tasks))]
    ready = [(keys[index], index) for index, count in enumerate(waits) if not count]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, index = heapq.heappop(ready)
        order.append(index)
        for other in after[index]:
            waits[other] -= 1
            if not waits[other]:
                heapq.heappush(ready, (keys[other], other))
    return order


def _fits(tasks: Schedule, march: March) -> bool:
    """Whether every core's L1M has room for what lives in it at one time."""
    lives, align = tasks.lives, march.memory_alignment
    for core in {buffer.core for buffer in tasks.buffers if buffer.space == "L1M"}:
        mine = [i for i, b in enumerate(tasks.buffers) if b.space == "L1M" and b.core == core and i in lives]
        sizes = [_up(tasks.buffers[i].size, align) for i in mine]
        if lower_bound(sizes, [lives[i] for i in mine]) > march.l1m_bytes:
            return False
    return True


def _up(value: int, align: int) -> int:
    return -(-value // align) * align


def _varied_addresses(tasks: Schedule, march: March, l2m_bytes: int, rng: random.Random) -> Addresses | None:
    """Drawn places, or None when they do not fit."""
    align, buffers, lives = march.memory_alignment, tasks.buffers, tasks.lives
    address = [0] * len(buffers)

    def gap() -> int:
        return rng.choice(_GAPS) * align

    at = 0
    constants = 0
    for kinds in (("CONST",), ("DDR",)):
        members = [i for i, b in enumerate(buffers) if b.space in kinds and (b.space == "CONST" or b.kind)]
        for index in rng.sample(members, len(members)):
            address[index] = at = at + gap()
            at += _up(buffers[index].size, align)
        constants = at if kinds == ("CONST",) else constants
    used = {"L1M": 0, "L2M": 0, "DDR": 0}
    bound = 0
    for space, core in sorted({(b.space, b.core) for b in buffers if b.space in used}):
        members = [i for i, b in enumerate(buffers) if (b.space, b.core) == (space, core) and i in lives and not b.kind]
        sizes = [_up(buffers[i].size, align) for i in members]
        ranges = [lives[i] for i in members]
        spaced = [size + gap() for size in sizes]
        places, peak = first_fit(rng.sample(range(len(members)), len(members)), spaced, ranges)
        limit = {"L1M": march.l1m_bytes, "L2M": l2m_bytes, "DDR": peak + 8 * align}[space]
        if peak > limit:
            return None
        start = rng.randint(0, (limit - peak) // align) * align if rng.random() < 0.5 else 0
        for index, where in zip(members, places, strict=True):
            address[index] = where + start + (at if space == "DDR" else 0)
        used[space] = max(used[space], peak + start)
        bound = max(bound, lower_bound(sizes, ranges)) if space == "L1M" else bound
    return Addresses(tuple(address), constants, at + used["DDR"], used["L2M"], used["L1M"], bound)
