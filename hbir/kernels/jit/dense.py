# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""Dense int8 convolution as a matrix product over packed weights: rows are output positions, read in place tap by tap."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import inner, record_dtype, task
from hbir.kernels.jit.simd import (
    call_finish,
    call_tile,
    copy_word4,
    copy_word8,
    pointer_int8,
    pointer_int32,
    pointer_int64,
)
from hbir.kernels.jit.tiles import EPILOGUE_FIELDS, narrow_factors

__all__ = ["CONV", "dense_task"]

# Addresses, byte strides (x_n: of the batch axis of x), geometry, epilogue. x, y and residual are NHWC with contiguous C.
CONV = record_dtype((
    "tasks", "by_columns", "row_block", "fused_block", "finish", "kind",
    "x", "x_n", "x_h", "x_w", "batch", "height", "width", "cin",
    "y", "y_n", "y_h", "y_w", "y_c", "out_height", "out_width", "cout",
    "residual", "residual_n", "residual_h", "residual_w", "residual_c",
    "weight", "bias", "multiplier", "shift", "zero_line", "pad_line",
    "groups", "kernel_height", "kernel_width", "stride_y", "stride_x", "top", "left", "dilation_y", "dilation_x",
    "zp_out", "lo", "hi", "residual_multiplier", "residual_shift", "residual_zp", "out_multiplier", "out_shift",
))  # fmt: skip
"""The parameters of every convolution task."""


@inner
def _columns_at_once(remaining):
    """Blocks of 16 columns for the next tile: fours, with threes so that no single block is left over."""
    if remaining >= 4 and remaining != 5 and remaining != 6 and remaining != 9:
        return 4
    return min(remaining, 3)


@inner
def _copy_run(target, source, count):
    """Copy `count` >= 4 bytes, in overlapping words."""
    if count >= 8:
        at = 0
        while at + 8 < count:
            copy_word8(target + at, source + at)
            at += 8
        copy_word8(target + count - 8, source + count - 8)
    else:
        copy_word4(target, source)
        copy_word4(target + count - 4, source + count - 4)


@inner
def _gather(c, size, address, iy, ix, target):
    """Copy a window to `target`, in the order of K; its first element, of `size` bytes, is at row `iy`, column `ix`."""
    tap = c.cin * size
    run = c.kernel_width * tap
    inside = iy >= 0 and iy + (c.kernel_height - 1) * c.dilation_y < c.height
    inside = inside and ix >= 0 and ix + (c.kernel_width - 1) * c.dilation_x < c.width
    if inside and run >= 4 and (c.kernel_width == 1 or (c.dilation_x == 1 and c.x_w == tap)):
        for i in range(c.kernel_height):
            _copy_run(target + i * run, address + i * c.dilation_y * c.x_h, run)
        return
    to = pointer_int8(target)
    at = 0
    for i in range(c.kernel_height):
        y = iy + i * c.dilation_y
        for j in range(c.kernel_width):
            x = ix + j * c.dilation_x
            seen = y >= 0 and y < c.height and x >= 0 and x < c.width
            place = address + i * c.dilation_y * c.x_h + j * c.dilation_x * c.x_w
            source = pointer_int8(place if seen else c.pad_line)
            for k in range(tap):
                to[at + k] = source[k]
            at += tap


@inner
def _address(array):
    return np.int64(array.ctypes.data)


@inner
def _ends_narrow(c):
    """Whether the parameters of the epilogue, but for its factors, suit `fused_function`: plain, int8 and 32 bits wide."""
    limits = c.lo >= -(1 << 31) and c.hi < 1 << 31
    return c.kind == 0 and limits and c.zp_out > -(1 << 15) and c.zp_out < 1 << 15


@inner
def _first(c, row):
    """Image, row and column of the output position number `row`."""
    n = row // (c.out_height * c.out_width)
    oy = row // c.out_width - n * c.out_height
    return n, oy, row - (n * c.out_height + oy) * c.out_width


