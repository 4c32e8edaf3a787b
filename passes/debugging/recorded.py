"""Judges passes that replace operations one by one: each alone, on the values that reach it, by the error it records.

What a table is off is lost among the rounding of a whole network, and what the network makes of it is no measure of the table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.dialects.builtin import FunctionType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import Array
from hbir.dialects.hbir import ConstantOp
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.module import Function, Module
from passes.debugging.differences import differences
from passes.debugging.reduce import value_names

__all__ = ["Beyond", "all_values", "beyond_record", "recorded_error"]


@dataclass(frozen=True)
class Beyond:
    """The worst element of an operation's result: how far it is off, and how far it may be, in steps of the result."""

    function: str
    feed: Mapping[str, Array]
    """The input set of the function."""
    output: str
    index: tuple[int, ...]
    expected: int | float | bool
    actual: int | float | bool
    steps: float
    allowed: float


def all_values(function: Function, feed: Mapping[str, Array]) -> dict[str, Array]:
    """Inputs and results of every operation, by the names under which `reduce` makes inputs of them."""
    names = value_names(function)
    values = dict(feed)
    for op in function.operations:
        if isinstance(op, ConstantOp):
            values[names[op.output]] = op.array(function.module.constants)

    def keep(op: Operation, results: Sequence[Array]) -> None:
        for value, array in zip(op.results, results, strict=True):
            values[names[value]] = array.copy()

    function.feed(feed, keep)
    return values


def recorded_error(value: SSAValue) -> float:
    """How far a value may be off, in steps of its grid: what the table that makes it records; 0 where none is recorded.

    A rescale behind such a table brings the table's steps into its own, and rounds once more.
    """
    op = value.owner
    if isinstance(op, q.InterpolateOp | q.SegmentedOp):
        return float(op.values["worst_error"] or 0.0)
    if isinstance(op, q.RescaleOp) and (inner := recorded_error(op.input)):
        return inner * quantized_element(op.input.type).scale / op.grid.scale + 1.0
    return 0.0


@dataclass(frozen=True)
class _Apart:
    """A function of operations that are each alone: what they read are inputs, what they make are outputs."""

    op: FuncOp
    inputs: tuple[str, ...]
    """Names of `all_values`."""
    outputs: tuple[str, ...]
    """The function's names for what it returns itself, and names of `value_names`."""


def _apart(function: Function, keep: Callable[[Operation], bool]) -> _Apart | None:
    names, block = value_names(function), Block()
    given = names | {argument.value: argument.name for argument in function.flatten_inputs}
    shown = names | {argument.value: argument.name for argument in function.flatten_outputs}
    known: dict[SSAValue, SSAValue] = {}
    inputs, outputs, results = list[str](), list[str](), list[SSAValue]()
    for op in function.operations:
        if isinstance(op, ConstantOp) or not keep(op):
            continue
        for operand in op.operands:
            if operand in known:
                continue
            if isinstance(operand.owner, ConstantOp):
                block.add_op(copied := operand.owner.clone())
                known[operand] = copied.output
            else:
                known[operand] = block.insert_arg(operand.type, len(block.args))
                inputs.append(given[operand])
        block.add_op(copy := op.clone(dict(known)))
        results += copy.results
        outputs += [shown[result] for result in op.results]
    if not results:
        return None
    block.add_op(ReturnOp(*results))
    kind = FunctionType.from_lists(list(block.arg_types), [value.type for value in results])
    return _Apart(FuncOp(function.name, kind, Region(block)), tuple(inputs), tuple(outputs))


def beyond_record(
    before: Module, after: Module, run: Callable[[Module], Module], feeds: Mapping[str, Sequence[Mapping[str, Array]]]
) -> Iterator[Beyond]:
    """The worst element of each result of the kinds of operation that are gone from `after`, for each input set.

    Each such operation of `before` is taken alone, and `run` makes of it what it made of the module. Quantised results only:
    others have no steps. Raises what running the modules raises.
    """
    left = {type(op) for function in after for op in function.operations}
    pieces = {function.name: _apart(function, lambda op: type(op) not in left) for function in before}
    found = {name: piece for name, piece in pieces.items() if piece is not None}
    if not found:
        return
    whole = Module(ModuleOp([piece.op for piece in found.values()], dict(before.op.attributes)), before.constants)
    made = run(whole.clone())
    for name, piece in found.items():
        for feed in feeds[name]:
            values = all_values(before[name], feed)
            given = [values[each] for each in piece.inputs]
            rows = zip(made[name].flatten_outputs, piece.outputs, whole[name](*given), made[name](*given), strict=True)
            for argument, output, expected, actual in rows:
                if not isinstance(argument.type.quant_info, UniformQuantizedType) or not expected.size:
                    continue
                apart = differences(expected, actual)
                index = tuple(int(i) for i in np.unravel_index(int(apart.argmax()), apart.shape))
                element = (output, index, expected[index].item(), actual[index].item())
                yield Beyond(name, feed, *element, float(apart[index]), recorded_error(argument.value))
