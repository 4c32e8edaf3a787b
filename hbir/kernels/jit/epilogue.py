# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba and llvmlite ship no types)
"""Epilogues of convolutions, written as LLVM IR: int32 or int64 sums become rescaled, clamped integers.

The general one writes `apply_scale` in int64 lanes; the narrow one is the same function for factors that fit the high word of
a product, and is joined to the tiles that make the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from hbir.kernels.jit.vectors import ACC, I8, I32, I64, const, features_of, load, masked_store, splat
from hbir.numerics.rescale import apply_scale

__all__ = ["Lanes", "Narrow", "finish_function"]


class Lanes:
    """A vector of int64 with Python's operators, so that `apply_scale` itself writes the vector code."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def _other(self, other: Lanes | int) -> Any:
        kind = self.value.type
        return other.value if isinstance(other, Lanes) else ir.Constant(kind, [other] * kind.count)

    def _emit(self, name: str, left: Any, right: Any) -> Lanes:
        return Lanes(self.builder, getattr(self.builder, name)(left, right))

    def signed(self) -> Lanes:
        """The same, wholly defined."""
        return self

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
        """Each lane held between `lo` and `hi`."""
        builder = self.builder
        raised = builder.select(builder.icmp_signed(">", self.value, lo.value), self.value, lo.value)
        return Lanes(builder, builder.select(builder.icmp_signed("<", raised, hi.value), raised, hi.value))


class _LowLanes(Lanes):
    """Eight int32 in the low halves of int64 lanes, whose high halves may hold anything; only a product reads them.

    AVX-512 multiplies such halves in one instruction. LLVM finds it only where it sees both factors being sign extended, so
    that the factor which does not change is kept from leaving the loop.
    """

    def __init__(self, builder: Any, value: Any, single: bool) -> None:
        super().__init__(builder, value)
        self.single = single

    def signed(self) -> Lanes:
        half = ir.Constant(self.value.type, [32] * self.value.type.count)
        return Lanes(self.builder, self.builder.ashr(self.builder.shl(self.value, half), half))

    def here(self) -> Lanes:
        """`signed` at this place of the program."""
        if not self.single:
            return self.signed()
        kind = self.value.type
        value = self.builder.asm(ir.FunctionType(kind, [kind]), "", "=v,0", [self.value], True)
        return _LowLanes(self.builder, value, True).signed()

    def __mul__(self, other: Lanes | int) -> Lanes:
        return self.signed() * (other.here() if isinstance(other, _LowLanes) else other)


_HALF, _SIXTEEN = ir.VectorType(I64, 8), ir.VectorType(I64, 16)


