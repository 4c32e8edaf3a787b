# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Elementwise integer loops over broadcast, strided operands of any width, in blocks that stay in the first-level cache."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import apply_scale, inner, record_dtype, task
from hbir.kernels.jit.memory import load, narrow, widen
from hbir.kernels.jit.simd import pointer_int8, pointer_int16, pointer_int64

__all__ = ["ELEMENTWISE", "OPERATIONS", "elementwise_task"]

OPERATIONS = ("add", "sub", "mul", "product", "rescale", "table_int8", "table_int16", "table_segmented")
"""What `elementwise_task` can do; a record names one by its position."""
_BLOCK = 512
_SEGMENTS = 64  # at most, of a segmented table; each has as many entries

# `sizes` and `*_strides`: addresses of int64[rank], strides in bytes; `*_size`: bytes of an element. The multiplier of
# "rescale" is an array: `m_stride` is 0 (one for all) or its element size, along the last axis; so is the shift.
# "table_segmented": int16 starts[segments], int8 spacings[segments], and operand b is int16[segments, 64].
ELEMENTWISE = record_dtype((
    "tasks", "operation", "rank", "sizes", "blocks", "total",
    "a", "a_size", "a_strides", "b", "b_size", "b_strides", "y", "y_size", "y_strides",
    "zp_a", "zp_b", "multiplier_a", "shift_a", "multiplier_b", "shift_b", "multiplier", "shift",
    "zp_out", "lo", "hi", "rescaled",
    "m", "m_size", "m_stride", "s", "s_size", "s_stride", "starts", "spacings", "segments",
))  # fmt: skip
"""The parameters of `elementwise_task`."""


@inner
def _place(e, row):
    """Byte offsets of a, b and y at outer index `row` (all axes but the last, in C order)."""
    sizes = pointer_int64(e.sizes)
    a_strides, b_strides, y_strides = pointer_int64(e.a_strides), pointer_int64(e.b_strides), pointer_int64(e.y_strides)
    a, b, y = 0, 0, 0
    for back in range(e.rank - 1):
        axis = e.rank - 2 - back
        above = row // sizes[axis]
        at = row - above * sizes[axis]
        a, b, y = a + at * a_strides[axis], b + at * b_strides[axis], y + at * y_strides[axis]
        row = above
    return a, b, y


@inner
def _look_up(e, left, count):
    """Replace left[:count] by the table's entries; the table is operand b."""
    table, size = e.b, e.b_size  # locals, because the compiler must expect every store to change the record
    if e.operation == 5:
        if size == 1:
            bytes_table = pointer_int8(table)
            for i in range(count):
                left[i] = bytes_table[left[i] + 128]
            return
        for i in range(count):
            left[i] = load(table + (left[i] + 128) * size, size)
        return
    if size == 2:
        entries = pointer_int16(table)
        for i in range(count):
            x = left[i]
            index = (x + 32768) >> 7
            base, following = np.int64(entries[index]), np.int64(entries[index + 1])
            left[i] = (base << 7) + (following - base) * (x & 127)
        return
    for i in range(count):
        x = left[i]
        index = (x + 32768) >> 7
        base = load(table + index * size, size)
        following = load(table + (index + 1) * size, size)
        left[i] = (base << 7) + (following - base) * (x & 127)


@inner
def _interpolate_segments(e, left, count, starts, spacings):
    """Replace left[:count] by the segmented table's values (see `SegmentedTable`); unused `starts` are beyond all inputs."""
    entries = pointer_int16(e.b)
    for i in range(count):
        x = left[i]
        segment = 0
        for half in (32, 16, 8, 4, 2, 1):  # the last segment that starts at or before x
            segment += half if starts[segment + half] <= x else 0
        # A binary may hold any table: none may make this read beside it.
        shift = spacings[segment] & 31
        distance = x - starts[segment]
        at = min(max(distance >> shift, 0), _SEGMENTS - 1)
        rest = distance & ((1 << shift) - 1)
        base = np.int64(entries[_SEGMENTS * segment + at])
        slope = np.int64(entries[_SEGMENTS * segment + min(at + 1, _SEGMENTS - 1)]) - base
        left[i] = ((base << shift) + slope * rest + ((1 << shift) >> 1)) >> shift


@inner
def _combine(e, left, right, count):
    """left = left op right, each operand rescaled first for sums."""
    if e.operation == 2 or e.operation == 3:
        for i in range(count):
            left[i] = left[i] * right[i]
    elif e.operation < 2:
        for i in range(count):
            scaled = apply_scale(right[i], e.multiplier_b, e.shift_b)
            left[i] = apply_scale(left[i], e.multiplier_a, e.shift_a) + (scaled if e.operation == 0 else -scaled)


@inner
def _rescale(e, left, count):
    multiplier, shift, zp_out, lo, hi = e.multiplier, e.shift, e.zp_out, e.lo, e.hi
    for i in range(count):
        left[i] = min(max(apply_scale(left[i], multiplier, shift) + zp_out, lo), hi)


@task(ELEMENTWISE)
def elementwise_task(index, record):
    """Part `index` of an elementwise operation, row by row."""
    e = carray(record, 1)[0]
    length = pointer_int64(e.sizes)[e.rank - 1]
    last = e.rank - 1
    a_stride, b_stride = pointer_int64(e.a_strides)[last], pointer_int64(e.b_strides)[last]
    y_stride = pointer_int64(e.y_strides)[last]
    left, right = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    factors, shifts = np.empty(_BLOCK, np.int64), np.empty(_BLOCK, np.int64)
    starts, spacings = np.full(_SEGMENTS, 1 << 40, np.int64), np.zeros(_SEGMENTS, np.int64)
    widen(e.starts, 2, 2, e.segments, 0, starts)
    widen(e.spacings, 1, 1, e.segments, 0, spacings)
    for block in range(e.total * index // e.tasks, e.total * (index + 1) // e.tasks):
        row = block // e.blocks
        start = (block - row * e.blocks) * _BLOCK
        count = min(_BLOCK, length - start)
        a, b, y = _place(e, row)
        widen(e.a + a + start * a_stride, e.a_size, a_stride, count, e.zp_a, left)
        if e.operation < 4:
            widen(e.b + b + start * b_stride, e.b_size, b_stride, count, e.zp_b, right)
            _combine(e, left, right, count)
        elif e.operation == 4:
            widen(e.m + start * e.m_stride, e.m_size, e.m_stride, count, 0, factors)
            widen(e.s + start * e.s_stride, e.s_size, e.s_stride, count, 0, shifts)
            zp_out, lo, hi = e.zp_out, e.lo, e.hi
            for i in range(count):
                left[i] = min(max(apply_scale(left[i], factors[i], shifts[i]) + zp_out, lo), hi)
        elif e.operation == 7:
            _interpolate_segments(e, left, count, starts, spacings)
        else:
            _look_up(e, left, count)
        if e.rescaled:
            _rescale(e, left, count)
        narrow(left, count, e.y + y + start * y_stride, e.y_size, y_stride)
