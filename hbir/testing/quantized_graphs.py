"""One generator for each operation of the quantized dialect. Multipliers are made from the scales, as quantisation does."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from xdsl.dialects.builtin import IntegerType, i32
from xdsl.ir import SSAValue

from hbir import numerics
from hbir.dialects import quantized as q
from hbir.dialects.base import Array, HbOperation, shape_of
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.dialects.quantized.softmax import FRACTION_BITS
from hbir.numerics.lut import (
    exp_table_int8,
    exp_table_int16,
    int16_interpolated_table,
    int16_segmented_table,
    reciprocal_table,
)
from hbir.testing.float_graphs import DOMAINS
from hbir.testing.graphs import Generator, Graph
from hbir.testing.values import filled

__all__ = ["QUANTIZED_GENERATORS", "add_conv", "add_sum", "add_table", "element_of", "grid_near", "rescaled"]

i8, i16, i48 = IntegerType(8), IntegerType(16), IntegerType(48)

_FACTORS = (1.0, 100.0, 0.37, 1000.0, 2.0, 0.25, 0.015625)
"""Steps of a result in those of its exact value: many a bit lost, exact ties (2: every odd sum is a half), saturation."""


def grid_near(g: Graph, scale: float, bits: tuple[int, ...] = (8, 16)) -> UniformQuantizedType:
    """A result grid whose steps are within a few orders of magnitude of `scale`."""
    return g.grid(bits, scales=[float(np.float32(scale * k)) for k in _FACTORS])


def _multiplier(ratio: Any, bits: int) -> tuple[Array, Array]:
    """Multipliers as quantisation makes them; those of powers of two exact, which it never has, so that there are ties."""
    ratios = np.atleast_1d(np.asarray(ratio, np.float64))
    m, s = numerics.quantize_multiplier(ratios, bits)
    exact = (np.frexp(ratios)[0] == 0.5) & (s < numerics.MAX_SHIFT)
    return np.where(exact, 1 << (bits - 1), m).astype(np.int32), s.astype(np.int8)


def _bits(grid: UniformQuantizedType) -> int:
    return 15 if grid.bits == 8 else 31


def _clamp(g: Graph, grid: UniformQuantizedType) -> dict[str, int]:
    """The whole range of a grid; from zero up, as relu has it; or any part of it, of one code even."""
    low, high = grid.limits
    kind = g.choose(("whole", "whole", "whole", "whole", "relu", "relu", "part"))
    if kind == "relu":
        low = grid.zero_point
    elif kind == "part":
        low, high = sorted(g.choose((low, high, grid.zero_point, g.integer(low, high))) for _ in range(2))
    return {"low": low, "high": high}


def element_of(value: SSAValue) -> UniformQuantizedType:
    """The grid of a value."""
    return quantized_element(value.type)


def add_conv(g: Graph, x: SSAValue | None = None) -> SSAValue:
    """A convolution of a value of rank 4: rescaled, with a residual, or as it was added up."""
    x = g.quantized(4) if x is None else x
    xe, (_, h, w, c) = element_of(x), shape_of(x.type)
    kh, kw, sh, sw = g.integer(1, min(3, h)), g.integer(1, min(3, w)), g.integer(1, 2), g.integer(1, 2)
    groups = g.choose([n for n in (1, c) if c % n == 0])
    cout = groups * g.integer(1, 2)
    bits = g.choose((8, 16)) if xe.bits == 16 else 8
    per_channel = bool(g.integer(0, 1))
    scales = [float(s) for s in np.linspace(0.001, 0.02, cout)] if per_channel else 0.01
    we = UniformQuantizedType.get(bits, scales, axis=0 if per_channel else -1, narrow=True)
    codes = filled((cout, kh, kw, c // groups), np.int8 if bits == 8 else np.int16, g.integer(0, 2**32 - 1))
    weight = g.constant(np.maximum(codes, we.limits[0]), we)
    wide = xe.bits == 16
    bias = None
    if g.integer(0, 1):
        bias = g.constant(filled((cout,), np.int16, g.integer(0, 99)).astype(np.int32), i48 if wide else i32)
    geometry: dict[str, Any] = {
        "stride": (sh, sw),
        "pad": (g.integer(0, kh - 1), 0, g.integer(0, kh - 1), g.integer(0, kw - 1)),
        "dilation": (2, 1) if 2 * (kh - 1) + 1 <= h and g.integer(0, 1) else (1, 1),
        "groups": groups,
    }
    products = np.float64(xe.scale) * we.scale_array.astype(np.float64)
    names = ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
    absent: dict[str, Any] = dict.fromkeys(names)
    kind = g.choose(("plain", "plain", "raw", "residual"))
    if kind == "raw" and not wide:
        axis = 3 if per_channel else -1
        raw = UniformQuantizedType.get(32, products.tolist() if per_channel else float(products[0]), axis=axis)
        low, high = raw.limits
        values = {**geometry, **absent, "multiplier": None, "shift": None, "low": low, "high": high, "grid": raw}
        return g.add(q.Conv2dOp.make(x, weight, bias, None, **values))
    grid = grid_near(g, float(products.max()) * 64)
    m, s = _multiplier(products / grid.scale, 15 if wide else _bits(grid))
    values = {**geometry, **absent, "multiplier": m, "shift": s, "grid": grid, **_clamp(g, grid)}
    made = q.Conv2dOp.make(x, weight, bias, None, **values)
    if kind != "residual":
        return g.add(made)
    residual = g.quantized(shape=shape_of(made.output.type), bits=(8, 16))
    largest = float(products.max()) * 2 ** (8 if bits == 8 else 15) * 2**xe.bits * kh * kw * c
    largest = max(largest + float(products.max()) * 2**16, element_of(residual).scale * 2**16)
    common = float(2.0 ** np.ceil(np.log2(largest / 2**29)))
    m, s = _multiplier(products / common, 15 if wide else 31)
    rm, rs = _multiplier(element_of(residual).scale / common, 31)
    grid = grid_near(g, common * 2**14)
    om, os = _multiplier(common / grid.scale, _bits(grid))
    values |= {"multiplier": m, "shift": s, "common_scale": common, "residual_multiplier": rm, "residual_shift": rs}
    values |= {"output_multiplier": om, "output_shift": os, "grid": grid, **_clamp(g, grid)}
    return g.add(q.Conv2dOp.make(x, weight, bias, residual, **values))


def _matmul(g: Graph) -> SSAValue:
    a = g.quantized(g.integer(2, 4))
    *batch, _, depth = shape_of(a.type)
    b = g.quantized(shape=(*batch, depth, g.integer(1, 4)), bits=(element_of(a).bits,))
    product = np.float64(element_of(a).scale) * element_of(b).scale
    grid = grid_near(g, float(product) * 64)
    m, s = _multiplier(product / grid.scale, 15 if element_of(a).bits == 16 else _bits(grid))
    return g.add(q.MatmulOp.make(a, b, multiplier=m, shift=s, grid=grid, **_clamp(g, grid)))


def _other(g: Graph, x: SSAValue) -> SSAValue:
    shape = shape_of(x.type)
    return g.quantized(shape=g.choose((shape, shape[-1:], (1,) * len(shape))))


def add_sum(kind: type[q.AddOp] | type[q.SubOp], taken: SSAValue | None = None) -> Generator:
    """What adds a sum, or a difference, of a value that is given or picked."""

    def generate(g: Graph) -> SSAValue:
        a = g.quantized(None) if taken is None else taken
        b = _other(g, a)
        ae, be = element_of(a), element_of(b)
        common = 2.0 * max(ae.scale, be.scale) / (1 << (20 if max(ae.bits, be.bits) == 8 else 12))
        (am, as_), (bm, bs) = _multiplier(ae.scale / common, 31), _multiplier(be.scale / common, 31)
        grid = grid_near(g, max(ae.scale, be.scale))
        m, s = _multiplier(common / grid.scale, _bits(grid))
        left = {"lhs_multiplier": am, "lhs_shift": as_, "rhs_multiplier": bm, "rhs_shift": bs}
        return g.add(kind.make(a, b, common_scale=common, **left, multiplier=m, shift=s, grid=grid, **_clamp(g, grid)))

    return generate


def _mul(g: Graph) -> SSAValue:
    a = g.quantized(None)
    b = _other(g, a)
    product = np.float64(element_of(a).scale) * element_of(b).scale
    grid = grid_near(g, float(product) * 100)
    m, s = _multiplier(product / grid.scale, _bits(grid))
    return g.add(q.MulOp.make(a, b, multiplier=m, shift=s, grid=grid, **_clamp(g, grid)))


def _clamp_op(g: Graph) -> SSAValue:
    x = g.quantized(None)
    low, high = element_of(x).limits
    bounds = sorted(g.integer(low, high) for _ in range(2))
    return g.add(q.ClampOp.make(x, low=bounds[0], high=bounds[1]))


def rescaled(g: Graph, x: SSAValue, grid: UniformQuantizedType | None = None) -> SSAValue:
    """A value on another grid: one that is given, one with the same steps, or one with steps of a similar size."""
    element = element_of(x)
    if grid is None:
        grid = grid_near(g, element.scale) if g.integer(0, 1) else g.grid((element.bits,), scales=[element.scale])
    m, s = _multiplier(np.float64(element.scale) / grid.scale, _bits(grid))
    return g.add(q.RescaleOp.make(x, multiplier=m, shift=s, grid=grid))


def _quantize(g: Graph) -> SSAValue:
    return g.add(q.QuantizeOp.make(g.value(None), grid=g.grid()))


def _dequantize(g: Graph) -> SSAValue:
    channels = g.integer(1, 4)
    if g.integer(0, 2):
        x = g.quantized(None)
    else:
        raw = UniformQuantizedType.get(32, np.linspace(1e-4, 1e-3, channels).tolist(), axis=3)
        x = g.input((1, 2, 2, channels), raw)
    return g.add(q.DequantizeOp.make(x, grid=element_of(x)))


def _avg_pool(g: Graph) -> SSAValue:
    x = g.quantized(4)
    _, h, w, _ = shape_of(x.type)
    kh, kw = g.integer(1, min(3, h)), g.integer(1, min(3, w))
    pad = (g.integer(0, kh - 1), g.integer(0, kw - 1), g.integer(0, kh - 1), 0)
    return g.add(q.AvgPoolOp.make(x, kernel=(kh, kw), stride=(g.integer(1, 2), g.integer(1, 2)), pad=pad))


def _reduce_sum(g: Graph) -> SSAValue:
    x = g.quantized(g.integer(1, 4))
    shape, scale = shape_of(x.type), element_of(x).scale
    axes = [axis for axis in range(len(shape)) if g.integer(0, 1)]
    reduced = int(np.prod([shape[axis] for axis in axes], dtype=np.int64))
    count = g.choose((1, reduced))
    grid = grid_near(g, scale * (1 if count == reduced else reduced))
    m, s = _multiplier(scale / (count * np.float64(grid.scale)), _bits(grid))
    keep = bool(g.integer(0, 1))
    return g.add(
        q.ReduceSumOp.make(x, axes=axes, keep=keep, count=count, multiplier=m, shift=s, grid=grid, **_clamp(g, grid))
    )


def _resize(g: Graph) -> SSAValue:
    x = g.quantized(4, bits=(8,))
    _, h, w, _ = shape_of(x.type)
    (yn, yd, oy), (xn, xd, ox) = (g.choose(((2, 1, 0), (4, 2, -1), (1, 1, 0), (6, 3, -1), (1, 2, 0))) for _ in range(2))
    rows, columns = g.integer(1, 6), g.integer(1, 6)
    border = ((rows - 1) * yd - (h - 1) * yn + oy, (columns - 1) * xd - (w - 1) * xn + ox)
    grid = grid_near(g, element_of(x).scale, (8,))
    m, s = _multiplier(element_of(x).scale / (np.float64(grid.scale) * yn * xn), 15)
    options = {"scale": (yn, yd, xn, xd), "offset": (oy, ox), "border": border, "multiplier": m, "shift": s}
    return g.add(q.ResizeBilinearOp.make(x, **options, grid=grid, **_clamp(g, grid)))


_exp8, _exp16, _reciprocal = cache(exp_table_int8), cache(exp_table_int16), cache(reciprocal_table)


def _softmax(g: Graph) -> SSAValue:
    like = UniformQuantizedType.get(g.choose((8, 16)), g.choose((0.05, 0.1)))
    x = g.quantized(g.integer(1, 4), like=like)
    exponentials = _exp8(like.scale) if like.bits == 8 else _exp16(like.scale)
    tables = [g.constant(table, i16) for table in (exponentials, _reciprocal())]
    grid = UniformQuantizedType.get(8, 1 / 256, -128) if g.integer(0, 1) else UniformQuantizedType.get(16, 1 / 32768)
    m, s = _multiplier(2.0**-FRACTION_BITS / np.float64(grid.scale), _bits(grid))
    axis = g.integer(0, len(shape_of(x.type)) - 1)
    return g.add(q.SoftmaxOp.make(x, *tables, axis=axis, multiplier=m, shift=s, grid=grid, **_clamp(g, grid)))


def add_table(g: Graph, x: SSAValue | None = None, *, computed: bool = False) -> SSAValue:
    """A table of an int8 value: any 256 results, or, where `computed`, the function that they are computed from."""
    x = g.quantized(None, bits=(8,)) if x is None else x
    if computed:
        # Tables saturate at poles, and have a value wherever the function has none.
        name = g.choose(DOMAINS)
        parameters, *_ = g.choose(DOMAINS[name])
        return g.add(q.FunctionOp.make(x, function=name, parameters=parameters, grid=g.grid((8,))))
    entries = g.constant(filled((256,), np.int8, g.integer(0, 2**32 - 1)), i8)
    return g.add(q.TableOp.make(x, entries, function=g.choose((None, "tanh")), grid=g.grid((8,))))


# A table of 65,536 exact results takes a while: two are enough for every example.
@cache
def _interpolated(out_bits: int) -> Any:
    return int16_interpolated_table("relu", 1e-3, 0, 1e-3 if out_bits == 16 else 0.05, 0, None, out_bits=out_bits)


@cache
def _segments() -> Any:
    return int16_segmented_table("relu", 1e-3, 0, 1e-3, 0, None)


def _interpolate(g: Graph) -> SSAValue:
    x = g.quantized(None, like=UniformQuantizedType.get(16, 1e-3))
    bits = g.choose((16, 8))
    table = _interpolated(bits)
    entries = g.constant(table.entries, i16)
    grid = UniformQuantizedType.get(bits, 1e-3 if bits == 16 else 0.05)
    m, s = np.array([table.multiplier], np.int32), np.array([table.shift], np.int8)
    note = {"function": "relu", "worst_error": g.choose((None, 1.0))}
    return g.add(q.InterpolateOp.make(x, entries, **note, multiplier=m, shift=s, grid=grid, **_clamp(g, grid)))


def _segmented(g: Graph) -> SSAValue:
    grid = UniformQuantizedType.get(16, 1e-3)
    x, table = g.quantized(None, like=grid), _segments()
    starts = g.constant(table.starts, i16)
    parts = (starts, g.constant(table.shifts.astype(np.int8), i8), g.constant(table.entries, i16))
    return g.add(q.SegmentedOp.make(x, *parts, function="relu", worst_error=None, grid=grid))


QUANTIZED_GENERATORS: dict[type[HbOperation], Generator] = {
    q.AddOp: add_sum(q.AddOp),
    q.AvgPoolOp: _avg_pool,
    q.ClampOp: _clamp_op,
    q.Conv2dOp: add_conv,
    q.DequantizeOp: _dequantize,
    q.FunctionOp: lambda g: add_table(g, computed=True),
    q.InterpolateOp: _interpolate,
    q.MatmulOp: _matmul,
    q.MulOp: _mul,
    q.QuantizeOp: _quantize,
    q.ReduceSumOp: _reduce_sum,
    q.RescaleOp: lambda g: rescaled(g, g.quantized(None)),
    q.ResizeBilinearOp: _resize,
    q.SegmentedOp: _segmented,
    q.SoftmaxOp: _softmax,
    q.SubOp: add_sum(q.SubOp),
    q.TableOp: add_table,
}
"""For each operation of the dialect quantized, what adds one to a graph."""
