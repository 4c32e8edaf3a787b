"""Lookup tables for functions of one value: exact 256-entry tables for int8 inputs, and for int16 inputs the
513-entry interpolated form (TOSA TABLE and a RESCALE) or up to 64 segments of 64 entries, whichever has the smaller
worst error. Contents come from decimal arithmetic (functions.py), so they are the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.errors import IrError
from hbir.numerics.functions import FUNCTIONS, Function, compose, function_named, product, table_context, total
from hbir.numerics.rescale import quantize_multiplier, rescale
from hbir.numerics.rounding import quantized_range

__all__ = [
    "FUNCTIONS",
    "Function",
    "InterpolatedTable",
    "Quantization",
    "SegmentedTable",
    "best_int16_table",
    "compose",
    "exp_table_int8",
    "exp_table_int16",
    "function_named",
    "ideal_int16",
    "int8_table",
    "int16_interpolated_table",
    "int16_segmented_table",
    "product",
    "reciprocal_table",
    "rsqrt_table",
    "total",
    "worst_error",
]

Int16Array = npt.NDArray[np.int16]
Int32Array = npt.NDArray[np.int32]
Parameters = Mapping[str, float] | Sequence[float] | None

SEGMENT_ENTRIES = 64
MAX_SEGMENTS = 64
ALL_INT16: Int32Array = np.arange(-32768, 32768, dtype=np.int32)
TIE_DIGITS = Decimal(10) ** -35
FLOAT_DOUBT = 1e-8
MAX_SPACING = 11


@dataclass(frozen=True)
class Quantization:
    """real = (q - zero_point) * scale, with q in [low, high]; `scale` is rounded to float32 first, as element types
    hold it."""

    scale: float
    zero_point: int = 0
    bits: int = 16

    def __post_init__(self) -> None:
        """Round the scale to float32; `IrError` HB0273 for a bad scale, HB0274 for other widths."""
        with np.errstate(over="ignore"):  # infinity is refused below
            object.__setattr__(self, "scale", float(np.float32(self.scale)))
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise IrError(73, f"scale {self.scale} of a table is not a positive finite float32")
        if self.bits not in (8, 16):
            raise IrError(74, f"tables have 8-bit or 16-bit values, not {self.bits}")

    @property
    def low(self) -> int:
        """Smallest storage value."""
        return quantized_range(self.bits)[0]

    @property
    def high(self) -> int:
        """Largest storage value."""
        return quantized_range(self.bits)[1]

    @property
    def dtype(self) -> npt.DTypeLike:
        """numpy's storage type."""
        return np.int8 if self.bits == 8 else np.int16


UNIT = Quantization(1.0)


def _quantized(f: Function, inputs: Sequence[int], source: Quantization, target: Quantization) -> list[int]:
    """clamp(rint(f(s_x (x - zp_x)) / s_y) + zp_y), half to even, for every integer in `inputs`.

    A quotient within 1e-35 of half an integer is a tie: the exact evaluation is good to 1e-45, and a function that is
    not rational comes that near to a tie only where it is one.
    """
    step, unit = Decimal(source.scale), Decimal(target.scale)
    lowest, highest = target.low - target.zero_point, target.high - target.zero_point
    values: list[int] = []
    with localcontext(table_context()):
        for x in inputs:
            quotient = f.exact(step * (x - source.zero_point)) / unit
            clamped = min(max(quotient, Decimal(lowest)), Decimal(highest))
            values.append(int(clamped.quantize(TIE_DIGITS).to_integral_value()) + target.zero_point)
    return values


def _resolve(f: Function | str, parameters: Parameters) -> Function:
    if isinstance(f, str):
        return function_named(f, parameters)
    if parameters is None:
        return f
    return f.bind(**parameters) if isinstance(parameters, Mapping) else f.bind(*parameters)


def int8_table(
    f: Function | str,
    scale_in: float,
    zp_in: int,
    scale_out: float,
    zp_out: int,
    parameters: Parameters = None,
    *,
    out_bits: int = 8,
) -> npt.NDArray[np.int8] | Int16Array:
    """The 256 results of `f` for an int8 input: entry i + 128 is clamp(rint(f(s_x (i - zp_x)) / s_y) + zp_y).

    `f` is a name of `FUNCTIONS` with its `parameters` or a `Function` (such as a composition). int8[256], or
    int16[256] with `out_bits=16`. Raises `IrError` for an unknown function or parameter and for a scale that is not
    positive and finite.
    """
    target = Quantization(scale_out, zp_out, out_bits)
    source = Quantization(scale_in, zp_in, 8)
    return np.array(_quantized(_resolve(f, parameters), range(-128, 128), source, target), target.dtype)


