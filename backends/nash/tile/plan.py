"""What tiling decides, as plain data: the border between the tiler and the scheduler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Group", "NodePlan", "Piece", "Range", "TilePlan"]

Range = tuple[int, int]
"""First index, and the one behind the last."""


@dataclass(frozen=True, slots=True)
class Piece:
    """What one instruction of a convolution sums over: ranges of the input channels, and of the rows and columns of taps."""

    channels: Range
    rows: Range
    columns: Range


@dataclass(frozen=True, slots=True)
class NodePlan:
    """How one node is cut.

    `tiles` are ranges along output axis `axis` (None: the whole result at once); `chunks` are ranges of output channels,
    each with its own piece of the weights. With `keep_weights` every piece stays in L1M for all tiles; without it the
    `outer` loop says whether tiles reload weights or chunks reload inputs. Tile (or chunk, when chunks are outer) i runs on
    core i modulo the number of cores.
    """

    axis: int | None
    tiles: tuple[Range, ...]
    chunks: tuple[Range, ...]
    outer: Literal["tiles", "chunks"] = "tiles"
    keep_weights: bool = True
    pieces: tuple[Piece, ...] = ()
    """Pieces of a convolution, each accumulated onto the partial sums of those before; empty: all at once."""


@dataclass(frozen=True, slots=True)
class Group:
    """Nodes `first` to `last`, worked through depth first: tile i of each before tile i + 1 of any. Tiles are rows, and
    overlap where a later node reads a halo; `inner` are the storages between the nodes."""

    first: int
    last: int
    inner: frozenset[int]


@dataclass(frozen=True)
class TilePlan:
    """The memory of every storage (`L1M`, `L2M`, `DDR`, or `TILE` for one that exists in L1M a tile at a time), and the cut
    of every node, by their numbers in the graph."""

    spaces: tuple[str, ...]
    nodes: tuple[NodePlan, ...]
    cores: int
    budget: int
    groups: tuple[Group, ...] = ()

    def __str__(self) -> str:
        lines = [f"tile plan: {self.cores} core(s), {self.budget} bytes of L1M each"]
        lines += [f"  s{index}: {space}" for index, space in enumerate(self.spaces)]
        for index, node in enumerate(self.nodes):
            cut = f"{len(node.tiles)} tile(s) along axis {node.axis}" if node.axis is not None else "whole"
            channels, taps = {p.channels for p in node.pieces}, {(p.rows, p.columns) for p in node.pieces}
            pieces = f", {len(channels)} pieces of input channels" if len(channels) > 1 else ""
            pieces += f", {len(taps)} pieces of the window" if len(taps) > 1 else ""
            lines.append(f"  {index}: {cut}, {len(node.chunks)} chunk(s), {node.outer} outer{pieces}")
        lines += [f"  depth first: nodes {group.first} to {group.last}" for group in self.groups]
        return "\n".join(lines) + "\n"
