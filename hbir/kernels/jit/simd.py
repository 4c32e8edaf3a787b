# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba and llvmlite ship no types)
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
from numba.extending import intrinsic

from hbir.kernels.jit.epilogue import Narrow
from hbir.kernels.jit.vectors import ACC, I8, I32, I64, const, features_of, load, masked_load, splat

__all__ = [
    "atomic_add",
    "atomic_load",
    "atomic_swap",
    "call_finish",
    "call_task",
    "call_tile",
    "copy_word4",
    "copy_word8",
    "depthwise_function",
    "fused_function",
    "pointer_float32",
    "pointer_int8",
    "pointer_int16",
    "pointer_int32",
    "pointer_int64",
    "relax",
    "tile_function",
]


class _Vnni:
    """acc += dot4(x ^ 0x80 as unsigned, w) by `vpdpbusd`."""

    def __init__(self, builder: Any) -> None:
        self.builder = builder
        kind = ir.FunctionType(ACC, [ACC, ACC, ACC])
        self.dot = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpdpbusd.512")
        flip = ir.Constant(ACC, [-0x7F7F7F80] * 16)
        # Opaque to the optimiser: LLVM's instruction selection never ends on a splat xor-ed with a splat constant here.
        self.flip = builder.asm(ir.FunctionType(ACC, [ACC]), "", "=v,0", [flip], False)

    def activation(self, word: Any) -> Any:
        return self.builder.xor(splat(self.builder, word, 16), self.flip)

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
            byte = builder.ashr(builder.shl(word, ir.Constant(I32, 24 - 8 * k)), ir.Constant(I32, 24))
            parts.append(splat(builder, byte, 16))
        return parts

    def weight(self, line: Any) -> Any:
        builder = self.builder
        parts = []
        for k in range(4):  # byte k of each 32-bit lane, sign extended
            left = builder.shl(line, ir.Constant(ACC, [24 - 8 * k] * 16))
            parts.append(builder.ashr(left, ir.Constant(ACC, [24] * 16)))
        return parts

    def accumulate(self, acc: Any, activation: Any, weight: Any) -> Any:
        for x, w in zip(activation, weight, strict=True):
            acc = self.builder.add(acc, self.builder.mul(x, w))
        return acc


def _dot(context: Any, builder: Any) -> Any:
    return _Vnni(builder) if "+avx512vnni" in features_of(context) else _Portable(builder)


def tile_function(rows: int, columns: int) -> Any:
    """Intrinsic `tile(pointers, taps, quads, weight, stride, out)`: int32[rows][16 * columns] sums, all arguments int64.

    `pointers`: address of int64[taps][rows], where each row's `4 * quads` activation bytes of each tap begin; `weight`: address
    of the packed lines of the first 16 channels, `stride` bytes before those of the next 16; `out`: address of the sums.
    """

    @intrinsic
    def tile(typingctx: Any, pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any, out: Any) -> Any:
        signature = types.void(*[types.int64] * 6)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_tile(builder, _dot(context, builder), rows, columns, *arguments)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _emit_tile(
    builder: Any, dot: Any, rows: int, columns: int,
    pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any, out: Any,
) -> None:  # fmt: skip
    zero = ir.Constant(ACC, [0] * 16)
    sums = _emit_dots(builder, dot, rows, [zero] * columns, pointers, taps, quads, weight, stride)
    for i, row in enumerate(sums):
        for j, value in enumerate(row):
            target = builder.add(out, const(64 * (i * columns + j)))
            builder.store(value, builder.inttoptr(target, ACC.as_pointer())).align = 1


def _emit_dots(
    builder: Any, dot: Any, rows: int, start: list[Any],
    pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any,
) -> list[list[Any]]:  # fmt: skip
    """Sums of `rows` x `len(start)` vectors; those of a column begin with its `start`."""
    sums = [[cgutils.alloca_once(builder, ACC) for _ in start] for _ in range(rows)]
    for row in sums:
        for place, value in zip(row, start, strict=True):
            builder.store(value, place)
    step = builder.mul(quads, const(64))  # bytes of packed weight that one tap takes
    with cgutils.for_range(builder, taps) as tap:
        table = builder.add(pointers, builder.mul(tap.index, const(8 * rows)))
        starts = [load(builder, builder.add(table, const(8 * row)), I64) for row in range(rows)]
        panel = builder.add(weight, builder.mul(tap.index, step))
        with cgutils.for_range(builder, quads) as quad:
            line = builder.add(panel, builder.mul(quad.index, const(64)))
            weights = [
                dot.weight(load(builder, builder.add(line, builder.mul(stride, const(column))), ACC))
                for column in range(len(start))
            ]
            offset = builder.mul(quad.index, const(4))
            for begin, row in zip(starts, sums, strict=True):
                activation = dot.activation(load(builder, builder.add(begin, offset), I32))
                for place, weight_line in zip(row, weights, strict=True):
                    builder.store(dot.accumulate(builder.load(place), activation, weight_line), place)
    return [[builder.load(place) for place in row] for row in sums]


