"""Depth-first groups: several layers over a few rows at a time, so that what lies between them never leaves L1M.

A group is a run of nodes of which only the last one's result is read by others. Its tiles are ranges of rows of that result;
every other node makes the rows that the nodes behind it need, halo included. Rows of the halo are made again for the next
tile: a group is formed where the traffic that it saves takes longer than that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from backends.nash.isa.records import DTYPES
from backends.nash.lower.graph import Node, TensorView, UnitGraph
from backends.nash.tile.costs import constant_bytes, node_cycles, ranges, tensor_bytes, weight_bytes
from backends.nash.tile.pieces import takes_whole_window
from backends.nash.tile.plan import Group, NodePlan, Range, TilePlan
from backends.nash.tile.regions import input_part, output_part, tile_axis
from hbir.march import March

__all__ = ["Fuser", "inner_storages", "row_bytes", "rows_needed"]

_ROWS = 1
_LONGEST = 12
"""Nodes of a group at most: what a longer one saves, a second group saves nearly as well."""
_FUSED = (
    *("CONV", "MAXPOOL", "AVGPOOL", "ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CLAMP", "RESCALE"),
    *("TABLE8", "TABLE16", "SEGMENTED", "QUANTIZE", "DEQUANTIZE", "COPY"),
)


def row_bytes(view: TensorView) -> int | None:
    """Bytes from one row of an NHWC map of batch 1 to the next; None for a view whose rows do not lie one after the other."""
    if len(view.shape) != 4 or view.shape[0] != 1:
        return None
    row = view.strides[_ROWS]
    inner = (
        sum((n - 1) * s for n, s in zip(view.shape[2:], view.strides[2:], strict=True)) + DTYPES[view.dtype].itemsize
    )
    return row if view.offset + inner <= row else None


def _can_be_fused(node: Node) -> bool:
    if node.opcode not in _FUSED or len(node.writes) != 1 or len(node.out.shape) != 4:
        return False
    return node.opcode not in ("CONV", "MAXPOOL", "AVGPOOL") or tile_axis(node) == _ROWS


def inner_storages(
    graph: UnitGraph, first: int, last: int, begin: Mapping[int, int], end: Mapping[int, int]
) -> frozenset[int] | None:
    """The storages between nodes `first` and `last`, or None if these cannot be a group.

    `begin` and `end` are the first and the last node that touches each storage.
    """
    nodes = graph.nodes[first : last + 1]
    if not all(map(_can_be_fused, nodes)):
        return None
    goal = nodes[-1].out.storage
    inner = {node.out.storage for node in nodes} - {goal}
    span = range(first, last + 1)
    for storage in inner:
        kept = graph.storages[storage]
        if kept.kind != "activation" or kept.pinned or begin[storage] < first or end[storage] > last:
            return None
    rows: dict[int, tuple[int, int]] = {}
    for index, node in zip(span, nodes, strict=True):
        if node.out.storage == goal and index != last:
            return None
        for view in (*node.reads.values(), node.out):
            if view.storage not in inner:
                continue
            row = row_bytes(view)
            # Every view of it sees the same rows, or a range of rows would not mean the same to all of them.
            if row is None or rows.setdefault(view.storage, (row, view.shape[_ROWS])) != (row, view.shape[_ROWS]):
                return None
    return frozenset(inner)


def rows_needed(graph: UnitGraph, first: int, last: int, inner: frozenset[int], tile: Range) -> dict[int, Range]:
    """The rows of each node's result that rows `tile` of the last node's result take."""
    wanted: dict[int, Range] = {}
    found: dict[int, Range] = {}
    for index in range(last, first - 1, -1):
        node = graph.nodes[index]
        found[index] = low, high = tile if index == last else wanted[node.out.storage]
        out = output_part(node, _ROWS, (low, high), None)
        for role, view in node.reads.items():
            if view.storage in inner:
                part, _ = input_part(node, role, view, _ROWS, out)
                begin, end = part.begin[_ROWS], part.begin[_ROWS] + part.extent[_ROWS]
                a, b = wanted.get(view.storage, (begin, end))
                wanted[view.storage] = min(a, begin), max(b, end)
    return found


@dataclass(frozen=True)
class Fuser:
    """Finds groups in a plan: `first` and `last` node that touches each storage, and the `readers` of each."""

    graph: UnitGraph
    march: March
    plan: TilePlan
    first: Mapping[int, int]
    last: Mapping[int, int]
    readers: Mapping[int, set[int]]

    def fused(self) -> TilePlan:
        """The plan with groups, from the first node on the one that gains most."""
        spaces, nodes, groups = list(self.plan.spaces), list(self.plan.nodes), list[Group]()
        index = 0
        while index < len(nodes):
            best = max(self._groups_from(index), key=lambda found: found[0], default=None)
            if best is None:
                index += 1
                continue
            _, group, cuts = best
            groups.append(group)
            for storage in group.inner:
                spaces[storage] = "TILE"
            nodes[group.first : group.last + 1] = cuts
            index = group.last + 1
        return replace(self.plan, spaces=tuple(spaces), nodes=tuple(nodes), groups=tuple(groups))

    def _groups_from(self, first: int) -> Iterator[tuple[float, Group, list[NodePlan]]]:
        """(cycles gained, group, cuts of its nodes) for groups that begin at a node and are worth it."""
        if self._streams(self.graph.nodes[first].out.storage) and takes_whole_window(
            self.graph.nodes[first], self.march
        ):
            for last in range(first + 1, min(first + _LONGEST, len(self.graph.nodes))):
                node = self.graph.nodes[last]
                if not _can_be_fused(node) or not takes_whole_window(node, self.march):
                    return
                inner = inner_storages(self.graph, first, last, self.first, self.last)
                if inner:
                    found = self._cut(Group(first, last, inner))
                    if found is not None and found[0] > 0:
                        yield found

    def _streams(self, storage: int) -> bool:
        return self.plan.spaces[storage] != "L1M" and self.graph.storages[storage].kind == "activation"

    def _cut(self, group: Group) -> tuple[float, Group, list[NodePlan]] | None:
        rows = self.graph.nodes[group.last].out.shape[_ROWS]
        fixed = self._fixed_bytes(group)
        tiles = 1
        while True:
            spans = ranges(rows, tiles)
            size = fixed + self._tile_bytes(group, spans[len(spans) // 2], len(spans) > 1)
            if size <= self.plan.budget:
                break
            if tiles == rows:
                return None
            tiles = min(rows, max(tiles + 1, tiles * 5 // 4))
        needed = [rows_needed(self.graph, group.first, group.last, group.inner, span) for span in spans]
        cuts = [
            NodePlan(_ROWS, tuple(need[index] for need in needed), ((0, self.graph.nodes[index].out.shape[-1]),))
            for index in range(group.first, group.last + 1)
        ]
        return self._gain(group, cuts), group, cuts

    def _fixed_bytes(self, group: Group) -> int:
        """Constants of all nodes, and what else stays in L1M meanwhile."""
        nodes = self.graph.nodes[group.first : group.last + 1]
        size = sum(map(constant_bytes, nodes))
        size += sum(weight_bytes(node, node.out.shape[3]) for node in nodes if node.opcode == "CONV")
        for storage, first in self.first.items():
            stays = self.plan.spaces[storage] == "L1M" and storage not in group.inner
            if stays and first <= group.last and self.last[storage] >= group.first:
                size += -(-self.graph.storages[storage].size // 64) * 64
        return size

    def _tile_bytes(self, group: Group, span: Range, several: bool) -> int:
        """Rows of everything between the nodes, and those of what is streamed in and out, twice for several tiles."""
        rows = rows_needed(self.graph, group.first, group.last, group.inner, span)
        inner, streamed = dict[int, int](), 0
        for index, (low, high) in rows.items():
            node = self.graph.nodes[index]
            out = output_part(node, _ROWS, (low, high), None)
            if node.out.storage in group.inner:
                inner[node.out.storage] = (high - low) * (row_bytes(node.out) or 0) + 64
            elif self.plan.spaces[node.out.storage] != "L1M":
                streamed += tensor_bytes(out.extent, node.out.dtype)
            for role, view in node.reads.items():
                if view.storage not in group.inner and self.plan.spaces[view.storage] != "L1M":
                    streamed += tensor_bytes(input_part(node, role, view, _ROWS, out)[0].extent, view.dtype)
        return sum(inner.values()) + streamed * (2 if several else 1)

    def _gain(self, group: Group, cuts: list[NodePlan]) -> float:
        """Cycles of saved traffic less cycles of repeated work and of more instructions."""
        saved = 0
        for storage in group.inner:
            if self._streams(storage):
                saved += self.graph.storages[storage].size * (1 + len(self.readers[storage]))
        lost = 0.0
        for index, cut in zip(range(group.first, group.last + 1), cuts, strict=True):
            node = self.graph.nodes[index]
            repeated = sum(high - low for low, high in cut.tiles) / node.out.shape[_ROWS] - 1
            lost += repeated * node_cycles(node, self.march)
            lost += max(0, len(cut.tiles) - len(self.plan.nodes[index].tiles)) * self.march.issue_cycles
            for view in node.reads.values():
                if view.storage not in group.inner and self.plan.spaces[view.storage] != "L1M":
                    saved -= int(max(0.0, repeated) * view.size)
        return saved / self.march.ddr_bytes_per_cycle - lost