@inner
def _walk(c, at, present, tile_rows, image, channel, base, origin_y, origin_x, targets, others):
    """Where the windows of the next `present` output positions begin and their results go; returns what follows `at`.

    `image`: address of the first input channel; `channel`: the first output channel. Missing rows repeat the last one and are
    not written.
    """
    n, oy, ox = at
    # Locals and plain pointers, because the compiler must expect every store to change the record.
    bases, to_y, to_x = (
        pointer_int64(_address(base)),
        pointer_int64(_address(origin_y)),
        pointer_int64(_address(origin_x)),
    )
    to_target, to_other = pointer_int64(_address(targets)), pointer_int64(_address(others))
    stride_x, move, y_w, residual_w = c.stride_x, c.stride_x * c.x_w, c.y_w, c.residual_w
    r = 0
    while r < present:
        last = min(present, r + c.out_width - ox)
        iy, ix = oy * c.stride_y - c.top, ox * stride_x - c.left
        line = image + n * c.x_n + iy * c.x_h + ix * c.x_w
        target = c.y + channel * c.y_c + n * c.y_n + oy * c.y_h + ox * y_w
        other = c.residual + channel * c.residual_c + n * c.residual_n + oy * c.residual_h + ox * residual_w
        ox += last - r
        while r < last:
            bases[r], to_y[r], to_x[r], to_target[r], to_other[r] = line, iy, ix, target, other
            line, ix, target, other = line + move, ix + stride_x, target + y_w, other + residual_w
            r += 1
        if ox == c.out_width:
            ox = 0
            oy += 1
            if oy == c.out_height:
                oy = 0
                n += 1
    for r in range(present, tile_rows):
        bases[r], to_y[r], to_x[r] = bases[present - 1], to_y[present - 1], to_x[present - 1]
    return n, oy, ox


@inner
def _is_linear(c):
    """Whether each row reads one place, and those places and the results are one line of memory each."""
    linear = c.kernel_height == 1 and c.kernel_width == 1 and c.stride_y == 1 and c.stride_x == 1
    linear = linear and c.out_height == c.height and c.out_width == c.width and c.top == 0 and c.left == 0
    linear = linear and c.x_h == c.x_w * c.width and c.y_h == c.y_w * c.width and c.residual_h == c.residual_w * c.width
    images = c.x_n == c.x_h * c.height and c.y_n == c.y_h * c.height and c.residual_n == c.residual_h * c.height
    return linear and (c.batch == 1 or images)


@inner
def _tap_pointers(c, tile_rows, base, origin_y, origin_x, pointers):
    """Where each row of a block reads each tap: in the input, or in the line of padding."""
    last_y, last_x = (c.kernel_height - 1) * c.dilation_y, (c.kernel_width - 1) * c.dilation_x
    whole = True
    for r in range(tile_rows):
        whole &= (origin_y[r] >= 0) & (origin_y[r] + last_y < c.height)
        whole &= (origin_x[r] >= 0) & (origin_x[r] + last_x < c.width)
    # Locals and plain pointers, because the compiler must expect every store to change the record.
    width, dilation_x, x_w, pad_line, height, limit = c.kernel_width, c.dilation_x, c.x_w, c.pad_line, c.height, c.width
    lines, to = pointer_int64(_address(base)), pointer_int64(_address(pointers))
    at = 0
    for i in range(c.kernel_height):
        dy = i * c.dilation_y
        move = dy * c.x_h
        for j in range(width):
            dx = j * dilation_x
            if whole:
                for r in range(tile_rows):
                    to[at + r] = lines[r] + move
            else:
                for r in range(tile_rows):
                    iy, ix = origin_y[r] + dy, origin_x[r] + dx
                    inside = (iy >= 0) & (iy < height) & (ix >= 0) & (ix < limit)
                    to[at + r] = lines[r] + move if inside else pad_line
            at += tile_rows
            move += dilation_x * x_w


