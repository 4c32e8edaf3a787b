"""Dense int8 convolution as a matrix product over packed weights: rows are output positions, read in place tap by tap."""

from __future__ import annotations

import numpy as np
from numba import prange

from hbir.kernels.jit.compile import apply_scale, jit
from hbir.kernels.jit.simd import contiguous, tile_function

__all__ = ["GEOMETRY", "conv_int8"]

# The int64 fields of a geometry record, in order.
GEOMETRY = (
    "tasks", "by_columns", "out_height", "out_width", "cin", "cout", "groups", "kernel_height", "kernel_width",
    "stride_y", "stride_x", "top", "left", "dilation_y", "dilation_x", "in_place",
    "raw", "zp_out", "lo", "hi", "has_residual", "residual_multiplier", "residual_shift", "residual_zp", "out_multiplier", "out_shift",
)  # fmt: skip

_tile_6x4 = tile_function(6, 4)
_tile_8x3 = tile_function(8, 3)
_tile_12x2 = tile_function(12, 2)
_tile_12x1 = tile_function(12, 1)
_tile_1x4 = tile_function(1, 4)
_tile_1x1 = tile_function(1, 1)


@jit()
def _single_row(columns, pointers, taps, quads, weight, stride, out):
    """Sums of one row, for matrix-vector products and for the correction of unsigned activations."""
    column = 0
    while column + 4 <= columns:
        _tile_1x4(pointers, taps, quads, weight + column * stride, stride, out + column * 64)
        column += 4
    while column < columns:
        _tile_1x1(pointers, taps, quads, weight + column * stride, stride, out + column * 64)
        column += 1


@jit()
def _row_block(rows, columns, pointers, taps, quads, weight, stride, out):
    if rows == 1:
        _single_row(columns, pointers, taps, quads, weight, stride, out)
    elif columns == 4:
        _tile_6x4(pointers, taps, quads, weight, stride, out)
    elif columns == 3:
        _tile_8x3(pointers, taps, quads, weight, stride, out)
    elif columns == 2:
        _tile_12x2(pointers, taps, quads, weight, stride, out)
    else:
        _tile_12x1(pointers, taps, quads, weight, stride, out)


@jit()
def _columns_at_once(remaining):
    """Blocks of 16 columns for the next tile: fours, with threes so that no single block is left over."""
    if remaining >= 4 and remaining != 5 and remaining != 6 and remaining != 9:
        return 4
    return min(remaining, 3)


@jit()
def _gather(source, n, origin_y, origin_x, first, cin, kernel_height, kernel_width, dilation_y, dilation_x, pad_value, target):
    """Copy one window of `source` (N, H, W, C) to `target`, in the order of the weight's K."""
    height, width = source.shape[1], source.shape[2]
    at = 0
    for i in range(kernel_height):
        y = origin_y + i * dilation_y
        for j in range(kernel_width):
            x = origin_x + j * dilation_x
            if 0 <= y < height and 0 <= x < width:
                for c in range(cin):
                    target[at + c] = source[n, y, x, first + c]
            else:
                for c in range(cin):
                    target[at + c] = pad_value
            at += cin


@jit()
def _finish_row(sums, correction, bias, multiplier, shift, residual, y, parameters):
    """Requantise one row of accumulators into `y`; all arguments contiguous, channel by channel."""
    raw, zp_out, lo, hi, has_residual, residual_multiplier, residual_shift, residual_zp, out_multiplier, out_shift = parameters
    count = y.size
    if raw:
        for c in range(count):
            y[c] = np.int32(sums[c] + correction[c])
    elif has_residual:
        for c in range(count):
            scaled = apply_scale(np.int64(np.int32(sums[c] + correction[c])), np.int64(multiplier[c]), np.int64(shift[c]))
            other = apply_scale(np.int64(residual[c]) - residual_zp, residual_multiplier, residual_shift)
            total = apply_scale(scaled + other, out_multiplier, out_shift) + zp_out
            y[c] = min(max(total, lo), hi)
    else:
        for c in range(count):
            scaled = apply_scale(np.int64(np.int32(sums[c] + correction[c])), np.int64(multiplier[c]), np.int64(shift[c])) + zp_out
            y[c] = min(max(scaled, lo), hi)