def ideal_int16(
    f: Function | str, source: Quantization, target: Quantization, parameters: Parameters = None
) -> Int32Array:
    """The correctly rounded and clamped result of `f` for all 65,536 int16 inputs, int32[65536], input -32768 first.

    Nearly all results are decided by float64; those that come within 1e-8 (relative, far above any libm's error) of a
    rounding threshold, or have no finite float64 value, are decided by decimal arithmetic. So the result does not
    depend on the libm.
    """
    return _ideal(_resolve(f, parameters), ALL_INT16, source, target)


def _ideal(f: Function, inputs: Int32Array, source: Quantization, target: Quantization) -> Int32Array:
    x = (inputs - source.zero_point).astype(np.float64) * source.scale
    value = f.evaluate(x)
    with np.errstate(all="ignore"):
        quotient = np.clip(
            value / target.scale, target.low - target.zero_point - 1.0, target.high - target.zero_point + 1.0
        )
        doubt = FLOAT_DOUBT * (1.0 + np.minimum(np.abs(x) + np.abs(value), 1e300) / target.scale)
        saturated = quotient != value / target.scale
        doubtful = ~np.isfinite(value) | (~saturated & (np.abs(quotient - np.floor(quotient) - 0.5) <= doubt))
    ideal = np.clip(np.rint(np.nan_to_num(quotient)) + target.zero_point, target.low, target.high).astype(np.int32)
    ideal[doubtful] = _quantized(f, inputs[doubtful].tolist(), source, target)
    return ideal


@dataclass(frozen=True)
class InterpolatedTable:
    """TOSA TABLE for int16 inputs followed by a RESCALE to the output.

    `entries` int16[513], entry i for the input -32768 + 128 i; `multiplier`, `shift`, `zero_point` of the RESCALE;
    `bits` 8 or 16.
    """

    entries: Int16Array
    multiplier: int
    shift: int
    zero_point: int = 0
    bits: int = 16

    @property
    def fits_tosa(self) -> bool:
        """Whether TOSA defines the table: neighbouring entries differ by no more than int16 holds."""
        steps = np.diff(self.entries.astype(np.int32))
        return bool(steps.min() >= -32768 and steps.max() <= 32767)

    def interpolate(self, x: npt.NDArray[np.integer[Any]]) -> Int32Array:
        """(t[i] << 7) + (t[i+1] - t[i]) * (x & 127) with i = (x >> 7) + 256: int32 with 7 fractional bits."""
        wide = x.astype(np.int32)
        index, fraction = (wide >> 7) + 256, wide & 127
        base = self.entries[index].astype(np.int32)
        return (base << 7) + (self.entries[index + 1].astype(np.int32) - base) * fraction

    def evaluate(self, x: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int8] | Int16Array:
        """The table at int16 inputs of any shape: `interpolate`, then the rescale to int8 or int16."""
        limits = quantized_range(self.bits)
        return rescale(self.interpolate(x), self.multiplier, self.shift, 0, self.zero_point, *limits)


@dataclass(frozen=True)
class SegmentedTable:
    """1 to 64 segments of 64 entries, each with its own range and spacing.

    `starts` int16[N] ascending, `starts[0]` = -32768; `shifts` uint8[N], 0 to 11; `entries` int16[N, 64] in output
    units. For an input x take the last segment n with starts[n] <= x and d = x - starts[n] (0 to 65535), k = d >>
    shifts[n], r = d & (2^shifts[n] - 1); the result is ((e[k] << shift) + (e[k+1] - e[k]) * r + (2^shift >> 1)) >>
    shift, with e[64] = e[63]. All of it fits in int32. A segment never reaches past its 64th entry: starts[n+1] <=
    starts[n] + 63 * 2^shifts[n] + 1.
    """

    starts: Int16Array
    shifts: npt.NDArray[np.uint8]
    entries: Int16Array

    def evaluate(self, x: npt.NDArray[np.integer[Any]]) -> Int16Array:
        """The table at int16 inputs of any shape, int16."""
        wide = x.astype(np.int32)
        segment = np.searchsorted(self.starts.astype(np.int32), wide, side="right") - 1
        shift = self.shifts.astype(np.int32)[segment]
        distance = wide - self.starts.astype(np.int32)[segment]
        index, rest = distance >> shift, distance & ((1 << shift) - 1)
        base = self.entries[segment, index].astype(np.int32)
        slope = self.entries[segment, np.minimum(index + 1, SEGMENT_ENTRIES - 1)].astype(np.int32) - base
        return (((base << shift) + slope * rest + ((1 << shift) >> 1)) >> shift).astype(np.int16)


