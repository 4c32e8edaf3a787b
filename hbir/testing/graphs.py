"""A graph under construction: operands are picked from what is there, or become inputs. Hypothesis decides, or a seed."""

from __future__ import annotations

import random
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
from hbir.testing.values import SCALES, chosen_grid, chosen_shape, filled

__all__ = ["Generator", "Graph", "Seeded", "SeededGraph"]

T = TypeVar("T")


@dataclass
class Graph:
    """The block that grows, and hypothesis' `draw`, which decides how."""

    draw: Callable[..., Any]
    store: ConstantStore = field(default_factory=ConstantStore)
    block: Block = field(default_factory=Block)

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options; hypothesis shrinks towards the first."""
        return self.draw(st.sampled_from(tuple(options)))

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        return self.draw(st.integers(low, high))

    def shape(self, rank: int) -> tuple[int, ...]:
        """A shape of a rank: see `hbir.testing.values.chosen_shape`."""
        return chosen_shape(self, rank)

    def grid(self, bits: Sequence[int] = (8, 16), scales: Sequence[float] = SCALES) -> UniformQuantizedType:
        """A per-tensor grid: see `hbir.testing.quant_params`."""
        return chosen_grid(self, bits, scales=scales)

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

    def value(
        self, rank: int | None = 4, shape: Sequence[int] | None = None, other_than: SSAValue | None = None
    ) -> SSAValue:
        """An f32 value of a rank or shape, and mostly another than one that is given."""
        excluded = other_than if other_than is not None and self.integer(0, 4) else None

        def fits(value: SSAValue) -> bool:
            if value is excluded:
                return False
            extents = shape_of(value.type)
            ranked = rank is None or len(extents) == rank
            return tensor_type(value.type).element_type == f32 and (
                ranked if shape is None else extents == tuple(shape)
            )

        found = self._pick(fits)
        if found is not None:
            return found
        rank = self.integer(0, 4) if rank is None else rank
        return self.input(self.shape(rank) if shape is None else shape, f32)

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
        grid = like or self.grid(bits)
        return self.input(self.shape(rank) if shape is None else shape, grid)

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


class Seeded:
    """Choices from a seed: many times faster than hypothesis, for runs of ten thousands of modules.

    `made` are the choices so far, each as its distance from the first option. Given to another `Seeded` as `replay` they make
    the same module again; shortened or lowered they make a smaller one (after the last, every choice is the first).
    """

    def __init__(self, seed: int, replay: Sequence[int] | None = None) -> None:
        self._random, self._replay = random.Random(seed), replay
        self.made: list[int] = []

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        if self._replay is None:
            found = self._random.randint(0, high - low)
        else:
            found = min(self._replay[len(self.made)], high - low) if len(self.made) < len(self._replay) else 0
        self.made.append(found)
        return low + found

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options."""
        listed = tuple(options)
        return listed[self.integer(0, len(listed) - 1)]


def _no_engine(strategy: st.SearchStrategy[Any], label: object = None) -> Any:
    raise TypeError(f"{strategy} needs hypothesis to draw it; a seeded graph has choose and integer")


class SeededGraph(Graph):
    """A graph whose choices come from a `Seeded`."""

    def __init__(self, choices: Seeded) -> None:
        super().__init__(_no_engine)
        self.choices = choices

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options."""
        return self.choices.choose(options)

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        return self.choices.integer(low, high)


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()


Generator = Callable[[Graph], Any]
"""Adds one operation of its class, with whatever operands it needs, to a graph."""
