# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Convolution with int16 activations and int8 weights, dense or depthwise: six output positions at once, summed in int64."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import c_function, inner, task
from hbir.kernels.jit.dense import CONV, _address, _first, _gather, _is_linear, _tap_pointers, _walk
from hbir.kernels.jit.epilogue import finish_function
from hbir.kernels.jit.simd import call_finish, pointer_int8, pointer_int32, pointer_int64
from hbir.kernels.jit.tiles import EPILOGUE_FIELDS, _unpacked, _widen_residual
from hbir.kernels.jit.words import QUADS, TAPS, word_depthwise_function, word_tile_function

__all__ = ["wide_finish", "wide_task"]

_ROWS = 6
_tile_6x2, _tile_6x1 = word_tile_function(_ROWS, 2), word_tile_function(_ROWS, 1)
_tile_1x2, _tile_1x1 = word_tile_function(1, 2), word_tile_function(1, 1)
_depthwise_6 = word_depthwise_function(_ROWS)
_wide_plain_8, _wide_plain_16, _wide_plain_32 = (finish_function(bits, "plain", True) for bits in (8, 16, 32))
_wide_residual_8, _wide_residual_16, _wide_residual_32 = (
    finish_function(bits, "residual", True) for bits in (8, 16, 32)
)
_wide_raw_64 = finish_function(64, "raw", True)


@c_function(2)
def wide_finish(kind, fields_address):
    """`finish` of `tiles` for int64 sums; raw ones, of kind 11 too, are written as int64."""
    f = carray(pointer_int64(fields_address), EPILOGUE_FIELDS)
    fields = _unpacked(f)
    if kind == 0:
        _wide_plain_8(fields)
    elif kind == 1:
        _wide_plain_16(fields)
    elif kind == 3:
        _wide_plain_32(fields)
    elif kind == 11:
        _wide_raw_64(fields)
    else:
        _widen_residual(f[0], f[1], f[18], f[19], f[9], f[8])
        if kind == 4:
            _wide_residual_8(fields)
        elif kind == 5:
            _wide_residual_16(fields)
        else:
            _wide_residual_32(fields)


@inner
def _dense(rows, columns, pointers, taps, quads, offset, weight, stride, start, sums):
    """int64 sums[rows][16 * columns] = start + all of K, in parts that int32 lanes hold; see `word_tile_function`."""
    step = max(1, min(quads, QUADS))
    together = QUADS // step
    begin, pitch = start, 0
    for tap in range(0, taps, together):
        for quad in range(0, quads, step):
            lines = pointers + 8 * rows * tap
            count, depth, shift = min(together, taps - tap), min(step, quads - quad), offset + 8 * quad
            panel = weight + 64 * (tap * quads + quad)
            if rows == 1 and columns == 2:
                _tile_1x2(lines, count, depth, shift, panel, stride, begin, pitch, sums)
            elif rows == 1:
                _tile_1x1(lines, count, depth, shift, panel, stride, begin, pitch, sums)
            elif columns == 2:
                _tile_6x2(lines, count, depth, shift, panel, stride, begin, pitch, sums)
            else:
                _tile_6x1(lines, count, depth, shift, panel, stride, begin, pitch, sums)
            begin, pitch = sums, 128 * columns


@inner
def _depthwise(pointers, taps, offset, weight, count, start, sums):
    """int64 sums[6][16] = start + all taps, in parts that int32 lanes hold; see `word_depthwise_function`."""
    begin, pitch = start, 0
    for tap in range(0, taps, TAPS):
        lines, most = pointers + 8 * _ROWS * tap, min(TAPS, taps - tap)
        _depthwise_6(lines, most, offset, weight + 16 * tap, count, begin, pitch, sums)
        begin, pitch = sums, 128


