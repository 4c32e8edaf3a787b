"""Runs a function: one numpy array per value, each operation by its own meaning, values freed after their last use.

A function is prepared once into a flat list of steps; running it is then a loop of calls. Results of bound operations lie in
buffers that stay for all runs, so that kernels stay bound to them; values that do not live at the same time share memory.
Hooks see every operation's results: calibration, comparison and debugging are hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, cast

import numpy as np
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import Array, HbOperation, element_dtype, shape_of, tensor_type
from hbir.dialects.hbir.constant import ConstantOp
from hbir.errors import HbError, IrError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name
from hbir.kernels.reuse import reusing

__all__ = ["Hook", "Prepared", "prepare"]

Hook = Callable[[Operation, Sequence[Array]], None]
"""Called after each operation with its result arrays, which it must not keep. What it changes, the rest of the run reads."""


@dataclass(frozen=True, slots=True)
class _Step:
    operation: HbOperation
    call: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A function ready to run: `steps` over numbered slots; slot -1 stands for an absent operand.

    It owns the buffers of its values: one run at a time. Another thread prepares its own.
    """

    arguments: tuple[int, ...]
    results: tuple[int, ...]
    constants: tuple[tuple[int, Array], ...]
    steps: tuple[_Step, ...]
    slots: int

    def run(self, inputs: Sequence[Array], hook: Hook | None = None) -> list[Array]:
        """Results for `inputs`, which have the dtypes and shapes of the function's arguments."""
        values: list[Array | None] = [None] * (self.slots + 1)  # the last slot is the absent operand, index -1
        for slot, array in self.constants:
            values[slot] = array
        for slot, array in zip(self.arguments, inputs, strict=True):
            values[slot] = array
        for step in self.steps:
            try:
                out = step.call(*[values[slot] for slot in step.inputs])
            except HbError:
                raise
            except (ValueError, IndexError, FloatingPointError, ZeroDivisionError) as error:
                raise IrError(
                    20,
                    f"{step.operation.name} cannot be evaluated",
                    where=f"layer '{layer_name(step.operation)}'",
                    why=str(error),
                ) from error
            if len(step.outputs) == 1:
                values[step.outputs[0]] = out
                out = (out,)
            else:
                for slot, array in zip(step.outputs, out, strict=True):
                    values[slot] = array
            if hook is not None:
                hook(step.operation, cast(Sequence[Array], out))
            for slot in step.dead:
                values[slot] = None
        # Buffers are written again in the next run, and a result may be a view of an input: what leaves is a copy.
        return [np.array(values[slot]) for slot in self.results]


@dataclass(slots=True, eq=False)
class _Block:
    """Memory for one value at a time; `holders` counts the live slots whose arrays may lie in it."""

    data: Array
    holders: int = 0


@dataclass(frozen=True, slots=True)
class _Buffers:
    """Gives out the memory of dead values again: a row of takes, aliases and releases in the order of the steps."""

    free: list[_Block] = field(default_factory=list[_Block])
    held: dict[int, list[_Block]] = field(default_factory=dict[int, list[_Block]])

    def take(self, slot: int, shape: Sequence[int], dtype: np.dtype[Any]) -> Array:
        """An array for the value of `slot`, in the smallest free block that holds it."""
        size = prod(shape) * dtype.itemsize
        fitting = [block for block in self.free if block.data.size >= size]
        if fitting:
            block = min(fitting, key=lambda each: each.data.size)
            self.free.remove(block)
        else:
            block = _Block(np.empty(size, np.uint8))
        self._hold(slot, [block])
        return block.data[:size].view(dtype).reshape(shape)

    def alias(self, outputs: Sequence[int], inputs: Sequence[int]) -> None:
        """The arrays of `outputs` may be views of any of `inputs`."""
        for slot in outputs:
            self._hold(slot, list({id(block): block for i in inputs for block in self.held.get(i, ())}.values()))

    def release(self, slots: Sequence[int]) -> None:
        """The values of `slots` are dead."""
        for slot in slots:
            for block in self.held.pop(slot, ()):
                block.holders -= 1
                if not block.holders:
                    self.free.append(block)

    def _hold(self, slot: int, blocks: list[_Block]) -> None:
        self.held[slot] = blocks
        for block in blocks:
            block.holders += 1


