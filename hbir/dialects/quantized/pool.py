"""Integer average pooling, sums and bilinear resize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import TensorType
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, Run, Tensor, flag, integer, integers, shape_of, tensor
from hbir.dialects.hbir.conv import window_extent
from hbir.dialects.hbir.pool import reduced_shape
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized.common import (
    QuantizedOperation,
    check_limits,
    check_ratio,
    grid,
    multipliers,
    per_tensor,
    scalar,
    shifts,
)

__all__ = ["AvgPoolOp", "ReduceSumOp", "ResizeBilinearOp"]


@irdl_op_definition
class AvgPoolOp(QuantizedOperation):
    """Mean of the valid elements of each window (TOSA AVG_POOL2D: sum, then the reciprocal's rescale); the type stays."""

    name = "quantized.avg_pool"

    input = operand_def(TensorType)
    kernel = integers()
    """Extents of the window: (rows, columns)."""
    stride = integers()
    """Steps of the window: (rows, columns)."""
    pad = integers()
    """Padding: (top, left, bottom, right)."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, kernel: Sequence[int], stride: Sequence[int], pad: Sequence[int]) -> Tensor:
        n, h, w, c = shape_of(x)
        if (len(kernel), len(stride), len(pad)) != (2, 2, 4) or min(*kernel, *stride) < 1 or min(pad) < 0:
            raise VerifyException("two extents and strides of at least 1, and four pads of at least 0")
        if per_tensor(x, "input").bits > 16 or max(pad[0], pad[2]) >= kernel[0] or max(pad[1], pad[3]) >= kernel[1]:
            raise VerifyException("avg_pool takes int8 or int16, and pads smaller than the window")
        height = window_extent(h, kernel[0], stride[0], pad[0], pad[2], 1)
        return tensor((n, height, window_extent(w, kernel[1], stride[1], pad[1], pad[3], 1), c), x.element_type)

    @staticmethod
    def bind(
        x: Array,
        *,
        kernel: Sequence[int],
        stride: Sequence[int],
        pad: Sequence[int],
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels import bind_avg_pool2d

        zp, low, high = zero_points[0], np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
        return bind_avg_pool2d(x, kernel, stride=stride, pad=pad, zp_in=zp, zp_out=zp, lo=low, hi=high, out=out)


@irdl_op_definition
class ReduceSumOp(QuantizedOperation):
    """Sum of the centred values over `axes`, int32, rescaled to `grid`; `count` (1, or their number for a mean) divides.

    The multiplier is `scale_x / (count * scale_y)`.
    """

    name = "quantized.reduce_sum"

    input = operand_def(TensorType)
    axes = integers()
    """The axes, counted from 0."""
    keep = flag()
    """Whether reduced axes stay, with extent 1."""
    count = integer()
    """What the sum is divided by: 1, or the number of values for a mean."""
    multiplier = multipliers()
    shift = shifts()
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor,
        *,
        axes: Sequence[int],
        keep: bool,
        count: int,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
    ) -> Tensor:
        reduced = int(np.prod([shape_of(x)[axis] for axis in axes], dtype=np.int64))
        if count not in (1, reduced):
            raise VerifyException(f"a reduction of {reduced} values divides by 1 or by {reduced}, not by {count}")
        element = per_tensor(x, "input")
        check_ratio(multiplier, shift, np.float64(element.scale) / (count * np.float64(grid.scale)), "rescale")
        check_limits(low, high, grid)
        return tensor(reduced_shape(shape_of(x), axes, keep), grid)

    @staticmethod
    def bind(
        x: Array,
        *,
        axes: Sequence[int],
        keep: bool,
        count: int,
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels import bind_reduce_sum

        return bind_reduce_sum(
            x,
            axes,
            keepdims=keep,
            zp_in=zero_points[0],
            multiplier=scalar(multiplier),
            shift=scalar(shift),
            zp_out=grid.zero_point,
            lo=low,
            hi=high,
            out=out,
        )


@irdl_op_definition
class ResizeBilinearOp(QuantizedOperation):
    """TOSA RESIZE, bilinear: `scale` = (y numerator, y denominator, x numerator, x denominator), then offset and border.

    The int32 result carries the factor of both numerators, which the rescale to `grid` takes out.
    """

    name = "quantized.resize_bilinear"

    input = operand_def(TensorType)
    scale = integers()
    """(y numerator, y denominator, x numerator, x denominator)."""
    offset = integers()
    """Offsets of the source position: (y, x), in units of 1 / numerator."""
    border = integers()
    """How far the result reaches beyond the last source position: (y, x), in units of 1 / numerator."""
    multiplier = multipliers()
    shift = shifts()
    low = integer()
    """Smallest result, in storage units."""
    high = integer()
    """Largest result, in storage units."""
    grid = grid()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(
        x: Tensor,
        *,
        scale: Sequence[int],
        offset: Sequence[int],
        border: Sequence[int],
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
    ) -> Tensor:
        n, h, w, c = shape_of(x)
        yn, yd, xn, xd = scale
        down, right = (h - 1) * yn - offset[0] + border[0], (w - 1) * xn - offset[1] + border[1]
        rows, columns = down // yd + 1, right // xd + 1
        if min(*scale, rows, columns) < 1:
            raise VerifyException(f"resize by {tuple(scale)} with offset {tuple(offset)} leaves no rows or columns")
        if down % yd or right % xd:
            raise VerifyException(f"resize of {h} x {w} by {tuple(scale)} ends between two rows or columns")
        element = per_tensor(x, "input")
        check_ratio(multiplier, shift, np.float64(element.scale) / (np.float64(grid.scale) * yn * xn), "rescale")
        check_limits(low, high, grid)
        return tensor((n, rows, columns, c), grid)

    @staticmethod
    def bind(
        x: Array,
        *,
        scale: Sequence[int],
        offset: Sequence[int],
        border: Sequence[int],
        multiplier: npt.NDArray[np.int32],
        shift: npt.NDArray[np.int8],
        low: int,
        high: int,
        grid: UniformQuantizedType,
        zero_points: Sequence[int],
        out: Array,
    ) -> Run:
        from hbir.kernels import bind_resize

        return bind_resize(
            x,
            mode="bilinear",
            scale=(scale[0], scale[1], scale[2], scale[3]),
            offset=offset,
            border=border,
            zp_in=zero_points[0],
            multiplier=scalar(multiplier),
            shift=scalar(shift),
            zp_out=grid.zero_point,
            lo=low,
            hi=high,
            out=out,
        )
