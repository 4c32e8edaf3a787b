"""Graph JSON for Model Explorer, and data by layer to colour its nodes: one graph for each function, layers as groups.

The format is that of its public documentation: a collection `{label, graphs}`, a graph `{id, nodes}`, a node with label,
namespace, attributes, incoming edges and metadata of its tensors; data by node is `{graph id: {results: {node id: {value}}}}`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xdsl.ir import Operation, SSAValue

from hbir.arguments import checked_path
from hbir.dialects.base import tensor_type
from hbir.dialects.hbir import ConstantOp
from hbir.errors import ConfigError
from hbir.ir.files import write_text
from hbir.ir.locations import layer_name, location_names
from hbir.module import Function, Module, checked_module
from hbir.viewers.readable import (
    element_text,
    named_operands,
    properties_of,
    readable_property,
    shape_text,
    value_names,
)

__all__ = ["graph_collection", "node_data", "save_model_explorer"]

_INPUTS, _OUTPUTS = "GraphInputs", "GraphOutputs"
_COLOURS = ((0.0, "#fff7ec"), (0.25, "#fdd49e"), (0.5, "#fdbb84"), (1.0, "#f4735a"))
"""From nothing to the largest value: dark text is read on all of them."""


def _pairs(entries: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in entries.items() if value]


def _tensor(identifier: int, name: str, value: SSAValue) -> dict[str, Any]:
    """The metadata of one output: its name in the text, shape and type."""
    type_ = tensor_type(value.type)
    facts = {"tensor_name": name, "shape": shape_text(type_), "type": element_text(type_.element_type)}
    return {"id": str(identifier), "attrs": _pairs(facts)}


def _separator(function: Function) -> str:
    """What divides a layer name into groups: "/", or "." in a network whose names have none of the former."""
    names = [name for op in function.operations for name in location_names(op)]
    return "/" if any("/" in name for name in names) else "."


def _namespace(op: Operation, separator: str) -> str:
    """The group of an operation: the path of its first layer, the last part joined with those of layers fused into it."""
    paths = [[part for part in name.split(separator) if part] for name in location_names(op)]
    paths = [path for path in paths if path]
    if not paths:
        return ""
    last = "+".join(dict.fromkeys(path[-1] for path in paths))
    return "/".join(part.replace("/", "_") for part in (*paths[0][:-1], last))


class _Graph:
    """The nodes of one function. A node's identifier is the name of its first result in the text."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.names = value_names(function)
        self.separator = _separator(function)
        self.sources: dict[SSAValue, tuple[str, int]] = {}

    def identifier(self, op: Operation) -> str:
        return self.names[op.results[0]]  # every operation of a network has a result

    def nodes(self) -> list[dict[str, Any]]:
        inputs = self.function.flatten_inputs
        outputs = [_tensor(i, argument.name, argument.value) for i, argument in enumerate(inputs)]
        found: list[dict[str, Any]] = [{"id": _INPUTS, "label": _INPUTS, "namespace": "", "outputsMetadata": outputs}]
        for index, argument in enumerate(inputs):
            self.sources[argument.value] = (_INPUTS, index)
        for op in self.function.operations:
            for index, result in enumerate(op.results):
                self.sources[result] = (self.identifier(op), index)
            found.append(self.node(op))
        values = [argument.value for argument in self.function.flatten_outputs]
        tags = [argument.name for argument in self.function.flatten_outputs]
        last = {"id": _OUTPUTS, "label": _OUTPUTS, "namespace": "", "incomingEdges": self.edges(values)}
        found.append(last | {"inputsMetadata": self.tags(tags)})
        return found

    def node(self, op: Operation) -> dict[str, Any]:
        operands = named_operands(op)
        facts = {"layer": layer_name(op) if location_names(op) else ""}
        facts |= {name: readable_property(value) for name, value in sorted(properties_of(op).items())}
        return {
            "id": self.identifier(op),
            "label": op.name,
            "namespace": _namespace(op, self.separator),
            "attrs": _pairs(facts),
            "incomingEdges": self.edges([value for _, value in operands]),
            "inputsMetadata": self.tags([name for name, _ in operands]),
            "outputsMetadata": [_tensor(i, self.names[r], r) for i, r in enumerate(op.results)],
        }

    def edges(self, values: Sequence[SSAValue]) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        for index, value in enumerate(values):
            source, output = self.sources[value]
            found.append({"sourceNodeId": source, "sourceNodeOutputId": str(output), "targetNodeInputId": str(index)})
        return found

    def tags(self, names: Sequence[str]) -> list[dict[str, Any]]:
        return [{"id": str(index), "attrs": _pairs({"__tensor_tag": name})} for index, name in enumerate(names)]


def graph_collection(module: Module, label: str = "") -> dict[str, Any]:
    """The module as a collection of graphs, one for each function; `label` names it. Raises IrError HB0236."""
    checked = checked_module(module)
    facts = {"": {"march": checked.march}} if checked.march else {}
    graphs = [
        {
            "id": function.name,
            "nodes": _Graph(function).nodes(),
            "nodeLabelsToHide": [ConstantOp.name],
            "groupNodeAttributes": facts,
        }
        for function in checked
    ]
    return {"label": label or "+".join(function.name for function in checked), "graphs": graphs}


def node_data(module: Module, name: str, values: Mapping[str, float]) -> dict[str, Any]:
    """Values by layer as data by node: each at the operation that ends its layer. `name` is what the viewer calls it.

    Layers that the module lacks are left out. Raises ConfigError HB0813 when that leaves nothing, IrError HB0236.
    """
    found: dict[str, Any] = {}
    matched = False
    for function in checked_module(module):
        graph = _Graph(function)
        last = {layer_name(op): graph.identifier(op) for op in function.operations if not isinstance(op, ConstantOp)}
        finite = {layer: value for layer, value in values.items() if layer in last and math.isfinite(value)}
        matched |= bool(finite)
        gradient = [{"stop": stop, "bgColor": colour} for stop, colour in _COLOURS]
        results = {last[layer]: {"value": value} for layer, value in finite.items()}
        found[function.name] = {"name": name, "results": results, "gradient": gradient}
    if not matched:
        layers = sorted(values)[:3]
        why = f"its layers are {', '.join(layers)}{', …' if len(values) > 3 else ''}" if layers else "it has none"
        raise ConfigError(
            13, f"no layer of overlay '{name}' is in the module", why=why, lever="give that of this module"
        )
    return found


def save_model_explorer(
    module: Module, path: str | Path, overlays: Mapping[str, Mapping[str, float]] | None = None
) -> tuple[Path, ...]:
    """Write the graph to `path` (.json) and each overlay, values by layer, beside it as ``stem.NAME.json``; the paths.

    Equal modules give equal bytes. Raises ConfigError HB0817 for another suffix, HB0813 for an overlay that does not belong
    to the module or whose name is no part of a file name, HB0801 for a file that cannot be written, IrError HB0236.
    """
    lever = "choose a name that ends in .json"
    target = checked_path(path, lambda shown, why: ConfigError(17, f"{shown} is no path", why=why, lever=lever))
    if target.suffix != ".json":
        raise ConfigError(17, f"{target.name} is no .json file", lever=lever)
    documents: dict[Path, Any] = {target: graph_collection(module)}
    for name, values in (overlays or {}).items():
        if not name.replace("_", "").replace("-", "").isalnum():
            raise ConfigError(13, f"'{name}' cannot name an overlay", lever="use letters, digits, _ and -")
        documents[target.with_name(f"{target.stem}.{name}.json")] = node_data(module, name, values)
    for each, document in documents.items():
        write_text(each, json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    return tuple(documents)