def fused_function(rows: int, columns: int) -> Any:
    """Intrinsic `fused(pointers, taps, quads, weight, stride, narrow)`: a tile whose sums leave it as int8.

    The first arguments are those of `tile_function`; `narrow` is the address of seven int64: see `Narrow`.
    """

    @intrinsic
    def fused(typingctx: Any, pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any, narrow: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            features = features_of(context)
            dot = _dot(context, builder)
            end = Narrow(builder, "+avx512f" in features, arguments[5], columns)
            sums = _emit_dots(builder, dot, rows, end.corrections, *arguments[:5])
            end.store([[end.result(value, column) for column, value in enumerate(row)] for row in sums])
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return fused


def depthwise_function(rows: int, fused: bool) -> Any:
    """Intrinsic `depthwise(pointers, taps, offset, weight, count, out)`: int32[rows][16] sums of one input channel each.

    Where it is `fused`, the results leave as int8 and `out` is the `narrow` of `fused_function`.

    `pointers`: address of int64[taps][rows], where the first channel of each row's tap lies; `offset`: bytes to the first of
    the `count` (1..16) channels read; `weight`: address of int8[taps][16]; all int64.
    """

    @intrinsic
    def depthwise(typingctx: Any, pointers: Any, taps: Any, offset: Any, weight: Any, count: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            features = features_of(context)
            end = Narrow(builder, "+avx512f" in features, arguments[5], 1) if fused else None
            dot = _Vnni(builder) if "+avx512vnni" in features and "+avx512vbmi" in features else None
            whole = builder.icmp_signed("==", arguments[4], const(16))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    _emit_depthwise(builder, rows, False, dot, end, *arguments)
                with otherwise:
                    _emit_depthwise(builder, rows, True, dot, end, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return depthwise


def _emit_depthwise(
    builder: Any, rows: int, partial: bool, dot: Any, end: Narrow | None,
    pointers: Any, taps: Any, offset: Any, weight: Any, count: Any, out: Any,
) -> None:  # fmt: skip
    """With a `dot` of unsigned bytes, four taps at a time become the four bytes of each channel's lane."""
    places = [cgutils.alloca_once(builder, ACC) for _ in range(rows)]
    kind, bytes_64 = ir.VectorType(I8, 16), ir.VectorType(I8, 64)
    mask = builder.icmp_signed("<", ir.Constant(ACC, list(range(16))), splat(builder, builder.trunc(count, I32), 16))

    def sources(tap: Any) -> list[Any]:
        table = builder.add(pointers, builder.mul(tap, const(8 * rows)))
        return [builder.add(load(builder, builder.add(table, const(8 * row)), I64), offset) for row in range(rows)]

    def channels(address: Any) -> Any:
        return masked_load(builder, address, kind, mask) if partial else load(builder, address, kind)

    def lanes(taps_of_16: Any) -> Any:
        order = ir.Constant(ir.VectorType(I32, 64), [16 * tap + channel for channel in range(16) for tap in range(4)])
        return builder.bitcast(builder.shuffle_vector(taps_of_16, ir.Constant(bytes_64, ir.Undefined), order), ACC)

    def glued(parts: list[Any]) -> Any:
        while len(parts) > 1:
            order = ir.Constant(ir.VectorType(I32, 2 * parts[0].type.count), list(range(2 * parts[0].type.count)))
            parts = [builder.shuffle_vector(a, b, order) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    start = ir.Constant(ACC, [0] * 16) if end is None else end.corrections[0]
    for place in places:
        builder.store(start, place)
    quads = const(0) if dot is None else builder.sdiv(taps, const(4))
    if dot is not None:
        with cgutils.for_range(builder, quads) as quad:
            first = builder.mul(quad.index, const(4))
            factor = lanes(load(builder, builder.add(weight, builder.mul(quad.index, const(64))), bytes_64))
            excess = dot.accumulate(ir.Constant(ACC, [0] * 16), dot.flip, factor)  # 128 * sum of the weights
            four = [sources(builder.add(first, const(tap))) for tap in range(4)]
            for row, place in enumerate(places):
                x = lanes(glued([channels(tap[row]) for tap in four]))
                begun = builder.sub(builder.load(place), excess)
                builder.store(dot.accumulate(begun, builder.xor(x, dot.flip), factor), place)
    done = builder.mul(quads, const(4))
    with cgutils.for_range(builder, builder.sub(taps, done)) as rest:
        tap = builder.add(done, rest.index)
        factor = builder.sext(load(builder, builder.add(weight, builder.mul(tap, const(16))), kind), ACC)
        for address, place in zip(sources(tap), places, strict=True):
            product = builder.mul(builder.sext(channels(address), ACC), factor)
            builder.store(builder.add(builder.load(place), product), place)
    if end is not None:
        end.store([[end.result(builder.load(place), 0)] for place in places])
        return
    for row, place in enumerate(places):
        target = builder.inttoptr(builder.add(out, const(64 * row)), ACC.as_pointer())
        builder.store(builder.load(place), target).align = 1


def _pointer(kind: Any) -> Any:
    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return pointer


pointer_int8 = _pointer(types.int8)
"""An address as a pointer to int8."""
pointer_int16 = _pointer(types.int16)
"""An address as a pointer to int16."""
pointer_int32 = _pointer(types.int32)
"""An address as a pointer to int32."""
pointer_int64 = _pointer(types.int64)
"""An address as a pointer to int64."""
pointer_float32 = _pointer(types.float32)
"""An address as a pointer to float32."""


def _caller(count: int) -> Any:
    """Body of an intrinsic that calls the C function at its first argument with `count` int64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [I64] * count)
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(*[types.int64] * (count + 1)), codegen


@intrinsic
def call_task(typingctx: Any, address: Any, index: Any, record: Any) -> Any:
    """Call the task at `address`."""
    return _caller(2)


def _atomic(emit: Any, arguments: int, result: Any = types.int64) -> Any:
    """Codegen of an atomic operation on the int64 at its first argument."""

    def codegen(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return emit(builder, builder.inttoptr(values[0], I64.as_pointer()), *values[1:])

    return result(*[types.int64] * arguments), codegen


@intrinsic
def atomic_add(typingctx: Any, address: Any, value: Any) -> Any:
    """Add to an int64 and return what it held before."""
    return _atomic(lambda builder, place, amount: builder.atomic_rmw("add", place, amount, "seq_cst"), 2)


@intrinsic
def atomic_swap(typingctx: Any, address: Any, value: Any) -> Any:
    """Write an int64 and return what it held before."""
    return _atomic(lambda builder, place, new: builder.atomic_rmw("xchg", place, new, "seq_cst"), 2)


@intrinsic
def atomic_load(typingctx: Any, address: Any) -> Any:
    """Read an int64 that another thread may be writing."""
    return _atomic(lambda builder, place: builder.load_atomic(place, "seq_cst", 8), 1)


@intrinsic
def relax(typingctx: Any) -> Any:
    """Tell the processor that this is a waiting loop."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if builder.module.triple.startswith("x86_64"):
            kind = ir.FunctionType(ir.VoidType(), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse2.pause"), [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call_tile(typingctx: Any, address: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Call the block of tiles at `address`."""
    return _caller(8)


@intrinsic
def call_finish(typingctx: Any, address: Any, a: Any, b: Any) -> Any:
    """Call the epilogue at `address`."""
    return _caller(2)


def _copy_word(bits: int) -> Any:
    @intrinsic
    def copy(typingctx: Any, target: Any, source: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = ir.IntType(bits)
            value = load(builder, arguments[1], word)
            builder.store(value, builder.inttoptr(arguments[0], word.as_pointer())).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return copy


copy_word4 = _copy_word(32)
"""Copy four bytes from one address to another, of any alignment."""
copy_word8 = _copy_word(64)
"""Copy eight bytes from one address to another, of any alignment."""
