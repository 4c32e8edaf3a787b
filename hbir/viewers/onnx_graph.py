"""`visualize`: a module as an ONNX file, made to be looked at in Netron; no ONNX runtime can run it.

A node is an operation of ours: its type is the operation's name, its domain the dialect, its name the layer. Values carry
their names in the `.mlir` text, their shapes, and the type that stores them; scale and zero point stand in their doc string.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from xdsl.ir import Operation, SSAValue

from hbir.arguments import checked_path
from hbir.dialects.base import Array, HbOperation, element_dtype, tensor_type
from hbir.dialects.hbir import ConstantOp
from hbir.errors import ConfigError
from hbir.ir.files import replacing, write_bytes
from hbir.ir.locations import layer_name
from hbir.module import Function, Module, checked_module
from hbir.viewers.readable import element_text, named_operands, properties_of, readable_property, value_names

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

__all__ = ["visualize"]

_OPSET = 17
_IR_VERSION = 10  # the first with metadata of nodes
_LARGEST = 2_000_000_000
"""Bytes of constants in one file; a protocol buffer has 2 GB at most."""
_ALIGNMENT = 64


def visualize(
    m: Module,
    onnx_file: str | Path | None = None,
    use_netron: bool = False,
    host: str | None = None,
    port: int | None = None,
    save_as_external_data: bool = False,
    external_data_file: str | Path | None = None,
) -> Path:
    """Write the module as an ONNX file for Netron, and the path of that file; with `use_netron` open it in a browser.

    `onnx_file` is by default the first function's name in the working folder. `host` and `port` are where Netron serves.
    With `save_as_external_data` the constants go to `external_data_file` in the same folder, by default the file's name
    with `.data` behind it. Equal modules give equal bytes.

    Raises IrError HB0236 for what is no module, ConfigError HB0817 for a name that does not end in .onnx, HB0813 for
    constants that no single file can hold or an external file in another folder, HB0824 without Netron, HB0801 for a file
    that cannot be written.
    """
    module = checked_module(m)
    path = _onnx_path(module, onnx_file)
    start = _netron() if use_netron else None
    external = _external_path(path, external_data_file) if save_as_external_data or external_data_file else None
    builder = _Builder(module, external.name if external is not None else "")
    model = builder.model()
    if external is not None:
        _write_external(builder.blobs, external)
    elif sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _LARGEST:
        what = "the constants take more than 2 GB, which one ONNX file cannot hold"
        raise ConfigError(13, what, lever="save_as_external_data=True")
    write_bytes(path, [model.SerializeToString(deterministic=True)])
    if start is not None:
        # Without a port Netron looks for a free one.
        start(str(path), address=(host or "localhost", port))
    return path


def _onnx_path(module: Module, given: str | Path | None) -> Path:
    lever = "choose a name that ends in .onnx"
    if given is None:
        return Path(f"{module[0].name}.onnx" if len(module) else "module.onnx")
    path = checked_path(given, lambda shown, why: ConfigError(17, f"{shown} is no path", why=why, lever=lever))
    if path.suffix != ".onnx":
        raise ConfigError(17, f"{path.name} is no .onnx file", lever=lever)
    return path


def _external_path(path: Path, given: str | Path | None) -> Path:
    if given is None:
        return path.with_name(f"{path.name}.data")
    external = checked_path(
        given, lambda shown, why: ConfigError(17, f"{shown} is no path", why=why, lever="give a path")
    )
    beside = path.with_name(external.name)
    if beside == path or external.parent not in (Path(), path.parent):
        why = "an ONNX file finds its data by a name in its own folder"
        raise ConfigError(13, f"{external} cannot hold the constants", why=why, lever=f"choose {path.name}.data")
    return beside


def _netron() -> Any:
    try:
        import netron  # pyright: ignore[reportMissingImports]
    except ImportError:
        lever = "pip install 'hbir[view]', or open the file at netron.app"
        raise ConfigError(24, "Netron is not installed", why="use_netron opens the file in it", lever=lever) from None
    return cast(Any, netron).start


@dataclass
class _Builder:
    """The parts of the ONNX model. `blobs` are the constants that go to the file named `external`, each with its offset."""

    module: Module
    external: str
    nodes: list[NodeProto] = field(default_factory=list["NodeProto"])
    inputs: list[ValueInfoProto] = field(default_factory=list["ValueInfoProto"])
    outputs: list[ValueInfoProto] = field(default_factory=list["ValueInfoProto"])
    values: list[ValueInfoProto] = field(default_factory=list["ValueInfoProto"])
    constants: list[TensorProto] = field(default_factory=list["TensorProto"])
    blobs: list[tuple[int, memoryview]] = field(default_factory=list[tuple[int, memoryview]])

    def model(self) -> ModelProto:
        from onnx import helper

        for function in self.module:
            self.add(function, f"{function.name}/" if len(self.module) > 1 else "")
        name = "+".join(function.name for function in self.module) or "module"
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, self.constants, value_info=self.values)
        domains = sorted({node.domain for node in self.nodes} - {""})
        opsets = [helper.make_opsetid("", _OPSET), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="hbir")
        if self.module.march is not None:
            helper.set_model_props(model, {"march": self.module.march})
        return model

    def add(self, function: Function, prefix: str) -> None:
        from onnx import helper

        names = {value: prefix + name for value, name in value_names(function).items()}
        taken = {prefix + argument.name for argument in function.flatten_inputs}
        for argument in function.flatten_inputs:
            names[argument.value] = prefix + argument.name
            self.inputs.append(_value_info(names[argument.value], argument.value))
        copies: list[NodeProto] = []
        renamed: set[SSAValue] = set()
        for argument in function.flatten_outputs:
            name = prefix + argument.name
            name = f"{name}:output" if name in taken else name
            taken.add(name)
            self.outputs.append(_value_info(name, argument.value))
            owner = argument.value.owner
            if argument.value in renamed or not isinstance(owner, Operation) or isinstance(owner, ConstantOp):
                copies.append(helper.make_node("Identity", [names[argument.value]], [name], name=name))
            else:
                names[argument.value] = name
                renamed.add(argument.value)
        for op in function.operations:
            self.add_operation(op, names, renamed)
        self.nodes += copies

    def add_operation(self, op: Operation, names: Mapping[SSAValue, str], outputs: set[SSAValue]) -> None:
        if isinstance(op, ConstantOp):
            self.constants.append(self.constant(names[op.output], op))
            return
        self.nodes.append(_node(op, names))
        self.values += [_value_info(names[result], result) for result in op.results if result not in outputs]

    def constant(self, name: str, op: ConstantOp) -> TensorProto:
        from onnx import TensorProto, helper

        array = op.array(self.module.constants)
        tensor = TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        layer = layer_name(op)
        tensor.doc_string = f"{layer}: {element_text(tensor_type(op.output.type).element_type)}"
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        if self.external:
            end = self.blobs[-1][0] + len(self.blobs[-1][1]) if self.blobs else 0
            offset = -(-end // _ALIGNMENT) * _ALIGNMENT
            self.blobs.append((offset, data))
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", self.external), ("offset", str(offset)), ("length", str(len(data)))):
                tensor.external_data.add(key=key, value=value)
        else:
            tensor.raw_data = data.tobytes()
        return tensor


def _write_external(blobs: Sequence[tuple[int, memoryview]], path: Path) -> None:
    with replacing(path) as file:
        at = 0
        for offset, data in blobs:
            file.write(bytes(offset - at))
            file.write(data)
            at = offset + len(data)


def _value_info(name: str, value: SSAValue) -> ValueInfoProto:
    from onnx import helper

    type_ = tensor_type(value.type)
    elements = helper.np_dtype_to_tensor_dtype(element_dtype(type_.element_type))
    return helper.make_tensor_value_info(name, elements, type_.get_shape(), element_text(type_.element_type))


def _operands(op: Operation, names: Mapping[SSAValue, str]) -> list[str]:
    """The names of the operands, "" for an absent one, none of these at the end."""
    values = op.aligned_operands if isinstance(op, HbOperation) else list(op.operands)
    found = [names[value] if value is not None else "" for value in values]
    while found and not found[-1]:
        found.pop()
    return found


def _node(op: Operation, names: Mapping[SSAValue, str]) -> NodeProto:
    from onnx import helper

    results = [names[result] for result in op.results]
    node = helper.make_node(
        op.name, _operands(op, names), results, name=layer_name(op), domain=op.name.partition(".")[0]
    )
    node.attribute.extend(_attributes(op))
    lines = [f"{names[result]}: {element_text(tensor_type(result.type).element_type)}" for result in op.results]
    # The format has names for the inputs of its own operators only.
    lines.append(", ".join(f"{role} {names[value]}" for role, value in named_operands(op)))
    node.doc_string = "\n".join(lines)
    return node


def _attributes(op: Operation) -> Iterator[Any]:
    from onnx import AttributeProto, helper

    for name, value in sorted(properties_of(op).items()):
        if isinstance(value, np.ndarray):
            value = tuple(cast(Array, value).tolist())
        if isinstance(value, bool):
            yield helper.make_attribute(name, int(value))
        elif isinstance(value, int | float | str):
            yield helper.make_attribute(name, value)
        elif isinstance(value, tuple):
            items = cast(tuple[object, ...], value)
            kinds: dict[type, int] = {
                int: AttributeProto.INTS,
                float: AttributeProto.FLOATS,
                str: AttributeProto.STRINGS,
                bool: AttributeProto.INTS,
            }
            kind = kinds.get(type(items[0])) if items else AttributeProto.INTS
            if kind is not None:
                yield helper.make_attribute(name, list(items), attr_type=kind)
            else:
                yield helper.make_attribute(name, readable_property(items))
        else:
            yield helper.make_attribute(name, readable_property(value))
