"""Runs a function: one numpy array per value, each operation by its own `evaluate`, values freed after their last use.

A function is prepared once into a flat list of steps; running it is then a loop of calls. Hooks see every operation's
results: calibration, comparison and debugging are hooks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import Array, HbOperation, element_dtype, tensor_type
from hbir.dialects.hbir.constant import ConstantOp
from hbir.errors import HbError, IrError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name

__all__ = ["Hook", "Prepared", "prepare"]

Hook = Callable[[Operation, Sequence[Array]], None]
"""Called after each operation with its result arrays, which it must not keep or change."""


@dataclass(frozen=True, slots=True)
class _Step:
    operation: HbOperation
    call: Callable[..., Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    dead: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A function ready to run: `steps` over numbered slots; slot -1 stands for an absent operand."""

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
        # Operations may keep the buffers of their results for the next run: what leaves is a copy.
        return [np.array(values[slot]) for slot in self.results]


def prepare(function: FuncOp, store: ConstantStore) -> Prepared:
    """Number the values, bind the constants, and let each operation prepare itself (packed weights).

    Raises IrError HB0221 for an operation that has no meaning (an unregistered dialect, say).
    """
    slots: dict[SSAValue, int] = {}
    constants: list[tuple[int, Array]] = []
    known: dict[int, Array] = {}
    block = function.body.block
    arguments = tuple(slots.setdefault(argument, len(slots)) for argument in block.args)
    pending: list[tuple[HbOperation, Callable[..., Any], tuple[int, ...], tuple[int, ...]]] = []
    results: tuple[int, ...] = ()
    for op in block.ops:
        if isinstance(op, ReturnOp):
            results = tuple(slots[value] for value in op.operands)
            continue
        if isinstance(op, ConstantOp):
            slot = slots.setdefault(op.output, len(slots))
            known[slot] = op.array(store)
            constants.append((slot, known[slot]))
            continue
        if not isinstance(op, HbOperation):
            raise IrError(
                21, f"{op.name} has no meaning here", where=f"layer '{layer_name(op)}'", lever="lower it first"
            )
        inputs = tuple(-1 if value is None else slots[value] for value in op.aligned_operands)
        call = op.evaluator([known.get(slot) for slot in inputs])
        outputs = tuple(slots.setdefault(value, len(slots)) for value in op.results)
        pending.append((op, call, inputs, outputs))
    last: dict[int, int] = {}
    for index, (_, _, inputs, outputs) in enumerate(pending):
        for slot in (*inputs, *outputs):
            last[slot] = index
    kept = {-1, *results, *known}
    dead: list[list[int]] = [[] for _ in pending]
    for slot, index in last.items():
        if slot not in kept:
            dead[index].append(slot)
    steps = tuple(_Step(*p, tuple(d)) for p, d in zip(pending, dead, strict=True))
    return Prepared(arguments, results, tuple(constants), steps, len(slots))


def check_input(name: str, value: Any, type_: Any) -> Array:
    """`value` as an array of exactly the argument's dtype and shape. Raises IrError HB0222 otherwise: nothing is cast."""
    array = np.asarray(value)
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
