"""A graph under construction by a hypothesis strategy: operands are picked from what is there, or become inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hypothesis import strategies as st
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from hbir.dialects.base import Array, HbOperation, shape_of, tensor, tensor_type
from hbir.dialects.hbir import ConstantOp, constant
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import name_location
from hbir.module import Module
from hbir.testing.values import filled, quant_params, shapes

__all__ = ["Generator", "Graph"]

T = TypeVar("T")


@dataclass
class Graph:
    """The block that grows, and the `draw` that decides how."""

    draw: st.DrawFn
    store: ConstantStore = field(default_factory=ConstantStore)
    block: Block = field(default_factory=Block)

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options; hypothesis shrinks towards the first."""
        return self.draw(st.sampled_from(tuple(options)))

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        return self.draw(st.integers(low, high))

    def add(self, op: HbOperation) -> SSAValue:
        """Append an operation under a layer name of its own; its first result."""
        op.location = name_location(f"{op.name.rsplit('.', 1)[-1]}_{len(list(self.block.ops))}")
        self.block.add_op(op)
        return op.results[0]

    def constant(self, array: Array, element: Attribute) -> SSAValue:
        """A constant of the graph."""
        return self.add(constant(array, self.store, element))

    def floats(self, shape: Sequence[int], reach: float = 1.0) -> SSAValue:
        """An f32 constant."""
        return self.constant(filled(shape, "float32", self.integer(0, 2**32 - 1), reach), f32)

    def input(self, shape: Sequence[int], element: Attribute) -> SSAValue:
        """A further input of the function."""
        argument = self.block.insert_arg(tensor(shape, element), len(self.block.args))
        argument.location = name_location(f"in_{len(self.block.args) - 1}")
        return argument

    def _pick(self, fits: Callable[[SSAValue], bool]) -> SSAValue | None:
        """A value of the graph that fits, or None to ask for a new one."""
        results = [result for op in self.block.ops if not isinstance(op, ConstantOp) for result in op.results]
        found = [value for value in (*self.block.args, *results) if fits(value)]
        # Late values first: examples shrink to chains rather than to islands.
        return self.choose([*reversed(found), None]) if found else None

    def value(self, rank: int | None = 4, shape: Sequence[int] | None = None) -> SSAValue:
        """An f32 value of a rank or shape."""

        def fits(value: SSAValue) -> bool:
            extents = shape_of(value.type)
            ranked = rank is None or len(extents) == rank
            return tensor_type(value.type).element_type == f32 and (
                ranked if shape is None else extents == tuple(shape)
            )

        found = self._pick(fits)
        if found is not None:
            return found
        rank = self.integer(0, 4) if rank is None else rank
        return self.input(self.draw(shapes(rank)) if shape is None else shape, f32)

    def quantized(
        self,
        rank: int | None = 4,
        bits: Sequence[int] = (8, 16),
        shape: Sequence[int] | None = None,
        like: UniformQuantizedType | None = None,
    ) -> SSAValue:
        """A value on a per-tensor grid of one of some widths (`like`: on exactly that grid)."""

        def fits(value: SSAValue) -> bool:
            element, extents = tensor_type(value.type).element_type, shape_of(value.type)
            if not isinstance(element, UniformQuantizedType) or element.per_axis is not None:
                return False
            grid = element.bits in bits if like is None else element == like
            return grid and (extents == tuple(shape) if shape is not None else rank is None or len(extents) == rank)

        found = self._pick(fits)
        if found is not None:
            return found
        rank = self.integer(1, 4) if rank is None else rank
        grid = like or self.draw(quant_params(bits))
        return self.input(self.draw(shapes(rank)) if shape is None else shape, grid)

    def finish(self) -> Module:
        """The module: what nobody reads is returned."""
        loose = [
            result
            for op in self.block.ops
            if not isinstance(op, ConstantOp)
            for result in op.results
            if result.first_use is None
        ]
        results = loose or list(self.block.args)
        self.block.add_op(ReturnOp(*results))
        kind = FunctionType.from_lists(list(self.block.arg_types), [value.type for value in results])
        function = FuncOp("main", kind, Region(self.block))
        module = Module(ModuleOp([function]), self.store)
        for index, argument in enumerate(module[0].flatten_inputs):
            argument.name = f"in_{index}"
        for index, argument in enumerate(module[0].flatten_outputs):
            argument.name = f"out_{index}"
        # Dead constants of abandoned attempts would be all that distinguishes two modules.
        for op in reversed(list(self.block.ops)):
            if isinstance(op, ConstantOp) and op.output.first_use is None:
                _erase(op)
        return module


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()


Generator = Callable[[Graph], Any]
"""Adds one operation of its class, with whatever operands it needs, to a graph."""
