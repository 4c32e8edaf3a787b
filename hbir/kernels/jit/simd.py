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

from hbir.numerics.rescale import apply_scale

__all__ = [
    "Lanes",
    "atomic_add",
    "atomic_load",
    "atomic_swap",
    "call_finish",
    "call_task",
    "call_tile",
    "copy_word4",
    "copy_word8",
    "depthwise_function",
    "finish_function",
    "pointer_float32",
    "pointer_int8",
    "pointer_int16",
    "pointer_int32",
    "pointer_int64",
    "relax",
    "tile_function",
]

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_ACC = ir.VectorType(_I32, 16)


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
    def tile(typingctx: Any, pointers: Any, taps: Any, quads: Any, weight: Any, stride: Any, out: Any) -> Any:
        signature = types.void(*[types.int64] * 6)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_tile(builder, _Vnni(builder) if _has_vnni(context) else _Portable(builder), rows, columns, *arguments)
            return context.get_dummy_value()

        return signature, codegen

    return tile


def _load(builder: Any, address: Any, kind: Any) -> Any:
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def _emit_tile(
    builder: Any,
    dot: Any,
    rows: int,
    columns: int,
    pointers: Any,
    taps: Any,
    quads: Any,
    weight: Any,
    stride: Any,
    out: Any,
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


def depthwise_function(rows: int) -> Any:
    """Intrinsic `depthwise(pointers, taps, offset, weight, count, out)`: int32[rows][16] sums of one input channel each.

    `pointers`: address of int64[taps][rows], where the first channel of each row's tap lies; `offset`: bytes to the first of
    the `count` (1..16) channels read; `weight`: address of int8[taps][16]; all int64.
    """

    @intrinsic
    def depthwise(typingctx: Any, pointers: Any, taps: Any, offset: Any, weight: Any, count: Any, out: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            whole = builder.icmp_signed("==", arguments[4], _const(16))
            with builder.if_else(whole) as (then, otherwise):
                with then:
                    _emit_depthwise(builder, rows, False, *arguments)
                with otherwise:
                    _emit_depthwise(builder, rows, True, *arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 6), codegen

    return depthwise


def _emit_depthwise(
    builder: Any, rows: int, partial: bool, pointers: Any, taps: Any, offset: Any, weight: Any, count: Any, out: Any
) -> None:
    sums = [cgutils.alloca_once(builder, _ACC) for _ in range(rows)]
    for place in sums:
        builder.store(ir.Constant(_ACC, [0] * 16), place)
    kind = ir.VectorType(_I8, 16)
    mask = builder.icmp_signed("<", ir.Constant(_ACC, list(range(16))), _splat(builder, builder.trunc(count, _I32), 16))
    with cgutils.for_range(builder, taps) as tap:
        line = _load(builder, builder.add(weight, builder.mul(tap.index, _const(16))), kind)
        factor = builder.sext(line, _ACC)
        table = builder.add(pointers, builder.mul(tap.index, _const(8 * rows)))
        for row, place in enumerate(sums):
            address = builder.add(_load(builder, builder.add(table, _const(8 * row)), _I64), offset)
            x = _masked_load(builder, address, kind, mask) if partial else _load(builder, address, kind)
            product = builder.mul(builder.sext(x, _ACC), factor)
            builder.store(builder.add(builder.load(place), product), place)
    for row, place in enumerate(sums):
        target = builder.inttoptr(builder.add(out, _const(64 * row)), _ACC.as_pointer())
        builder.store(builder.load(place), target).align = 1


def _masked_load(builder: Any, address: Any, kind: Any, mask: Any) -> Any:
    name = f"llvm.masked.load.v16i{kind.element.width}.p0"
    function = ir.FunctionType(kind, [kind.as_pointer(), _I32, mask.type, kind])
    load = cgutils.get_or_insert_function(builder.module, function, name)
    place = builder.inttoptr(address, kind.as_pointer())
    return builder.call(load, [place, ir.Constant(_I32, 1), mask, ir.Constant(kind, [0] * 16)])


def _pointer(kind: Any) -> Any:
    @intrinsic
    def pointer(typingctx: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.int64), codegen

    return pointer


pointer_int8 = _pointer(types.int8)
pointer_int16 = _pointer(types.int16)
pointer_int32 = _pointer(types.int32)
pointer_int64 = _pointer(types.int64)
pointer_float32 = _pointer(types.float32)


def _caller(count: int) -> Any:
    """Body of an intrinsic that calls the C function at its first argument with `count` int64."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [_I64] * count)
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
        return emit(builder, builder.inttoptr(values[0], _I64.as_pointer()), *values[1:])

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
            value = _load(builder, arguments[1], word)
            builder.store(value, builder.inttoptr(arguments[0], word.as_pointer())).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, types.int64), codegen

    return copy


copy_word4 = _copy_word(32)
copy_word8 = _copy_word(64)


class Lanes:
    """A vector of 16 int64 with Python's operators, so that `apply_scale` itself writes the vector code."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _other(self, other: Lanes | int) -> Any:
        return other.value if isinstance(other, Lanes) else ir.Constant(self.value.type, [other] * 16)

    def _emit(self, name: str, left: Any, right: Any) -> Lanes:
        return Lanes(self.builder, getattr(self.builder, name)(left, right))

    def __add__(self, other: Lanes | int) -> Lanes:
        return self._emit("add", self.value, self._other(other))

    def __sub__(self, other: Lanes | int) -> Lanes:
        return self._emit("sub", self.value, self._other(other))

    def __mul__(self, other: Lanes | int) -> Lanes:
        return self._emit("mul", self.value, self._other(other))

    def __rshift__(self, other: Lanes | int) -> Lanes:
        return self._emit("ashr", self.value, self._other(other))

    def __rlshift__(self, other: int) -> Lanes:
        return self._emit("shl", self._other(other), self.value)

    def clamp(self, lo: Lanes, hi: Lanes) -> Lanes:
        builder = self.builder
        raised = builder.select(builder.icmp_signed(">", self.value, lo.value), self.value, lo.value)
        return Lanes(builder, builder.select(builder.icmp_signed("<", raised, hi.value), raised, hi.value))


_WIDE = ir.VectorType(_I64, 16)


def finish_function(bits: int, mode: str) -> Any:
    """Intrinsic `finish(fields)`: accumulators of 16 channels become integers of `bits` bits, row by row.

    `mode`: "raw" (the accumulator), "plain" (one rescale) or "residual" (a scaled residual is added, then rescaled again).
    `fields`: an int64 tuple of rows, address and byte pitch of the int32 sums, addresses of int32 correction[16], int32
    multiplier[16], int64 shift[16], int64 target[rows] (where each row's results go) and int32 residual[rows][16], channels
    to write (1..16), zp_out, lo, hi, residual multiplier, shift and zero point, output multiplier and shift.
    """

    @intrinsic
    def finish(typingctx: Any, fields: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_finish(builder, mode, ir.IntType(bits), cgutils.unpack_tuple(builder, arguments[0]))
            return context.get_dummy_value()

        return types.void(fields), codegen

    return finish


def _emit_finish(builder: Any, mode: str, out_type: Any, fields: Any) -> None:
    (
        rows, sums, pitch, correction, multiplier, shift, targets, residuals, count,
        zp_out, lo, hi, residual_multiplier, residual_shift, residual_zp, out_multiplier, out_shift,
    ) = fields  # fmt: skip

    def splat(value: Any) -> Lanes:
        return Lanes(builder, _splat(builder, value, 16))

    correction_line = _load(builder, correction, _ACC)
    m = Lanes(builder, builder.sext(_load(builder, multiplier, _ACC), _WIDE))
    s = Lanes(builder, _load(builder, shift, _WIDE))
    mask = builder.icmp_signed("<", ir.Constant(_ACC, list(range(16))), _splat(builder, builder.trunc(count, _I32), 16))
    zp, low, high = splat(zp_out), splat(lo), splat(hi)
    m_r, s_r, zp_r = splat(residual_multiplier), splat(residual_shift), splat(residual_zp)
    m_o, s_o = splat(out_multiplier), splat(out_shift)
    with cgutils.for_range(builder, rows) as row:
        sum_line = _load(builder, builder.add(sums, builder.mul(row.index, pitch)), _ACC)
        narrow = builder.add(sum_line, correction_line)  # modulo 2^32, as the correction of unsigned activations needs
        value = Lanes(builder, builder.sext(narrow, _WIDE))
        if mode != "raw":
            value = apply_scale(value, m, s)
            if mode == "residual":
                line = _load(builder, builder.add(residuals, builder.mul(row.index, _const(64))), _ACC)
                other = Lanes(builder, builder.sext(line, _WIDE)) - zp_r
                value = apply_scale(value + apply_scale(other, m_r, s_r), m_o, s_o)
            value = (value + zp).clamp(low, high)
        result = builder.trunc(value.value, ir.VectorType(out_type, 16))
        target = _load(builder, builder.add(targets, builder.mul(row.index, _const(8))), _I64)
        _masked_store(builder, target, result, mask)


def _masked_store(builder: Any, address: Any, value: Any, mask: Any) -> None:
    kind = value.type
    name = f"llvm.masked.store.v16i{kind.element.width}.p0"
    function = ir.FunctionType(ir.VoidType(), [kind, kind.as_pointer(), _I32, mask.type])
    store = cgutils.get_or_insert_function(builder.module, function, name)
    builder.call(store, [value, builder.inttoptr(address, kind.as_pointer()), ir.Constant(_I32, 1), mask])
