# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Depthwise float32 convolution of the float interpreter."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import inner, task
from hbir.kernels.jit.dense import CONV
from hbir.kernels.jit.simd import pointer_float32

__all__ = ["float_depthwise_task"]


@inner
def _add_products(target, source, factors, channels):
    y, x, w = pointer_float32(target), pointer_float32(source), pointer_float32(factors)
    for c in range(channels):
        y[c] += x[c] * w[c]


@task(CONV)
def float_depthwise_task(index, record):
    """`weight` is float32 [kh * kw][channels], `bias` float32 [channels]."""
    p = carray(record, 1)[0]
    bias = pointer_float32(p.bias)
    rows = p.batch * p.out_height
    sums = np.empty(p.cout, np.float32)
    line = np.int64(sums.ctypes.data)
    for row in range(rows * index // p.tasks, rows * (index + 1) // p.tasks):
        n = row // p.out_height
        oy = row - n * p.out_height
        for ox in range(p.out_width):
            for c in range(p.cout):
                sums[c] = bias[c]
            for i in range(p.kernel_height):
                iy = oy * p.stride_y - p.top + i * p.dilation_y
                if iy < 0 or iy >= p.height:
                    continue
                for j in range(p.kernel_width):
                    ix = ox * p.stride_x - p.left + j * p.dilation_x
                    if ix < 0 or ix >= p.width:
                        continue
                    factors = p.weight + (i * p.kernel_width + j) * 4 * p.cout
                    _add_products(line, p.x + n * p.x_n + iy * p.x_h + ix * p.x_w, factors, p.cout)
            target = pointer_float32(p.y + n * p.y_n + oy * p.y_h + ox * p.y_w)
            for c in range(p.cout):
                target[c] = sums[c]
