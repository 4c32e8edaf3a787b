"""Pooling, bilinear resize and reductions of the float graph (NHWC)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import TensorType, i64
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import (
    Array,
    HbOperation,
    Run,
    Tensor,
    flag,
    integer,
    integers,
    not_quantized,
    shape_of,
    string,
    tensor,
)
from hbir.dialects.hbir.conv import window_extent

__all__ = ["ArgmaxOp", "AvgPoolOp", "MaxPoolOp", "ReduceOp", "ResizeBilinearOp", "bilinear_weights", "reduced_shape"]


def _pool_shape(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool
) -> tuple[int, ...]:
    n, h, w, c = shape_of(x)
    if (len(kernel), len(stride), len(pad)) != (2, 2, 4):
        raise VerifyException("a pooling window has two extents, two strides and four pads")
    if (
        min(*kernel, *stride) < 1
        or min(pad) < 0
        or max(pad[0], pad[2]) >= kernel[0]
        or max(pad[1], pad[3]) >= kernel[1]
    ):
        raise VerifyException(
            f"window {tuple(kernel)}, stride {tuple(stride)} and pad {tuple(pad)} do not fit together"
        )
    height = window_extent(h, kernel[0], stride[0], pad[0], pad[2], 1, ceil=ceil)
    return n, height, window_extent(w, kernel[1], stride[1], pad[1], pad[3], 1, ceil=ceil), c


@irdl_op_definition
class MaxPoolOp(HbOperation):
    """Largest value of each window; padding is never chosen. Means the same on floats and on quantised elements."""

    name = "hbir.max_pool"

    input = operand_def(TensorType)
    kernel = integers()
    """Extents of the window: (rows, columns)."""
    stride = integers()
    """Steps of the window: (rows, columns)."""
    pad = integers()
    """Padding: (top, left, bottom, right)."""
    ceil = flag()
    """Whether a last window that reaches beyond the padded input counts."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool) -> Tensor:
        return tensor(_pool_shape(x, kernel, stride, pad, ceil), x.element_type)

    @staticmethod
    def evaluate(x: Array, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool) -> Array:
        from hbir.kernels import float_max_pool2d, max_pool2d

        pad = full_pad(x.shape, kernel, stride, pad, ceil)
        pool = float_max_pool2d if np.issubdtype(x.dtype, np.floating) else max_pool2d
        return pool(x, kernel, stride=stride, pad=pad)

    @staticmethod
    def bind(
        x: Array, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool, out: Array
    ) -> Run:
        from hbir.kernels import bind_max_pool2d

        return bind_max_pool2d(x, kernel, stride=stride, pad=full_pad(x.shape, kernel, stride, pad, ceil), out=out)


def full_pad(
    shape: Sequence[int], kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool
) -> tuple[int, int, int, int]:
    """Pads that make every window of a ceil-mode pool lie inside the padded input; (top, left, bottom, right)."""
    top, left, bottom, right = pad
    height = window_extent(shape[1], kernel[0], stride[0], top, bottom, 1, ceil=ceil)
    width = window_extent(shape[2], kernel[1], stride[1], left, right, 1, ceil=ceil)
    bottom = max(bottom, (height - 1) * stride[0] + kernel[0] - shape[1] - top) if ceil else bottom
    right = max(right, (width - 1) * stride[1] + kernel[1] - shape[2] - left) if ceil else right
    return top, left, bottom, right


def _windows(image: Array, kernel: Sequence[int], stride: Sequence[int]) -> Array:
    """The windows of an NHWC image as two more axes at the end; a view."""
    view: Any = np.lib.stride_tricks.sliding_window_view
    return view(image, tuple(kernel), axis=(1, 2))[:, :: stride[0], :: stride[1]]


