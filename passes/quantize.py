"""Turns the fake-quantised float network into integers: one walk in program order, grids from the fake quants.

Each float value that lies on a grid gets an integer twin. An operation with an integer form waits for the fake quant behind
it, which says the grid of its result; operations that keep their operand's grid need none. What reads a value without a
grid (an output, an operation without an integer form) gets floats: a plain convolution then hands out its accumulator, any
other twin is dequantised. What reads such an accumulator through a fake quant gets one rescale of it.

Where the tensor engine hands out floats, a plain convolution, linear layer or matrix product gives float32 itself, and what
reads that through a fake quant gets a quantize of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, element_dtype, shape_of
from hbir.dialects.hbir import (
    ArgmaxOp,
    ClipOp,
    ConstantOp,
    Conv2dOp,
    LinearOp,
    MatmulOp,
    PadOp,
    ReshapeOp,
    constant,
)
from hbir.dialects.qat import FakeQuantOp, fake_quantize
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.errors import PassError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.numerics import quantize as quantize_array
from passes.common.analysis import has_integer_form, is_high_precision, keeps_grid
from passes.common.integer_forms import Builder
from passes.common.rewriting import blocks, constant_of, erase_dead, refresh_signatures, replace
from passes.manager import Pass, Promise, check_choice

__all__ = ["Quantize"]


@dataclass(frozen=True)
class Quantize(Pass):
    """Replace operations between fake quants by `quantized` operations.

    `multiplier_bits` is the width of multipliers for int8 results, `high_multiplier_bits` that for int16 and int32 results;
    with `float_results` the tensor engine hands out float32.
    """

    name: ClassVar[str] = "quantize"
    promise: ClassVar[Promise] = Promise.NUMERIC

    multiplier_bits: int = 15
    """Width of multipliers for int8 results."""
    high_multiplier_bits: int = 31
    """Width of multipliers for int16 and int32 results."""
    float_results: bool = False
    """Whether what is read as floats leaves the tensor engine as float32, in place of an int32 accumulator."""

    def __post_init__(self) -> None:
        for option in ("multiplier_bits", "high_multiplier_bits"):
            check_choice(self.name, option, getattr(self, option), range(8, 32))

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            builder = Builder(module.constants, self.multiplier_bits, self.high_multiplier_bits)
            walk = _Walk(module, builder, self.float_results)
            for op in list(block.ops):
                walk.visit(op)
            erase_dead(block)
            self._settle(module, block)
        refresh_signatures(module)

    def _settle(self, module: Module, block: Block) -> None:
        """Constants that an operation without an integer form reads become the floats on their grid."""
        for op in list(block.ops):
            if isinstance(op, FakeQuantOp) and (array := constant_of(op.input, module.constants)) is not None:
                settled = constant(fake_quantize(array, op.grid), module.constants, f32, op.location)
                block.insert_op_before(settled, op)
                replace(op, [settled.output])
        erase_dead(block)


@dataclass
class _Walk:
    module: Module
    builder: Builder
    float_results: bool
    twins: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    floats: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    accumulators: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])

    def visit(self, op: Operation) -> None:
        match op:
            case ConstantOp():
                return
            case FakeQuantOp():
                self._fake_quant(op)
            case ReturnOp():
                self._float_operands(op)
            case HbOperation():
                self._compute(op)
            case _:
                self._float_operands(op)

    def _fake_quant(self, op: FakeQuantOp) -> None:
        array = constant_of(op.input, self.module.constants)
        if array is not None:
            values = quantize_array(
                array,
                op.grid.scale_array if op.grid.per_axis is not None else op.grid.scale,
                op.grid.zero_point_array if op.grid.per_axis is not None else op.grid.zero_point,
                *op.grid.limits,
                axis=op.grid.per_axis,
                dtype=element_dtype(op.grid),
            )
            self.twins[op.output] = self._put(constant(values, self.module.constants, op.grid), op)
            return
        if op.grid.per_axis is not None:
            raise PassError(
                11,
                "an activation has scales per axis",
                where=f"layer '{layer_name(op)}'",
                lever="use one scale for each activation; only weights have scales per axis",
            )
        source = op.input
        twin = self.twins.get(source)
        if twin is not None and quantized_element(twin.type) == op.grid:
            self.twins[op.output] = twin
            return
        if twin is not None and self._per_tensor(source):
            self.twins[op.output] = self.builder.rescale(twin, op.grid, op)
            return
        producer = source.owner
        raw = self.accumulators.get(source)
        leaves_as_float = source in self.floats and raw is None
        if (
            isinstance(producer, HbOperation)
            and not leaves_as_float
            and has_integer_form(producer)
            and self._ready(producer)
        ):
            if raw is not None and isinstance(producer, Conv2dOp | LinearOp):
                x, w = self.twins[producer.input], self.twins[producer.weight]
                self.twins[op.output] = self.builder.from_accumulator(producer, x, w, raw, op.grid, op)
            else:
                self.twins[op.output] = self.builder.integer_form(producer, self._operands(producer), op.grid, op)
            return
        made = q.QuantizeOp.make(self._float(source, op), grid=op.grid)
        self.twins[op.output] = self._put(made, op)

    def _ready(self, op: HbOperation) -> bool:
        """Whether every operand that takes part as an integer has a twin (a bias is frozen from its float constant)."""
        if isinstance(op, Conv2dOp | LinearOp):
            residual = [op.residual] if isinstance(op, Conv2dOp) and op.residual is not None else []
            bias = op.bias is None or constant_of(op.bias, self.module.constants) is not None
            weight = (
                constant_of(op.weight.owner.input, self.module.constants)
                if isinstance(op.weight.owner, FakeQuantOp)
                else None
            )
            values = all(self._per_tensor(value) for value in (op.input, *residual))
            if not (bias and values) or weight is None or op.weight not in self.twins:
                return False
            # With scales along another axis than that of the results, no sum of products has one scale.
            return quantized_element(self.twins[op.weight].type).per_axis in (None, 0)
        return all(self._per_tensor(value) for value in op.operands)

    def _per_tensor(self, value: SSAValue) -> bool:
        """Whether a value has a twin with one scale. Scales along an axis belong to weights: whatever else reads such a
        constant computes with its floats."""
        return value in self.twins and quantized_element(self.twins[value].type).per_axis is None

    def _compute(self, op: HbOperation) -> None:
        if isinstance(op, ArgmaxOp) and self._per_tensor(op.input):
            made = ArgmaxOp.make(self.twins[op.input], **op.values)
            op.output.replace_all_uses_with(self._put(made, op))
            return
        if keeps_grid(op) and all(value in self.twins for value in op.operands):
            twins = [self.twins[value] for value in op.operands]
            grid = quantized_element(twins[0].type)
            if all(quantized_element(t.type) == grid for t in twins) and grid.per_axis is None:
                self.twins[op.results[0]] = self._keep(op, twins, grid)
                return
        if has_integer_form(op) and self._ready(op):
            readers = [use.operation for use in op.results[0].uses]
            if all(isinstance(r, FakeQuantOp) for r in readers):
                return  # built when the fake quant is reached
            if self.float_results and _hands_out_floats(op):
                self.floats[op.results[0]] = self.builder.float_form(op, self._operands(op), op)
                return
            raw = self._accumulator(op)
            if raw is not None:
                self.floats[op.results[0]] = self._float_accumulator(op, raw)
                return
        self._float_operands(op)

    def _keep(self, op: HbOperation, twins: list[SSAValue], grid: UniformQuantizedType) -> SSAValue:
        values = op.values
        if isinstance(op, PadOp):
            low, high = grid.limits
            with np.errstate(invalid="ignore", over="ignore"):
                values["value"] = float(np.clip(np.rint(values["value"] / grid.scale) + grid.zero_point, low, high))
        return self._put(self.builder.keep_grid(op, twins, values), op)

    def _operands(self, op: HbOperation) -> list[SSAValue | None]:
        return [None if v is None else self.twins.get(v, v) for v in op.aligned_operands]

    def _accumulator(self, op: HbOperation) -> SSAValue | None:
        """The int32 accumulator of a convolution or linear layer without a residual, or None for anything else."""
        if not isinstance(op, Conv2dOp | LinearOp) or (isinstance(op, Conv2dOp) and op.residual is not None):
            return None
        if not self.builder.accumulates_in_int32(self.twins[op.input], self.twins[op.weight]):
            return None
        self.accumulators[op.output] = self.builder.integer_form(op, self._operands(op), None, op)
        return self.accumulators[op.output]

    def _float_accumulator(self, op: HbOperation, raw: SSAValue) -> SSAValue:
        made = self._put(q.DequantizeOp.make(raw, grid=quantized_element(raw.type)), op)
        wanted = shape_of(op.results[0].type)
        # A linear layer's accumulator has scales along its last axis and cannot be reshaped; its floats can.
        if shape_of(made.type) != wanted:
            made = self._put(ReshapeOp.make(made, shape=wanted), op)
        low, high = op.values["min"], op.values["max"]
        return made if low is None and high is None else self._put(ClipOp.make(made, min=low, max=high), op)

    def _float_operands(self, op: Operation) -> None:
        for index, value in enumerate(op.operands):
            if value in self.twins or value in self.floats:
                op.operands[index] = self._float(value, op)

    def _float(self, value: SSAValue, anchor: Operation) -> SSAValue:
        """A float for a value that may exist only as a twin; made once."""
        if value in self.floats:
            return self.floats[value]
        twin = self.twins.get(value)
        if twin is None:
            return value
        if isinstance(value.owner, FakeQuantOp) and constant_of(value.owner.input, self.module.constants) is not None:
            return value  # a fake-quantised constant that something float reads stays as it is
        made = q.DequantizeOp.make(twin, grid=quantized_element(self.twins[value].type))
        self.floats[value] = self._put(made, anchor, source=value.owner if isinstance(value.owner, Operation) else None)
        return self.floats[value]

    def _put(self, made: HbOperation, anchor: Operation, source: Operation | None = None) -> SSAValue:
        return self.builder.put(made, anchor, source)


def _hands_out_floats(op: HbOperation) -> bool:
    """Whether a tensor engine with float results can give those of `op`: sums, and nothing behind them."""
    return isinstance(op, MatmulOp) or is_high_precision(op)
