"""What a convolution's load of constants holds: packed weights, biases, multipliers and shifts of some output channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from backends.nash.isa.records import dtype_name
from backends.nash.lower.graph import Node
from backends.nash.tile.pieces import Share
from backends.nash.tile.plan import Piece, Range
from hbir.kernels.packing import pack_weight

__all__ = ["Layout", "bundle"]

Layout = dict[str, tuple[int, str, int]]
"""(offset, dtype, elements) of each operand in a bundle."""


def bundle(node: Node, channels: Range, share: Share | None = None) -> tuple[bytes, Layout]:
    """The constant bytes of a range of output channels, and where each operand lies in them.

    With a `share`, those of its piece: the bias goes with the first one, multipliers and shifts with the last. Pieces that
    the tile leaves out read nothing but padding: their sums are known, and added to the bias.
    """
    low, high = channels
    weight = node.constants["weight"]
    groups = int(node.params["groups"])
    whole = Piece((0, weight.shape[3]), (0, weight.shape[1]), (0, weight.shape[2]))
    piece = whole if share is None else share.piece
    if groups > 1 and ((low, high) != (0, len(weight)) or piece.channels != whole.channels):
        raise ValueError("a grouped convolution is not cut along its channels")
    kept = weight[low:high]
    arrays = {"weight": pack_weight(_taps(kept, piece), groups=groups)}
    roles = ("bias",) * (share is None or share.first) + ("multiplier", "shift") * (share is None or share.last)
    arrays |= {role: node.constants[role][low:high] for role in roles if role in node.constants}
    if share is not None and share.skipped:
        bias = arrays["bias"]
        unseen = sum(_taps(kept, other).sum(axis=(1, 2, 3), dtype=np.int64) for other in share.skipped)
        # Wraps as the sums do: only the last one has to fit, and that is proven.
        arrays["bias"] = (bias.astype(np.int64) + int(node.params["pad_value"]) * unseen).astype(bias.dtype)
    content, layout = bytearray(), Layout()
    for role, array in arrays.items():
        content += b"\0" * (-len(content) % array.dtype.itemsize)
        layout[role] = (len(content), dtype_name(array.dtype), array.size)
        content += np.ascontiguousarray(array).tobytes()
    return bytes(content), layout


def _taps(weight: npt.NDArray[Any], piece: Piece) -> npt.NDArray[Any]:
    """The part of a weight (Cout, KH, KW, Cin) that belongs to a piece."""
    rows, columns, channels = (slice(*span) for span in (piece.rows, piece.columns, piece.channels))
    return np.ascontiguousarray(weight[:, rows, columns, channels])
