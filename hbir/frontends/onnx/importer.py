"""Walks an ONNX graph once, front to back, and hands every node that matters to its converter."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from xdsl.dialects.builtin import (
    ArrayAttr,
    DictionaryAttr,
    FunctionType,
    IntegerType,
    ModuleOp,
    StringAttr,
    f32,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region, SSAValue
from xdsl.utils.exceptions import VerifyException

from hbir.arguments import Refuse, checked_kind, checked_text
from hbir.dialects.base import tensor
from hbir.dialects.quantized import QuantizeOp
from hbir.errors import HbError, ImportModelError
from hbir.frontends.onnx.builder import Builder
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.inputs import InputShapes, input_shape, symbol_extents
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.reader import Model, read_model
from hbir.frontends.onnx.registry import CONTRIB, Converter, converter_for, known_domains, versions_of
from hbir.frontends.onnx.tensors import DataType, decode_text, tensor_array, type_name
from hbir.frontends.onnx.values import Quantized, Static, Value
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import name_location
from hbir.module import NAME, Module

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["export"]

_ELEMENTS: dict[int, Attribute] = {
    DataType.FLOAT: f32,
    DataType.FLOAT16: f32,
    DataType.BFLOAT16: f32,
    DataType.DOUBLE: f32,
    DataType.INT8: IntegerType(8),
    DataType.INT16: IntegerType(16),
    DataType.INT32: IntegerType(32),
    DataType.INT64: IntegerType(64),
}
_RECURRENT = frozenset({"GRU", "If", "LSTM", "Loop", "RNN", "Scan", "SequenceMap"})
_POSTPROCESSING = "end the model before this node, and do the rest on the CPU after it"
_QUANTIZED = "quantise in QDQ form (onnxruntime's QuantFormat.QDQ), or give the float model"
_LEVERS = {
    "ConvInteger": _QUANTIZED,
    "DynamicQuantizeLinear": _QUANTIZED,
    "MatMulInteger": _QUANTIZED,
    "NonMaxSuppression": _POSTPROCESSING,
    "QLinearConv": _QUANTIZED,
    "QLinearMatMul": _QUANTIZED,
    "RoiAlign": _POSTPROCESSING,
    "TopK": _POSTPROCESSING,
    "Unique": _POSTPROCESSING,
}
# Attribute types of the format that hold graphs.
_GRAPHS = (5, 10)


def export(
    onnx_model_or_path: ModelProto | str | os.PathLike[str],
    *,
    name: str | None = None,
    input_shapes: InputShapes | None = None,
) -> Module:
    """Read an ONNX model (opsets 7 to 26) as a module with one function.

    Inputs and outputs keep the names and shapes of the model; between them convolutions and pools work on NHWC. All
    float types become float32. `name` is the function's name, by default the graph's. `input_shapes` fixes unknown
    extents, as in `{"x": (1, 3, 224, 224)}`; where only the first extent of an input is unknown it becomes 1. Shape
    arithmetic is computed here and leaves no trace. QuantizeLinear with DequantizeLinear becomes `qat.fake_quant`.

    Raises ImportModelError (HB01xx) for a model that is damaged or cannot be imported; it names the node and a remedy.
    """
    if name is not None:
        checked_text(name, _unfit("name", "give a text, or leave it out"))
    shapes: InputShapes = input_shapes or {}
    checked_kind(shapes, Mapping, _unfit("input_shapes", 'give {"x": (1, 3, 224, 224)}'))
    return _Importer(read_model(onnx_model_or_path), dict(shapes)).run(name)


def _unfit(option: str, lever: str) -> Refuse:
    return lambda given, why: ImportModelError(Refusal.OPTION, f"{option} is {given}", why=why, lever=lever)


class _Importer:
    def __init__(self, model: Model, shapes: dict[str, Sequence[int]]) -> None:
        self.model, self.graph, self.shapes = model, model.graph, shapes
        self.store = ConstantStore()
        self.build = Builder(self.store)
        self.block = Block()
        self.values: dict[str, Value] = {}
        self.initializers: dict[str, Any] = {}
        self.input_names: list[str] = []

    def run(self, name: str | None) -> Module:
        _check_names(self.graph, self.model.ir_version)
        self.initializers = {tensor.name: tensor for tensor in self.graph.initializer}
        live = _live_nodes(self.graph)
        nodes = [node for index, node in enumerate(self.graph.node) if live[index]]
        # What cannot be imported at all is said before a shape is asked for.
        converters = self._converters(nodes)
        self._declare_inputs()
        for node, converter in zip(nodes, converters, strict=True):
            self._convert(node, converter)
        outputs = [output.name for output in self.graph.output]
        results = [self._result(output) for output in outputs]
        self.block.add_ops([*self.build.operations, ReturnOp(*results)])
        function = FuncOp(
            _symbol(decode_text(self.graph.name, "the graph's name") if name is None else name),
            FunctionType.from_lists([argument.type for argument in self.block.args], [value.type for value in results]),
            Region(self.block),
            arg_attrs=_named(self.input_names),
            res_attrs=_named(outputs),
        )
        return Module(ModuleOp([function]), self.store)

    def _declare_inputs(self) -> None:
        inputs = [value for value in self.graph.input if value.name not in self.initializers]
        unknown = sorted(set(self.shapes) - {value.name for value in inputs})
        if unknown:
            raise ImportModelError(
                Refusal.INPUT_SHAPES,
                f"the model has no input '{unknown[0]}'",
                lever=f"its inputs are {', '.join(value.name for value in inputs) or 'none'}",
            )
        symbols = symbol_extents(inputs, self.shapes)
        for index, value in enumerate(inputs):
            where = f"input '{value.name}'"
            if value.type.WhichOneof("value") != "tensor_type":
                raise ImportModelError(
                    Refusal.INPUT_KIND,
                    "the input is not a tensor",
                    where=where,
                    lever="export the model with tensors as inputs",
                )
            data_type = value.type.tensor_type.elem_type
            if data_type not in _ELEMENTS:
                raise ImportModelError(
                    Refusal.ELEMENT_TYPE,
                    f"the input holds {type_name(data_type)}",
                    where=where,
                    why=f"inputs hold {', '.join(map(type_name, _ELEMENTS))}",
                    lever="cast outside the model, and export it with a float32 input",
                )
            shape = input_shape(value, self.shapes.get(value.name), symbols)
            argument = self.block.insert_arg(tensor(shape, _ELEMENTS[data_type]), index)
            argument.location = name_location(value.name)
            self.values[value.name] = argument
            self.input_names.append(value.name)

    def _value(self, name: str) -> Value | None:
        if not name:
            return None
        if name not in self.values:
            # Every live name is known by now, or is an initializer: `_live_nodes` has seen to that.
            array = self.build.allow(tensor_array(self.initializers[name], self.model.external))
            self.values[name] = Static(array, name)
        value = self.values[name]
        if isinstance(value, SSAValue) and value in self.build.replaced:
            value = self.values[name] = self.build.replaced[value]
        return value

    def _converters(self, nodes: Sequence[Any]) -> list[Converter]:
        """The converter of each node. Raises HB0110, HB0111, HB0112, HB0114 at the first that has none, HB0115 at the first
        that has more operands than its operator."""
        found: list[Converter | None] = []
        for proto in nodes:
            operator, domain, where = proto.op_type, _domain(proto), _where(proto)
            _check_operator(proto, operator, domain, where)
            found.append(converter_for(operator, domain, self.model.opsets.get(domain, 0)))
        known = [converter for converter in found if converter is not None]
        if len(known) < len(found):
            missing = [proto for proto, converter in zip(nodes, found, strict=True) if converter is None]
            raise _unknown_operator(missing, self.model.opsets)
        for proto in nodes:
            _check_operands(proto, self.model.opsets)
        return known

    def _convert(self, proto: Any, converter: Converter) -> None:
        name, opset = _node_name(proto), self.model.opsets.get(_domain(proto), 0)
        node = Node(
            proto,
            name,
            [self._value(operand) for operand in proto.input],
            opset=opset,
            build=self.build,
            external=self.model.external,
            location=name_location(name),
        )
        try:
            results = converter(node)
            for result in results if isinstance(results, tuple) else (results,):
                if isinstance(result, Static):
                    self.build.charge(result.array.size)
        except ImportModelError as error:
            if error.where:
                raise
            raise node.refuse(
                Refusal(int(error.code[2:]) - ImportModelError.family), error.what, why=error.why, lever=error.lever
            ) from None
        except (VerifyException, HbError, ValueError, IndexError, OverflowError, MemoryError) as error:
            why = error.what if isinstance(error, HbError) else str(error).strip().splitlines()[-1:]
            raise node.refuse(
                Refusal.SHAPE,
                "operands and attributes do not fit together",
                why=why if isinstance(why, str) else "".join(why),
                lever="check the shapes given for the inputs, and the model with onnx.checker",
            ) from None
        node.check_attributes()
        results = results if isinstance(results, tuple) else (results,)
        for index, output in enumerate(proto.output):
            if output and index >= len(results):
                raise node.refuse(
                    Refusal.OPERANDS, f"result {index} is not supported", lever="export the model in inference mode"
                )
            if output:
                self.values[output] = results[index]

    def _result(self, name: str) -> SSAValue:
        value, location = self._value(name), name_location(name)
        try:
            if isinstance(value, Quantized) and not value.unsigned and value.grid.per_axis is None:
                value = self.build.emit(QuantizeOp, (value.value,), {"grid": value.grid}, location)
            if isinstance(value, Quantized) or value is None:
                raise ImportModelError(
                    Refusal.INTEGER_DATA,
                    "the output is quantised to unsigned integers, or with several scales",
                    why="outputs are floats, int8 or int16 with one scale",
                    lever="end the model with DequantizeLinear",
                )
            return self.build.ssa(value, location)
        except (VerifyException, ImportModelError) as error:
            number = (
                int(error.code[2:]) - ImportModelError.family
                if isinstance(error, ImportModelError)
                else Refusal.ELEMENT_TYPE
            )
            what = error.what if isinstance(error, ImportModelError) else str(error)
            lever = error.lever if isinstance(error, ImportModelError) else "remove the output, or cast it to float32"
            raise ImportModelError(number, what, where=f"output '{name}'", lever=lever) from None


def _node_name(proto: Any) -> str:
    """The node's name, or that of its first result."""
    outputs: list[str] = [output for output in proto.output if output]
    return decode_text(proto.name, "the name of a node") or (outputs[0] if outputs else "")