@jit()
def _conv_task(task, x, pad_line, weight, bias, multiplier, shift, residual, y, geometry):
    (
        tasks, by_columns, out_height, out_width, cin, cout, groups, kernel_height, kernel_width,
        stride_y, stride_x, top, left, dilation_y, dilation_x, in_place,
    ) = (
        geometry[0], geometry[1], geometry[2], geometry[3], geometry[4], geometry[5], geometry[6], geometry[7], geometry[8],
        geometry[9], geometry[10], geometry[11], geometry[12], geometry[13], geometry[14], geometry[15],
    )  # fmt: skip
    parameters = (
        geometry[16], geometry[17], geometry[18], geometry[19], geometry[20],
        geometry[21], geometry[22], geometry[23], geometry[24], geometry[25],
    )  # fmt: skip
    height, width = x.shape[1], x.shape[2]
    kernel = kernel_height * kernel_width
    depth = (kernel * cin + 3) // 4  # quads of one packed column
    taps, quads = (kernel, cin // 4) if in_place else (1, depth)
    stride = depth * 64
    group_channels = cout // groups
    blocks = (group_channels + 15) // 16
    rows = x.shape[0] * out_height * out_width
    first_row, last_row, first_block, last_block = 0, rows, 0, blocks
    if by_columns:
        first_block, last_block = blocks * task // tasks, blocks * (task + 1) // tasks
    else:
        first_row, last_row = rows * task // tasks, rows * (task + 1) // tasks

    sums = np.empty(12 * 64, np.int32)
    correction = np.empty(64, np.int32)
    pointers = np.empty(taps * 12, np.int64)
    zero_row = np.zeros(4 * depth, np.int8)
    zero_pointer = np.empty(1, np.int64)
    zero_pointer[0] = zero_row.ctypes.data
    gathered = np.zeros((1 if in_place else 12, 4 * depth), np.int8)
    base = np.empty(12, np.int64)
    origin_y = np.empty(12, np.int64)
    origin_x = np.empty(12, np.int64)
    place_n = np.empty(12, np.int64)
    pad_address = np.int64(pad_line.ctypes.data)

    for group in range(groups):
        input_address = np.int64(x.ctypes.data) + group * cin
        block = first_block
        while block < last_block:
            columns = _columns_at_once(last_block - block)
            tile_rows = 6 if columns == 4 else 8 if columns == 3 else 12
            panel = np.int64(weight.ctypes.data) + (group * blocks + block) * stride
            first = group * group_channels + block * 16
            count = min(16 * columns, (group + 1) * group_channels - first)
            _single_row(columns, np.int64(zero_pointer.ctypes.data), 1, depth, panel, stride, np.int64(correction.ctypes.data))
            for c in range(count):
                correction[c] = bias[first + c] - correction[c]
            if last_row - first_row == 1:
                tile_rows = 1
            row = first_row
            while row < last_row:
                present = min(tile_rows, last_row - row)
                for r in range(tile_rows):
                    position = row + min(r, present - 1)  # missing rows repeat the last one and are not written
                    n = position // (out_height * out_width)
                    oy = position // out_width - n * out_height
                    ox = position - (n * out_height + oy) * out_width
                    place_n[r], origin_y[r], origin_x[r] = n, oy * stride_y - top, ox * stride_x - left
                    base[r] = input_address + n * x.strides[0] + origin_y[r] * x.strides[1] + origin_x[r] * x.strides[2]
                if in_place:
                    for i in range(kernel_height):
                        dy = i * dilation_y
                        for j in range(kernel_width):
                            dx = j * dilation_x
                            move = dy * x.strides[1] + dx * x.strides[2]
                            at = (i * kernel_width + j) * tile_rows
                            for r in range(tile_rows):
                                iy, ix = origin_y[r] + dy, origin_x[r] + dx
                                inside = (iy >= 0) & (iy < height) & (ix >= 0) & (ix < width)
                                pointers[at + r] = base[r] + move if inside else pad_address
                else:
                    for r in range(present):
                        _gather(
                            x, place_n[r], origin_y[r], origin_x[r], group * cin, cin, kernel_height, kernel_width,
                            dilation_y, dilation_x, pad_line[0], gathered[r],
                        )  # fmt: skip
                    for r in range(tile_rows):
                        pointers[r] = np.int64(gathered[r].ctypes.data)
                _row_block(
                    tile_rows, columns, np.int64(pointers.ctypes.data), taps, quads, panel, stride, np.int64(sums.ctypes.data)
                )
                for r in range(present):
                    position = row + r
                    n = place_n[r]
                    oy = position // out_width - n * out_height
                    ox = position - (n * out_height + oy) * out_width
                    _finish_row(
                        sums[r * columns * 16 : r * columns * 16 + count], correction, bias[first : first + count],
                        multiplier[first : first + count], shift[first : first + count],
                        contiguous(residual[n, oy, ox, first : first + count]), contiguous(y[n, oy, ox, first : first + count]),
                        parameters,
                    )  # fmt: skip
                row += present
            block += columns


@jit(parallel=True)
def conv_int8(x, pad_line, weight, bias, multiplier, shift, residual, y, geometry):
    """Convolution of `x` int8 (N, H, W, Cin) into `y` (N, OH, OW, Cout), see `hbir.kernels.conv.conv2d`.

    `pad_line` int8 holds at least Cin bytes of the padding value; `residual` has the shape of `y` (a dummy with zero strides
    when unused); `geometry` holds the fields of GEOMETRY.
    """
    for task in prange(geometry[0]):
        _conv_task(task, x, pad_line, weight, bias, multiplier, shift, residual, y, geometry)
