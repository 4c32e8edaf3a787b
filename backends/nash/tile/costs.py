"""What a node costs: cycles as one instruction, bytes of its constants, and even cuts of an extent."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from backends.nash.isa import View, instruction_cycles
from backends.nash.isa.records import DTYPES, dtype_name
from backends.nash.lower.graph import Node, TensorView
from backends.nash.tile.plan import Piece
from hbir.kernels.packing import packed_size
from hbir.march import March

__all__ = ["constant_bytes", "node_cycles", "ranges", "tensor_bytes", "weight_bytes"]

_BUNDLE = ("weight", "bias", "multiplier", "shift")
"""Constants of a convolution that travel together."""


def _view(view: TensorView) -> View:
    return View("L1M", view.dtype, view.shape, 0, view.strides)


def node_cycles(node: Node, march: March) -> int:
    """Cycles of the whole node as one instruction."""
    operands = {role: _view(view) for role, view in (*node.reads.items(), *node.writes.items())}
    for role, array in node.constants.items():
        operands[role] = View.dense("L1M", dtype_name(array.dtype), array.shape, 0)
    if node.opcode == "COPY" and "src" not in operands:
        operands["src"] = operands["dst"]
    params = {key: int(value) for key, value in node.params.items()}
    return instruction_cycles(march, node.opcode, operands, params)


def weight_bytes(node: Node, channels: int, piece: Piece | None = None) -> int:
    """Bytes in L1M of the weights, biases, multipliers and shifts of so many output channels, of all or a piece of the taps
    and input channels."""
    weight = node.constants["weight"]
    height, width, depth = weight.shape[1:]
    if piece is not None:
        height, width, depth = (high - low for low, high in (piece.rows, piece.columns, piece.channels))
    shape = (channels, height, width, depth)
    packed = packed_size(shape, groups=int(node.params["groups"])) * weight.dtype.itemsize
    return packed + channels * (node.constants["bias"].dtype.itemsize + 5) + 64


def ranges(total: int, parts: int, align: int = 1) -> tuple[tuple[int, int], ...]:
    """`total` cut into at most `parts` nearly equal ranges whose bounds are multiples of `align`."""
    step = -(-ceil(total / parts) // align) * align
    return tuple((low, min(low + step, total)) for low in range(0, total, step))


def tensor_bytes(extent: Sequence[int], dtype: str) -> int:
    """Bytes in L1M of a dense tensor."""
    size = DTYPES[dtype].itemsize
    for n in extent:
        size *= n
    return -(-size // 64) * 64


def constant_bytes(node: Node) -> int:
    """Bytes in L1M of the constants of a node, without what goes with a convolution's weights."""
    return sum(array.nbytes + 64 for role, array in node.constants.items() if role not in _BUNDLE)