def _domain(proto: Any) -> str:
    domain = decode_text(proto.domain, "a domain")
    return "" if domain == "ai.onnx" else domain


def _where(proto: Any) -> str:
    return f"node '{_node_name(proto)}' ({proto.op_type})"


def _symbol(name: str) -> str:
    """A name as an MLIR symbol: letters, digits and underscores, no digit in front; "main" when nothing is left."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)[:200]
    return f"_{plain}" if plain[:1].isdigit() else plain or "main"


def _named(names: Iterable[str]) -> ArrayAttr[DictionaryAttr]:
    return ArrayAttr(DictionaryAttr({NAME: StringAttr(name)}) for name in names)


def _check_operator(proto: Any, operator: Any, domain: str, where: str) -> None:
    decode_text(operator, "the operator of a node")
    if operator in _RECURRENT or any(attribute.type in _GRAPHS for attribute in proto.attribute):
        raise ImportModelError(
            Refusal.CONTROL_FLOW,
            f"{operator} is not supported",
            where=where,
            why="a network is compiled as one straight line of operations, without branches, loops and state",
            lever="export the model without control flow (fixed branches, unrolled loops), or split it there",
        )
    if domain not in known_domains():
        raise ImportModelError(
            Refusal.UNKNOWN_DOMAIN,
            f"domain '{domain}' is not supported",
            where=where,
            why=f"operators of ONNX itself are, and the quantisation operators of {CONTRIB}",
            lever="export with standard operators; functions of the model can be inlined with onnx.inliner; an installed"
            " package can add a domain (see hbir.dialects)",
        )


def _check_operands(proto: Any, opsets: Mapping[str, int]) -> None:
    """Operands that an operator does not have would be left out without a word."""
    from onnx import defs

    domain = _domain(proto)
    try:
        schema = defs.get_schema(proto.op_type, opsets.get(domain, 0), domain)
    except defs.SchemaError:  # operators of com.microsoft have none here; each converter takes what it knows
        return
    given = len(proto.input)
    if given > schema.max_input:
        raise ImportModelError(
            Refusal.OPERANDS,
            f"{proto.op_type} has {given} operands, it takes {schema.max_input}",
            where=_where(proto),
            lever="check the model with onnx.checker",
        )


def _unknown_operator(missing: Sequence[Any], opsets: Mapping[str, int]) -> ImportModelError:
    """The error for the first of the nodes without a converter; it names the operators of the others too."""
    proto = missing[0]
    operator, domain = proto.op_type, _domain(proto)
    versions = versions_of(operator, domain)
    if versions:
        return ImportModelError(
            Refusal.OPERATOR_VERSION,
            f"{operator} does not exist in opset {opsets.get(domain, 0)}",
            where=_where(proto),
            why=f"it is supported from opset {versions[0]}",
            lever=f"convert the model to opset {versions[0]} or later",
        )
    full = f"{domain}::{operator}" if domain else operator
    others = sorted({str(node.op_type) for node in missing} - {str(operator)})
    return ImportModelError(
        Refusal.UNKNOWN_OPERATOR,
        f"operator {full} is not supported",
        where=_where(proto),
        why=f"nor are {', '.join(others)}, which the model has as well" if others else "",
        lever=_LEVERS.get(
            operator, "replace it by supported operators; hbir.frontends.onnx.supported_operators() lists them"
        ),
    )


def _check_names(graph: Any, ir_version: int) -> None:
    """Each tensor has one definition and a readable name. Raises HB0102, HB0107, HB0132."""
    if graph.sparse_initializer:
        raise ImportModelError(
            Refusal.TENSOR_TYPE, "the model has sparse initializers", lever="store them as dense tensors"
        )
    defined: set[str] = set()

    def define(name: Any, what: str) -> None:
        text = decode_text(name, f"the name of {what}")
        if text in defined:
            raise ImportModelError(
                Refusal.DUPLICATE_NAME,
                f"'{text}' is defined twice, the second time as {what}",
                why="each tensor of a graph has one definition",
                lever="give the tensors different names",
            )
        if not text:
            raise ImportModelError(
                Refusal.UNDEFINED_NAME, f"{what} has no name", lever="write the file again; this one is damaged"
            )
        defined.add(text)

    for tensor_ in graph.initializer:
        define(tensor_.name, "an initializer")
    weights = frozenset(defined)
    seen: set[str] = set()
    for value in graph.input:
        text = decode_text(value.name, "the name of an input")
        # Up to IR version 3 every initializer is listed as an input too; later such an entry is a default value, kept.
        if text in weights and text not in seen:
            seen.add(text)
        else:
            define(text, "an input")
    for node in graph.node:
        for output in node.output:
            if output:
                define(output, "the result of a node")
    _check_outputs(graph.output)


def _check_outputs(outputs: Iterable[Any]) -> None:
    seen: set[str] = set()
    for output in outputs:
        text = decode_text(output.name, "the name of an output")
        if text in seen or not text:
            raise ImportModelError(
                Refusal.DUPLICATE_NAME, f"output '{text}' is listed twice or has no name", lever="list each output once"
            )
        seen.add(text)


def _live_nodes(graph: Any) -> list[bool]:
    """Which nodes an output needs. Raises HB0108 and HB0109 when the order of the nodes is not one to compute in."""
    known = {tensor_.name for tensor_ in graph.initializer} | {value.name for value in graph.input}
    producers = {output: index for index, node in enumerate(graph.node) for output in node.output if output}
    for index, node in enumerate(graph.node):
        for operand in node.input:
            text = decode_text(operand, "the name of an operand")
            if text and text not in known and producers.get(text, index) >= index:
                raise _order_error(graph, producers, index, text)
    for output in graph.output:
        if output.name not in known and output.name not in producers:
            raise ImportModelError(
                Refusal.UNDEFINED_NAME,
                f"nothing computes output '{output.name}'",
                lever="write the file again; this one is damaged",
            )
    needed = {output.name for output in graph.output}
    live = [False] * len(graph.node)
    for index in range(len(graph.node) - 1, -1, -1):
        node = graph.node[index]
        if not needed.isdisjoint(node.output):
            live[index] = True
            needed.update(operand for operand in node.input if operand)
    return live


def _order_error(graph: Any, producers: Mapping[str, int], index: int, name: str) -> ImportModelError:
    node = graph.node[index]
    where = f"node '{_node_name(node)}' ({node.op_type})"
    if name not in producers:
        return ImportModelError(
            Refusal.UNDEFINED_NAME,
            f"nothing defines operand '{name}'",
            where=where,
            lever="write the file again; this one is damaged",
        )
    # Does the producer of the operand need this node? Then there is a cycle, otherwise only the order is wrong.
    pending, visited = [producers[name]], set[int]()
    while pending:
        at = pending.pop()
        if at == index:
            return ImportModelError(
                Refusal.CYCLE,
                f"operand '{name}' depends on the node's own result",
                where=where,
                lever="break the cycle; a network has none",
            )
        if at not in visited:
            visited.add(at)
            pending.extend(producers[operand] for operand in graph.node[at].input if operand in producers)
    return ImportModelError(
        Refusal.UNDEFINED_NAME,
        f"operand '{name}' is defined behind its use",
        where=where,
        why="the nodes of an ONNX graph are in the order of computation",
        lever="sort the nodes topologically",
    )
