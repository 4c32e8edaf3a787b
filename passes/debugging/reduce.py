"""Shrinks a module while something holds of it: the smallest network on which a pass still fails, say.

Everything that can go is tried in runs, long ones first, then ever shorter ones down to single ones; what is left after that is
tried again until nothing goes any more. A run of operations is cut out: what the rest reads of it becomes inputs, and what it
read becomes outputs. Then come outputs, inputs that nothing reads, operations that hand out a value of the type they take,
constants, which become zeros or ones, and the axes of inputs and constants, which get shorter. Every candidate verifies before
it is tested, and the same module is not tested twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from xdsl.dialects.builtin import FunctionType, ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, BlockArgument, Operation, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from hbir.arguments import shown
from hbir.dialects.base import shape_of, tensor_type
from hbir.dialects.hbir import ConstantOp, constant
from hbir.errors import HbError, PassError
from hbir.ir.locations import layer_name
from hbir.module import NAME, Argument, Function, Module, checked_module
from passes.debugging.resize import Resize, Resizer, Source, resizes

__all__ = ["Predicate", "reduce", "value_names"]

Predicate: TypeAlias = Callable[[Module], bool]
"""Whether a module still shows what is looked for. It gets a copy, which it may change."""

_Names: TypeAlias = dict[SSAValue, str]

# Above this the text of a module costs more than most tests do.
_REMEMBERED = 200


def value_names(function: Function) -> dict[SSAValue, str]:
    """A name for each result of the function: its layer's, with a number where that is taken.

    Inputs and outputs that `reduce` adds bear these names; no input or output has one of them yet.
    """
    taken = {argument.name for argument in (*function.flatten_inputs, *function.flatten_outputs)}
    counts: dict[str, int] = {}
    names: dict[SSAValue, str] = {}
    for op in function.operations:
        for result in op.results:
            layer = name = layer_name(op)
            while name in taken:
                counts[layer] = counts.get(layer, 1) + 1
                name = f"{layer}_{counts[layer]}"
            taken.add(name)
            names[result] = name
    return names


@dataclass(frozen=True)
class _Case:
    """A candidate: a module, and the names that its values have had from the start."""

    module: Module
    names: _Names

    @property
    def functions(self) -> list[Function]:
        return self.module.functions

    @property
    def operations(self) -> list[Operation]:
        """The operations of all functions; their places in this list are their numbers."""
        return [op for function in self.functions for op in function.operations]

    @property
    def inputs(self) -> list[BlockArgument]:
        return [argument for function in self.functions for argument in function.op.body.block.args]

    @property
    def sources(self) -> dict[Source, tuple[int, ...]]:
        """The shapes of inputs and constants."""
        found: dict[Source, tuple[int, ...]] = {("input", n): shape_of(v.type) for n, v in enumerate(self.inputs)}
        operations = enumerate(self.operations)
        return found | {("constant", n): shape_of(op.output.type) for n, op in operations if isinstance(op, ConstantOp)}

    @property
    def outputs(self) -> int:
        return sum(len(function.return_op.operands) for function in self.functions)


@dataclass(frozen=True)
class _Edit:
    """What a candidate leaves out, by numbers; `constants` are filled with `filling`, and axes get shorter by `resize`."""

    functions: frozenset[int] = frozenset()
    cut: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()
    inputs: frozenset[int] = frozenset()
    bypassed: frozenset[int] = frozenset()
    constants: frozenset[int] = frozenset()
    filling: int = 0
    resize: Resize | None = None


def _edited(case: _Case, edit: _Edit) -> _Case | None:
    """The candidate that an edit makes of a case; None where a function would have no output left.

    Raises VerifyException where an operation does not take the shapes of a `resize`.
    """
    names: _Names = {}
    made: list[FuncOp] = []
    module = Module(ModuleOp([], dict(case.module.op.attributes)), case.module.constants)
    first, first_input, first_output = 0, 0, 0
    for number, function in enumerate(case.functions):
        operations = function.operations
        if number not in edit.functions:
            copy = _Copy(case, edit, function, module, names)
            copy.add_inputs(first_input)
            for index, op in enumerate(operations, first):
                copy.add(index, op)
            built = copy.finish(first_output)
            if built is None:
                return None
            made.append(built)
        first += len(operations)
        first_input += len(function.op.body.block.args)
        first_output += len(function.return_op.operands)
    if not made:
        return None
    module.op.body.block.add_ops(made)
    return _Case(module, names)


@dataclass
class _Copy:
    """One function while it is copied without what an edit leaves out."""

    case: _Case
    edit: _Edit
    function: Function
    module: Module
    names: _Names
    block: Block = field(default_factory=Block)
    values: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    rows: list[dict[str, Attribute]] = field(default_factory=list[dict[str, Attribute]])
    loose: dict[SSAValue, None] = field(default_factory=dict[SSAValue, None])
    """Values that operations read which were cut out."""
    resizer: Resizer | None = None

    def __post_init__(self) -> None:
        if self.edit.resize is not None:
            self.resizer = Resizer(self.edit.resize, self.module.constants)

    def add_inputs(self, first: int) -> None:
        for argument in self.function.flatten_inputs:
            if first + argument.index not in self.edit.inputs:
                resize, source = self.edit.resize, ("input", first + argument.index)
                kind = None if resize is None else resize.type(argument.value.type, source)
                self._add_input(argument.value, _row(argument), kind)

    def _add_input(self, value: SSAValue, row: dict[str, Attribute], kind: Attribute | None = None) -> SSAValue:
        added = self.block.insert_arg(value.type if kind is None else kind, len(self.block.args))
        if isinstance(value, BlockArgument):
            added.location = value.location
        elif isinstance(value.owner, Operation):
            added.location = value.owner.location
        self.rows.append(row)
        self.values[value] = added
        if value in self.case.names:
            self.names[added] = self.case.names[value]
        return added

    def _value(self, value: SSAValue) -> SSAValue:
        """What stands for a value; an input where the operation that made it was cut out."""
        found = self.values.get(value)
        return self._add_input(value, {NAME: StringAttr(self.case.names[value])}) if found is None else found

    def add(self, number: int, op: Operation) -> None:
        if number in self.edit.cut:
            self.loose.update(dict.fromkeys(op.operands))
        elif number in self.edit.bypassed:
            self.values[op.results[0]] = self._value(_same_type(op) or op.operands[0])
        elif isinstance(op, ConstantOp) and number in self.edit.constants:
            self._keep(op, _filled(op, self.edit.filling, self.module))
        elif self.resizer is not None:
            self._resize(self.resizer, number, op)
        else:
            for value in op.operands:
                self._value(value)
            self._keep(op, op.clone(self.values))

    def _resize(self, resizer: Resizer, number: int, op: Operation) -> None:
        if isinstance(op, ConstantOp):
            resizer.wait(op, number)
            return
        types, properties = resizer.fit(op, {old: new.type for old, new in self.values.items()})
        self._add_waiting(resizer, op.operands)
        operands = [self.values[value] for value in op.operands]
        made = type(op).create(
            operands=operands, result_types=types, properties=properties, attributes=dict(op.attributes)
        )
        made.location = op.location
        self._keep(op, made)

    def _add_waiting(self, resizer: Resizer, values: Sequence[SSAValue]) -> None:
        for value in dict.fromkeys(values):
            if value in resizer.waiting and isinstance(value.owner, Operation):
                self._keep(value.owner, resizer.constant(value))

    def _keep(self, op: Operation, copied: Operation) -> None:
        self.block.add_op(copied)
        for old, new in zip(op.results, copied.results, strict=True):
            self.values[old] = new
            self.names[new] = self.case.names[old]

    def finish(self, first: int) -> FuncOp | None:
        """The function with the outputs that are left, and further ones for what cut operations read."""
        old = self.function
        if self.resizer is not None:
            self._add_waiting(self.resizer, old.return_op.operands)
        kept = [
            (self.values[argument.value], _row(argument))
            for argument in old.flatten_outputs
            if first + argument.index not in self.edit.outputs and argument.value in self.values
        ]
        for value in self.loose:
            new = self.values.get(value)
            if new is not None and isinstance(new.owner, Operation) and all(new is not other for other, _ in kept):
                kept.append((new, {NAME: StringAttr(self.names[new])}))
        if not kept and len(old.return_op.operands):
            return None
        results = [value for value, _ in kept]
        self.block.add_op(ReturnOp(*results))
        kind = FunctionType.from_lists(list(self.block.arg_types), [value.type for value in results])
        op = FuncOp(old.name, kind, Region(self.block))
        op.attributes = dict(old.op.attributes)
        op.properties = {**old.op.properties, **op.properties}
        op.location = old.op.location
        copied = Function(self.module, op)
        copied.set_attributes(self.rows, is_input=True)
        copied.set_attributes([row for _, row in kept], is_input=False)
        return op


def _row(argument: Argument) -> dict[str, Attribute]:
    """The attributes of an argument, its name among them: a name that counts inputs would change with their number."""
    row = argument.function.attributes_of(argument.index, is_input=argument.is_input)
    return {NAME: StringAttr(argument.name), **row}


def _same_type(op: Operation) -> SSAValue | None:
    """The first operand that could stand for the one result of an operation."""
    if len(op.results) != 1:
        return None
    return next((value for value in op.operands if value.type == op.results[0].type), None)


def _filled(op: ConstantOp, number: int, module: Module) -> ConstantOp:
    array = np.full(shape_of(op.output.type), number)
    return constant(array, module.constants, tensor_type(op.output.type).element_type, op.location)


def _unread(case: _Case) -> list[int]:
    return [number for number, value in enumerate(case.inputs) if value.first_use is None]


def _bypassable(case: _Case) -> list[int]:
    return [number for number, op in enumerate(case.operations) if _same_type(op) is not None]


def _elaborate(case: _Case, filling: int) -> list[int]:
    """Constants with numbers other than 0 and 1, or than `filling` where they hold one number only."""
    found: list[int] = []
    for number, op in enumerate(case.operations):
        if isinstance(op, ConstantOp):
            array = op.array(case.module.constants)
            uniform = array.size > 0 and bool((array == array.reshape(-1)[0]).all())
            # Zeros are the simplest and stay; ones may still become zeros.
            if array.size and not (uniform and array.reshape(-1)[0] in ((0, 1) if filling else (0,))):
                found.append(number)
    return found


_Step: TypeAlias = tuple[Callable[[_Case], Sequence[int]], Callable[[frozenset[int]], _Edit]]

_CUTS: tuple[_Step, ...] = (
    (lambda case: range(len(case.functions)), lambda run: _Edit(functions=run)),
    (lambda case: range(len(case.operations)), lambda run: _Edit(cut=run)),
    (lambda case: range(case.outputs), lambda run: _Edit(outputs=run)),
    (_unread, lambda run: _Edit(inputs=run)),
)
_SIMPLER: tuple[_Step, ...] = (
    (_bypassable, lambda run: _Edit(bypassed=run)),
    (lambda case: _elaborate(case, 0), lambda run: _Edit(constants=run, filling=0)),
    (lambda case: _elaborate(case, 1), lambda run: _Edit(constants=run, filling=1)),
)
"""What can go, and the edit that makes it go. The numbers in front of a run that went stay what they were."""


@dataclass
class _Reducer:
    predicate: Predicate
    progress: Callable[[Module, int], None] | None
    tests: int = 0
    known: set[bytes] = field(default_factory=set[bytes])

    def holds(self, case: _Case) -> bool:
        """Whether a candidate verifies, is new, and shows what is looked for."""
        try:
            case.module.verify()
        except HbError:
            return False
        if len(case.operations) <= _REMEMBERED:
            digest = hashlib.sha256(str(case.module).encode()).digest()
            if digest in self.known:
                return False
            self.known.add(digest)
        self.tests += 1
        return bool(self.predicate(case.module.clone()))

    def shrink(self, case: _Case, step: _Step) -> _Case:
        """Leave out runs of what a step looks at: from the end to the front, long runs first."""
        units, edit = step
        found = units(case)
        size = len(found)
        while size:
            end = len(found)
            while end > 0:
                start = max(0, end - size)
                candidate = _edited(case, edit(frozenset(found[start:end])))
                if candidate is not None and self.holds(candidate):
                    case, found = candidate, units(candidate)
                    if self.progress is not None:
                        self.progress(case.module, self.tests)
                end = min(start, len(found))
            size //= 2
        return case

    def resize(self, case: _Case) -> _Case:
        """Make axes of inputs and constants shorter, until nothing gets shorter any more."""
        before: _Case | None = None
        while case is not before:
            before, case = case, self._shorter(case)
        return case

    def _shorter(self, case: _Case) -> _Case:
        for resize in resizes(case.sources):
            shapes = case.sources
            if all(resize.shape(shape, source) == shape for source, shape in shapes.items()):
                continue  # shorter already
            try:
                candidate = _edited(case, _Edit(resize=resize))
            except VerifyException:
                continue
            if candidate is not None and self.holds(candidate):
                case = candidate
                if self.progress is not None:
                    self.progress(case.module, self.tests)
        return case


def reduce(
    module: Module,
    predicate: Predicate,
    *,
    simplify: bool = True,
    progress: Callable[[Module, int], None] | None = None,
) -> Module:
    """The smallest module found of which `predicate` holds, as it holds of `module`, which stays as it is.

    Without `simplify` operations, inputs and outputs go, and nothing else changes: what is left is a piece of the network,
    and its values are the network's. Inputs and outputs that come in bear names of `value_names`. `progress` is called with
    each smaller module and the number of tests so far. The predicate must be deterministic; what it raises ends the reduction.
    Raises PassError HB0350 when it does not hold of `module`, HB0351 for what is no function, IrError HB0236 for no module.
    """
    start = checked_module(module)
    if not callable(predicate):
        lever = "give a function of a module that says whether it is still interesting"
        raise PassError(51, f"the predicate is {shown(predicate)}", lever=lever)
    names = {value: name for function in start for value, name in value_names(function).items()}
    case, reducer = _Case(start, names), _Reducer(predicate, progress)
    if not reducer.holds(case):
        raise PassError(
            50,
            "the predicate does not hold of the module that is to be reduced",
            why="nothing smaller could be compared with it",
            lever="check the predicate on the whole module first",
        )
    while True:
        before = case
        for step in (*_CUTS, *(_SIMPLER if simplify else ())):
            case = reducer.shrink(case, step)
        case = reducer.resize(case) if simplify else case
        if case is before:
            return case.module.clone()