def worst_error(table: InterpolatedTable | SegmentedTable, ideal: Int32Array) -> int:
    """Largest |table - ideal| in output steps over all 65,536 inputs; `ideal` from `ideal_int16`."""
    return int(np.abs(table.evaluate(ALL_INT16).astype(np.int32) - ideal).max())


def _entry_scale(f: Function, source: Quantization, target: Quantization, nodes: range) -> float:
    """The finest float32 scale at which every node that the output range can see fits in 16 bits.

    Nodes beyond the output's range matter only beside the range, where a straight line has to reach them, so a node
    counts when it or a neighbour lies inside.
    """
    low = (target.low - target.zero_point) * Decimal(target.scale)
    high = (target.high - target.zero_point) * Decimal(target.scale)
    with localcontext(table_context()):
        values = [f.exact(Decimal(source.scale) * (x - source.zero_point)) for x in nodes]
        inside = [low <= value <= high for value in values]
        reach = [
            abs(value) for i, value in enumerate(values) if value.is_finite() and any(inside[max(i - 1, 0) : i + 2])
        ]
        largest = min(max(reach, default=high), 4 * max(abs(low), abs(high)))
        scale = np.float32(largest / 32767)
    return float(max(np.nextafter(scale, np.float32(np.inf)), np.float32(target.scale) / np.float32(2**20)))


def int16_interpolated_table(
    f: Function | str,
    scale_in: float,
    zp_in: int,
    scale_out: float,
    zp_out: int,
    parameters: Parameters = None,
    *,
    out_bits: int = 16,
) -> InterpolatedTable:
    """The 513-entry form: the better of entries in output steps (rescale by exactly 1/128) and entries as fine as 16
    bits allow."""
    f = _resolve(f, parameters)
    source, target = Quantization(scale_in, zp_in), Quantization(scale_out, zp_out, out_bits)
    return _interpolated(f, source, target, ideal_int16(f, source, target))


def _interpolated(f: Function, source: Quantization, target: Quantization, ideal: Int32Array) -> InterpolatedTable:
    nodes = range(-32768, 32769, 128)
    candidates: list[InterpolatedTable] = []
    for scale in (target.scale, _entry_scale(f, source, target, nodes)):
        entries = np.array(_quantized(f, nodes, source, Quantization(scale)), np.int16)
        exact = scale == target.scale
        multiplier, shift = (1 << 30, 37) if exact else quantize_multiplier(scale / target.scale / 128.0, 31)
        candidates.append(InterpolatedTable(entries, int(multiplier), int(shift), target.zero_point, target.bits))
    return min(candidates, key=lambda table: worst_error(table, ideal))


def int16_segmented_table(
    f: Function | str,
    scale_in: float,
    zp_in: int,
    scale_out: float,
    zp_out: int,
    parameters: Parameters = None,
) -> SegmentedTable:
    """The segmented form with the smallest worst error that 64 greedy segments reach, int16 to int16."""
    f = _resolve(f, parameters)
    source, target = Quantization(scale_in, zp_in), Quantization(scale_out, zp_out)
    return _segmented(f, source, target, ideal_int16(f, source, target))


def _segmented(f: Function, source: Quantization, target: Quantization, ideal: Int32Array) -> SegmentedTable:
    """Find the smallest error bound for which segments laid greedily from the left, each as long as it can be, cover
    all."""
    beyond = _ideal(f, np.arange(32768, 32768 + (1 << MAX_SPACING), dtype=np.int32), source, target)
    nodes = np.concatenate([ideal, np.pad(beyond, (0, 63 << MAX_SPACING), mode="edge")])
    low, high = 0, 1
    while (best := _lay_segments(nodes, high)) is None:
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        found = _lay_segments(nodes, middle)
        if found is None:
            low = middle + 1
        else:
            best, high = found, middle
    return best


def _lay_segments(nodes: Int32Array, bound: int) -> SegmentedTable | None:
    """Segments whose every result is within `bound` of `nodes[:65536]`, or None when 64 do not suffice."""
    starts: list[int] = []
    shifts: list[int] = []
    entries: list[Int32Array] = []
    position = 0
    while position < 65536:
        if len(starts) == MAX_SEGMENTS:
            return None
        length, shift = _longest_segment(nodes, position, bound)
        starts.append(position - 32768)
        shifts.append(shift)
        entries.append(nodes[position : position + (63 << shift) + 1 : 1 << shift])
        position += length
    return SegmentedTable(np.array(starts, np.int16), np.array(shifts, np.uint8), np.array(entries, np.int16))


