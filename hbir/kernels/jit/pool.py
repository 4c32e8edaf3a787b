# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Pooling and bilinear resizing loops: one row of output positions at a time, channels innermost."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import apply_scale, inner, record_dtype, task
from hbir.kernels.jit.memory import narrow, widen
from hbir.kernels.jit.simd import pointer_int8, pointer_int16, pointer_int64

__all__ = ["POOL", "RESIZE", "avg_pool_task", "bilinear_task", "max_pool_task"]

# Addresses and byte strides of NHWC x and y (contiguous C), window geometry; `scales`: address of int64[largest count + 1][2],
# the reciprocal (multiplier, shift) of each count.
POOL = record_dtype((
    "tasks", "x", "x_n", "x_h", "x_w", "x_c", "height", "width", "channels",
    "y", "y_n", "y_h", "y_w", "y_c", "batch", "out_height", "out_width",
    "kernel_height", "kernel_width", "stride_y", "stride_x", "top", "left", "zp_in", "zp_out", "lo", "hi", "scales",
))  # fmt: skip
"""The parameters of `avg_pool_task` and `max_pool_task`."""

# As above; `rows`: address of int64[out_height][3] (lower row, upper row, fraction), `columns` likewise.
RESIZE = record_dtype((
    "tasks", "x", "x_n", "x_h", "x_w", "x_c", "channels", "y", "y_n", "y_h", "y_w", "y_c", "batch", "out_height", "out_width",
    "rows", "columns", "unit_y", "unit_x", "zp_in", "rescaled", "multiplier", "shift", "zp_out", "lo", "hi",
))  # fmt: skip
"""The parameters of `bilinear_task`."""


@inner
def _range(origin, kernel, size):
    """Valid part of a window: first and last + 1 index."""
    return max(origin, 0), min(origin + kernel, size)


@inner
def _raise_to(target, source, size, channels):
    if size == 1:
        t1, s1 = pointer_int8(target), pointer_int8(source)
        for c in range(channels):
            t1[c] = max(t1[c], s1[c])
    else:
        t2, s2 = pointer_int16(target), pointer_int16(source)
        for c in range(channels):
            t2[c] = max(t2[c], s2[c])


@inner
def _fill_lowest(target, size, channels):
    if size == 1:
        t1 = pointer_int8(target)
        for c in range(channels):
            t1[c] = -128
    else:
        t2 = pointer_int16(target)
        for c in range(channels):
            t2[c] = -32768


@task(POOL)
def max_pool_task(index, record):
    """Part `index` of a max pool."""
    p = carray(record, 1)[0]
    rows = p.batch * p.out_height
    best = np.empty(2 * p.channels, np.int8)
    scratch = np.int64(best.ctypes.data)
    for row in range(rows * index // p.tasks, rows * (index + 1) // p.tasks):
        n = row // p.out_height
        oy = row - n * p.out_height
        y0, y1 = _range(oy * p.stride_y - p.top, p.kernel_height, p.height)
        for ox in range(p.out_width):
            x0, x1 = _range(ox * p.stride_x - p.left, p.kernel_width, p.width)
            _fill_lowest(scratch, p.x_c, p.channels)
            for iy in range(y0, y1):
                for ix in range(x0, x1):
                    _raise_to(scratch, p.x + n * p.x_n + iy * p.x_h + ix * p.x_w, p.x_c, p.channels)
            target, source = pointer_int8(p.y + n * p.y_n + oy * p.y_h + ox * p.y_w), pointer_int8(scratch)
            for c in range(p.channels * p.x_c):
                target[c] = source[c]
    best[0] = 0  # keeps the scratch alive until here


@inner
def _add_row(sums, source, size, channels):
    if size == 1:
        s1 = pointer_int8(source)
        for c in range(channels):
            sums[c] += s1[c]
    else:
        s2 = pointer_int16(source)
        for c in range(channels):
            sums[c] += s2[c]


@task(POOL)
def avg_pool_task(index, record):
    """Part `index` of an average pool."""
    p = carray(record, 1)[0]
    scales = pointer_int64(p.scales)
    sums, results = np.empty(p.channels, np.int32), np.empty(p.channels, np.int64)
    zp_out, lo, hi = p.zp_out, p.lo, p.hi
    rows = p.batch * p.out_height
    for row in range(rows * index // p.tasks, rows * (index + 1) // p.tasks):
        n = row // p.out_height
        oy = row - n * p.out_height
        y0, y1 = _range(oy * p.stride_y - p.top, p.kernel_height, p.height)
        for ox in range(p.out_width):
            x0, x1 = _range(ox * p.stride_x - p.left, p.kernel_width, p.width)
            count = (y1 - y0) * (x1 - x0)
            sums[:] = -p.zp_in * count
            for iy in range(y0, y1):
                for ix in range(x0, x1):
                    _add_row(sums, p.x + n * p.x_n + iy * p.x_h + ix * p.x_w, p.x_c, p.channels)
            multiplier, shift = scales[2 * count], scales[2 * count + 1]
            for c in range(p.channels):
                results[c] = min(max(apply_scale(np.int64(sums[c]), multiplier, shift) + zp_out, lo), hi)
            narrow(results, p.channels, p.y + n * p.y_n + oy * p.y_h + ox * p.y_w, p.y_c, p.y_c)


@task(RESIZE)
def bilinear_task(index, record):
    """Part `index` of a bilinear resize."""
    p = carray(record, 1)[0]
    rows, columns = pointer_int64(p.rows), pointer_int64(p.columns)
    a, b = np.empty(p.channels, np.int64), np.empty(p.channels, np.int64)
    c, d = np.empty(p.channels, np.int64), np.empty(p.channels, np.int64)
    multiplier, shift, zp_out, lo, hi = p.multiplier, p.shift, p.zp_out, p.lo, p.hi
    lines = p.batch * p.out_height
    for line in range(lines * index // p.tasks, lines * (index + 1) // p.tasks):
        n = line // p.out_height
        oy = line - n * p.out_height
        upper, lower = p.x + n * p.x_n + rows[3 * oy] * p.x_h, p.x + n * p.x_n + rows[3 * oy + 1] * p.x_h
        dy = rows[3 * oy + 2]
        for ox in range(p.out_width):
            left, right, dx = columns[3 * ox] * p.x_w, columns[3 * ox + 1] * p.x_w, columns[3 * ox + 2]
            widen(upper + left, p.x_c, p.x_c, p.channels, p.zp_in, a)
            widen(upper + right, p.x_c, p.x_c, p.channels, p.zp_in, b)
            widen(lower + left, p.x_c, p.x_c, p.channels, p.zp_in, c)
            widen(lower + right, p.x_c, p.x_c, p.channels, p.zp_in, d)
            w00, w01 = (p.unit_y - dy) * (p.unit_x - dx), (p.unit_y - dy) * dx
            w10, w11 = dy * (p.unit_x - dx), dy * dx
            for k in range(p.channels):
                a[k] = a[k] * w00 + b[k] * w01 + c[k] * w10 + d[k] * w11
            if p.rescaled:
                for k in range(p.channels):
                    a[k] = min(max(apply_scale(a[k], multiplier, shift) + zp_out, lo), hi)
            narrow(a, p.channels, p.y + n * p.y_n + oy * p.y_h + ox * p.y_w, p.y_c, p.y_c)
