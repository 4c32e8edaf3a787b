# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba and llvmlite ship no types)
"""Tiles of int16 activations and int8 weights, written as LLVM IR: int32 sums of a part of K, added to int64 sums.

Dense tiles multiply pairs of words and add both products to one int32 lane (`pmaddwd`, with AVX512-VNNI `vpdpwssd`, which LLVM
finds by itself); the two lanes of a channel, each of half the products, meet in int64. A product is at most 2^15 * 2^7 = 2^22,
so that a lane holds 511 of them: QUADS and TAPS say how much of K one call may take.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hbir.kernels.jit.vectors import ACC, I8, I32, I64, const, load, masked_load, splat

__all__ = ["QUADS", "TAPS", "word_depthwise_function", "word_tile_function"]

QUADS = 255  # quads of K for one dense tile: a lane gets two products of each, 255 * 2 * 2^22 < 2^31 <= 256 * 2 * 2^22
"""Most quads of K that one dense tile sums without overflow."""
TAPS = 511  # taps for one depthwise tile: 511 * 2^22 < 2^31 <= 512 * 2^22
"""Most taps that one depthwise tile sums without overflow."""

_I16 = ir.IntType(16)
_BYTES, _WORDS, _PRODUCTS = (ir.VectorType(kind, 32) for kind in (I8, _I16, I32))
_EIGHT, _SIXTEEN = ir.VectorType(I64, 8), ir.VectorType(I64, 16)
_EVEN, _ODD = (ir.Constant(ACC, list(range(first, 32, 2))) for first in (0, 1))


def _arguments(count: int) -> Any:
    return types.void(*[types.int64] * count)


def _add(builder: Any, sums: Any, start: Any, out: Any) -> None:
    """out = start + sums, all int64 vectors; `start` and `out` are addresses."""
    total = builder.add(load(builder, start, sums.type), sums)
    builder.store(total, builder.inttoptr(out, sums.type.as_pointer())).align = 1


def word_tile_function(rows: int, columns: int) -> Any:
    """Intrinsic `tile(pointers, taps, quads, offset, weight, stride, start, pitch, out)`, all arguments int64.

    int64 out[rows][16 * columns] = start + sums. `pointers`: address of int64[taps][rows], `offset` bytes before each row's
    `4 * quads` activations of each tap; taps * quads is at most QUADS; `weight`: address of the packed int8 lines of the first
    16 channels, `stride` bytes before those of the next 16; `start`: address of int64[16 * columns], `pitch` bytes from row to
    row (0: the same for all).
    """

    @intrinsic
    def tile(
        typingctx: Any, pointers: Any, taps: Any, quads: Any, offset: Any, weight: Any, stride: Any, start: Any,
        pitch: Any, out: Any,
    ) -> Any:  # fmt: skip
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_tile(builder, rows, columns, *arguments)
            return context.get_dummy_value()

        return _arguments(9), codegen

    return tile


def _pairs(builder: Any, x: Any, w: Any) -> Any:
    """Sixteen int32: x[2k] * w[2k] + x[2k + 1] * w[2k + 1] of 32 words each."""
    products = builder.mul(builder.sext(x, _PRODUCTS), builder.sext(w, _PRODUCTS))
    even, odd = (builder.shuffle_vector(products, products, order) for order in (_EVEN, _ODD))
    return builder.add(even, odd)


def _emit_tile(
    builder: Any, rows: int, columns: int,
    pointers: Any, taps: Any, quads: Any, offset: Any, weight: Any, stride: Any, start: Any, pitch: Any, out: Any,
) -> None:  # fmt: skip
    """Eight channels a vector: 32 weights in the order they are packed meet a quad of activations, repeated eight times."""
    halves = 2 * columns
    sums = [[cgutils.alloca_once(builder, ACC) for _ in range(halves)] for _ in range(rows)]
    for row in sums:
        for place in row:
            builder.store(ir.Constant(ACC, [0] * 16), place)
    step = builder.mul(quads, const(64))  # bytes of packed weight that one tap takes
    with cgutils.for_range(builder, taps) as tap:
        table = builder.add(pointers, builder.mul(tap.index, const(8 * rows)))
        starts = [builder.add(load(builder, builder.add(table, const(8 * row)), I64), offset) for row in range(rows)]
        panel = builder.add(weight, builder.mul(tap.index, step))
        with cgutils.for_range(builder, quads) as quad:
            line = builder.add(panel, builder.mul(quad.index, const(64)))
            weights = []
            for half in range(halves):
                shift = builder.add(builder.mul(stride, const(half // 2)), const(32 * (half % 2)))
                weights.append(builder.sext(load(builder, builder.add(line, shift), _BYTES), _WORDS))
            at = builder.mul(quad.index, const(8))
            for begin, row in zip(starts, sums, strict=True):
                four = splat(builder, load(builder, builder.add(begin, at), I64), 8)
                words = builder.bitcast(four, _WORDS)
                for place, factor in zip(row, weights, strict=True):
                    builder.store(builder.add(builder.load(place), _pairs(builder, words, factor)), place)
    low = ir.Constant(_EIGHT, [32] * 8)
    for i, row in enumerate(sums):
        begin = builder.add(start, builder.mul(pitch, const(i)))
        for half, place in enumerate(row):
            both = builder.bitcast(builder.load(place), _EIGHT)
            total = builder.add(builder.ashr(builder.shl(both, low), low), builder.ashr(both, low))
            target = builder.add(out, const(64 * (i * halves + half)))
            _add(builder, total, builder.add(begin, const(64 * half)), target)


def word_depthwise_function(rows: int) -> Any:
    """Intrinsic `depthwise(pointers, taps, offset, weight, count, start, pitch, out)`, all arguments int64.

    int64 out[rows][16] = start + sums of one input channel each. `pointers`: address of int64[taps][rows], where the first
    channel of each row's tap lies; at most TAPS; `offset`: bytes to the first of the `count` (1..16) channels read; `weight`:
    address of int8[taps][16]; `start`: address of int64[16], `pitch` bytes from row to row (0: the same for all).
    """

    @intrinsic
    def depthwise(
        typingctx: Any, pointers: Any, taps: Any, offset: Any, weight: Any, count: Any, start: Any, pitch: Any, out: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            whole = builder.icmp_signed("==", arguments[4], const(16))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    _emit_depthwise(builder, rows, False, *arguments)
                with otherwise:
                    _emit_depthwise(builder, rows, True, *arguments)
            return context.get_dummy_value()

        return _arguments(8), codegen

    return depthwise


def _emit_depthwise(
    builder: Any, rows: int, partial: bool,
    pointers: Any, taps: Any, offset: Any, weight: Any, count: Any, start: Any, pitch: Any, out: Any,
) -> None:  # fmt: skip
    places = [cgutils.alloca_once(builder, ACC) for _ in range(rows)]
    for place in places:
        builder.store(ir.Constant(ACC, [0] * 16), place)
    words, narrow = ir.VectorType(_I16, 16), ir.VectorType(I8, 16)
    mask = builder.icmp_signed("<", ir.Constant(ACC, list(range(16))), splat(builder, builder.trunc(count, I32), 16))
    with cgutils.for_range(builder, taps) as tap:
        table = builder.add(pointers, builder.mul(tap.index, const(8 * rows)))
        factor = builder.sext(load(builder, builder.add(weight, builder.mul(tap.index, const(16))), narrow), ACC)
        for row, place in enumerate(places):
            address = builder.add(load(builder, builder.add(table, const(8 * row)), I64), offset)
            x = masked_load(builder, address, words, mask) if partial else load(builder, address, words)
            product = builder.mul(builder.sext(x, ACC), factor)
            builder.store(builder.add(builder.load(place), product), place)
    for row, place in enumerate(places):
        begin = builder.add(start, builder.mul(pitch, const(row)))
        _add(builder, builder.sext(builder.load(place), _SIXTEEN), begin, builder.add(out, const(128 * row)))
