# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Convolution with int16 activations for what has no tiles (int16 weights, channel multipliers): plain loops in int64."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import apply_scale, inner, task
from hbir.kernels.jit.dense import CONV
from hbir.kernels.jit.memory import load, store
from hbir.kernels.jit.simd import pointer_int8, pointer_int16, pointer_int32, pointer_int64

__all__ = ["scalar_task"]


@inner
def _dense_run(x, count, weight, at, sums):
    """Add `count` input channels to 16 sums; K element `at` of the packed panel of int16 meets the first of them."""
    wide = pointer_int16(weight)
    for k in range(count):
        quad = (at + k) // 4 * 64 + (at + k) % 4
        value = np.int64(x[k])
        for lane in range(16):
            sums[lane] += value * wide[quad + 4 * lane]


@inner
def _finish(c, first, count, sums, target, other):
    bias, multiplier = pointer_int64(c.bias), pointer_int32(c.multiplier)
    shift = pointer_int8(c.shift)
    mode = c.kind // 4
    for k in range(count):
        value = sums[k] + bias[first + k]
        if mode != 2:
            value = apply_scale(value, np.int64(multiplier[first + k]), np.int64(shift[first + k]))
            if mode == 1:
                added = load(other + k * c.residual_c, c.residual_c) - c.residual_zp
                added = apply_scale(added, c.residual_multiplier, c.residual_shift)
                value = apply_scale(value + added, c.out_multiplier, c.out_shift)
            value = min(max(value + c.zp_out, c.lo), c.hi)
        store(target + k * c.y_c, c.y_c, value)


@task(CONV)
def scalar_task(index, record):
    """Part `index` of any convolution, one output channel after another: where no vector instructions fit."""
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
                                value = load(weight + (tap * 16 + k) * size, size)
                                sums[k] += x[(first + k) // repeat] * value
                        else:
                            shifted = at + 2 * group * c.cin if inside else at
                            _dense_run(pointer_int16(shifted), c.cin, weight, tap * c.cin, sums)
                target = c.y + first * c.y_c + n * c.y_n + oy * c.y_h + ox * c.y_w
                other = c.residual + first * c.residual_c + n * c.residual_n + oy * c.residual_h + ox * c.residual_w
                _finish(c, first, count, sums, target, other)
