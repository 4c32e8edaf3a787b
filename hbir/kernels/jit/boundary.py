# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Quantise and dequantise loops over contiguous float32."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import record_dtype, task
from hbir.kernels.jit.memory import narrow, widen
from hbir.kernels.jit.simd import pointer_float32

__all__ = ["BOUNDARY", "dequantize_task", "quantize_task"]

_BLOCK = 512

# `scales`: address of float32[channels], along the last axis, for a dequantize of more than one channel; else `scale` holds.
BOUNDARY = record_dtype(
    ("tasks", "count", "real", "integer", "size", "zero_point", "lo", "hi", "scales", "channels"), ("scale",)
)
"""The parameters of `quantize_task` and `dequantize_task`."""


@task(BOUNDARY)
def quantize_task(index, record):
    """Float32 values to integers, the part `index` of them."""
    q = carray(record, 1)[0]
    scale, zero_point = np.float32(q.scale), q.zero_point
    lo, hi = np.float32(q.lo - zero_point), np.float32(q.hi - zero_point)
    buffer = np.empty(_BLOCK, np.int64)
    last = q.count * (index + 1) // q.tasks
    for start in range(q.count * index // q.tasks, last, _BLOCK):
        count = min(_BLOCK, last - start)
        x = pointer_float32(q.real + 4 * start)
        for i in range(count):
            steps = np.rint(x[i] / scale)
            raised = steps if steps > lo else lo  # a NaN compares false: it becomes the lowest value
            buffer[i] = np.int64(raised if raised < hi else hi) + zero_point
        narrow(buffer, count, q.integer + start * q.size, q.size, q.size)


@task(BOUNDARY)
def dequantize_task(index, record):
    """Integers to float32 values, the part `index` of them."""
    q = carray(record, 1)[0]
    buffer = np.empty(_BLOCK, np.int64)
    last = q.count * (index + 1) // q.tasks
    for start in range(q.count * index // q.tasks, last, _BLOCK):
        count = min(_BLOCK, last - start)
        widen(q.integer + start * q.size, q.size, q.size, count, q.zero_point, buffer)
        x = pointer_float32(q.real + 4 * start)
        if q.channels > 1:
            scales, channel = pointer_float32(q.scales), start % q.channels
            for i in range(count):
                x[i] = np.float32(np.float64(buffer[i]) * np.float64(scales[channel]))
                channel = channel + 1 if channel + 1 < q.channels else 0
        else:
            for i in range(count):
                x[i] = np.float32(np.float64(buffer[i]) * q.scale)