def finish_function(bits: int, mode: str, wide: bool = False) -> Any:
    """Intrinsic `finish(fields)`: accumulators of 16 channels become integers of `bits` bits, column by column of 16.

    The sums are int32, or int64 where `wide`: these already hold their correction (the bias), and raw ones stay int64.

    `mode`: "raw" (the accumulator), "plain" (one rescale) or "residual" (a scaled residual is added, then rescaled again).
    `fields`: an int64 tuple of rows, columns, address and byte pitch of the sums, addresses of int32
    correction[16 * columns], int32 multiplier[16 * columns], int32 shift[16 * columns], int64 target[rows] (where each row's
    results go) and int32 residual[rows][16 * columns], channels to write (at most 16 * columns), zp_out, lo, hi, residual
    multiplier, shift and zero point, output multiplier and shift.
    """

    @intrinsic
    def finish(typingctx: Any, fields: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            single = "+avx512f" in features_of(context)
            values = cgutils.unpack_tuple(builder, arguments[0])
            _emit_finish(builder, mode, ir.IntType(bits), single, wide, values)
            return context.get_dummy_value()

        return types.void(fields), codegen

    return finish


def _halves(builder: Any, line: Any, single: bool) -> list[_LowLanes]:
    """The even and the odd lanes of sixteen int32."""
    even = builder.bitcast(line, _HALF)
    odd = builder.lshr(even, ir.Constant(_HALF, [32] * 8))
    return [_LowLanes(builder, even, single), _LowLanes(builder, odd, single)]


def _joined(builder: Any, even: Lanes, odd: Lanes) -> Any:
    """Sixteen int32: the low halves of `even` and `odd` in turn."""
    parts = [builder.bitcast(part.value, ACC) for part in (even, odd)]
    order = [lane + (16 if odd else 0) for lane in range(0, 16, 2) for odd in (False, True)]
    return builder.shuffle_vector(*parts, ir.Constant(ACC, order))


def _emit_finish(builder: Any, mode: str, out_type: Any, single: bool, wide: bool, fields: Any) -> None:
    (
        rows, columns, sums, pitch, correction, multiplier, shift, targets, residuals, count,
        zp_out, lo, hi, residual_multiplier, residual_shift, residual_zp, out_multiplier, out_shift,
    ) = fields  # fmt: skip

    def every(value: Any) -> Lanes:
        return Lanes(builder, splat(builder, value, 16 if wide else 8))

    def parts(line: Any) -> Sequence[Lanes]:
        return [Lanes(builder, builder.sext(line, _SIXTEEN))] if wide else _halves(builder, line, single)

    def whole(scaled: Sequence[Lanes]) -> Any:
        return builder.trunc(scaled[0].value, ACC) if wide else _joined(builder, *scaled)

    # Clamping before the zero point is added leaves 32 bits for that addition.
    low, high = every(builder.sub(lo, zp_out)), every(builder.sub(hi, zp_out))
    zp = splat(builder, builder.trunc(zp_out, I32), 16)
    m_r, s_r, zp_r = every(residual_multiplier), every(residual_shift), every(residual_zp)
    m_o, s_o = every(out_multiplier), every(out_shift)
    row_bytes = builder.mul(columns, const(64))

    def column_rows(column: Any, mask: Any) -> None:
        at = builder.mul(column, const(64))
        correction_line = None if wide else load(builder, builder.add(correction, at), ACC)
        m = parts(load(builder, builder.add(multiplier, at), ACC))
        s = [part.signed() for part in parts(load(builder, builder.add(shift, at), ACC))]
        sum_at = builder.add(sums, builder.mul(column, const(128 if wide else 64)))
        residual_at = builder.add(residuals, at)
        byte_at = builder.mul(column, const(2 * out_type.width))
        with cgutils.for_range(builder, rows) as row:
            value = load(builder, builder.add(sum_at, builder.mul(row.index, pitch)), _SIXTEEN if wide else ACC)
            if not wide:  # modulo 2^32, as the correction of unsigned activations needs
                value = builder.add(value, correction_line)
            if mode != "raw":
                begun = [Lanes(builder, value)] if wide else _halves(builder, value, single)
                scaled = [apply_scale(*xms) for xms in zip(begun, m, s, strict=True)]
                if mode == "residual":
                    line = load(builder, builder.add(residual_at, builder.mul(row.index, row_bytes)), ACC)
                    others = [part.signed() - zp_r for part in parts(line)]
                    scaled = [
                        apply_scale(value + apply_scale(other, m_r, s_r), m_o, s_o)
                        for value, other in zip(scaled, others, strict=True)
                    ]
                value = builder.add(whole([part.clamp(low, high) for part in scaled]), zp)
            kind = ir.VectorType(out_type, 16)
            result = value if value.type == kind else builder.trunc(value, kind)
            target = builder.add(load(builder, builder.add(targets, builder.mul(row.index, const(8))), I64), byte_at)
            if mask is None:
                builder.store(result, builder.inttoptr(target, result.type.as_pointer())).align = 1
            else:
                masked_store(builder, target, result, mask)

    full = builder.sdiv(count, const(16))
    with cgutils.for_range(builder, full) as column:
        column_rows(column.index, None)
    with builder.if_then(builder.icmp_signed("<", full, columns)):
        rest = builder.trunc(builder.sub(count, builder.mul(full, const(16))), I32)
        mask = builder.icmp_signed("<", ir.Constant(ACC, list(range(16))), splat(builder, rest, 16))
        column_rows(full, mask)


class Narrow:
    """The epilogue into int8 with multipliers of shift 32: `high word of (sum * m + 2^31 + zp_out * 2^32)`, clamped.

    That is `apply_scale(sum, m, 32) + zp_out`, and equal to the general epilogue for m = multiplier * 2^(32 - shift),
    provided that this is below 2^31 (the caller looks). `place` holds addresses of int32 correction[16 * columns], int64
    factors[2][8 * columns] (even channels, odd channels), int64 target[rows], then channels to write (more than
    16 * (columns - 1)), 2^31 + zp_out * 2^32, lo, hi.
    """

    def __init__(self, builder: Any, single: bool, place: Any, columns: int) -> None:
        self.builder, self.single, self.columns = builder, single, columns
        words = [load(builder, builder.add(place, const(8 * i)), I64) for i in range(7)]
        correction, self.factors, self.targets, self.count, self.rounding, lo, hi = words
        self.corrections = [
            load(builder, builder.add(correction, const(64 * column)), ACC) for column in range(columns)
        ]
        self.low, self.high = (splat(builder, builder.trunc(word, I32), 16) for word in (lo, hi))

    def result(self, value: Any, column: int) -> Any:
        """Sixteen int8 of the sums `value`."""
        builder = self.builder
        parts = []
        for odd, half in enumerate(_halves(builder, value, self.single)):
            at = builder.add(self.factors, const(64 * (column + odd * self.columns)))
            factor = _LowLanes(builder, load(builder, at, _HALF), self.single)
            product = (half.signed() * factor.signed()).value
            parts.append(builder.bitcast(builder.add(product, splat(builder, self.rounding, 8)), ACC))
        order = [lane + 16 * odd for lane in range(1, 16, 2) for odd in (0, 1)]
        scaled = builder.shuffle_vector(*parts, ir.Constant(ACC, order))
        raised = builder.select(builder.icmp_signed(">", scaled, self.low), scaled, self.low)
        clamped = builder.select(builder.icmp_signed("<", raised, self.high), raised, self.high)
        return builder.trunc(clamped, ir.VectorType(I8, 16))

    def store(self, rows: list[list[Any]]) -> None:
        """Write rows of results; only the last column may have less than sixteen channels."""
        builder = self.builder
        targets = [load(builder, builder.add(self.targets, const(8 * row)), I64) for row in range(len(rows))]
        for target, row in zip(targets, rows, strict=True):
            for column, result in enumerate(row[:-1]):
                place = builder.add(target, const(16 * column))
                builder.store(result, builder.inttoptr(place, result.type.as_pointer())).align = 1
        last = 16 * (self.columns - 1)
        rest = builder.sub(self.count, const(last))
        with builder.if_else(builder.icmp_signed(">=", rest, const(16))) as (whole, partial):
            with whole:
                for target, row in zip(targets, rows, strict=True):
                    place = builder.add(target, const(last))
                    builder.store(row[-1], builder.inttoptr(place, row[-1].type.as_pointer())).align = 1
            with partial:
                left = splat(builder, builder.trunc(rest, I32), 16)
                mask = builder.icmp_signed("<", ir.Constant(ACC, list(range(16))), left)
                for target, row in zip(targets, rows, strict=True):
                    masked_store(builder, builder.add(target, const(last)), row[-1], mask)
