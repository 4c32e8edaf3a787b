"""Rewrites transposed convolutions, which the tensor engine does not have, as convolutions that it has.

With stride s, a result position y = s * q + p depends on the phase p only through the taps of the kernel that it sees, so one
plain convolution computes all s * s phases of a block q as channels of their own, each with its sub-kernel, padded with zeros
to a common extent; moving phases from channels to positions (depth to space) and a slice give the result. A kernel of the
extent of its stride becomes a 1 x 1 convolution, without a product too many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import Array, HbOperation, shape_of
from hbir.dialects.hbir import ClipOp, Conv2dOp, ConvTranspose2dOp, ReshapeOp, SliceOp, TransposeOp, constant
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, only_user, replace
from passes.manager import Pass, Promise

__all__ = ["ExpandConvTranspose"]


@dataclass(frozen=True)
class _Axis:
    """How one axis is cut into blocks of `stride` positions.

    Block q holds the positions `stride * q + shift` and following of the uncropped result, and reads the inputs q - `last` to
    q - `first`. `blocks` blocks are computed, the first of them block `start`; `crop` positions in front are left out.
    """

    stride: int
    shift: int
    first: int
    last: int
    start: int
    blocks: int
    crop: int

    @property
    def taps(self) -> int:
        """Extent of the sub-kernels."""
        return self.last - self.first + 1

    def kernel_taps(self, kernel: int) -> npt.NDArray[np.int64]:
        """[stride, taps]: the tap of the kernel that each phase has at each place of its sub-kernel; -1 for none."""
        phases, places = np.arange(self.stride)[:, None], np.arange(self.taps)[None, :]
        # Place j reads input q - last + j, as convolutions run; it meets tap y - stride * input of the kernel.
        tap = (self.last - places) * self.stride + phases + self.shift
        return np.where((tap >= 0) & (tap < kernel), tap, -1)

    def window(self, size: int) -> tuple[int, int, int, int]:
        """(first input read, end of the inputs read, padding before them, padding behind them)."""
        low, high = self.start - self.last, self.start + self.blocks - self.first
        return max(low, 0), min(high, size), max(-low, 0), max(high - size, 0)


def _cut(kernel: int, stride: int, before: int, extent: int) -> _Axis:
    """The cut with the least work, of those that differ in where blocks begin; `extent` positions are wanted from `before`."""

    def cut(shift: int) -> _Axis:
        first, last = -((stride - 1 + shift) // stride), (kernel - 1 - shift) // stride
        start, stop = (before - shift) // stride, (before + extent - 1 - shift) // stride
        return _Axis(stride, shift, first, last, start, stop - start + 1, before - shift - start * stride)

    return min(map(cut, range(stride)), key=lambda axis: (axis.taps * axis.blocks, axis.crop))


def _by_phase(channels: Array, groups: int, phases: int) -> Array:
    """Numbers for each output channel, repeated for the channels (group, phase, channel of the group)."""
    parts = channels.reshape(groups, 1, -1)
    return np.broadcast_to(parts, (groups, phases, parts.shape[2])).reshape(-1)


def _sub_kernels(weight: Array, groups: int, rows: _Axis, columns: _Axis) -> Array:
    """[groups * phases * Cout / groups, taps, taps, Cin / groups] from [Cout, KH, KW, Cin / groups]."""
    _, height, width, depth = weight.shape
    # One row and one column of zeros more: index -1, where a phase has no tap.
    padded = np.pad(weight, ((0, 0), (0, 1), (0, 1), (0, 0)))
    taken = padded[:, rows.kernel_taps(height)][:, :, :, columns.kernel_taps(width)]
    parts = taken.reshape(groups, -1, rows.stride, rows.taps, columns.stride, columns.taps, depth)
    return np.ascontiguousarray(parts.transpose(0, 2, 4, 1, 3, 5, 6)).reshape(-1, rows.taps, columns.taps, depth)


def _weight(op: ConvTranspose2dOp, rows: _Axis, columns: _Axis, module: Module) -> SSAValue | None:
    """The weight by phases, on the grid of the old one if it has one; None unless it is constant."""
    fake = op.weight.owner if isinstance(op.weight.owner, FakeQuantOp) else None
    array = constant_of(op.weight if fake is None else fake.input, module.constants)
    if array is None or (fake is not None and fake.grid.per_axis not in (None, 0)):
        return None
    groups, phases = op.values["groups"], rows.stride * columns.stride
    kernels = _sub_kernels(array, groups, rows, columns)
    weight = insert_before(op, constant(kernels, module.constants, f32), [op]).output
    if fake is None:
        return weight
    grid = fake.grid
    if grid.per_axis is not None:
        scales, zeros = (_by_phase(values, groups, phases) for values in (grid.scale_array, grid.zero_point_array))
        grid = UniformQuantizedType.get(grid.bits, scales, zeros, axis=0, narrow=grid.narrow)
    return insert_before(op, FakeQuantOp.make(weight, grid=grid), [fake]).output


def _followers(value: SSAValue) -> list[ClipOp | FakeQuantOp]:
    """The clamps and grids right behind a value: they mean the same before its positions are moved."""
    found: list[ClipOp | FakeQuantOp] = []
    while isinstance(reader := only_user(value), ClipOp | FakeQuantOp):
        if isinstance(reader, FakeQuantOp) and reader.grid.per_axis is not None:
            break
        found.append(reader)
        value = reader.output
    return found


def _to_space(x: SSAValue, groups: int, rows: _Axis, columns: _Axis, anchor: Operation) -> SSAValue:
    """NHWC with channels (group, row phase, column phase, channel) to NHWC with the phases as positions."""

    def put(made: HbOperation) -> SSAValue:
        return insert_before(anchor, made, [anchor]).results[0]

    n, height, width, depth = shape_of(x.type)
    down, across = rows.stride, columns.stride
    if down * across == 1:
        return x
    channels = depth // (down * across)
    if groups > 1:
        split = (n * height, width, groups, down, across, channels // groups)
        x = put(TransposeOp.make(put(ReshapeOp.make(x, shape=split)), permutation=(0, 3, 1, 4, 2, 5)))
    elif down > 1:
        split = (n * height, width, down, across * channels)
        x = put(TransposeOp.make(put(ReshapeOp.make(x, shape=split)), permutation=(0, 2, 1, 3)))
    return put(ReshapeOp.make(x, shape=(n, height * down, width * across, channels)))


def _slice(x: SSAValue, begin: Sequence[int], end: Sequence[int], anchor: Operation) -> SSAValue:
    """Positions `begin` to `end` of an NHWC tensor; the tensor itself when these are all."""
    n, height, width, depth = shape_of(x.type)
    if tuple(begin) == (0, 0) and tuple(end) == (height, width):
        return x
    made = SliceOp.make(x, begin=(0, *begin, 0), end=(n, *end, depth), step=(1, 1, 1, 1))
    return insert_before(anchor, made, [anchor]).output


def _expanded(op: ConvTranspose2dOp, followers: Sequence[ClipOp | FakeQuantOp], module: Module) -> SSAValue | None:
    """What stands for `op` and the operations behind it; None when its parameters are not constant."""
    values, (_, height, width, _), weight = op.values, shape_of(op.input.type), shape_of(op.weight.type)
    _, out_height, out_width, _ = shape_of(op.output.type)
    rows = _cut(weight[1], values["stride"][0], values["pad"][0], out_height)
    columns = _cut(weight[2], values["stride"][1], values["pad"][1], out_width)
    top, bottom, pad_top, pad_bottom = rows.window(height)
    left, right, pad_left, pad_right = columns.window(width)
    bias = None if op.bias is None else constant_of(op.bias, module.constants)
    if (op.bias is not None and bias is None) or top >= bottom or left >= right:
        return None
    kernels = _weight(op, rows, columns, module)
    if kernels is None:
        return None
    new_bias = None
    if bias is not None:
        repeated = _by_phase(bias, values["groups"], rows.stride * columns.stride)
        new_bias = insert_before(op, constant(repeated, module.constants, f32), [op]).output
    geometry: dict[str, Any] = {"stride": (1, 1), "dilation": (1, 1), "groups": values["groups"]}
    geometry["pad"] = (pad_top, pad_left, pad_bottom, pad_right)
    x = _slice(op.input, (top, left), (bottom, right), op)
    y = insert_before(op, Conv2dOp.make(x, kernels, new_bias, None, **geometry, min=None, max=None), [op]).output
    for follower in followers:
        y = insert_before(op, type(follower).make(y, **follower.values), [follower]).output
    y = _to_space(y, values["groups"], rows, columns, op)
    return _slice(y, (rows.crop, columns.crop), (rows.crop + out_height, columns.crop + out_width), op)


@dataclass(frozen=True)
class ExpandConvTranspose(Pass):
    """Transposed convolutions become convolution, depth to space and slice: the same products in another order of summing.

    A clamp and a grid behind it come in front of depth to space, where they join the convolution. One whose weight or bias
    is not constant stays.
    """

    name: ClassVar[str] = "expand-conv-transpose"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if isinstance(op, ConvTranspose2dOp):
                    followers = _followers(op.output)
                    value = _expanded(op, followers, module)
                    if value is not None:
                        replace(followers[-1] if followers else op, [value])
            erase_dead(block)
