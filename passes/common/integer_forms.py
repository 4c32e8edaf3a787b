"""The integer form of each float operation: where scales become multipliers, shifts, biases and clamp bounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float32Type, IntegerType, f32, i32
from xdsl.ir import Operation, SSAValue

from hbir.dialects import hbir as f
from hbir.dialects import quantized as q
from hbir.dialects.base import Array, HbOperation, shape_of
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.errors import PassError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name
from hbir.numerics import quantize_multiplier
from hbir.numerics.intervals import accumulator_bounds
from hbir.numerics.rescale import MIN_SHIFT
from passes.common.rewriting import constant_of, insert_before

__all__ = ["Builder"]

i16, i48 = IntegerType(16), IntegerType(48)

_ACCUMULATOR_LIMIT = {8: 2**31 - 1, 16: 2**47 - 1}
_COMMON_BITS = 29  # two operands of at most 2^29 each sum without leaving int32


def _limits(low: float | None, high: float | None, grid: UniformQuantizedType) -> tuple[int, int]:
    """Clamp bounds in storage units: the storage range, narrowed by the float bounds."""
    smallest, largest = grid.limits
    if low is not None:
        smallest = int(np.clip(np.rint(low / grid.scale) + grid.zero_point, smallest, largest))
    if high is not None:
        largest = int(np.clip(np.rint(high / grid.scale) + grid.zero_point, smallest, largest))
    return smallest, largest


def _products(x: SSAValue, w: SSAValue) -> npt.NDArray[np.float64]:
    """The value of one accumulator step for each output channel (or for all), from the scales of input and weight."""
    return np.float64(quantized_element(x.type).scale) * quantized_element(w.type).scale_array.astype(np.float64)


@dataclass(frozen=True)
class Builder:
    """Builds integer operations; `bits` and `high_bits` are the multiplier widths for int8 and for wider results."""

    constants: ConstantStore
    bits: int
    high_bits: int

    def put(self, made: HbOperation, anchor: Operation, source: Operation | None = None) -> SSAValue:
        """Insert `made` before `anchor`, at the location of `source` (default: of the anchor)."""
        return insert_before(anchor, made, [source or anchor]).results[0]

    def constant(self, array: Array, element: Any, anchor: Operation) -> SSAValue:
        """Insert a constant before `anchor`."""
        return self.put(f.constant(array, self.constants, element), anchor)

    def multiplier(
        self, ratio: Any, grid_bits: int, anchor: Operation, *, wide: bool = False
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
        """Multipliers and shifts for a ratio of scales, `grid_bits` being those of the result. `wide`: the accumulator is
        int48, which takes 15 bits only. Raises PassError HB0331 that names the layer of `anchor` where none fits."""
        bits = self.bits if grid_bits == 8 or wide else self.high_bits
        ratios = np.atleast_1d(np.asarray(ratio, np.float64))
        try:
            m, s = quantize_multiplier(ratios, bits)
        except PassError as error:
            beyond = float(ratios.max(initial=0)) / 2.0 ** (bits - MIN_SHIFT)
            lever = f"give its result a scale that is {max(beyond, 1) * 1.01:.3g} times as large, or its operands smaller ones"
            raise PassError(31, error.what, where=f"layer '{layer_name(anchor)}'", why=error.why, lever=lever) from None
        return m.astype(np.int32), s.astype(np.int8)

    def rescale(self, twin: SSAValue, grid: UniformQuantizedType, anchor: Operation) -> SSAValue:
        """`twin` on another grid."""
        source = quantized_element(twin.type)
        m, s = self.multiplier(source.scale_array.astype(np.float64) / grid.scale, grid.bits, anchor)
        return self.put(q.RescaleOp.make(twin, multiplier=m, shift=s, grid=grid), anchor)

    def keep_grid(self, op: HbOperation, twins: Sequence[SSAValue], values: dict[str, Any]) -> HbOperation:
        """The same operation on integers, for operations that keep their operand's grid."""
        if isinstance(op, f.AvgPoolOp):
            return q.AvgPoolOp.make(twins[0], kernel=values["kernel"], stride=values["stride"], pad=values["pad"])
        if isinstance(op, f.ConcatOp):
            return f.ConcatOp.make(list(twins), **values)
        return type(op).make(*twins, **values)

    def integer_form(
        self, op: HbOperation, operands: Sequence[SSAValue | None], grid: UniformQuantizedType | None, anchor: Operation
    ) -> SSAValue:
        """`op` on integer operands (aligned with its definition), its result on `grid`; None asks for the accumulator."""
        if isinstance(op, f.Conv2dOp):
            made = self._conv(op, op.values, operands, grid, anchor)
            return self.put(made, anchor, op)
        if isinstance(op, f.LinearOp):
            return self._linear(op, operands, grid, anchor)
        if grid is None:
            raise PassError(12, f"{op.name} has no accumulator", where=f"layer '{layer_name(op)}'")
        form = _FORMS[type(op)]
        present = [operand for operand in operands if operand is not None]
        return self.put(form(self, op, present, grid, anchor), anchor, op)

    def float_form(self, op: HbOperation, operands: Sequence[SSAValue | None], anchor: Operation) -> SSAValue:
        """`op`, a convolution without a residual, a linear layer or a matrix product, on integer operands, its result the
        float32 that the tensor engine makes of the accumulator. The bounds of `op` are left to the caller."""
        if isinstance(op, f.Conv2dOp):
            return self.put(self._conv(op, op.values, operands, None, anchor, f32), anchor, op)
        if isinstance(op, f.LinearOp):
            return self._linear(op, operands, None, anchor, f32)
        a, b = (operand for operand in operands if operand is not None)
        sums = UniformQuantizedType.get(
            32, np.float64(quantized_element(a.type).scale) * quantized_element(b.type).scale
        )
        low, high = sums.limits
        made = q.MatmulOp.make(a, b, multiplier=None, shift=None, low=low, high=high, float_type=f32, grid=sums)
        return self.put(made, anchor, op)

    def from_accumulator(
        self,
        op: f.Conv2dOp | f.LinearOp,
        x: SSAValue,
        w: SSAValue,
        raw: SSAValue,
        grid: UniformQuantizedType,
        anchor: Operation,
    ) -> SSAValue:
        """What `op` on the integers `x` and `w` gives on `grid`, from its int32 accumulator `raw`: bit for bit what its own
        epilogue makes of it."""
        # The type of `raw` holds the products of the scales as float32; the epilogue's multipliers come from float64.
        m, s = self.multiplier(_products(x, w) / grid.scale, grid.bits, op)
        low, high = _limits(op.values["min"], op.values["max"], grid)
        value = self.put(q.RescaleOp.make(raw, multiplier=m, shift=s, grid=grid), anchor, op)
        if (low, high) != grid.limits:
            value = self.put(q.ClampOp.make(value, low=low, high=high), anchor, op)
        wanted = shape_of(op.output.type)
        return value if shape_of(value.type) == wanted else self.put(f.ReshapeOp.make(value, shape=wanted), anchor, op)

    def _conv(
        self,
        op: HbOperation,
        values: dict[str, Any],
        operands: Sequence[SSAValue | None],
        grid: UniformQuantizedType | None,
        anchor: Operation,
        float_type: Float32Type | None = None,
    ) -> HbOperation:
        x, w, bias, residual = operands
        if x is None or w is None:
            raise PassError(12, "a convolution lacks an operand", where=f"layer '{layer_name(op)}'")
        x, w = self._symmetric_weight(x, w, anchor)
        xe = quantized_element(x.type)
        products = _products(x, w)
        weight = constant_of(w, self.constants)
        floats = None if bias is None else constant_of(bias, self.constants)
        if weight is None:
            raise PassError(
                12, "the weight is not constant", where=f"layer '{layer_name(op)}'", lever="fold constants first"
            )
        limit = _ACCUMULATOR_LIMIT[xe.bits]
        frozen = None if floats is None else np.rint(floats.astype(np.float64) / products)
        if frozen is not None and np.abs(frozen).max(initial=0) > limit:
            worst = int(np.abs(frozen).argmax())
            raise PassError(
                13,
                f"the bias of channel {worst} is {frozen[worst]:.3g} accumulator steps, the accumulator holds {limit}",
                where=f"layer '{layer_name(op)}'",
                why="the scale of this channel's weights is tiny beside its bias",
                lever="give this channel's weights a larger scale, or use weights per tensor for this layer",
            )
        integers = None if frozen is None else frozen.astype(np.int64 if xe.bits == 16 else np.int32)
        b = None if integers is None else self.constant(integers, i48 if xe.bits == 16 else i32, anchor)
        geometry = {key: values[key] for key in ("stride", "pad", "dilation", "groups")}
        absent = dict.fromkeys(
            ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
        )
        if grid is None:
            axis = 3 if products.size > 1 else -1
            raw = UniformQuantizedType.get(32, products.tolist(), axis=axis)
            low, high = raw.limits
            epilogue = {"multiplier": None, "shift": None, "low": low, "high": high, "float_type": float_type}
            return q.Conv2dOp.make(x, w, b, None, **geometry, **absent, **epilogue, grid=raw)
        low, high = _limits(values["min"], values["max"], grid)
        wide = xe.bits == 16
        if residual is None:
            m, s = self.multiplier(products / grid.scale, grid.bits, op, wide=wide)
            return q.Conv2dOp.make(
                x, w, b, None, **geometry, **absent, multiplier=m, shift=s, low=low, high=high, grid=grid
            )
        re = quantized_element(residual.type)
        reach = accumulator_bounds(weight, integers, *xe.limits, xe.zero_point)
        largest = float((np.maximum(np.abs(reach[0]), np.abs(reach[1])).astype(np.float64) * products).max())
        r_low, r_high = re.limits
        largest = max(largest, max(r_high - re.zero_point, re.zero_point - r_low) * re.scale)
        if wide:  # the multipliers of int48 have 15 bits: no factor above 2^12
            largest = max(largest, float(products.max()) * 2.0 ** (_COMMON_BITS - 12))
        # A power of two keeps the sum's scale readable; the product is far finer than one step of the result.
        common = float(2.0 ** np.ceil(np.log2(largest / 2**_COMMON_BITS)))
        m, s = self.multiplier(products / common, 32, op, wide=wide)
        rm, rs = self.multiplier(re.scale / common, 32, op)
        om, os = self.multiplier(common / grid.scale, grid.bits, op)
        return q.Conv2dOp.make(
            x,
            w,
            b,
            residual,
            **geometry,
            multiplier=m,
            shift=s,
            low=low,
            high=high,
            common_scale=common,
            residual_multiplier=rm,
            residual_shift=rs,
            output_multiplier=om,
            output_shift=os,
            grid=grid,
        )

    def accumulates_in_int32(self, x: SSAValue, w: SSAValue) -> bool:
        """Whether a layer with these operands needs no accumulator wider than int32: both take part as int8."""
        shifted = self._less_zero_points(w)
        fits = shifted is None or (shifted.min(initial=0) >= -128 and shifted.max(initial=0) <= 127)
        return quantized_element(x.type).bits == 8 and fits

    def _less_zero_points(self, w: SSAValue) -> npt.NDArray[np.int64] | None:
        """A constant weight less its zero points, or None when it has none."""
        grid, weight = quantized_element(w.type), constant_of(w, self.constants)
        zeros = grid.zero_point_array
        if weight is None or not zeros.any():
            return None
        shape = [1] * weight.ndim
        shape[grid.per_axis or 0] = zeros.size
        return weight.astype(np.int64) - zeros.reshape(shape)

    def _symmetric_weight(self, x: SSAValue, w: SSAValue, anchor: Operation) -> tuple[SSAValue, SSAValue]:
        """Weights without their zero points, exactly: as int8 where the differences fit, else as int16 with int16 activations,
        whose grid keeps scale and zero point."""
        grid, shifted = quantized_element(w.type), self._less_zero_points(w)
        if shifted is None:
            return x, w
        bits = 8 if shifted.min() >= -128 and shifted.max() <= 127 else 16
        if np.abs(shifted).max() > 32767:
            raise PassError(
                14,
                f"a weight less its zero point is {np.abs(shifted).max()}, int16 holds 32767",
                where=f"layer '{layer_name(anchor)}'",
                lever="quantise the weights symmetrically",
            )
        axis = -1 if grid.per_axis is None else grid.per_axis
        symmetric = UniformQuantizedType.get(bits, grid.scale_array.tolist(), axis=axis)
        plain = self.constant(shifted.astype(np.int8 if bits == 8 else np.int16), symmetric, anchor)
        xe = quantized_element(x.type)
        if bits == 16 and xe.bits == 8:
            x = self.rescale(x, UniformQuantizedType.get(16, xe.scale, xe.zero_point), anchor)
        return x, plain

    def _linear(
        self,
        op: f.LinearOp,
        operands: Sequence[SSAValue | None],
        grid: UniformQuantizedType | None,
        anchor: Operation,
        float_type: Float32Type | None = None,
    ) -> SSAValue:
        """A linear layer is a 1 x 1 convolution over its rows."""
        x, w, bias = operands
        if x is None or w is None:
            raise PassError(12, "a linear layer lacks an operand", where=f"layer '{layer_name(op)}'")
        shape, weight = shape_of(x.type), constant_of(w, self.constants)
        if weight is None:
            raise PassError(
                12, "the weight is not constant", where=f"layer '{layer_name(op)}'", lever="fold constants first"
            )
        element = quantized_element(w.type)
        if bias is None and grid is not None and element.per_axis is None and element.zero_point:
            # A matrix product takes zero points on both sides.
            a = quantized_element(x.type)
            m, s = self.multiplier(
                np.float64(a.scale) * element.scale / grid.scale, grid.bits, op, wide=max(a.bits, element.bits) == 16
            )
            columns = self.constant(np.ascontiguousarray(weight.T), element, anchor)
            low, high = _limits(op.values["min"], op.values["max"], grid)
            made = q.MatmulOp.make(x, columns, multiplier=m, shift=s, low=low, high=high, grid=grid)
            return self.put(made, anchor, op)
        rows = self.put(f.ReshapeOp.make(x, shape=(1, 1, prod(shape[:-1]), shape[-1])), anchor, op)
        kernel = self.constant(weight.reshape(weight.shape[0], 1, 1, -1), quantized_element(w.type), anchor)
        geometry = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
        made = self._conv(op, op.values | geometry, [rows, kernel, bias, None], grid, anchor, float_type)
        flat = self.put(made, anchor, op)
        wanted = (*shape[:-1], weight.shape[0])
        if shape_of(flat.type) == wanted or (float_type is None and quantized_element(flat.type).per_axis is not None):
            # An accumulator with a scale for each channel cannot change its shape; its floats will.
            return flat
        return self.put(f.ReshapeOp.make(flat, shape=wanted), anchor, op)


