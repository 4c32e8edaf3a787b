"""Puts fake quantisation on every edge that will be integers: activations on calibrated grids, weights per channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from hbir.dialects.hbir import ClipOp, ConstantOp, Conv2dOp, LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import name_location
from hbir.module import Function, Module
from passes.common.analysis import (
    grid_sources,
    has_integer_form,
    head_values,
    is_float,
    is_high_precision,
    keeps_grid,
    output_cone,
)
from passes.common.observers import grid_for, weight_grid
from passes.common.rewriting import blocks, constant_of, insert_before
from passes.common.statistics_values import statistics_values
from passes.manager import Pass, Promise, check_choice

__all__ = ["InsertFakeQuant", "activation_points"]


def activation_points(block: Block, *, accumulators: bool = True) -> Iterator[SSAValue]:
    """The float values that get a grid: inputs, and results of operations that compute.

    Left out: values that only operations without an integer form read, results of operations that keep the grid of their
    operand, results that already have one, and (with `accumulators`) what a plain convolution hands straight to the outputs.
    """
    cone = output_cone(block)
    for value in (*block.args, *(result for op in block.ops for result in op.results)):
        owner = value.owner
        if not is_float(value) or isinstance(owner, ConstantOp | FakeQuantOp) or value.first_use is None:
            continue
        readers = [use.operation for use in value.uses]
        if isinstance(owner, Operation) and not has_integer_form(owner):
            if keeps_grid(owner):
                continue
        if isinstance(owner, Operation) and has_integer_form(owner):
            to_outputs = all(isinstance(r, ReturnOp) or r in cone for r in readers)
            if not (accumulators and to_outputs and is_high_precision(owner)):
                yield value
        elif any(has_integer_form(r) or (keeps_grid(r) and r not in cone) for r in readers):
            yield value


def _constants(block: Block, store: ConstantStore) -> Iterator[tuple[Operation, int]]:
    """(operation, operand index) of every float constant that takes part as integers, biases left out."""
    for op in block.ops:
        if not (has_integer_form(op) or keeps_grid(op)):
            continue
        for index, value in enumerate(op.operands):
            if is_float(value) and constant_of(value, store) is not None:
                residual = isinstance(op, Conv2dOp) and value is op.residual
                if not isinstance(op, Conv2dOp | LinearOp) or index == 1 or residual:
                    yield op, index


@dataclass(frozen=True)
class InsertFakeQuant(Pass):
    """Insert `qat.fake_quant`. `grids` maps values (by their number among the activation points) to calibrated grids;
    `signed` holds those that are never 0, with 1 or -1: no rounding takes them there.

    Without calibrated grids, as in a performance-only build, every activation gets the range [-1, 1].
    """

    name: ClassVar[str] = "insert-fake-quant"
    promise: ClassVar[Promise] = Promise.NUMERIC

    activation_bits: int = 8
    """Width of activations: 8 or 16."""
    weight_bits: int = 8
    """Width of weights: 8 or 16."""
    head_bits: int = 16
    """Width of the values that lead to the outputs: 8 or 16."""
    per_channel: bool = True
    """Whether each output channel of a weight has a scale of its own."""
    grids: Mapping[tuple[str, int], UniformQuantizedType] = field(
        default_factory=dict[tuple[str, int], UniformQuantizedType], repr=False
    )
    signed: Mapping[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int], repr=False)

    def __post_init__(self) -> None:
        for option in ("activation_bits", "weight_bits", "head_bits"):
            check_choice(self.name, option, getattr(self, option), (8, 16))

    def run(self, module: Module) -> None:
        for function, block in blocks(module):
            _, head = head_values(block)
            statistics = statistics_values(block)
            # The accumulator of int16 activations is int48, which no output holds.
            points = list(activation_points(block, accumulators=self.activation_bits == 8))
            constants = list(_constants(block, module.constants))
            for number, value in enumerate(points):
                bits = 16 if value in statistics else self.head_bits if value in head else self.activation_bits
                grid = self.grids.get((function.name, number)) or grid_for((-1.0, 1.0), bits, True)
                fake = _insert(value, grid, block, function)
                if sign := self.signed.get((function.name, number)):
                    _keep_sign(fake, sign)
            for op, index in constants:
                result = op.results[0]
                bits = 16 if result in statistics else self.head_bits if result in head else self.activation_bits
                self._quantize_constant(op, index, bits, module.constants)

    def _quantize_constant(self, op: Operation, index: int, bits: int, store: ConstantStore) -> None:
        value = op.operands[index]
        array = constant_of(value, store)
        if array is None:
            return
        if isinstance(op, Conv2dOp | LinearOp) and index == 1:
            grid = weight_grid(array, self.weight_bits, self.per_channel, _smallest_scales(op, store))
        else:
            grid = grid_for((float(array.min(initial=0)), float(array.max(initial=0))), bits, True)
        op.operands[index] = insert_before(op, FakeQuantOp.make(value, grid=grid), [op]).output


def _smallest_scales(op: Conv2dOp | LinearOp, store: ConstantStore) -> npt.NDArray[np.float64] | None:
    """Weight scales below which the bias would not fit a quarter of the accumulator (nearly dead channels)."""
    bias = None if op.bias is None else constant_of(op.bias, store)
    sources = grid_sources(op.input)
    if bias is None or not sources:
        return None
    # Operands of a concat come to one grid later, the widest; the smallest of them is the safe assumption here.
    quarter = 2**29 if all(source.grid.bits == 8 for source in sources) else 2**45
    return np.abs(bias.astype(np.float64)) / (min(source.grid.scale for source in sources) * quarter)


def _insert(value: SSAValue, grid: UniformQuantizedType, block: Block, function: Function) -> FakeQuantOp:
    readers = list(value.uses)
    fake = FakeQuantOp.make(value, grid=grid)
    if isinstance(value.owner, Operation):
        fake.location = value.owner.location
        block.insert_op_after(fake, value.owner)
    elif isinstance(value, BlockArgument) and block.first_op is not None:
        fake.location = name_location(function.flatten_inputs[value.index].name)
        block.insert_op_before(fake, block.first_op)
    for use in readers:
        use.operation.operands[use.index] = fake.output
    return fake


def _keep_sign(fake: FakeQuantOp, sign: int) -> None:
    """Hold a value at least one step away from 0, by the clip that computes it or by one behind it."""
    step, owner = fake.grid.scale, fake.input.owner
    low, high = (step, None) if sign > 0 else (None, -step)
    if isinstance(owner, ClipOp):
        bounds = owner.values
        if low is not None:
            bounds["min"] = max(low, bounds["min"] if bounds["min"] is not None else low)
        if high is not None:
            bounds["max"] = min(high, bounds["max"] if bounds["max"] is not None else high)
        fake.operands[0] = insert_before(fake, ClipOp.make(owner.input, **bounds), [owner]).output
        return
    readers = list(fake.output.uses)
    clipped = ClipOp.make(fake.output, min=low, max=high)
    again = FakeQuantOp.make(clipped.output, grid=fake.grid)
    Rewriter.insert_op((clipped, again), InsertPoint.after(fake))
    clipped.location = again.location = fake.location
    for use in readers:
        use.operation.operands[use.index] = again.output
