# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Depthwise int8 convolution: sixteen channels a vector, eight output positions at once."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import inner, task
from hbir.kernels.jit.dense import CONV, _address, _ends_narrow, _first, _tap_pointers, _walk
from hbir.kernels.jit.simd import call_finish, depthwise_function, pointer_int8, pointer_int32, pointer_int64
from hbir.kernels.jit.tiles import EPILOGUE_FIELDS, narrow_factors

__all__ = ["depthwise_task"]

_ROWS = 8
_depthwise_8, _fused_8 = depthwise_function(_ROWS, False), depthwise_function(_ROWS, True)


@inner
def _multiplied(repeat, first, count, taps, pointers, weight, sums):
    """Sums of `count` output channels from `first` on when each input channel feeds `repeat` of them."""
    sources = pointer_int64(pointers)
    factors = pointer_int8(weight)
    sums[:] = 0
    for tap in range(taps):
        for r in range(_ROWS):
            line = pointer_int8(sources[tap * _ROWS + r])
            for k in range(count):
                sums[r * 16 + k] += np.int32(line[(first + k) // repeat]) * np.int32(factors[tap * 16 + k])


@task(CONV)
def depthwise_task(index, record):
    """Part `index` of an int8 convolution whose outputs read one input channel each."""
    c = carray(record, 1)[0]
    taps = c.kernel_height * c.kernel_width
    blocks = (c.cout + 15) // 16
    repeat = c.cout // c.groups
    rows = c.batch * c.out_height * c.out_width
    first_row, last_row = rows * index // c.tasks, rows * (index + 1) // c.tasks
    bias, multiplier = carray(pointer_int32(c.bias), c.cout), carray(pointer_int32(c.multiplier), c.cout)
    shift = carray(pointer_int8(c.shift), c.cout)
    corrections, factors = np.zeros(16 * blocks, np.int32), np.zeros(16 * blocks, np.int32)
    shifts = np.ones(16 * blocks, np.int32)
    for k in range(c.cout):
        corrections[k], factors[k], shifts[k] = bias[k], multiplier[k], shift[k]
    sums, widened = np.empty(_ROWS * 16, np.int32), np.zeros(_ROWS * 16, np.int32)
    pointers = np.zeros(taps * _ROWS, np.int64)
    base, origin_y, origin_x = np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64)
    targets, others = np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64)
    fields = np.zeros(EPILOGUE_FIELDS, np.int64)
    fields[1], fields[2], fields[3] = 1, _address(sums), 64
    fields[7], fields[8], fields[18], fields[19] = _address(targets), _address(widened), _address(others), c.residual_c
    fields[10], fields[11], fields[12] = c.zp_out, c.lo, c.hi
    fields[13], fields[14], fields[15] = c.residual_multiplier, c.residual_shift, c.residual_zp
    fields[16], fields[17] = c.out_multiplier, c.out_shift

    narrow, halves, scrap = np.zeros(7, np.int64), np.zeros(16 * blocks, np.int64), np.zeros(16, np.int8)
    narrow[2] = _address(targets)
    narrow[4], narrow[5], narrow[6] = (1 << 31) + (c.zp_out << 32), c.lo, c.hi
    fused = _ends_narrow(c) and repeat == 1
    for block in range(blocks):
        part = halves[16 * block : 16 * block + 16]
        fused = fused and narrow_factors(multiplier, shift, 16 * block, min(16, c.cout - 16 * block), 1, part)

    at = _first(c, first_row)
    row = first_row
    while row < last_row:
        present = min(_ROWS, last_row - row)
        at = _walk(c, at, present, _ROWS, c.x, 0, base, origin_y, origin_x, targets, others)
        _tap_pointers(c, _ROWS, base, origin_y, origin_x, pointers)
        fields[0] = present
        if fused:
            for r in range(present, _ROWS):
                targets[r] = _address(scrap)
        for block in range(blocks):
            count = min(16, c.cout - 16 * block)
            lines = c.weight + block * 16 * taps
            if fused:
                narrow[0], narrow[1] = _address(corrections) + 64 * block, _address(halves) + 128 * block
                narrow[3] = count
                _fused_8(_address(pointers), taps, 16 * block, lines, count, _address(narrow))
                for r in range(present):
                    targets[r] += 16
                continue
            if repeat == 1:
                _depthwise_8(_address(pointers), taps, 16 * block, lines, count, _address(sums))
            else:
                _multiplied(repeat, 16 * block, count, taps, _address(pointers), lines, sums)
            fields[4], fields[5] = _address(corrections) + 64 * block, _address(factors) + 64 * block
            fields[6], fields[9] = _address(shifts) + 64 * block, count
            call_finish(c.finish, c.kind, _address(fields))
            for r in range(present):
                targets[r] += 16 * c.y_c
                others[r] += 16 * c.residual_c
        row += present
    # Buffers whose addresses alone were used above stay alive until here.
    sums[0] = (
        widened[0] + corrections[0] + factors[0] + shifts[0] + np.int32(fields[0] + narrow[0] + halves[0] + scrap[0])
    )
