"""Graph JSON and overlays have the published form, written down here as a schema, and say what the module says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Literal

import pytest
from pydantic import BaseModel, ConfigDict

from hbir import Module
from hbir.errors import ConfigError
from hbir.viewers import graph_collection, node_data, save_model_explorer
from tests.tools.lsp.texts import MODULE


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Pair(_Form):
    key: str
    value: str


class _Metadata(_Form):
    id: str
    attrs: list[_Pair] = []


class _Edge(_Form):
    sourceNodeId: str  # noqa: N815
    sourceNodeOutputId: str = "0"  # noqa: N815
    targetNodeInputId: str = "0"  # noqa: N815


class _Node(_Form):
    id: str
    label: str
    namespace: str = ""
    attrs: list[_Pair] = []
    incomingEdges: list[_Edge] = []  # noqa: N815
    inputsMetadata: list[_Metadata] = []  # noqa: N815
    outputsMetadata: list[_Metadata] = []  # noqa: N815


class _Graph(_Form):
    id: str
    nodes: list[_Node]
    groupNodeAttributes: dict[str, dict[str, str]] = {}  # noqa: N815
    nodeLabelsToHide: list[str] = []  # noqa: N815


class _Collection(_Form):
    label: str
    graphs: list[_Graph]


class _Result(_Form):
    value: float | int


class _Stop(_Form):
    stop: float
    bgColor: str  # noqa: N815


class _Data(_Form):
    name: str
    results: dict[str, _Result]
    gradient: list[_Stop]


@pytest.fixture(name="module")
def two_functions() -> Module:
    return Module.parse(MODULE)


def test_the_graph_has_the_published_form(module: Module) -> None:
    found = _Collection.model_validate(graph_collection(module, "two"))
    assert found.label == "two" and [graph.id for graph in found.graphs] == ["first", "second"]
    for graph in found.graphs:
        nodes = {node.id: node for node in graph.nodes}
        assert len(nodes) == len(graph.nodes), "identifiers are unique"
        for node in graph.nodes:
            for edge in node.incomingEdges:
                assert edge.sourceNodeOutputId in {each.id for each in nodes[edge.sourceNodeId].outputsMetadata}
            assert [edge.targetNodeInputId for edge in node.incomingEdges] == [
                each.id for each in node.inputsMetadata
            ] or (node.id == "GraphInputs")
        assert graph.groupNodeAttributes == {"": {"march": "nash-e"}}


def test_a_node_says_what_its_operation_is(module: Module) -> None:
    first = _Collection.model_validate(graph_collection(module)).graphs[0]
    assert [(node.id, node.label, node.namespace) for node in first.nodes] == [
        ("GraphInputs", "GraphInputs", ""),
        ("%0", "quantized.quantize", "stage1/conv"),
        ("%1", "quantized.clamp", "stage1/conv"),
        ("%2", "quantized.dequantize", "stage1/out+relu"),
        ("GraphOutputs", "GraphOutputs", ""),
    ]
    clamp = first.nodes[2]
    assert {pair.key: pair.value for pair in clamp.attrs} == {"layer": "stage1/conv", "low": "-100", "high": "100"}
    assert {pair.key: pair.value for pair in clamp.outputsMetadata[0].attrs} == {
        "tensor_name": "%1",
        "shape": "1x4x4x8",
        "type": "int8, scale 0.05, zero point 3",
    }
    assert clamp.incomingEdges == [_Edge(sourceNodeId="%0")]
    assert clamp.inputsMetadata[0].attrs == [_Pair(key="__tensor_tag", value="input")]


def test_names_without_slashes_are_divided_at_dots(module: Module) -> None:
    dotted = Module.parse(MODULE.replace("stage1/", "stage1."))
    spaces = [node.namespace for node in _Collection.model_validate(graph_collection(dotted)).graphs[0].nodes]
    assert spaces[1:4] == ["stage1/conv", "stage1/conv", "stage1/out+relu"]


def test_an_overlay_colours_the_operation_that_ends_a_layer(module: Module) -> None:
    values = {"stage1/conv": 7, "größe": 0.5, "elsewhere": 9, "stage1/out+stage1/relu": float("nan")}
    found = {key: _Data.model_validate(data) for key, data in node_data(module, "cycles", values).items()}
    assert {key: {k: v.value for k, v in data.results.items()} for key, data in found.items()} == {
        "first": {"%1": 7},
        "second": {"%0": 0.5},
    }
    stops = [each.stop for each in found["first"].gradient]
    assert stops[0] == 0 and stops[-1] == 1 and stops == sorted(stops)
    assert all(re.fullmatch("#[0-9a-f]{6}", each.bgColor) for each in found["first"].gradient)
    with pytest.raises(ConfigError, match="HB0813"):
        node_data(module, "cycles", {"elsewhere": 9})


def test_overlays_lie_beside_the_graph_and_bytes_are_the_same(module: Module, tmp_path: Path) -> None:
    overlays = {"cycles": {"größe": 3}, "bytes": {"größe": 4}}
    written = save_model_explorer(module, tmp_path / "g.json", overlays)
    assert [path.name for path in written] == ["g.json", "g.cycles.json", "g.bytes.json"]
    texts = [path.read_bytes() for path in written]
    assert texts == [path.read_bytes() for path in save_model_explorer(module.clone(), tmp_path / "g.json", overlays)]
    assert json.loads(texts[1])["second"]["results"] == {"%0": {"value": 3}}
    kind: Literal["HB0817"] = "HB0817"
    with pytest.raises(ConfigError, match=kind):
        save_model_explorer(module, tmp_path / "g.onnx")
    with pytest.raises(ConfigError, match="HB0813"):
        save_model_explorer(module, tmp_path / "g.json", {"../x": {"größe": 3}})