Form = Callable[[Builder, Any, list[SSAValue], UniformQuantizedType, Operation], HbOperation]


def _sum(build: Builder, op: Any, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation) -> HbOperation:
    a, b = (quantized_element(value.type) for value in x)
    headroom = 20 if max(a.bits, b.bits) == 8 else 12
    common = 2.0 * max(a.scale, b.scale) / (1 << headroom)
    (am, as_), (bm, bs) = build.multiplier(a.scale / common, 32, op), build.multiplier(b.scale / common, 32, op)
    m, s = build.multiplier(common / grid.scale, grid.bits, op)
    low, high = grid.limits
    kind = q.AddOp if isinstance(op, f.AddOp) else q.SubOp
    return kind.make(
        *x,
        common_scale=common,
        lhs_multiplier=am,
        lhs_shift=as_,
        rhs_multiplier=bm,
        rhs_shift=bs,
        multiplier=m,
        shift=s,
        low=low,
        high=high,
        grid=grid,
    )


def _product(build: Builder, op: Any, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation) -> HbOperation:
    a, b = (quantized_element(value.type) for value in x)
    wide = isinstance(op, f.MatmulOp) and max(a.bits, b.bits) == 16
    m, s = build.multiplier(np.float64(a.scale) * b.scale / grid.scale, grid.bits, op, wide=wide)
    low, high = grid.limits
    kind = q.MulOp if isinstance(op, f.MulOp) else q.MatmulOp
    return kind.make(*x, multiplier=m, shift=s, low=low, high=high, grid=grid)


