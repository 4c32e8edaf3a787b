"""The user's handles on IR: `Module`, its functions, their arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, UnitAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Operation, SSAValue

from hbir import boundary
from hbir.arguments import checked_index, checked_kind, checked_path, checked_text, shown
from hbir.dialects import all_dialects
from hbir.dialects.base import Array, element_dtype, tensor_type
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError
from hbir.interpreter import Hook, Prepared, check_input, prepare
from hbir.ir.constants import ConstantStore
from hbir.ir.files import MODULE_SUFFIXES, load_module, save_module
from hbir.ir.text import parse_module, print_module, verify_module

__all__ = ["Argument", "ArgumentType", "Function", "Module", "checked_module", "load", "save", "statistics"]

MARCH = "hbir.march"
NAME = "hbir.name"
DESCRIPTION = "hbir.desc"
INTEGER_CONV = "hbir.integer_conv"


class ArgumentType:
    """Shape, numpy dtype and quantisation of an input or output."""

    def __init__(self, type_: Attribute) -> None:
        self.mlir = tensor_type(type_)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.mlir.get_shape()

    @property
    def np_dtype(self) -> np.dtype[Any]:
        """The numpy dtype of arrays fed or returned."""
        return element_dtype(self.mlir.element_type)

    @property
    def quant_info(self) -> UniformQuantizedType | None:
        """Scale and zero point, or None for a value that is not quantised."""
        element = self.mlir.element_type
        return element if isinstance(element, UniformQuantizedType) else None

    def __str__(self) -> str:
        return str(self.mlir)


class Argument:
    """One input (index counts from 0) or output of a function."""

    def __init__(self, function: Function, index: int, *, is_input: bool) -> None:
        self.function, self.index, self.is_input = function, index, is_input

    @property
    def value(self) -> SSAValue:
        """The SSA value: a block argument, or the operand of the return."""
        block = self.function.op.body.block
        return block.args[self.index] if self.is_input else self.function.return_op.operands[self.index]

    @property
    def type(self) -> ArgumentType:
        """Shape, dtype and quantisation."""
        return ArgumentType(self.value.type)

    def _attribute(self, key: str, default: str) -> str:
        found = self.function.attributes_of(self.index, is_input=self.is_input).get(key)
        return found.data if isinstance(found, StringAttr) else default

    @property
    def name(self) -> str:
        """The name under which the argument is fed or returned."""
        return self._attribute(NAME, f"_{'input' if self.is_input else 'output'}_{self.index}")

    @name.setter
    def name(self, name: str) -> None:
        checked_text(name, self._no_text)
        others = self.function.flatten_inputs if self.is_input else self.function.flatten_outputs
        if any(other.name == name and other.index != self.index for other in others):
            raise IrError(30, f"two arguments would be called '{name}'", lever="choose another name")
        self.function.annotate(self.index, NAME, name, is_input=self.is_input)

    @property
    def desc(self) -> str:
        """Free text that travels with the argument into the binary."""
        return self._attribute(DESCRIPTION, "")

    @desc.setter
    def desc(self, text: str) -> None:
        checked_text(text, self._no_text)
        self.function.annotate(self.index, DESCRIPTION, text, is_input=self.is_input)

    def _no_text(self, given: str, why: str) -> IrError:
        where = f"{'input' if self.is_input else 'output'} '{self.name}'"
        return IrError(35, f"name or description is {given}", where=where, why=why, lever="give a string")

    @property
    def siblings(self) -> list[Argument]:
        """All inputs, or all outputs, of the function."""
        return self.function.flatten_inputs if self.is_input else self.function.flatten_outputs

    def insert_transpose(self, permutes: Sequence[int]) -> None:
        """Another order of axes; `permutes[i]` is the NEW position of axis i. See `hbir.boundary.insert_transpose`."""
        boundary.insert_transpose(self, permutes)

    def insert_image_preprocess(
        self,
        mode: str | None,
        divisor: float | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        is_signed: bool = True,
    ) -> None:
        """An 8-bit image in place of a float input. See `hbir.boundary.insert_image_preprocess`."""
        boundary.insert_image_preprocess(self, mode, divisor, mean, std, is_signed)

    def insert_image_convert(self, mode: str = "nv12") -> None:
        """Camera formats are not supported. Raises IrError HB0241."""
        raise IrError(
            41,
            f"image format '{mode}' is not supported",
            where=f"input '{self.name}'",
            why="conversions from YUV are not part of this compiler",
            lever="feed an RGB or BGR image and use insert_image_preprocess",
        )

    def insert_split(self, dim: int) -> list[Argument]:
        """Arguments `NAME_0`, `NAME_1`, … along an axis. See `hbir.boundary.insert_split`."""
        return boundary.insert_split(self, dim)

    def erase(self) -> tuple[bool, str]:
        """Remove an input that nothing reads, or an output. See `hbir.boundary.erase`."""
        return boundary.erase(self)

    @property
    def get_attached_op(self) -> list[Operation]:
        """The operations next to the argument."""
        return boundary.attached_op(self)

    @property
    def is_removable(self) -> tuple[bool, str]:
        """Whether `remove_attached_op` would remove something, or why not."""
        return boundary.is_removable(self)

    def remove_attached_op(self) -> tuple[bool, str]:
        """Remove the operation next to the argument. See `hbir.boundary.remove_attached_op`."""
        return boundary.remove_attached_op(self)

    def __repr__(self) -> str:
        return f"<{'input' if self.is_input else 'output'} {self.name}: {self.type}>"


class Function:
    """One network: named inputs and outputs, operations, and a meaning that `feed` computes."""

    def __init__(self, module: Module, op: FuncOp) -> None:
        self.module, self.op = module, op

    @property
    def name(self) -> str:
        """The function's symbol name."""
        return self.op.sym_name.data

    @property
    def return_op(self) -> ReturnOp:
        """The terminator. Raises IrError HB0231 when the function does not end in one."""
        last = self.op.body.block.last_op
        if not isinstance(last, ReturnOp):
            raise IrError(31, f"function '{self.name}' does not end in func.return")
        return last

    @property
    def operations(self) -> list[Operation]:
        """The operations in order, without the terminator."""
        return [op for op in self.op.body.block.ops if not isinstance(op, ReturnOp)]

    @property
    def flatten_inputs(self) -> list[Argument]:
        """The inputs, in order."""
        return [Argument(self, i, is_input=True) for i in range(len(self.op.body.block.args))]

    @property
    def flatten_outputs(self) -> list[Argument]:
        """The outputs, in order."""
        return [Argument(self, i, is_input=False) for i in range(len(self.return_op.operands))]

    def attributes_of(self, index: int, *, is_input: bool) -> dict[str, Attribute]:
        """The attribute dictionary of an argument; a copy."""
        attributes = self.op.arg_attrs if is_input else self.op.res_attrs
        return dict(attributes.data[index].data) if attributes is not None and index < len(attributes.data) else {}

    def annotate(self, index: int, key: str, text: str, *, is_input: bool) -> None:
        """Set a string attribute of an argument."""
        arguments = self.flatten_inputs if is_input else self.flatten_outputs
        rows = [self.attributes_of(i, is_input=is_input) for i in range(len(arguments))]
        rows[index][key] = StringAttr(text)
        self.set_attributes(rows, is_input=is_input)

    def set_attributes(self, rows: Sequence[Mapping[str, Attribute]], *, is_input: bool) -> None:
        """Set the attribute dictionaries of all inputs or all outputs."""
        # Sorted keys: MLIR prints dictionaries so, and the text is to survive a round trip unchanged.
        packed = ArrayAttr(DictionaryAttr(dict(sorted(row.items()))) for row in rows)
        self.op.properties["arg_attrs" if is_input else "res_attrs"] = packed

    def update_type(self) -> None:
        """Make the signature agree with the block arguments and the return after a rewrite of either."""
        inputs = [argument.type for argument in self.op.body.block.args]
        outputs = [value.type for value in self.return_op.operands]
        self.op.properties["function_type"] = FunctionType.from_lists(inputs, outputs)

    def prepare(self) -> Prepared:
        """The function ready to run many times; valid until the function is changed."""
        return prepare(self.op, self.module.constants)

    def feed(self, inputs: Mapping[str, Array], hook: Hook | None = None) -> dict[str, Array]:
        """Run on named inputs; named outputs. Raises IrError HB0232 for missing or unknown names, HB0222 for misfit arrays."""
        arguments = self.flatten_inputs
        names = [argument.name for argument in arguments]
        where, lever = f"function '{self.name}'", f"feed exactly {names}, each with its array"
        if not isinstance(inputs, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise IrError(32, f"the inputs are {shown(inputs)}", where=where, why="it takes a dictionary", lever=lever)
        if set(inputs) != set(names):
            missing, unknown = sorted(set(names) - set(inputs)), sorted(map(str, set(inputs) - set(names)))
            raise IrError(32, f"inputs missing: {missing}, unknown: {unknown}", where=where, lever=lever)
        arrays = [check_input(a.name, inputs[a.name], a.value.type) for a in arguments]
        results = self.prepare().run(arrays, hook)
        return {argument.name: array for argument, array in zip(self.flatten_outputs, results, strict=True)}

    def __call__(self, *arrays: Array) -> tuple[Array, ...]:
        """Run on arrays in the order of the inputs; a tuple in the order of the outputs."""
        arguments = self.flatten_inputs
        if len(arrays) != len(arguments):
            raise IrError(32, f"{len(arrays)} arrays for {len(arguments)} inputs", lever="one array for each input")
        checked = [check_input(a.name, x, a.value.type) for a, x in zip(arguments, arrays, strict=True)]
        return tuple(self.prepare().run(checked))

    def remove_io_op(self, op_types: Sequence[str] | None = None, op_names: Sequence[str] | None = None) -> list[str]:
        """Remove operations at the inputs and outputs; their layer names. See `hbir.boundary.remove_io_op`."""
        return boundary.remove_io_op(self, op_types, op_names)

    def statistics(self) -> list[tuple[str, int]]:
        """Operation names with their counts, the most frequent first."""
        return sorted(Counter(op.name for op in self.operations).items(), key=lambda item: (-item[1], item[0]))

    def __repr__(self) -> str:
        return f"<Function {self.name}: {len(self.operations)} operations>"


class Module:
    """A module of IR with its constants. Modules share constants freely; `clone` copies operations only."""

    def __init__(self, op: ModuleOp, constants: ConstantStore) -> None:
        self.op, self.constants = op, constants

    @staticmethod
    def parse(text: str, constants: ConstantStore | None = None, *, source: str = "<text>") -> Module:
        """A module from generic-form MLIR text. Raises IrError HB0205 with line and reason."""
        checked_kind(text, str, lambda given, why: IrError(5, f"{given} is no text", why=why, lever="give MLIR text"))
        module = Module(parse_module(text, all_dialects(), source=source), constants or ConstantStore())
        module.check_names()
        return module

    @property
    def functions(self) -> list[Function]:
        """The functions, in order."""
        return [Function(self, op) for op in self.op.body.block.ops if isinstance(op, FuncOp)]

    @property
    def graphs(self) -> list[Function]:
        """The same as `functions`."""
        return self.functions

    def __getitem__(self, key: int | str) -> Function:
        """A function by position (from the end when negative) or by name. Raises IrError HB0233."""
        functions = self.functions
        names = [function.name for function in functions]
        lever = f"choose one of {names}, or a position below {len(names)}"
        if isinstance(key, str) and key in names:
            return functions[names.index(key)]

        def refuse(given: str, why: str) -> IrError:
            return IrError(33, f"there is no function {given}", why="" if isinstance(key, str) else why, lever=lever)

        index = checked_index(key, refuse)
        if not -len(functions) <= index < len(functions):
            raise refuse(str(index), f"the module has {len(functions)}")
        return functions[index]

    def __len__(self) -> int:
        return len(self.functions)

    def __iter__(self) -> Iterator[Function]:
        return iter(self.functions)

    @property
    def march(self) -> str | None:
        """The march that the module was converted for, or None before `convert`."""
        found = self.op.attributes.get(MARCH)
        return found.data if isinstance(found, StringAttr) else None

    @march.setter
    def march(self, name: str) -> None:
        checked_text(name, lambda given, why: IrError(35, f"march is {given}", why=why, lever="give the march's name"))
        self.op.attributes[MARCH] = StringAttr(name)

    @property
    def integer_conv(self) -> bool:
        """Whether `convert` keeps to integer results of the tensor engine on a march that has float32 ones (nash-p, nash-h):
        outputs are then dequantised int32 accumulators, and what is output and input at once is rescaled, as on nash-e.
        As there, a layer of sixteen-bit operands, whose accumulator is wider, is left to the host unless a grid holds its
        output: such numbers differ in their last bits from those that PyTorch's VALIDATION gave for the march.

        False by default. Set it before `convert`; it is an attribute of the module's IR, so that copies and files have it too.
        """
        return INTEGER_CONV in self.op.attributes

    @integer_conv.setter
    def integer_conv(self, wanted: bool) -> None:
        lever = "choose True or False"
        checked_kind(wanted, bool, lambda given, why: IrError(35, f"_integer_conv is {given}", why=why, lever=lever))
        self.op.attributes.pop(INTEGER_CONV, None)
        if wanted:
            self.op.attributes[INTEGER_CONV] = UnitAttr()

    _integer_conv = integer_conv
    """`integer_conv` by the name that published scripts use."""

    def clone(self) -> Module:
        """A copy that can be changed freely; the constants are shared."""
        return Module(self.op.clone(), self.constants)

    def verify(self) -> None:
        """Check types, attributes, order, and that names of arguments are unique. Raises IrError."""
        verify_module(self.op)
        self.check_names()

    def check_names(self) -> None:
        """Raise IrError HB0230 when two inputs, or two outputs, of a function have one name."""
        for function in self:
            for arguments in (function.flatten_inputs, function.flatten_outputs):
                counts = Counter(argument.name for argument in arguments)
                twice = [name for name, count in counts.items() if count > 1]
                if twice:
                    raise IrError(30, f"two arguments are called '{twice[0]}'", where=f"function '{function.name}'")

    def __str__(self) -> str:
        return print_module(self.op)


def _module_path(path: str | Path, lever: str) -> Path:
    checked = checked_path(path, lambda given, why: IrError(34, f"{given} is no path", why=why, lever=lever))
    if checked.suffix not in MODULE_SUFFIXES:
        raise IrError(34, f"{checked.name} is no {' or '.join(MODULE_SUFFIXES)} file", where=str(checked), lever=lever)
    return checked


def load(path: str | Path) -> Module:
    """Read a module that `save`, or an MLIR tool, wrote: bytecode (`.bc`) or text (`.mlir`).

    Raises IrError (HB0234 for what is no path of such a file) or FileFormatError.
    """
    module = Module(*load_module(_module_path(path, "give the file that `save` wrote"), all_dialects()))
    module.check_names()
    return module


def save(module: Module, path: str | Path) -> None:
    """Write `path`: MLIR bytecode in one file (`.bc`), or text (`.mlir`) with the constants beside it (`.weights`).

    Raises IrError HB0234 for another suffix, HB0236 for no module, ConfigError HB0801 for a file that cannot be written.
    """
    checked = checked_module(module)
    save_module(checked.op, checked.constants, _module_path(path, "choose a name that ends in .bc or .mlir"))


def statistics(module: Module) -> dict[str, list[tuple[str, int]]]:
    """For each function, operation names with their counts. Raises IrError HB0236."""
    return {function.name: function.statistics() for function in checked_module(module)}


def checked_module(module: object) -> Module:
    """`module`, known to be a Module. Raises IrError HB0236."""
    lever = "give what hbir.export, hbir.load or passes.convert returns"
    return checked_kind(module, Module, lambda given, why: IrError(36, f"{given} is no module", why=why, lever=lever))
