"""Replaces padding that no unit has: rows and columns repeated at the edges, and pooling that counts its padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
from xdsl.ir import SSAValue

from hbir.dialects.base import shape_of
from hbir.dialects.hbir import AvgPoolOp, PadOp, ReshapeOp, ResizeNearestOp
from hbir.dialects.hbir.conv import window_extent
from hbir.module import Module
from passes.common.rewriting import blocks, erase_dead, insert_before, replace
from passes.manager import Pass, Promise

__all__ = ["ReplacePadding"]


def _overhang(size: int, kernel: int, stride: int, before: int, after: int, *, ceil: bool) -> int:
    """The padding behind an axis that the windows of a pool reach, which without `ceil` may be less than there is."""
    extent = window_extent(size, kernel, stride, before, after, 1, ceil=ceil)
    return max((extent - 1) * stride + kernel - size - before, 0)


def _pool(op: AvgPoolOp) -> SSAValue | None:
    """The pool without `ceil` and `count_pad`: with the padding that its windows reach, of which none counts. Padding that
    counts, as zeros, comes before it; the overhang of `ceil` never counts."""
    values = op.values
    kernel, stride, pad = values["kernel"], values["stride"], values["pad"]
    counts = values["count_pad"] and any(pad)
    if not counts and not values["ceil"]:
        return None
    x, (top, left, bottom, right) = op.input, pad
    _, height, width, _ = shape_of(x.type)
    down = _overhang(height, kernel[0], stride[0], top, bottom, ceil=values["ceil"])
    across = _overhang(width, kernel[1], stride[1], left, right, ceil=values["ceil"])
    if counts:
        before, after = (0, top, left, 0), (0, min(bottom, down), min(right, across), 0)
        x = insert_before(op, PadOp.make(x, before=before, after=after, mode="constant", value=0.0), [op]).output
        top, left, down, across = 0, 0, max(down - bottom, 0), max(across - right, 0)
    pad = (top, left, down, across)
    made = AvgPoolOp.make(x, kernel=kernel, stride=stride, pad=pad, ceil=False, count_pad=False)
    return insert_before(op, made, [op]).output


def _gathered(size: int, before: int, after: int, mode: str) -> list[int]:
    """The positions along an axis that padding by `mode` gives."""
    return np.pad(np.arange(size), (before, after), mode="edge" if mode == "edge" else "reflect").tolist()


def _gather(op: PadOp) -> SSAValue | None:
    """Edge or reflect padding of at most two axes as a resize that picks rows and columns."""
    values, shape = op.values, shape_of(op.input.type)
    before: Sequence[int] = values["before"]
    after: Sequence[int] = values["after"]
    padded = [axis for axis in range(len(shape)) if before[axis] or after[axis]]
    if values["mode"] == "constant" or not padded or padded[-1] - padded[0] > 1:
        return None
    first, last = padded[0], padded[-1]
    rows = _gathered(shape[first], before[first], after[first], values["mode"])
    columns = [0] if first == last else _gathered(shape[last], before[last], after[last], values["mode"])
    image = (prod(shape[:first]), shape[first], 1 if first == last else shape[last], prod(shape[last + 1 :]))
    x = op.input
    if image != shape:
        x = insert_before(op, ReshapeOp.make(x, shape=image), [op]).output
    y = insert_before(op, ResizeNearestOp.make(x, rows=rows, columns=columns), [op]).output
    wanted = shape_of(op.output.type)
    return y if shape_of(y.type) == wanted else insert_before(op, ReshapeOp.make(y, shape=wanted), [op]).output


@dataclass(frozen=True)
class ReplacePadding(Pass):
    """Edge and reflect padding of at most two neighbouring axes becomes a nearest resize, which picks rows and columns by
    number; an average pool with `ceil` or `count_pad` becomes one with explicit padding that does not count."""

    name: ClassVar[str] = "replace-padding"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                value = _pool(op) if isinstance(op, AvgPoolOp) else _gather(op) if isinstance(op, PadOp) else None
                if value is not None:
                    replace(op, [value])
            erase_dead(block)