def _extremum(build: Builder, op: Any, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation) -> HbOperation:
    same = [v if quantized_element(v.type) == grid else build.rescale(v, grid, anchor) for v in x]
    kind: type[HbOperation] = f.MaximumOp if isinstance(op, f.MaximumOp) else f.MinimumOp
    return kind.make(*same)


def _clip(
    build: Builder, op: f.ClipOp, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation
) -> HbOperation:
    value = x[0] if quantized_element(x[0].type) == grid else build.rescale(x[0], grid, anchor)
    low, high = _limits(op.values["min"], op.values["max"], grid)
    return q.ClampOp.make(value, low=low, high=high)


def _function(
    build: Builder, op: f.FunctionOp, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation
) -> HbOperation:
    return q.FunctionOp.make(x[0], **op.values, grid=grid)


def _reduce(
    build: Builder, op: f.ReduceOp, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation
) -> HbOperation:
    values = op.values
    axes: Sequence[int] = values["axes"]
    count = prod(shape_of(x[0].type)[axis] for axis in axes) if values["kind"] == "mean" else 1
    m, s = build.multiplier(quantized_element(x[0].type).scale / (count * np.float64(grid.scale)), grid.bits, op)
    low, high = grid.limits
    return q.ReduceSumOp.make(
        x[0],
        axes=values["axes"],
        keep=values["keep"],
        count=count,
        multiplier=m,
        shift=s,
        low=low,
        high=high,
        grid=grid,
    )