def prepare(function: FuncOp, store: ConstantStore) -> Prepared:
    """Number the values, bind the constants, lay out the buffers, and let each operation prepare itself (packed weights).

    Raises IrError HB0221 for an operation that has no meaning (an unregistered dialect, say).
    """
    slots: dict[SSAValue, int] = {}
    known: dict[int, Array] = {}
    block = function.body.block
    arguments = tuple(slots.setdefault(argument, len(slots)) for argument in block.args)
    pending: list[tuple[HbOperation, tuple[int, ...], tuple[int, ...]]] = []
    results: tuple[int, ...] = ()
    for op in block.ops:
        if isinstance(op, ReturnOp):
            results = tuple(slots[value] for value in op.operands)
            continue
        if isinstance(op, ConstantOp):
            known[slots.setdefault(op.output, len(slots))] = op.array(store)
            continue
        if not isinstance(op, HbOperation):
            raise IrError(
                21, f"{op.name} has no meaning here", where=f"layer '{layer_name(op)}'", lever="lower it first"
            )
        inputs = tuple(-1 if value is None else slots[value] for value in op.aligned_operands)
        pending.append((op, inputs, tuple(slots.setdefault(value, len(slots)) for value in op.results)))
    dead = _dead_after([(*inputs, *outputs) for _, inputs, outputs in pending], {-1, *results, *known})
    steps: list[_Step] = []
    buffers = _Buffers()
    for (op, inputs, outputs), last in zip(pending, dead, strict=True):
        call = _call(op, [known.get(slot) for slot in inputs], inputs, outputs, buffers)
        buffers.release(last)
        steps.append(_Step(op, call, inputs, outputs, last))
    return Prepared(arguments, results, tuple(known.items()), tuple(steps), len(slots))


def _dead_after(used: Sequence[Sequence[int]], kept: set[int]) -> list[tuple[int, ...]]:
    """For each step the slots that no later step uses, but for the ones that are kept."""
    last = {slot: index for index, slots in enumerate(used) for slot in slots}
    dead: list[list[int]] = [[] for _ in used]
    for slot, index in last.items():
        if slot not in kept:
            dead[index].append(slot)
    return [tuple(slots) for slots in dead]


def _call(
    op: HbOperation, constants: Sequence[Array | None], inputs: Sequence[int], outputs: Sequence[int], buffers: _Buffers
) -> Callable[..., Any]:
    """The operation as a function of its operands: a kernel that stays bound to its buffer where there is one."""
    bind = op.binder(constants)
    if bind is None:
        buffers.alias(outputs, inputs)
        return _in_order(op, op.evaluator(constants))
    type_ = op.results[0].type
    dtype = element_dtype(tensor_type(type_).element_type)
    return reusing(bind, buffers.take(outputs[0], shape_of(type_), dtype))


def _in_order(op: HbOperation, call: Callable[..., Any]) -> Callable[..., Any]:
    """`call` with results whose elements lie in order: numpy takes another loop for others, and floats another last bit.

    The results have the shapes and dtypes of the operation's types: one that says otherwise is a mistake that must be seen.
    """
    types = [tensor_type(result.type) for result in op.results]
    wanted = [(type_.get_shape(), element_dtype(type_.element_type)) for type_ in types]

    def run(*operands: Array | None) -> Any:
        results = call(*operands)
        several = isinstance(results, tuple)
        arrays = [np.asarray(r, order="C") for r in (cast(tuple[Array, ...], results) if several else (results,))]
        found = [(array.shape, array.dtype) for array in arrays]
        if found != wanted:
            shown = [", ".join(f"{dtype}{list(shape)}" for shape, dtype in each) for each in (found, wanted)]
            raise IrError(
                20,
                f"{op.name} gives {shown[0]}",
                where=f"layer '{layer_name(op)}'",
                why=f"its type says {shown[1]}",
                lever="let `evaluate` of the operation give what `infer` says",
            )
        return tuple(arrays) if several else arrays[0]

    return run


def check_input(name: str, value: Any, type_: Any) -> Array:
    """`value` as an array of exactly the argument's dtype and shape. Raises IrError HB0222 otherwise: nothing is cast."""
    array = np.asarray(value, order="C")
    wanted = tensor_type(type_)
    dtype, shape = element_dtype(wanted.element_type), wanted.get_shape()
    if array.dtype != dtype or array.shape != shape:
        raise IrError(
            22,
            f"input '{name}' is {array.dtype}{list(array.shape)}",
            why=f"the model takes {dtype}{list(shape)}",
            lever="convert the array; nothing is cast or reshaped silently",
        )
    return array
