"""Windows, sums and resizes of integers."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hbir.dialects import hbir
from hbir.dialects import quantized as q
from hbir.dialects.base import Array, shape_of
from hbir.dialects.quant import quantized_element
from hbir.torch.integers.blocks import in_blocks
from hbir.torch.integers.elementwise import requantise
from hbir.torch.integers.registry import Prepared, builds, unary
from hbir.torch.integers.rescaling import Requantise
from hbir.torch.integers.values import centred, is_float, largest, numpy_dtype, torch_dtype

__all__: list[str] = []

_SINGLE = 1 << 24
"""Integers up to here, and sums that never leave them, are exact in float32."""


def _padded(x: torch.Tensor, pad: Sequence[int], value: float) -> torch.Tensor:
    """NHWC `x` with (top, left, bottom, right) rows and columns of `value`."""
    top, left, bottom, right = pad
    return functional.pad(x, (0, 0, left, right, top, bottom), value=value) if any(pad) else x


def _extent(type_: Any, axes: Sequence[int]) -> int:
    """How many values lie along some axes."""
    shape = shape_of(type_)
    return prod(shape[axis] for axis in axes)


@builds(hbir.MaxPoolOp)
def max_pool(op: hbir.MaxPoolOp, _: Sequence[Array | None], device: torch.device) -> Prepared | None:
    """Largest value of each window of integers: tap after tap. Padding holds the smallest value there is."""
    del device
    if is_float(op.input.type):
        return None
    v = op.values
    (kh, kw), (sh, sw), (top, left, _b, _r) = v["kernel"], v["stride"], v["pad"]
    (height, width), (rows, columns) = (shape_of(type_)[1:3] for type_ in (op.input.type, op.output.type))
    # As far as the last window reaches, which ceil mode lets stand beyond the pads that were asked for.
    down, across = (rows - 1) * sh + kh - height - top, (columns - 1) * sw + kw - width - left
    smallest = int(np.iinfo(numpy_dtype(op.input.type)).min)

    def run(x: torch.Tensor) -> torch.Tensor:
        image = _padded(x, (top, left, max(down, 0), max(across, 0)), smallest)
        best = None
        for y in range(kh):
            for z in range(kw):
                tap = image[:, y : y + (rows - 1) * sh + 1 : sh, z : z + (columns - 1) * sw + 1 : sw]
                best = tap if best is None else torch.maximum(best, tap)
        return image if best is None else best

    return Prepared(run)


def _counted(length: int, count: int, kernel: int, stride: int, before: int) -> Array:
    """How many values, no padding, each window holds along one axis."""
    begin = np.arange(count, dtype=np.int64) * stride - before
    return np.minimum(begin + kernel, length) - np.maximum(begin, 0)


def _reciprocal(count: int) -> tuple[int, int]:
    """TOSA 1.0's multiplier and shift of 1 / count: with 2^(k-1) < count <= 2^k, (2^30 + 1) * 2^k / count and 30 + k."""
    k = (count - 1).bit_length()
    return ((1 << 30) + 1 << k) // count, 30 + k


