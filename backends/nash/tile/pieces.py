"""Pieces of a convolution that accumulate: ranges of its input channels and of the taps of its window.

Channels are cut where L1M is too small for all of them. Taps are cut where the march's tensor engine does not take the
window: a kernel too long for it into shorter ones, and one whose taps lie too far apart into single taps. A piece reads the
map where its taps meet it; one whose taps see nothing but padding adds the same to every sum, which goes into the bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.nash.lower.graph import Node
from backends.nash.lower.limits import tap_ranges
from backends.nash.tile.costs import ranges
from backends.nash.tile.plan import Piece, Range
from backends.nash.tile.regions import Part, window
from hbir.march import March

__all__ = ["Share", "pieces_of", "shares", "takes_whole_window", "window_taps"]

_ROWS, _COLUMNS = 1, 2


def window_taps(node: Node, march: March) -> tuple[tuple[Range, ...], tuple[Range, ...]]:
    """Ranges of a convolution's rows and columns of taps that the march takes; one each when it takes the whole window."""
    p = node.params
    rows = tap_ranges(int(p["kernel_h"]), int(p["dilation_h"]), march)
    return rows, tap_ranges(int(p["kernel_w"]), int(p["dilation_w"]), march)


def takes_whole_window(node: Node, march: March) -> bool:
    """Whether one instruction can have the whole window of a node, as it can of every node but some convolutions."""
    return node.opcode != "CONV" or all(len(taps) == 1 for taps in window_taps(node, march))


def pieces_of(node: Node, march: March, depth: int = 1) -> tuple[Piece, ...]:
    """The pieces of a convolution with its input channels cut into `depth`; none when it is done at once.

    Pieces of the same channels follow each other, so that these need to be loaded once.
    """
    if node.opcode != "CONV" or (depth == 1 and takes_whole_window(node, march)):
        return ()
    channels = node.constants["weight"].shape[3]
    cut = ranges(channels, depth, march.tae_input_channels) if depth > 1 else ((0, channels),)
    rows, columns = window_taps(node, march)
    return tuple(Piece(c, y, x) for c in cut for y in rows for x in columns)


@dataclass(frozen=True, slots=True)
class Share:
    """A piece's part in one tile: the box of `x` that it reads (of all channels) and the parameters that change with it.

    `first` and `last` of the tile; the first one brings the bias, into which goes what the `skipped` pieces would add.
    """

    piece: Piece
    box: Part
    params: Mapping[str, int]
    first: bool
    last: bool
    skipped: tuple[Piece, ...] = ()


def shares(node: Node, pieces: tuple[Piece, ...], out: Part) -> tuple[Share, ...]:
    """What each piece does for box `out` of the result; pieces whose taps read padding only are left out."""
    met: list[tuple[Piece, Part, Mapping[str, int]]] = []
    skipped: list[Piece] = []
    for piece in pieces:
        found = _box(node, piece, out)
        if found is None:
            skipped.append(piece)
        else:
            met.append((piece, *found))
    return tuple(
        Share(piece, box, params, at == 0, at == len(met) - 1, tuple(skipped) if at == 0 else ())
        for at, (piece, box, params) in enumerate(met)
    )


def _box(node: Node, piece: Piece, out: Part) -> tuple[Part, Mapping[str, int]] | None:
    shape = node.reads["x"].shape
    begin, extent = [0] * 4, list(shape)
    params: dict[str, int] = {}
    for axis, letter, taps in ((_ROWS, "h", piece.rows), (_COLUMNS, "w", piece.columns)):
        low, high = out.begin[axis], out.begin[axis] + out.extent[axis]
        first, last, padding = window(node, axis, (low, high), shape[axis], taps)
        if first >= last:
            return None
        begin[axis], extent[axis] = first, last - first
        count = taps[1] - taps[0]
        params |= {**padding, f"kernel_{letter}": count}
        if count == 1:
            params[f"dilation_{letter}"] = 1
    return Part(tuple(begin), tuple(extent)), params
