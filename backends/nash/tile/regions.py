"""Which part of its operands a part of a result needs: windows with their halo and padding, broadcasts, whole operands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from backends.nash.lower.graph import Node, TensorView

__all__ = ["Part", "input_part", "output_part", "tile_axis", "window"]

_WINDOWS = ("CONV", "MAXPOOL", "AVGPOOL")
_POINTWISE = (
    *("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "CLAMP", "RESCALE", "TABLE8", "TABLE16", "SEGMENTED"),
    *("QUANTIZE", "DEQUANTIZE", "COPY", "FILL"),
)


@dataclass(frozen=True, slots=True)
class Part:
    """A box of a view: first element and extent along every axis."""

    begin: tuple[int, ...]
    extent: tuple[int, ...]

    def of(self, view: TensorView) -> TensorView:
        """The box as a view."""
        return view.part(self.begin, self.extent)


def _whole(view: TensorView) -> Part:
    return Part((0,) * len(view.shape), view.shape)


def _cut(view: TensorView, axis: int, low: int, high: int) -> Part:
    begin = tuple(low if a == axis else 0 for a in range(len(view.shape)))
    extent = tuple(high - low if a == axis else n for a, n in enumerate(view.shape))
    return Part(begin, extent)


def tile_axis(node: Node) -> int | None:
    """The output axis along which a node may be cut, or None for one that works on whole tensors."""
    shape = node.out.shape
    if node.opcode in _WINDOWS:
        # Rows; a linear layer over many vectors is one row of them.
        axis = 1 if shape[1] > 1 or shape[2] == 1 else 2
        return axis if _every_window_meets_the_map(node, axis) else None
    if node.opcode in _POINTWISE:
        # A table of scales runs along the last axis, and cutting rows short would cost more than it hides.
        longest = max(shape[:-1], default=1)
        return shape.index(longest) if longest > 1 else None
    if node.opcode in ("RESIZE_NEAREST", "RESIZE_BILINEAR"):
        return 3
    if node.opcode == "MATMUL":
        return len(shape) - 2
    if node.opcode == "SOFTMAX":
        return next((axis for axis, n in enumerate(shape) if n > 1 and axis != node.params["axis"]), None)
    if node.opcode.startswith("REDUCE"):
        mask = int(node.params["axes"])
        return next((axis for axis, n in enumerate(shape) if n > 1 and not mask >> axis & 1), None)
    return None


_ALONG = {1: ("h", "pad_top", "pad_bottom"), 2: ("w", "pad_left", "pad_right")}


def _reach(node: Node, axis: int) -> int:
    letter = _ALONG[axis][0]
    return int(node.params.get(f"dilation_{letter}", 1)) * (int(node.params[f"kernel_{letter}"]) - 1) + 1


def _every_window_meets_the_map(node: Node, axis: int) -> bool:
    """Whether no window lies wholly in the padding: a tile of such windows would need nothing of the input at all."""
    _, before, after = _ALONG[axis]
    return max(int(node.params[before]), int(node.params[after])) < _reach(node, axis)


def window(
    node: Node, axis: int, out: tuple[int, int], size: int, taps: tuple[int, int] | None = None
) -> tuple[int, int, Mapping[str, int]]:
    """(first, one past the last) input row or column that a range of the result needs, and the padding that is left.

    `taps` is the range of the window's taps that are asked for (None: all of them). Where they meet no row or column of the
    `size` that there are, the first is not below the last.
    """
    letter, before, after = _ALONG[axis]
    stride, pad = int(node.params[f"stride_{letter}"]), int(node.params[before])
    dilation = int(node.params.get(f"dilation_{letter}", 1))
    begin, end = taps or (0, int(node.params[f"kernel_{letter}"]))
    first = out[0] * stride - pad + begin * dilation
    last = (out[1] - 1) * stride - pad + (end - 1) * dilation + 1
    return max(first, 0), min(last, size), {before: max(-first, 0), after: max(last - size, 0)}


def output_part(node: Node, axis: int | None, tile: tuple[int, int], chunk: tuple[int, int] | None) -> Part:
    """The box of the result that one tile of one chunk makes."""
    part = _whole(node.out) if axis is None else _cut(node.out, axis, *tile)
    if chunk is None:
        return part
    begin, extent = (*part.begin[:-1], chunk[0]), (*part.extent[:-1], chunk[1] - chunk[0])
    return Part(begin, extent)


def input_part(node: Node, role: str, view: TensorView, axis: int | None, out: Part) -> tuple[Part, Mapping[str, int]]:
    """The box of operand `role` that box `out` of the result needs, and the parameters that change with it.

    The output box may also be cut along the last axis (a chunk of channels); only a residual feels that.
    """
    if node.opcode == "CONV" and role == "residual":
        return Part(out.begin, out.extent), {}
    if axis is None:
        return _whole(view), {}
    low, high = out.begin[axis], out.begin[axis] + out.extent[axis]
    if node.opcode in _WINDOWS:
        first, last, padding = window(node, axis, (low, high), view.shape[axis])
        return _cut(view, axis, first, last), padding
    if node.opcode == "MATMUL" and role == "b":
        return _whole(view), {}
    mine = axis - (len(node.out.shape) - len(view.shape))
    if mine < 0 or view.shape[mine] == 1 or role in ("table", "exp_table", "reciprocal_table"):
        return _whole(view), {}
    return _cut(view, mine, low, high), {}
