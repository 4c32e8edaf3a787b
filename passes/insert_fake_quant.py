"""Puts fake quantisation on every edge that will be integers: activations on calibrated grids, weights per channel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Block, Operation, SSAValue

from hbir.dialects.hbir import ConstantOp, Conv2dOp, LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore
from hbir.module import Module
from passes.analysis import has_integer_form, is_float, is_high_precision, keeps_grid, output_cone
from passes.manager import Pass, Promise
from passes.observers import grid_for, weight_grid
from passes.rewriting import blocks, constant_of

__all__ = ["InsertFakeQuant", "activation_points"]


def activation_points(block: Block) -> Iterator[SSAValue]:
    """The float values that get a grid: inputs, and results of operations that compute.

    Left out: values that only operations without an integer form read, results of operations that keep the grid of their
    operand, results that already have one, and what a plain convolution hands straight to the outputs.
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
            if not (to_outputs and is_high_precision(owner)):
                yield value
        elif any(has_integer_form(r) or (keeps_grid(r) and r not in cone) for r in readers):
            yield value


def _weights(block: Block, store: ConstantStore) -> Iterator[tuple[Operation, int, bool]]:
    """(operation, operand index, is a layer's weight) of every float constant that takes part as integers."""
    for op in block.ops:
        if not (has_integer_form(op) or keeps_grid(op)):
            continue
        for index, value in enumerate(op.operands):
            if not is_float(value) or constant_of(value, store) is None:
                continue
            if isinstance(op, Conv2dOp | LinearOp):
                if index == 1:
                    yield op, index, True
            else:
                yield op, index, False


@dataclass(frozen=True)
class InsertFakeQuant(Pass):
    """Insert `qat.fake_quant`. `grids` maps values (by their number among the activation points) to calibrated grids.

    Without calibrated grids, as in a performance-only build, every activation gets the range [-1, 1].
    """

    name: ClassVar[str] = "insert-fake-quant"
    promise: ClassVar[Promise] = Promise.NUMERIC

    activation_bits: int = 8
    weight_bits: int = 8
    per_channel: bool = True
    grids: Mapping[tuple[str, int], UniformQuantizedType] = field(
        default_factory=dict[tuple[str, int], UniformQuantizedType], repr=False
    )

    def run(self, module: Module) -> None:
        for function, block in blocks(module):
            points = list(activation_points(block))
            for op, index, is_weight in list(_weights(block, module.constants)):
                self._quantize_constant(op, index, is_weight, module.constants)
            for number, value in enumerate(points):
                grid = self.grids.get((function.name, number)) or grid_for((-1.0, 1.0), self.activation_bits, True)
                _insert(value, grid, block)

    def _quantize_constant(self, op: Operation, index: int, is_weight: bool, store: ConstantStore) -> None:
        value = op.operands[index]
        array = constant_of(value, store)
        if array is None:
            return
        if is_weight:
            grid = weight_grid(array, self.weight_bits, self.per_channel)
        else:
            grid = grid_for((float(array.min(initial=0)), float(array.max(initial=0))), self.activation_bits, True)
        fake = FakeQuantOp.make(value, grid=grid)
        if isinstance(value.owner, Operation):
            fake.location = value.owner.location
        block = op.parent_block()
        if block is not None:
            block.insert_op_before(fake, op)
        op.operands[index] = fake.output


def _insert(value: SSAValue, grid: UniformQuantizedType, block: Block) -> None:
    readers = list(value.uses)
    fake = FakeQuantOp.make(value, grid=grid)
    if isinstance(value.owner, Operation):
        fake.location = value.owner.location
        block.insert_op_after(fake, value.owner)
    else:
        first = block.first_op
        if first is not None:
            block.insert_op_before(fake, first)
    for use in readers:
        use.operation.operands[use.index] = fake.output