@irdl_op_definition
class AvgPoolOp(HbOperation):
    """Mean of each window. `count_pad` counts explicit padding (as zeros) in the divisor."""

    name = "hbir.avg_pool"

    input = operand_def(TensorType)
    kernel = integers()
    """Extents of the window: (rows, columns)."""
    stride = integers()
    """Steps of the window: (rows, columns)."""
    pad = integers()
    """Padding: (top, left, bottom, right)."""
    ceil = flag()
    """Whether a last window that reaches beyond the padded input counts."""
    count_pad = flag()
    """Whether explicit padding counts in the divisor, as zeros."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool, count_pad: bool
    ) -> Tensor:
        not_quantized(x)
        return tensor(_pool_shape(x, kernel, stride, pad, ceil), x.element_type)

    @staticmethod
    def evaluate(
        x: Array, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int], ceil: bool, count_pad: bool
    ) -> Array:
        top, left, bottom, right = full_pad(x.shape, kernel, stride, pad, ceil)

        def window_sums(values: Array) -> Array:
            padded = np.pad(values, ((0, 0), (top, bottom), (left, right), (0, 0)))
            return _windows(padded, kernel, stride).sum(axis=(-2, -1), dtype=values.dtype)

        counted = np.ones((1, *x.shape[1:3], 1), x.dtype)
        if count_pad:
            # Explicit padding counts, the overhang of ceil mode does not.
            t, l, b, r = pad
            counted = np.pad(counted, ((0, 0), (t, b), (l, r), (0, 0)), constant_values=1)
            counted = np.pad(counted, ((0, 0), (0, bottom - b), (0, right - r), (0, 0)))
            return window_sums(x) / _windows(counted, kernel, stride).sum(axis=(-2, -1), dtype=x.dtype)
        return window_sums(x) / window_sums(counted)


def reduced_shape(shape: Sequence[int], axes: Sequence[int], keep: bool) -> list[int]:
    """The shape after a reduction over `axes`, which stay as extents of 1 when `keep` is set."""
    if any(not 0 <= axis < len(shape) for axis in axes) or len(set(axes)) != len(axes):
        raise VerifyException(f"axes {tuple(axes)} do not fit rank {len(shape)}")
    return [1 if axis in axes else n for axis, n in enumerate(shape) if keep or axis not in axes]


@irdl_op_definition
class ReduceOp(HbOperation):
    """Sum, mean, max, min or product over axes; `kind` says which."""

    name = "hbir.reduce"

    input = operand_def(TensorType)
    kind = string()
    """`sum`, `mean`, `max`, `min` or `prod`."""
    axes = integers()
    """The axes, counted from 0."""
    keep = flag()
    """Whether reduced axes stay, with extent 1."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, kind: str, axes: Sequence[int], keep: bool) -> Tensor:
        if kind not in ("sum", "mean", "max", "min", "prod"):
            raise VerifyException(f"there is no reduction '{kind}'")
        if kind not in ("max", "min"):
            not_quantized(x)
        return tensor(reduced_shape(shape_of(x), axes, keep), x.element_type)

    @staticmethod
    def evaluate(x: Array, *, kind: str, axes: Sequence[int], keep: bool) -> Array:
        reduce = {"sum": np.sum, "mean": np.mean, "max": np.max, "min": np.min, "prod": np.prod}[kind]
        return np.asarray(reduce(x, axis=tuple(axes), keepdims=keep), x.dtype)


@irdl_op_definition
class ArgmaxOp(HbOperation):
    """Index (i64) of the largest value along `axis`; the first of equals."""

    name = "hbir.argmax"

    input = operand_def(TensorType)
    axis = integer()
    """The axis, counted from 0."""
    keep = flag()
    """Whether reduced axes stay, with extent 1."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, axis: int, keep: bool) -> Tensor:
        return tensor(reduced_shape(shape_of(x), (axis,), keep), i64)

    @staticmethod
    def evaluate(x: Array, *, axis: int, keep: bool) -> Array:
        return np.argmax(x, axis=axis, keepdims=keep).astype(np.int64)


def bilinear_weights(size: int, out: int, scale: float, offset: float) -> tuple[Array, Array, Array]:
    """Lower index, upper index and weight of the upper one for each output position; x = i * scale + offset, clamped."""
    at = np.clip(np.arange(out) * scale + offset, 0, size - 1)
    low = np.floor(at).astype(np.int64)
    return low, np.minimum(low + 1, size - 1), (at - low).astype(np.float32)


@irdl_op_definition
class ResizeBilinearOp(HbOperation):
    """NHWC bilinear resize: source coordinate = index * num/den + off/den per axis, exact rationals, clamped to the image.

    `rows` = (extent, numerator, offset, denominator), `columns` likewise.
    """

    name = "hbir.resize_bilinear"

    input = operand_def(TensorType)
    rows = integers()
    """(extent, numerator, offset, denominator): row y of the result lies at (y * numerator + offset) / denominator."""
    columns = integers()
    """The same for columns."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        n, _, _, c = shape_of(x)
        if (
            len(rows) != 4
            or len(columns) != 4
            or min(rows[0], columns[0], rows[1], columns[1], rows[3], columns[3]) < 1
        ):
            raise VerifyException("rows and columns are (extent, numerator, offset, denominator)")
        not_quantized(x)
        return tensor((n, rows[0], columns[0], c), x.element_type)

    @staticmethod
    def evaluate(x: Array, *, rows: Sequence[int], columns: Sequence[int]) -> Array:
        r0, r1, fr = bilinear_weights(x.shape[1], rows[0], rows[1] / rows[3], rows[2] / rows[3])
        c0, c1, fc = bilinear_weights(x.shape[2], columns[0], columns[1] / columns[3], columns[2] / columns[3])
        fr, fc = fr[:, None, None].astype(x.dtype), fc[None, :, None].astype(x.dtype)
        top = x[:, r0][:, :, c0] * (1 - fc) + x[:, r0][:, :, c1] * fc
        bottom = x[:, r1][:, :, c0] * (1 - fc) + x[:, r1][:, :, c1] * fc
        return top * (1 - fr) + bottom * fr
