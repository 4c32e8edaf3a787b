# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Loads and stores of integers of any width by address: loops compute in int64 buffers that stay in the first-level cache."""

from __future__ import annotations

import numpy as np

from hbir.kernels.jit.compile import inner
from hbir.kernels.jit.simd import pointer_int8, pointer_int16, pointer_int32, pointer_int64

__all__ = ["load", "narrow", "store", "widen"]


@inner
def load(address, size):
    """The integer of `size` bytes at `address` as int64."""
    if size == 1:
        return np.int64(pointer_int8(address)[0])
    if size == 2:
        return np.int64(pointer_int16(address)[0])
    if size == 4:
        return np.int64(pointer_int32(address)[0])
    return pointer_int64(address)[0]


@inner
def store(address, size, value):
    """Write `value` as an integer of `size` bytes."""
    if size == 1:
        pointer_int8(address)[0] = value
    elif size == 2:
        pointer_int16(address)[0] = value
    elif size == 4:
        pointer_int32(address)[0] = value
    else:
        pointer_int64(address)[0] = value


@inner
def widen(address, size, stride, count, zero_point, buffer):
    """buffer[i] = integer at `address + i * stride`, less `zero_point`, for i < count; stride in bytes."""
    if stride == 0:
        value = load(address, size) - zero_point
        for i in range(count):
            buffer[i] = value
    elif stride != size:
        for i in range(count):
            buffer[i] = load(address + i * stride, size) - zero_point
    elif size == 1:
        p1 = pointer_int8(address)
        for i in range(count):
            buffer[i] = p1[i] - zero_point
    elif size == 2:
        p2 = pointer_int16(address)
        for i in range(count):
            buffer[i] = p2[i] - zero_point
    elif size == 4:
        p4 = pointer_int32(address)
        for i in range(count):
            buffer[i] = p4[i] - zero_point
    else:
        p8 = pointer_int64(address)
        for i in range(count):
            buffer[i] = p8[i] - zero_point


@inner
def narrow(buffer, count, address, size, stride):
    """Write buffer[:count] as integers of `size` bytes, `stride` bytes apart."""
    if stride != size:
        for i in range(count):
            store(address + i * stride, size, buffer[i])
    elif size == 1:
        p1 = pointer_int8(address)
        for i in range(count):
            p1[i] = buffer[i]
    elif size == 2:
        p2 = pointer_int16(address)
        for i in range(count):
            p2[i] = buffer[i]
    elif size == 4:
        p4 = pointer_int32(address)
        for i in range(count):
            p4[i] = buffer[i]
    else:
        p8 = pointer_int64(address)
        for i in range(count):
            p8[i] = buffer[i]