@builds(q.AvgPoolOp)
def avg_pool(op: q.AvgPoolOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """Sum of the centred values of each window, times the reciprocal of their number."""
    v, element = op.values, quantized_element(op.input.type)
    (kh, kw), (sh, sw), (top, left, _b, _r) = v["kernel"], v["stride"], v["pad"]
    (height, width), (rows, columns) = (shape_of(type_)[1:3] for type_ in (op.input.type, op.output.type))
    counts = np.multiply.outer(_counted(height, rows, kh, sh, top), _counted(width, columns, kw, sw, left))
    if counts.min(initial=1) <= 0:
        raise ValueError("an average pooling window sees only padding")
    scales = np.array([_reciprocal(int(count)) for count in counts.ravel()], np.int64).reshape(rows, columns, 1, 2)
    bound = largest(element) * kh * kw
    if (counts == counts.flat[0]).all():
        scales = scales[0, 0, 0]
    half, zero = 1 << (element.bits - 1), element.zero_point
    last = Requantise(scales[..., 0], scales[..., 1], bound, device, zero_point=zero, low=-half, high=half - 1)
    dtype = torch.float32 if bound <= _SINGLE else torch.float64
    down, across = (rows - 1) * sh + kh - height - top, (columns - 1) * sw + kw - width - left

    def run(x: torch.Tensor) -> torch.Tensor:
        image = _padded(centred(x, element, dtype), (top, left, max(down, 0), max(across, 0)), 0)
        sums = functional.avg_pool2d(image.permute(0, 3, 1, 2), (kh, kw), (sh, sw), divisor_override=1)
        out = torch.empty(op.output.type.get_shape(), dtype=x.dtype, device=device)
        last(out, sums.permute(0, 2, 3, 1)[:, :rows, :columns])
        return out

    return Prepared(run)


@builds(q.ReduceSumOp)
def reduce_sum(op: q.ReduceSumOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """Sum of the centred values over axes, in float64, which holds what int32 does; then a rescale."""
    v, element = op.values, quantized_element(op.input.type)
    axes, keep = tuple(v["axes"]), v["keep"]
    count = _extent(op.input.type, axes)
    last = requantise(op, largest(element) * max(count, 1), device)
    shape, dtype = shape_of(op.output.type), torch_dtype(op.output.type)

    def run(x: torch.Tensor) -> torch.Tensor:
        # No axes mean all of them to torch.
        sums = x.sum(axes, keepdim=keep, dtype=torch.float64) if axes else x.to(torch.float64)
        return in_blocks(last, shape, dtype, sums - element.zero_point * count)

    return Prepared(run)


@builds(hbir.ReduceOp)
def reduce(op: hbir.ReduceOp, _: Sequence[Array | None], device: torch.device) -> Prepared | None:
    """The largest or the smallest of integers; other reductions are no operations on codes."""
    del device
    v = op.values
    if v["kind"] not in ("max", "min") or is_float(op.input.type):
        return None
    axes, keep = tuple(v["axes"]), v["keep"]
    choose = torch.amax if v["kind"] == "max" else torch.amin
    # No axes mean all of them to torch.
    return unary(lambda x: choose(x, axes, keep) if axes else x)


@builds(hbir.ArgmaxOp)
def argmax(op: hbir.ArgmaxOp, _: Sequence[Array | None], device: torch.device) -> Prepared | None:
    """Index of the largest integer, the first of equals: the smallest index among those that hold it."""
    del device
    if is_float(op.input.type):
        return None
    axis, keep = op.values["axis"], op.values["keep"]
    length = _extent(op.input.type, (axis,))

    def run(x: torch.Tensor) -> torch.Tensor:
        places = torch.arange(length, device=x.device).view([-1 if i == axis else 1 for i in range(x.ndim)])
        return torch.where(x == x.amax(axis, keepdim=True), places, length).amin(axis, keepdim=keep)

    return Prepared(run)


def _places(size: int, count: int, numerator: int, denominator: int, offset: int) -> tuple[Array, Array, Array]:
    """The two sources of each result along one axis, held inside, and the weight of the second in 1 / numerator."""
    position = np.arange(count, dtype=np.int64) * denominator + offset
    whole = position // numerator
    return np.clip(whole, 0, size - 1), np.clip(whole + 1, 0, size - 1), position - whole * numerator


@builds(q.ResizeBilinearOp)
def resize_bilinear(op: q.ResizeBilinearOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """TOSA's RESIZE: rows, then columns, each between two sources with whole weights; then a rescale."""
    v, element = op.values, quantized_element(op.input.type)
    (yn, yd, xn, xd), (oy, ox) = v["scale"], v["offset"]
    (height, width), (rows, columns) = (shape_of(type_)[1:3] for type_ in (op.input.type, op.output.type))
    axes = (_places(height, rows, yn, yd, oy), _places(width, columns, xn, xd, ox))
    parts = [[torch.as_tensor(values, device=device) for values in axis] for axis in axes]
    bound = largest(element) * yn * xn
    dtype = torch.float32 if bound <= _SINGLE else torch.float64
    weights = [part[2].to(dtype) for part in parts]
    last, shape, result = requantise(op, bound, device), shape_of(op.output.type), torch_dtype(op.output.type)

    def run(x: torch.Tensor) -> torch.Tensor:
        y = centred(x, element, dtype)
        for axis, unit in ((0, yn), (1, xn)):
            weight = weights[axis].view((-1, 1, 1) if axis == 0 else (-1, 1))
            first, second = (y.index_select(axis + 1, parts[axis][i]) for i in (0, 1))
            y = first * (unit - weight) + second * weight
        return in_blocks(last, shape, result, y)

    return Prepared(run)