@task(CONV)
def wide_task(index, record):
    """Part `index` of a convolution of int16 activations, whose sums need more than 32 bits."""
    c = carray(record, 1)[0]
    kernel = c.kernel_height * c.kernel_width
    depthwise = c.groups > 1 and c.cin == 1
    in_place = depthwise or c.cin % 4 == 0
    depth = (kernel * c.cin + 3) // 4  # quads of one packed column
    taps, quads = (kernel, c.cin // 4) if in_place else (1, depth)
    stride = depth * 64
    groups = 1 if depthwise else c.groups
    group_channels = c.cout // groups
    blocks = (group_channels + 15) // 16
    rows = c.batch * c.out_height * c.out_width
    first_row, last_row, first_block, last_block = 0, rows, 0, blocks
    if c.by_columns:
        first_block, last_block = blocks * index // c.tasks, blocks * (index + 1) // c.tasks
    else:
        first_row, last_row = rows * index // c.tasks, rows * (index + 1) // c.tasks
    tile_rows = 1 if last_row - first_row == 1 and not depthwise else _ROWS

    bias, multiplier = carray(pointer_int64(c.bias), c.cout), carray(pointer_int32(c.multiplier), c.cout)
    shift = carray(pointer_int8(c.shift), c.cout)
    # The channels of every group begin at a multiple of 16.
    starts, factors = np.zeros(groups * blocks * 16, np.int64), np.zeros(groups * blocks * 16, np.int32)
    shifts = np.ones(groups * blocks * 16, np.int32)
    for group in range(groups):
        for k in range(group_channels):
            own, channel = group * blocks * 16 + k, group * group_channels + k
            starts[own], factors[own], shifts[own] = bias[channel], multiplier[channel], shift[channel]
    sums, widened = np.empty(_ROWS * 32, np.int64), np.zeros(_ROWS * 32, np.int32)
    pointers = np.full(taps * _ROWS, c.zero_line, np.int64)
    gathered = np.zeros(4 if in_place else _ROWS * 4 * depth, np.int16)
    base, origin_y, origin_x = np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64)
    row_targets, row_others = np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64)
    targets, others = np.zeros(_ROWS, np.int64), np.zeros(_ROWS, np.int64)
    fields = np.zeros(EPILOGUE_FIELDS, np.int64)
    fields[2], fields[7], fields[8] = _address(sums), _address(targets), _address(widened)
    fields[10], fields[11], fields[12] = c.zp_out, c.lo, c.hi
    fields[13], fields[14], fields[15] = c.residual_multiplier, c.residual_shift, c.residual_zp
    fields[16], fields[17] = c.out_multiplier, c.out_shift
    fields[18], fields[19] = _address(others), c.residual_c

    linear, x_w, y_w, other_w = in_place and _is_linear(c), c.x_w, c.y_w, c.residual_w
    at = _first(c, first_row)
    row = first_row
    while row < last_row:
        present = min(tile_rows, last_row - row)
        if linear:
            for r in range(tile_rows):
                line = row + min(r, present - 1)
                pointers[r], row_targets[r], row_others[r] = (
                    c.x + line * x_w,
                    c.y + line * y_w,
                    c.residual + line * other_w,
                )
        else:
            at = _walk(c, at, present, tile_rows, c.x, 0, base, origin_y, origin_x, row_targets, row_others)
            if in_place:
                _tap_pointers(c, tile_rows, base, origin_y, origin_x, pointers)
        row += present
        fields[0] = present
        for group in range(groups):
            if not in_place:
                for r in range(present):
                    pointers[r] = _address(gathered) + 8 * depth * r
                    _gather(c, 2, base[r] + 2 * group * c.cin, origin_y[r], origin_x[r], pointers[r])
            offset = 2 * group * c.cin if in_place else 0
            block = first_block
            while block < last_block:
                columns = 1 if depthwise else min(2, last_block - block)
                first, own = group * group_channels + 16 * block, 16 * (group * blocks + block)
                count = min(16 * columns, group_channels - 16 * block)
                start = _address(starts) + 8 * own
                if depthwise:
                    panel = c.weight + 16 * block * taps
                    _depthwise(_address(pointers), taps, 32 * block, panel, count, start, _address(sums))
                else:
                    panel = c.weight + (group * blocks + block) * stride
                    _dense(
                        tile_rows,
                        columns,
                        _address(pointers),
                        taps,
                        quads,
                        offset,
                        panel,
                        stride,
                        start,
                        _address(sums),
                    )
                to_y, to_other = first * c.y_c, first * c.residual_c
                for r in range(present):
                    targets[r], others[r] = row_targets[r] + to_y, row_others[r] + to_other
                fields[1], fields[3], fields[9] = columns, 128 * columns, count
                fields[5], fields[6] = _address(factors) + 4 * own, _address(shifts) + 4 * own
                call_finish(c.finish, c.kind, _address(fields))
                block += columns
    # Buffers whose addresses alone were used above stay alive until here.
    sums[0] = widened[0] + gathered[0] + fields[0] + starts[0] + factors[0] + shifts[0] + targets[0] + others[0]
