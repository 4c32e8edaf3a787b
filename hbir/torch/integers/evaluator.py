"""The evaluator of one function: steps over numbered values, of which a forward pass computes those that an output needs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from xdsl.ir import Attribute, SSAValue

from hbir.dialects.base import Array, HbOperation, shape_of
from hbir.dialects.hbir.constant import ConstantOp
from hbir.errors import TrainingError
from hbir.ir.locations import layer_name
from hbir.module import Function

# The builders register themselves.
from hbir.torch.integers import convolution, elementwise, movement, pooling, softmax, tables  # noqa: F401  # pyright: ignore[reportUnusedImport]
from hbir.torch.integers.host import on_host
from hbir.torch.integers.precision import exact_arithmetic
from hbir.torch.integers.registry import BUILDERS, Prepared
from hbir.torch.integers.values import held, torch_dtype

__all__ = ["Evaluator", "Run"]

_ABSENT = -1


@dataclass(frozen=True, slots=True)
class _Step:
    """One operation: slots of its operands (-1 for absent and absorbed ones) and of its results."""

    call: Callable[..., tuple[torch.Tensor, ...]]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Evaluator:
    """A converted function on torch tensors, prepared once: weights on `device`, the steps, and what each output needs.

    Raises TrainingError HB0961 for an operation that has no meaning, or whose sums leave what is computed exactly.
    """

    def __init__(self, function: Function, device: torch.device | str = "cpu") -> None:
        self.name, self.device = function.name, torch.device(device)
        self.inputs = function.flatten_inputs
        self._slots: dict[SSAValue, int] = {}
        self.steps: list[_Step] = []
        self.constants: dict[int, torch.Tensor] = {}
        with exact_arithmetic(self.device):
            results = self._prepare(function)
        self.outputs: tuple[tuple[int, Attribute], ...] = tuple((self._slots[v], v.type) for v in results)
        self.needs = [self._needed(slot) for slot, _ in self.outputs]
        # How often each value is read; outputs once more, so that they can leave at any time.
        steps = {index for needed, _ in self.needs for index in needed}
        self.uses = Counter(slot for index in steps for slot in self.steps[index].inputs)
        self.uses.update(slot for slot, _ in self.outputs)

    def start(self) -> Run:
        """One forward pass."""
        return Run(self)

    def _prepare(self, function: Function) -> Sequence[SSAValue]:
        known: dict[SSAValue, Array] = {}
        for argument in self.inputs:
            self._slot(argument.value)
        for op in function.operations:
            if isinstance(op, ConstantOp):
                known[op.output] = op.array(function.module.constants)
                continue
            if not isinstance(op, HbOperation):
                where = f"layer '{layer_name(op)}'"
                raise TrainingError(61, f"{op.name} has no meaning on tensors", where=where, lever="lower it first")
            self.steps.append(self._step(op, known))
        results = list(function.return_op.operands)
        for value in results:
            self._read(value, known)
        return results

    def _step(self, op: HbOperation, known: dict[SSAValue, Array]) -> _Step:
        operands = op.aligned_operands
        constants = [None if value is None else known.get(value) for value in operands]
        builder = BUILDERS.get(type(op))
        try:
            prepared = None if builder is None else builder(op, constants, self.device)
        except ValueError as error:
            raise TrainingError(
                61,
                f"{op.name} cannot be computed exactly",
                where=f"layer '{layer_name(op)}'",
                why=str(error),
                lever="split its channels, or use fewer bits for activations or weights",
            ) from error
        absorbed = () if prepared is None else prepared.absorbed
        call = on_host(op, constants, self.device) if prepared is None else _single(prepared)
        inputs = tuple(
            _ABSENT if value is None or i in absorbed else self._read(value, known) for i, value in enumerate(operands)
        )
        return _Step(call, inputs, tuple(self._slot(value) for value in op.results))

    def _slot(self, value: SSAValue) -> int:
        return self._slots.setdefault(value, len(self._slots))

    def _read(self, value: SSAValue, known: dict[SSAValue, Array]) -> int:
        slot = self._slot(value)
        if value in known and slot not in self.constants:
            self.constants[slot] = held(known[value], value.type, self.device)
        return slot

    def _needed(self, slot: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The steps that the value of `slot` needs, in order, and the inputs."""
        wanted, steps = {slot}, list[int]()
        for index in reversed(range(len(self.steps))):
            step = self.steps[index]
            if wanted.intersection(step.outputs):
                steps.append(index)
                wanted.update(step.inputs)
        return tuple(reversed(steps)), tuple(i for i in range(len(self.inputs)) if i in wanted)


def _single(prepared: Prepared) -> Callable[..., tuple[torch.Tensor, ...]]:
    return lambda *operands: (prepared.call(*operands),)


class Run:
    """One forward pass: inputs enter and outputs leave in any order; what an output needs is computed when it leaves.

    A value is freed after its last use; outputs stay until the run is dropped.
    """

    def __init__(self, evaluator: Evaluator) -> None:
        self._of = evaluator
        self._values = dict(evaluator.constants)
        self._uses = Counter(evaluator.uses)
        self._done: set[int] = set()
        self._entered: set[int] = set()

    def enter(self, index: int, tensor: torch.Tensor) -> None:
        """Give input `index` its value: float32 or integers, as the argument's type says, of its shape.

        Raises TrainingError HB0960 for another shape or dtype, and for an input that was entered before.
        """
        argument = self._of.inputs[index]
        type_ = argument.value.type
        where, wanted = f"input '{argument.name}' of '{self._of.name}'", (shape_of(type_), torch_dtype(type_))
        if index in self._entered:
            raise TrainingError(60, "it was entered twice", where=where, lever="start another run")
        if (tuple(tensor.shape), tensor.dtype) != wanted:
            what = f"{tensor.dtype} of shape {tuple(tensor.shape)} was entered"
            why = f"the function takes {wanted[1]} of shape {wanted[0]}"
            raise TrainingError(60, what, where=where, why=why, lever="convert the tensor; nothing is cast silently")
        self._entered.add(index)
        # A tensor of its own: the caller may change what was entered before the output leaves.
        self._values[index] = tensor.detach().to(self._of.device, torch_dtype(type_), copy=True)

    def leave(self, index: int) -> torch.Tensor:
        """The value of output `index`: a new contiguous tensor of the dtype that its type says, without a gradient.

        Raises TrainingError HB0960 when an input that it needs was not entered.
        """
        slot, type_ = self._of.outputs[index]
        steps, inputs = self._of.needs[index]
        missing = [self._of.inputs[i].name for i in inputs if i not in self._entered]
        if missing:
            raise TrainingError(
                60,
                f"output {index} cannot be computed: missing {missing}",
                where=f"'{self._of.name}'",
                why="these inputs have not been entered",
                lever="enter every input that the output needs before it leaves",
            )
        with exact_arithmetic(self._of.device):
            for step in steps:
                if step not in self._done:
                    self._compute(step)
            return self._values[slot].to(torch_dtype(type_), copy=True, memory_format=torch.contiguous_format)

    def _compute(self, index: int) -> None:
        step = self._of.steps[index]
        results = step.call(*[None if slot == _ABSENT else self._values[slot] for slot in step.inputs])
        self._done.add(index)
        for slot, value in zip(step.outputs, results, strict=True):
            if self._uses[slot]:
                self._values[slot] = value
        for slot in step.inputs:
            self._uses[slot] -= 1
            if not self._uses[slot]:
                self._values.pop(slot, None)
