"""Decides which tensors stay in L1M from producer to last reader, and how the others are streamed through it.

Greedy, by need: a tensor that would cost the most traffic per byte and step of its life stays first. What cannot stay lies in
L2M where the march has it, or in DDR, and its readers and writers stream it in tiles small enough for two to fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from backends.nash.lower.graph import Node, UnitGraph
from backends.nash.tile.costs import constant_bytes, node_cycles, ranges, tensor_bytes, weight_bytes
from backends.nash.tile.fusion import Fuser
from backends.nash.tile.pieces import pieces_of
from backends.nash.tile.plan import NodePlan, Piece, TilePlan
from backends.nash.tile.regions import input_part, output_part, tile_axis
from hbir.errors import BackendError
from hbir.march import March

__all__ = ["TileOptions", "tile"]

_PACK = 16
"""Output channels come in groups of this many in the packed weight layout."""


@dataclass(frozen=True, slots=True)
class TileOptions:
    """`budget`: share of L1M to plan with. `pipeline`: most tiles into which a node is cut only to overlap with its
    neighbours on other units. `smallest`: cycles below which such a tile is not worth its issue cost. `fuse`: whether
    layers may be worked through depth first, where that saves more traffic than it costs work."""

    budget: float = 0.94
    pipeline: int = 4
    smallest: int = 1500
    l2m_bytes: int = 0
    cores: int = 1
    fuse: bool = False


@dataclass(frozen=True, slots=True)
class _Need:
    """`size` bytes of L1M that a node takes beside resident tensors, cut into so many `tiles` and into `pieces`."""

    size: int
    tiles: int
    pieces: tuple[Piece, ...]


@dataclass
class _Planner:
    graph: UnitGraph
    march: March
    options: TileOptions

    def __post_init__(self) -> None:
        self.capacity = int(self.march.l1m_bytes * self.options.budget) // 64 * 64
        self.first: dict[int, int] = {}
        self.last: dict[int, int] = {}
        self.readers: dict[int, set[int]] = {}
        for index, node in enumerate(self.graph.nodes):
            for view in (*node.reads.values(), *node.writes.values()):
                self.first.setdefault(view.storage, index)
                self.last[view.storage] = index
            for view in node.reads.values():
                self.readers.setdefault(view.storage, set()).add(index)

    def chunk_counts(self) -> list[int]:
        """For each node the number of weight pieces: small enough that two take a quarter of L1M, if channels allow."""
        counts: list[int] = []
        for node in self.graph.nodes:
            if node.opcode != "CONV":
                counts.append(1)
                continue
            channels = node.out.shape[3]
            groups = int(node.params["groups"])
            total = weight_bytes(node, channels)
            splits = groups == 1
            limit = max(1, channels // self.march.tae_output_channels) if splits else 1
            wanted = ceil(total / max(self.capacity // 8, 1))
            if splits and self.options.pipeline > 1 and total > 128 * 1024:
                wanted = max(wanted, min(self.options.pipeline, 4))
            if wanted > limit and weight_bytes(node, ceil(channels / limit)) * 2 > self.capacity:
                limit = max(limit, ceil(channels / _PACK)) if splits else 1
            counts.append(max(1, min(wanted, limit)))
        return counts

    def needed(self, index: int, chunks: int, streamed: set[int]) -> _Need:
        """What node `index` needs. Input channels are cut last, since partial sums have to be written and read again."""
        node = self.graph.nodes[index]
        found = self._need(node, chunks, 1, streamed)
        depth, most = 2, self._most_pieces(node)
        while found.size > self.capacity and depth <= most:
            found = min(found, self._need(node, chunks, depth, streamed), key=lambda need: need.size)
            depth *= 2
        return found

    def _most_pieces(self, node: Node) -> int:
        if node.opcode != "CONV" or int(node.params["groups"]) > 1:
            return 1
        return max(1, node.reads["x"].shape[3] // self.march.tae_input_channels)

    def _keeps_pieces(self, node: Node, pieces: tuple[Piece, ...]) -> bool:
        """Whether the weights of all pieces stay in L1M for all tiles: pieces of the window only, and small."""
        return len({piece.channels for piece in pieces}) == 1 and self._all_pieces(node, pieces) <= self.capacity // 4

    def _all_pieces(self, node: Node, pieces: tuple[Piece, ...]) -> int:
        return sum(weight_bytes(node, node.out.shape[3], piece) for piece in pieces)

    def _need(self, node: Node, chunks: int, depth: int, streamed: set[int]) -> _Need:
        fixed = constant_bytes(node)
        pieces = pieces_of(node, self.march, depth)
        if node.opcode == "CONV":
            channels = ceil(node.out.shape[3] / chunks)
            if pieces and self._keeps_pieces(node, pieces):
                fixed += self._all_pieces(node, pieces)
            elif pieces:
                fixed += max(weight_bytes(node, channels, piece) for piece in pieces) * 2
            else:
                fixed += weight_bytes(node, channels) * min(2, chunks)
        views = [v for v in (*node.reads.values(), *node.writes.values()) if v.storage in streamed]
        if not (views or pieces) or node.opcode == "HOST_CALL":
            return _Need(fixed, 1, pieces)
        axis = tile_axis(node)
        extent = 1 if axis is None else node.out.shape[axis]
        room = max(self.capacity - fixed, self.capacity // 8)
        if self.options.cores > 1:
            room = min(room, self.capacity // 2)
        else:
            room = min(room, max(self.capacity // 3, 1))
        tiles = 1
        while True:
            size = self._stream_bytes(node, axis, tiles, chunks, pieces, streamed)
            if size <= room or tiles >= extent:
                return _Need(fixed + size, tiles, pieces)
            tiles = min(extent, max(tiles + 1, ceil(tiles * size / max(room, 1))))

    def _stream_bytes(
        self,
        node: Node,
        axis: int | None,
        tiles: int,
        chunks: int,
        pieces: tuple[Piece, ...],
        streamed: set[int],
    ) -> int:
        """Two tiles' worth of every operand that does not stay in L1M (one when there is one tile), and of partial sums."""
        spans = ranges(1 if axis is None else node.out.shape[axis], tiles)
        middle = spans[len(spans) // 2]
        out = output_part(node, axis, middle, None)
        size = 0
        for role, view in node.reads.items():
            if view.storage in streamed:
                extent = input_part(node, role, view, axis, out)[0].extent
                if pieces and role == "x":
                    extent = (*extent[:-1], self._channels(node, pieces))
                size += tensor_bytes(extent, view.dtype)
        for view in node.writes.values():
            if view.storage in streamed:
                size += tensor_bytes(out.extent, view.dtype)
        if pieces:
            sums = (*out.extent[:-1], ceil(out.extent[-1] / chunks))
            size += tensor_bytes(sums, "i32" if node.reads["x"].dtype == "i8" else "i64")
        return size * (2 if len(spans) > 1 or pieces else 1)

    @staticmethod
    def _channels(node: Node, pieces: tuple[Piece, ...]) -> int:
        """Channels of `x` that the widest piece reads."""
        if len({piece.channels for piece in pieces}) == 1:
            return node.reads["x"].shape[3]
        return max(high - low for low, high in (piece.channels for piece in pieces))

    def residency(self, chunks: Sequence[int]) -> tuple[list[str], list[_Need]]:
        """The memory of every storage, and what every node needs. Raises BackendError HB0521."""
        storages, nodes = self.graph.storages, self.graph.nodes
        streamed = {i for i, s in enumerate(storages) if s.kind != "activation" or s.pinned}
        if self.options.cores > 1:
            streamed = set(range(len(storages)))
        while True:
            usage = [self.needed(i, chunks[i], streamed) for i in range(len(nodes))]
            used = [need.size for need in usage]
            worst = max(range(len(nodes)), key=lambda i: used[i], default=-1)
            if worst >= 0 and used[worst] > self.capacity:
                raise BackendError(
                    21,
                    f"the smallest tile needs {used[worst]:,} bytes of L1M, there are {self.capacity:,}",
                    where=f"layer '{nodes[worst].layer}'",
                    why=f"{nodes[worst].opcode} on {list(nodes[worst].out.shape)} cannot be cut further",
                    lever="a march with more L1M, or a smaller tensor in this layer",
                )
            rejected = self._fill(used, streamed)
            if not rejected:
                break
            streamed |= rejected
        spaces = [self._space(i, streamed) for i in range(len(storages))]
        return self._share_l2m(spaces, streamed), usage

    def _fill(self, used: list[int], streamed: set[int]) -> set[int]:
        """Place tensors in L1M, most valuable first; those that do not fit."""
        candidates = [i for i in self.first if i not in streamed]

        def worth(index: int) -> tuple[float, int]:
            life = self.last[index] - self.first[index] + 1
            return (1 + len(self.readers.get(index, ()))) / life, -self.graph.storages[index].size

        load = list(used)
        rejected: set[int] = set()
        for index in sorted(candidates, key=lambda i: (*worth(i), -i), reverse=True):
            size = -(-self.graph.storages[index].size // 64) * 64
            span = range(self.first[index], self.last[index] + 1)
            if all(load[t] + size <= self.capacity for t in span):
                for t in span:
                    load[t] += size
            else:
                rejected.add(index)
        return rejected

    def _space(self, index: int, streamed: set[int]) -> str:
        return "DDR" if index in streamed else "L1M"

    def _share_l2m(self, spaces: list[str], streamed: set[int]) -> list[str]:
        """Move streamed activations to L2M while they fit together with those that live at the same time."""
        room = self.options.l2m_bytes
        load = [0] * len(self.graph.nodes)
        for index in sorted(streamed & set(self.first), key=lambda i: (self.last[i] - self.first[i], i)):
            storage = self.graph.storages[index]
            span = range(self.first[index], self.last[index] + 1)
            size = -(-storage.size // 64) * 64
            if storage.kind == "activation" and not storage.pinned and all(load[t] + size <= room for t in span):
                spaces[index] = "L2M"
                for t in span:
                    load[t] += size
        return spaces

    def neighbours_differ(self, index: int) -> bool:
        """Whether a producer or reader of the node's tensors runs on another unit."""
        node = self.graph.nodes[index]
        touched = {v.storage for v in (*node.reads.values(), *node.writes.values())}
        near = range(max(0, index - 2), min(len(self.graph.nodes), index + 3))
        return any(
            self.graph.nodes[i].unit != node.unit
            and touched
            & {v.storage for v in (*self.graph.nodes[i].reads.values(), *self.graph.nodes[i].writes.values())}
            for i in near
        )

    def plan(self) -> TilePlan:
        """The plan."""
        chunks = self.chunk_counts()
        spaces, needs = self.residency(chunks)
        plans = [self._node_plan(i, chunks[i], needs[i], spaces) for i in range(len(self.graph.nodes))]
        plan = TilePlan(tuple(spaces), tuple(plans), self.options.cores, self.capacity)
        if not self.options.fuse or self.options.cores > 1:
            return plan
        return Fuser(self.graph, self.march, plan, self.first, self.last, self.readers).fused()

    def _node_plan(self, index: int, chunks: int, need: _Need, spaces: Sequence[str]) -> NodePlan:
        node, tiles = self.graph.nodes[index], need.tiles
        axis = tile_axis(node)
        extent = 1 if axis is None else node.out.shape[axis]
        cores = self.options.cores
        outer = "tiles"
        keep = bool(need.pieces) and self._keeps_pieces(node, need.pieces)
        # Pieces that do not stay pass through L1M for every tile again: tiles that only overlap would not pay for that.
        pipelines = self.options.pipeline > 1 and not (need.pieces and tiles == 1 and not keep)
        if node.opcode != "HOST_CALL" and pipelines and self.neighbours_differ(index):
            worthwhile = node_cycles(node, self.march) // max(self.options.smallest, 1)
            tiles = max(tiles, min(self.options.pipeline, worthwhile, extent))
        if cores > 1 and node.opcode != "HOST_CALL":
            heavy = node.opcode == "CONV" and weight_bytes(node, node.out.shape[3]) > node.reads["x"].size
            if heavy and int(node.params["groups"]) == 1 and node.out.shape[3] >= cores * _PACK:
                chunks, outer = max(chunks, cores), "chunks"
            else:
                tiles = min(extent, -(-max(tiles, cores) // cores) * cores)
        channels = node.out.shape[-1] if node.out.shape else 1
        align = (
            self.march.tae_output_channels if channels // max(chunks, 1) >= self.march.tae_output_channels else _PACK
        )
        cuts = ranges(channels, chunks, align) if chunks > 1 else ((0, channels),)
        spans = ranges(extent, tiles)
        if need.pieces:
            return NodePlan(axis if len(spans) > 1 else None, spans, cuts, outer, keep, need.pieces)
        if node.opcode == "CONV" and len(spans) > 1 and len(cuts) > 1 and outer == "tiles":
            return self._loop_order(node, axis, spans, cuts, streamed=spaces[node.reads["x"].storage] != "L1M")
        return NodePlan(axis if len(spans) > 1 else None, spans, cuts, outer, outer == "tiles" or len(spans) == 1)

    def _passes_weights(self, node: Node) -> bool:
        """Whether a node's weights are too many to stay in L1M: with several tiles, they would be loaded for each again."""
        return node.opcode == "CONV" and weight_bytes(node, node.out.shape[3]) > self.capacity // 2

    def _loop_order(
        self,
        node: Node,
        axis: int | None,
        spans: tuple[tuple[int, int], ...],
        cuts: tuple[tuple[int, int], ...],
        *,
        streamed: bool,
    ) -> NodePlan:
        """Keep all weights when they take less than half of L1M; otherwise reload what is smaller in total."""
        if not self._passes_weights(node) and self.options.cores == 1:
            return NodePlan(axis, spans, cuts, "tiles", True)
        reload_weights = weight_bytes(node, node.out.shape[3]) * (len(spans) - 1)
        reload_inputs = node.reads["x"].size * (len(cuts) - 1) if streamed else 0
        return NodePlan(axis, spans, cuts, "tiles" if reload_weights <= reload_inputs else "chunks", False)


def tile(graph: UnitGraph, march: March, options: TileOptions | None = None) -> TilePlan:
    """Plan tiles and residency. Raises BackendError HB0521 for a layer whose smallest tile does not fit L1M."""
    return _Planner(graph, march, options or TileOptions()).plan()
