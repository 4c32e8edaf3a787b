"""The int8 dot-product tile of matrix products, written as LLVM IR: 16 output channels a vector, 4 products a lane.

With AVX512-VNNI a tile is a block of `vpdpbusd`, whose first operand is unsigned: activations enter as x + 128 (x ^ 0x80),
so a tile of rows x gives sum((x + 128) * w), and a tile over a row of zeros gives the 128 * sum(w) to subtract. Elsewhere the
same tile is plain widening multiplications, and that correction is 0. Results are identical (integers modulo 2^32).
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.imputils import impl_ret_borrowed
from numba.extending import intrinsic

__all__ = ["contiguous", "tile_function"]

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_ACC = ir.VectorType(_I32, 16)
_BYTES = ir.VectorType(_I8, 64)


def _const(value: int) -> Any:
    return ir.Constant(_I64, value)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    vector = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(vector, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(first, vector, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


class _Vnni:
    """acc += dot4(x ^ 0x80 as unsigned, w) by `vpdpbusd`."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        kind = ir.FunctionType(_ACC, [_ACC, _ACC, _ACC])
        self.dot = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
        flip = ir.Constant(_ACC, [-0x7F7F7F80] * 16)
        # Opaque to the optimiser: LLVM's instruction selection never ends on a splat xor-ed with a splat constant here.
        self.flip = builder.asm(ir.FunctionType(_ACC, [_ACC]), "", "=v,0", [flip], False)

    def activation(self, word: Any) -> Any:
        return self.builder.xor(_splat(self.builder, word, 16), self.flip)

    def weight(self, line: Any) -> Any:
        return line

    def accumulate(self, acc: Any, activation: Any, weight: Any) -> Any:
        return self.builder.call(self.dot, [acc, activation, weight])


class _Portable:
    """acc += dot4(x, w) with signed bytes on any processor: four widened multiply-adds."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder

    def activation(self, word: Any) -> Any:
        builder = self.builder
        parts = []
        for k in range(4):
            byte = builder.ashr(builder.shl(word, ir.Constant(_I32, 24 - 8 * k)), ir.Constant(_I32, 24))
            parts.append(_splat(builder, byte, 16))
        return parts

    def weight(self, line: Any) -> Any:
        builder = self.builder
        parts = []
        for k in range(4):  # byte k of each 32-bit lane, sign extended
            left = builder.shl(line, ir.Constant(_ACC, [24 - 8 * k] * 16))
            parts.append(builder.ashr(left, ir.Constant(_ACC, [24] * 16)))
        return parts

    def accumulate(self, acc: Any, activation: Any, weight: Any) -> Any:
        for x, w in zip(activation, weight, strict=True):
            acc = self.builder.add(acc, self.builder.mul(x, w))
        return acc


def _has_vnni(context: Any) -> bool:
    """Whether the code generator's target (not merely this host) has the instruction."""
    return "+avx512vnni" in context.codegen()._tm_features.split(",")  # pyright: ignore[reportPrivateUsage]


def tile_function(rows: int, columns: int) -> Any:
    """Intrinsic `tile(pointers, taps, quads, weight, stride, out)`: int32[rows][16 * columns] sums, all arguments int64.

    `pointers`: address of int64[taps][rows], where each row's `4 * quads` activation bytes of each tap begin; `weight`: address
    of the packed lines of the first 16 channels, `stride` bytes before those of the next 16; `out`: address of the sums.
    """

    @intrinsic
    def tile(typingctx: Any, pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any, out: Any) -> Any:  # noqa: ARG001
        signature = types.void(*[types.int64] * 6)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:  # noqa: ARG001
            _emit_tile(builder, _Vnni(builder) if _has_vnni(context) else _Portable(builder), rows, columns, *arguments)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _load(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def _emit_tile(
    builder: Any, dot: Any, rows: int, columns: int, pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any, out: Any
) -> None:
    sums = [[cgutils.alloca_once(builder, _ACC) for _ in range(columns)] for _ in range(rows)]
    for row in sums:
        for place in row:
            builder.store(ir.Constant(_ACC, [0] * 16), place)
    step = builder.mul(quads, _const(64))  # bytes of packed weight that one tap takes
    with cgutils.for_range(builder, taps) as tap:
        table = builder.add(pointers, builder.mul(tap.index, _const(8 * rows)))
        starts = [_load(builder, builder.add(table, _const(8 * row)), _I64) for row in range(rows)]
        panel = builder.add(weight, builder.mul(tap.index, step))
        with cgutils.for_range(builder, quads) as quad:
            line = builder.add(panel, builder.mul(quad.index, _const(64)))
            weights = [
                dot.weight(_load(builder, builder.add(line, builder.mul(stride, _const(column))), _ACC))
                for column in range(columns)
            ]
            offset = builder.mul(quad.index, _const(4))
            for start, row in zip(starts, sums, strict=True):
                activation = dot.activation(_load(builder, builder.add(start, offset), _I32))
                for place, weight_line in zip(row, weights, strict=True):
                    builder.store(dot.accumulate(builder.load(place), activation, weight_line), place)
    for i, row in enumerate(sums):
        for j, place in enumerate(row):
            target = builder.add(out, _const(64 * (i * columns + j)))
            builder.store(builder.load(place), builder.inttoptr(target, _ACC.as_pointer())).align = 1


@intrinsic
def contiguous(typingctx: Any, row: Any) -> Any:  # noqa: ARG001
    """The one-dimensional array `row` retyped as contiguous, which the caller vouches for, so that loops over it vectorise."""
    result = row.copy(layout="C")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return impl_ret_borrowed(context, builder, signature.return_type, arguments[0])

    return result(row), codegen