@task(CONV)
def dense_task(index, record):
    """Part `index` of an int8 convolution whose outputs read many input channels, in tiles of rows and columns."""
    c = carray(record, 1)[0]
    kernel = c.kernel_height * c.kernel_width
    depth = (kernel * c.cin + 3) // 4  # quads of one packed column
    in_place = c.cin % 4 == 0
    taps, quads = (kernel, c.cin // 4) if in_place else (1, depth)
    stride = depth * 64
    group_channels = c.cout // c.groups
    blocks = (group_channels + 15) // 16
    rows = c.batch * c.out_height * c.out_width
    first_row, last_row, first_block, last_block = 0, rows, 0, blocks
    if c.by_columns:
        first_block, last_block = blocks * index // c.tasks, blocks * (index + 1) // c.tasks
    else:
        first_row, last_row = rows * index // c.tasks, rows * (index + 1) // c.tasks

    bias, multiplier = carray(pointer_int32(c.bias), c.cout), carray(pointer_int32(c.multiplier), c.cout)
    shift = carray(pointer_int8(c.shift), c.cout)
    sums = np.empty(12 * 64, np.int32)
    correction, factors, shifts = np.zeros(64, np.int32), np.zeros(64, np.int32), np.ones(64, np.int32)
    widened = np.zeros(12 * 64, np.int32)
    pointers = np.full(taps * 12, c.zero_line, np.int64)
    zero_pointer = np.full(1, c.zero_line, np.int64)
    gathered = np.zeros(4 if in_place else 12 * 4 * depth, np.int8)
    base, origin_y, origin_x = np.zeros(12, np.int64), np.zeros(12, np.int64), np.zeros(12, np.int64)
    targets, others = np.zeros(12, np.int64), np.zeros(12, np.int64)
    fields = np.zeros(EPILOGUE_FIELDS, np.int64)
    fields[2], fields[4], fields[5], fields[6] = (
        _address(sums),
        _address(correction),
        _address(factors),
        _address(shifts),
    )
    fields[7], fields[8], fields[18], fields[19] = _address(targets), _address(widened), _address(others), c.residual_c
    fields[10], fields[11], fields[12] = c.zp_out, c.lo, c.hi
    fields[13], fields[14], fields[15] = c.residual_multiplier, c.residual_shift, c.residual_zp
    fields[16], fields[17] = c.out_multiplier, c.out_shift

    narrow, halves, scrap = np.zeros(7, np.int64), np.zeros(64, np.int64), np.zeros(64, np.int8)
    narrow[0], narrow[1], narrow[2] = _address(correction), _address(halves), _address(targets)
    narrow[4], narrow[5], narrow[6] = (1 << 31) + (c.zp_out << 32), c.lo, c.hi
    linear = in_place and _is_linear(c)

    for group in range(c.groups):
        block = first_block
        while block < last_block:
            columns = _columns_at_once(last_block - block)
            tile_rows = 6 if columns == 4 else 8 if columns == 3 else 12
            if last_row - first_row == 1:
                tile_rows = 1
            panel = c.weight + (group * blocks + block) * stride
            first = group * group_channels + block * 16
            count = min(16 * columns, (group + 1) * group_channels - first)
            call_tile(c.row_block, 1, columns, _address(zero_pointer), 1, depth, panel, stride, _address(correction))
            for k in range(count):
                correction[k] = bias[first + k] - correction[k]
                factors[k] = multiplier[first + k]
                shifts[k] = shift[first + k]
            narrow[3] = count
            fused = (
                tile_rows > 1 and _ends_narrow(c) and narrow_factors(multiplier, shift, first, count, columns, halves)
            )
            at = _first(c, first_row)
            row = first_row
            while row < last_row:
                present = min(tile_rows, last_row - row)
                if fused:
                    for r in range(present, tile_rows):
                        targets[r] = _address(scrap)
                if fused and linear:
                    for r in range(tile_rows):
                        line = row + min(r, present - 1)
                        pointers[r] = c.x + group * c.cin + line * c.x_w
                        if r < present:
                            targets[r] = c.y + first + line * c.y_w
                    call_tile(
                        c.fused_block, tile_rows, columns, _address(pointers), 1, quads, panel, stride, _address(narrow)
                    )
                    row += present
                    continue
                image = c.x + group * c.cin
                at = _walk(c, at, present, tile_rows, image, first, base, origin_y, origin_x, targets, others)
                if in_place:
                    _tap_pointers(c, tile_rows, base, origin_y, origin_x, pointers)
                else:
                    for r in range(present):
                        pointers[r] = _address(gathered) + 4 * depth * r
                        _gather(c, 1, base[r], origin_y[r], origin_x[r], pointers[r])
                row += present
                if fused:
                    call_tile(
                        c.fused_block,
                        tile_rows,
                        columns,
                        _address(pointers),
                        taps,
                        quads,
                        panel,
                        stride,
                        _address(narrow),
                    )
                    continue
                call_tile(
                    c.row_block, tile_rows, columns, _address(pointers), taps, quads, panel, stride, _address(sums)
                )
                fields[0], fields[1], fields[3], fields[9] = present, columns, 64 * columns, count
                call_finish(c.finish, c.kind, _address(fields))
            block += columns
    # Buffers whose addresses alone were used above stay alive until here.
    zero_pointer[0] = widened[0] + gathered[0] + fields[0] + narrow[0] + halves[0] + scrap[0]