def _longest_segment(nodes: Int32Array, position: int, bound: int) -> tuple[int, int]:
    """(inputs served within `bound`, spacing exponent) of the longest segment from `position`; spacing 1 serves 64
    without error."""
    best = (64, 0)
    for shift in range(1, MAX_SPACING + 1):
        served = _served(nodes, position, shift, bound)
        if served < best[0]:
            break
        best = (served, shift)
        if position + served == 65536:
            break
    return best


def _served(nodes: Int32Array, position: int, shift: int, bound: int) -> int:
    """How many inputs from `position` on a segment of spacing 2^shift serves within `bound`."""
    span = (63 << shift) + 1
    end = min(position + span, 65536)
    grid = nodes[position : position + span : 1 << shift]
    distance = np.arange(end - position, dtype=np.int32)
    index, rest = distance >> shift, distance & ((1 << shift) - 1)
    slope = np.diff(grid, append=grid[-1:])
    result = ((grid[index] << shift) + slope[index] * rest + ((1 << shift) >> 1)) >> shift
    wrong = np.abs(result - nodes[position:end]) > bound
    return int(wrong.argmax()) if wrong.any() else end - position


def best_int16_table(
    f: Function | str,
    scale_in: float,
    zp_in: int,
    scale_out: float,
    zp_out: int,
    parameters: Parameters = None,
) -> tuple[InterpolatedTable | SegmentedTable, int]:
    """The form with the smaller worst error, and that error in output steps; equal errors go to the interpolated
    form."""
    f = _resolve(f, parameters)
    source, target = Quantization(scale_in, zp_in), Quantization(scale_out, zp_out)
    ideal = ideal_int16(f, source, target)
    interpolated = _interpolated(f, source, target, ideal)
    error = worst_error(interpolated, ideal)
    if error == 0:
        return interpolated, error
    segmented = _segmented(f, source, target, ideal)
    other = worst_error(segmented, ideal)
    return (segmented, other) if other < error else (interpolated, error)


def exp_table_int8(scale: float) -> Int16Array:
    """Softmax of int8: int16[256], entry d + 255 is rint(exp(s_x d) * 32767) for the difference d = x - max in [-255,
    0]."""
    curve = compose(_affine(Quantization(scale).scale, 0.0), FUNCTIONS["exp"], _affine(32767.0, 0.0))
    return np.array(_quantized(curve, range(-255, 1), UNIT, UNIT), np.int16)


def exp_table_int16(scale: float) -> Int16Array:
    """Softmax of int16: int16[513] for the halved difference h = max((d + 1) >> 1, -32768), d = x - max in [-65535, 0].

    Entry i is rint(exp(2 s_x h) * 32767) at h = 128 i - 32768, and 32767 where h > 0, which no softmax reaches.
    """
    curve = compose(_affine(2.0 * Quantization(scale).scale, 0.0), FUNCTIONS["exp"], _affine(32767.0, 0.0))
    return np.array(_quantized(curve, range(-32768, 32769, 128), UNIT, UNIT), np.int16)


def reciprocal_table() -> Int16Array:
    """int16[513]: entry i is rint(32767 / v) at v = 1 + i / 512, for a divisor normalised to v in [1, 2).

    A positive int32 s with n = clz(s) gives m = s << (n - 1) in [2^30, 2^31); TABLE's input is (m >> 14) - 98304 and
    its result, int32 with 7 fractional bits, is 128 * 32767 / v where s = v * 2^(31 - n).
    """
    curve = compose(_affine(1.0 / 512.0, 1.0), FUNCTIONS["reciprocal"], _affine(32767.0, 0.0))
    return np.array(_quantized(curve, range(513), UNIT, UNIT), np.int16)


def rsqrt_table() -> Int16Array:
    """int16[513]: entry i is rint(32767 / sqrt(v)) at v = i / 128, for a value normalised to v in [1, 4); 32767 where
    v < 1.

    A positive int32 s with n = clz(s) and k = (n - 1) & ~1 gives m = s << k in [2^29, 2^31); TABLE's input is (m >>
    15) - 32768 and its result, int32 with 7 fractional bits, is 128 * 32767 / sqrt(v) where s = v * 2^(29 - k).
    """
    curve = compose(_affine(1.0 / 128.0, 0.0), FUNCTIONS["rsqrt"], _affine(32767.0, 0.0))
    return np.array(_quantized(curve, range(513), UNIT, UNIT), np.int16)


def _affine(scale: float, offset: float) -> Function:
    return FUNCTIONS["affine"].bind(scale=scale, offset=offset)
