# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""The hot pieces of a convolution, compiled once and called by address: blocks of dot products, and their epilogue."""

from __future__ import annotations

import numpy as np
from numba import carray

from hbir.kernels.jit.compile import c_function, inner
from hbir.kernels.jit.epilogue import finish_function
from hbir.kernels.jit.simd import (
    fused_function,
    pointer_int8,
    pointer_int16,
    pointer_int32,
    pointer_int64,
    tile_function,
)

__all__ = ["EPILOGUE_FIELDS", "MODES", "finish", "fused_block", "narrow_factors", "row_block"]

_tile_6x4 = tile_function(6, 4)
_tile_8x3 = tile_function(8, 3)
_tile_12x2 = tile_function(12, 2)
_tile_12x1 = tile_function(12, 1)
_tile_1x4 = tile_function(1, 4)
_tile_1x1 = tile_function(1, 1)


@inner
def _single_row(columns, pointers, taps, quads, weight, stride, out):
    """Sums of one row, for matrix-vector products and for the correction of unsigned activations."""
    column = 0
    while column + 4 <= columns:
        _tile_1x4(pointers, taps, quads, weight + column * stride, stride, out + column * 64)
        column += 4
    while column < columns:
        _tile_1x1(pointers, taps, quads, weight + column * stride, stride, out + column * 64)
        column += 1


@c_function(8)
def row_block(rows, columns, pointers, taps, quads, weight, stride, out):
    """Sums of 1 row x any columns, 6 x 4, 8 x 3, 12 x 2 or 12 x 1 (columns in blocks of 16), see `tile_function`."""
    if rows == 1:
        _single_row(columns, pointers, taps, quads, weight, stride, out)
    elif columns == 4:
        _tile_6x4(pointers, taps, quads, weight, stride, out)
    elif columns == 3:
        _tile_8x3(pointers, taps, quads, weight, stride, out)
    elif columns == 2:
        _tile_12x2(pointers, taps, quads, weight, stride, out)
    else:
        _tile_12x1(pointers, taps, quads, weight, stride, out)


_fused_6x4 = fused_function(6, 4)
_fused_8x3 = fused_function(8, 3)
_fused_12x2 = fused_function(12, 2)
_fused_12x1 = fused_function(12, 1)


@c_function(8)
def fused_block(rows, columns, pointers, taps, quads, weight, stride, narrow):
    """`row_block` with its results finished as int8, see `fused_function`; not for single rows."""
    if columns == 4:
        _fused_6x4(pointers, taps, quads, weight, stride, narrow)
    elif columns == 3:
        _fused_8x3(pointers, taps, quads, weight, stride, narrow)
    elif columns == 2:
        _fused_12x2(pointers, taps, quads, weight, stride, narrow)
    else:
        _fused_12x1(pointers, taps, quads, weight, stride, narrow)


@inner
def narrow_factors(multiplier, shift, first, count, columns, factors):
    """Fill int64 `factors` for `fused_function`; false where a factor m / 2^s is no 31-bit multiple of 2^-32."""
    for k in range(count):
        m, s = np.int64(multiplier[first + k]), np.int64(shift[first + k])
        if s < 2 or s > 32:
            return False
        m <<= 32 - s
        if m >= 1 << 31 or m <= -(1 << 31):
            return False
        factors[(k & 1) * 8 * columns + (k >> 1)] = m
    return True


MODES = ("plain", "residual", "raw")
"""What an epilogue does after the sums: rescale, rescale with a residual, or nothing."""
# What `finish` reads, in order: the fields of `finish_function`, then how to get the residual.
EPILOGUE_FIELDS = 20
"""Number of int64 that `finish` reads."""
_plain_8, _plain_16, _plain_32 = (finish_function(bits, "plain") for bits in (8, 16, 32))
_residual_8, _residual_16, _residual_32 = (finish_function(bits, "residual") for bits in (8, 16, 32))
_raw_32 = finish_function(32, "raw")


@inner
def _widen_residual(rows, columns, addresses, bytes_each, count, target):
    """int32 copies of `count` residual elements of each row."""
    sources = pointer_int64(addresses)
    for row in range(rows):
        line = pointer_int32(target + 64 * columns * row)
        if bytes_each == 1:
            narrow = pointer_int8(sources[row])
            for c in range(count):
                line[c] = narrow[c]
        elif bytes_each == 2:
            half = pointer_int16(sources[row])
            for c in range(count):
                line[c] = half[c]
        else:
            word = pointer_int32(sources[row])
            for c in range(count):
                line[c] = word[c]


@inner
def _unpacked(f):
    return (
        f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8],
        f[9], f[10], f[11], f[12], f[13], f[14], f[15], f[16], f[17],
    )  # fmt: skip


@c_function(2)
def finish(kind, fields_address):
    """Epilogue of some rows x columns of 16 int32 sums. `kind` = 4 * index in MODES + bytes of a result (1, 2, 4), less one."""
    f = carray(pointer_int64(fields_address), EPILOGUE_FIELDS)
    fields = _unpacked(f)
    if kind == 0:
        _plain_8(fields)
    elif kind == 1:
        _plain_16(fields)
    elif kind == 3:
        _plain_32(fields)
    elif kind == 11:
        _raw_32(fields)
    else:
        _widen_residual(f[0], f[1], f[18], f[19], f[9], f[8])
        if kind == 4:
            _residual_8(fields)
        elif kind == 5:
            _residual_16(fields)
        else:
            _residual_32(fields)
