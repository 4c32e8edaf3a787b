"""A graph under construction: operands are picked from what is there, or become inputs. Hypothesis decides, or a seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Generator as GeneratorABC
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, TypeVar

from hypothesis import strategies as st
from xdsl.dialects.builtin import Float32Type, FunctionType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

from hbir.dialects.base import Array, HbOperation, shape_of, tensor, tensor_type
from hbir.dialects.hbir import ArgmaxOp, ConstantOp, DivOp, FunctionOp, PowOp, constant
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import name_location
from hbir.module import Module
from hbir.testing.ranges import ANY, LARGEST, Range, input_range, is_steady, result_range
from hbir.testing.values import SCALES, chosen_grid, chosen_shape, filled

__all__ = ["Generator", "Graph", "Seeded", "SeededGraph", "TapeGraph"]

T = TypeVar("T")


@dataclass
class Graph:
    """The block that grows, and hypothesis' `draw`, which decides how."""

    draw: Callable[..., Any]
    store: ConstantStore = field(default_factory=ConstantStore)
    block: Block = field(default_factory=Block)
    ranges: dict[SSAValue, Range] = field(default_factory=dict[SSAValue, Range])
    steady: set[SSAValue] = field(default_factory=set[SSAValue])
    """Values in which no pass changes even the last bit: see `hbir.testing.ranges.is_steady`."""

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options; hypothesis shrinks towards the first."""
        return self.draw(st.sampled_from(tuple(options)))

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        return self.draw(st.integers(low, high))

    def operation(self) -> None:
        """Called before each operation, or group of them, of a module."""

    def aside(self) -> AbstractContextManager[None]:
        """Around choices of which there may be more or fewer, where those that follow are to stay what they are."""
        return nullcontext()

    def maybe(self, often: int = 1) -> bool:
        """Whether an optional part is there, `often` times to one; hypothesis shrinks towards its absence."""
        return bool(self.integer(0, often))

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
        result = op.results[0]
        self.ranges[result] = result_range(op, self.range, self.store)
        if is_steady(op, self.steady.__contains__):
            self.steady.add(result)
        return result

    @property
    def last(self) -> SSAValue:
        """The first result of the operation that was added last."""
        op = self.block.last_op
        if op is None:
            raise IndexError("the graph has no operation yet")
        return op.results[0]

    def range(self, value: SSAValue) -> Range:
        """Between which numbers a value lies on example inputs: see `hbir.testing.ranges`."""
        return self.ranges.get(value, ANY)

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
        self.ranges[argument] = input_range(tensor_type(argument.type))
        self.steady.add(argument)
        return argument

    def _pick(self, fits: Callable[[SSAValue], bool]) -> SSAValue | None:
        """A value of the graph that fits, or None to ask for a new one."""
        results = [result for op in self.block.ops if not isinstance(op, ConstantOp) for result in op.results]
        found = [value for value in (*self.block.args, *results) if fits(value)]
        # Late values first: examples shrink to chains rather than to islands. The last one is as likely as two others, for
        # chains; any may be picked again, for diamonds.
        return self.choose([*(found[-1:] * (1 + len(found) // 2)), *reversed(found[:-1]), None])

    def value(
        self,
        rank: int | None = 4,
        shape: Sequence[int] | None = None,
        other_than: SSAValue | None = None,
        *,
        largest: float = LARGEST,
        steady: bool = False,
    ) -> SSAValue:
        """An f32 value of a rank or shape, and mostly another than one that is given.

        `largest`: none beyond it; `steady`: one of `Graph.steady`.
        """
        excluded = other_than if other_than is not None and self.integer(0, 4) else None

        def fits(value: SSAValue) -> bool:
            if value is excluded or (steady and value not in self.steady):
                return False
            if not max(map(abs, self.range(value))) <= largest:
                return False
            extents = shape_of(value.type)
            ranked = rank is None or len(extents) == rank
            return tensor_type(value.type).element_type == f32 and (
                ranked if shape is None else extents == tuple(shape)
            )

        with self.aside():
            wanted = self.shape(self.integer(0, 4) if rank is None else rank) if shape is None else shape
        return self._pick(fits) or self.input(wanted, f32)

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

        with self.aside():
            grid = like or self.grid(bits)
            wanted = self.shape(self.integer(1, 4) if rank is None else rank) if shape is None else shape
        return self._pick(fits) or self.input(wanted, grid)

    def twin(self) -> Operation | None:
        """An operation of the graph once more: as it is, with operands that changed places, or with another operand.

        It is the last one then, and what was repeated comes back; None where there is none. Both are read, or returned.
        """
        known = [op for op in self.block.ops if isinstance(op, HbOperation) and not isinstance(op, ConstantOp)]
        if not known:
            return None
        kind = self.choose(("same", "swapped", "swapped", "other"))
        able = {
            "same": known,
            "swapped": [op for op in known if _exchanges(op)],
            "other": [op for op in known if _free(op)],
        }
        fitting = able[kind] or known
        op = self.choose([*(fitting[-1:] * (1 + len(fitting) // 2)), *reversed(fitting[:-1])])
        again = op.clone()
        if kind == "swapped" and able[kind]:
            a, b = self.choose(_exchanges(op))
            again.operands[a], again.operands[b] = op.operands[b], op.operands[a]
        elif kind == "other" and able[kind]:
            at = self.choose(_free(op))
            kept = op.operands[at]
            again.operands[at] = self._pick(lambda value: value.type == kept.type and value is not kept) or kept
        if not self._holds(op, again):
            again.operands = op.operands
        self.add(again)
        return op

    def _holds(self, op: HbOperation, again: HbOperation) -> bool:
        """Whether other operands do for an operation too: they are no larger than any, as far from its poles, and as steady."""

        def within(old: SSAValue, new: SSAValue) -> bool:
            (least, most), (low, high) = self.range(old), self.range(new)
            if not isinstance(op, ArgmaxOp | DivOp | FunctionOp | PowOp):
                return (
                    old is new
                    or max(-low, high) <= LARGEST
                    or type(tensor_type(new.type).element_type) is not Float32Type
                )
            return least <= low and high <= most and (old not in self.steady or new in self.steady)

        return all(map(within, op.operands, again.operands))

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


class TapeGraph(Graph):
    """A graph whose choices are read from bytes, which hypothesis draws by the piece: one for each operation, more as needed.

    To hypothesis a module is then a handful of pieces instead of hundreds of numbers. Its variations of an example are modules
    with an operation repeated, rather than the same ones with another seed of a weight; it is faster, and shrinks as before:
    pieces go, and bytes become 0.
    """

    def __init__(self, draw: Callable[..., Any]) -> None:
        super().__init__(draw)
        self._tape, self._aside = b"", False

    @contextmanager
    def aside(self) -> GeneratorABC[None]:
        """The choices come from as many bytes each time."""
        if len(self._tape) < _ASIDE:
            self._tape += self.draw(_TAPE)
        piece, kept = self._tape[:_ASIDE], self._tape[_ASIDE:]
        self._tape, self._aside = piece, True
        yield
        self._tape, self._aside = kept, False

    def operation(self) -> None:
        """Begin another piece, so that what is left of the last one means nothing."""
        self._tape = self.draw(_TAPE)

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        count = high - low + 1
        # As many bytes whatever there is to choose from: what comes after them keeps its meaning while an example shrinks. Only
        # where the remainder of a byte would favour the first options, as those of a list of generators, they are more.
        size = 1 if count <= 64 else 2 if count <= 2000 else 4
        if len(self._tape) < size:
            self._tape += bytes(size) if self._aside else self.draw(_TAPE)
        piece, self._tape = self._tape[:size], self._tape[size:]
        return low + int.from_bytes(piece, "big") % count

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options."""
        listed = tuple(options)
        return listed[self.integer(0, len(listed) - 1)]


_ASIDE = 13
"""Bytes that decide on the grid and shape of an input."""
_TAPE = st.binary(min_size=40, max_size=1024)
"""Of twice the least length on average."""


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


def _free(op: HbOperation) -> list[int]:
    """Operands that may be others. Constants stay: the variance of a batch norm is no mean, a table no other table."""
    return [at for at, value in enumerate(op.operands) if not isinstance(value.owner, ConstantOp)]


def _exchanges(op: HbOperation) -> list[tuple[int, int]]:
    """Pairs of operands that may change places."""
    pairs = combinations(_free(op), 2)
    return [
        (a, b) for a, b in pairs if op.operands[a].type == op.operands[b].type and op.operands[a] is not op.operands[b]
    ]


def _erase(op: Operation) -> None:
    op.detach()
    op.erase()


Generator = Callable[[Graph], Any]
"""Adds one operation of its class, with whatever operands it needs, to a graph."""
