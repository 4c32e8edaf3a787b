# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Convolution with int16 activations (int8 or int16 weights), dense or depthwise, accumulated in int64."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import apply_scale, inner, task
from hbir.kernels.jit.dense import CONV
from hbir.kernels.jit.simd import pointer_int8, pointer_int16, pointer_int32, pointer_int64

__all__ = ["wide_task"]


@inner
def _load(address, size):
    if size == 1:
        return np.int64(pointer_int8(address)[0])
    if size == 2:
        return np.int64(pointer_int16(address)[0])
    return np.int64(pointer_int32(address)[0])


@inner
def _store(address, size, value):
    if size == 1:
        pointer_int8(address)[0] = value
    elif size == 2:
        pointer_int16(address)[0] = value
    elif size == 4:
        pointer_int32(address)[0] = value
    else:
        pointer_int64(address)[0] = value


@inner
def _dense_run(x, count, weight, size, at, sums):
    """Add `count` input channels to 16 sums; K element `at` of the packed panel meets the first of them."""
    narrow, wide = pointer_int8(weight), pointer_int16(weight)
    for k in range(count):
        quad = (at + k) // 4 * 64 + (at + k) % 4
        value = np.int64(x[k])
        if size == 1:
            for lane in range(16):
                sums[lane] += value * narrow[quad + 4 * lane]
        else:
            for lane in range(16):
                sums[lane] += value * wide[quad + 4 * lane]


@inner
def _finish(c, first, count, sums, target, other):
    bias, multiplier = pointer_int64(c.bias), pointer_int32(c.multiplier)
    shift = pointer_int8(c.shift)
    mode = c.kind // 16
    for k in range(count):
        value = sums[k] + bias[first + k]
        if mode != 2:
            value = apply_scale(value, np.int64(multiplier[first + k]), np.int64(shift[first + k]))
            if mode == 1:
                added = _load(other + k * c.residual_c, c.residual_c) - c.residual_zp
                added = apply_scale(added, c.residual_multiplier, c.residual_shift)
                value = apply_scale(value + added, c.out_multiplier, c.out_shift)
            value = min(max(value + c.zp_out, c.lo), c.hi)
        _store(target + k * c.y_c, c.y_c, value)


@task(CONV)
def wide_task(index, record):
    c = carray(record, 1)[0]
    depthwise = c.groups > 1 and c.cin == 1
    size = c.row_block  # bytes of a weight; this task calls no tiles
    taps = c.kernel_height * c.kernel_width
    group_channels = c.cout if depthwise else c.cout // c.groups
    blocks = (group_channels + 15) // 16
    panel = taps * 16 if depthwise else (taps * c.cin + 3) // 4 * 64
    rows = c.batch * c.out_height * c.out_width
    sums = np.zeros(16, np.int64)
    for row in range(rows * index // c.tasks, rows * (index + 1) // c.tasks):
        n = row // (c.out_height * c.out_width)
        oy = row // c.out_width - n * c.out_height
        ox = row - (n * c.out_height + oy) * c.out_width
        for group in range(1 if depthwise else c.groups):
            for block in range(blocks):
                count = min(16, group_channels - 16 * block)
                first = group * group_channels + 16 * block
                weight = c.weight + (group * blocks + block) * panel * size
                sums[:] = 0
                for i in range(c.kernel_height):
                    iy = oy * c.stride_y - c.top + i * c.dilation_y
                    for j in range(c.kernel_width):
                        ix = ox * c.stride_x - c.left + j * c.dilation_x
                        tap = i * c.kernel_width + j
                        inside = iy >= 0 and iy < c.height and ix >= 0 and ix < c.width
                        at = c.x + n * c.x_n + iy * c.x_h + ix * c.x_w if inside else c.pad_line
                        if depthwise:
                            repeat = c.cout // c.groups
                            x = pointer_int16(at)
                            for k in range(count):
                                value = _load(weight + (tap * 16 + k) * size, size)
                                sums[k] += x[(first + k) // repeat] * value
                        else:
                            shifted = at + 2 * group * c.cin if inside else at
                            _dense_run(pointer_int16(shifted), c.cin, weight, size, tap * c.cin, sums)
                target = c.y + first * c.y_c + n * c.y_n + oy * c.y_h + ox * c.y_w
                other = c.residual + first * c.residual_c + n * c.residual_n + oy * c.residual_h + ox * c.residual_w
                _finish(c, first, count, sums, target, other)