def _softmax(
    build: Builder, op: f.SoftmaxOp, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation
) -> HbOperation:
    from hbir.dialects.quantized.softmax import FRACTION_BITS
    from hbir.numerics.lut import exp_table_int8, exp_table_int16, reciprocal_table

    element = quantized_element(x[0].type)
    exponentials = exp_table_int8(element.scale) if element.bits == 8 else exp_table_int16(element.scale)
    tables = [build.constant(table, i16, anchor) for table in (exponentials, reciprocal_table())]
    m, s = build.multiplier(2.0**-FRACTION_BITS / np.float64(grid.scale), grid.bits, op)
    low, high = grid.limits
    return q.SoftmaxOp.make(x[0], *tables, axis=op.values["axis"], multiplier=m, shift=s, low=low, high=high, grid=grid)


def _resize(
    build: Builder, op: f.ResizeBilinearOp, x: list[SSAValue], grid: UniformQuantizedType, anchor: Operation
) -> HbOperation:
    shape = shape_of(x[0].type)
    (rows, yd, oy, yn), (columns, xd, ox, xn) = op.values["rows"], op.values["columns"]
    # TOSA: source = (index * denominator + offset) / numerator; the border makes the output exactly as large as asked.
    border = ((rows - 1) * yd - (shape[1] - 1) * yn + oy, (columns - 1) * xd - (shape[2] - 1) * xn + ox)
    m, s = build.multiplier(quantized_element(x[0].type).scale / (np.float64(grid.scale) * yn * xn), grid.bits, op)
    low, high = grid.limits
    return q.ResizeBilinearOp.make(
        x[0],
        scale=(yn, yd, xn, xd),
        offset=(oy, ox),
        border=border,
        multiplier=m,
        shift=s,
        low=low,
        high=high,
        grid=grid,
    )


_FORMS: dict[type[Operation], Form] = {
    f.AddOp: _sum,
    f.ClipOp: _clip,
    f.FunctionOp: _function,
    f.MatmulOp: _product,
    f.MaximumOp: _extremum,
    f.MinimumOp: _extremum,
    f.MulOp: _product,
    f.ReduceOp: _reduce,
    f.ResizeBilinearOp: _resize,
    f.SoftmaxOp: _softmax,
    f.SubOp: _sum,
}
