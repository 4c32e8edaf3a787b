"""`visualize`: the file is ONNX, shows every operation and value, and is the same each time."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from hbir import Module, export, load, save
from hbir.errors import ConfigError, IrError
from hbir.viewers import visualize
from passes import calibrate, convert
from tests.tools.small import SHAPE, build_model


@pytest.fixture(name="quantized", scope="module")
def small_quantized(tmp_path_factory: pytest.TempPathFactory) -> Module:
    module = export(build_model(tmp_path_factory.mktemp("model") / "small.onnx"))
    sample = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    return convert(calibrate(module, [{"x": sample}]), "nash-e")


def test_nodes_are_operations_and_values_are_typed(quantized: Module, tmp_path: Path) -> None:
    path = visualize(quantized, tmp_path / "small.onnx")
    model = onnx.load(path)
    onnx.checker.check_model(model)
    operations = [op for op in quantized[0].operations if op.name != "hbir.constant"]
    assert [node.op_type for node in model.graph.node] == [op.name for op in operations]
    assert {node.domain for node in model.graph.node} == {o.domain for o in model.opset_import} - {""}
    conv = next(node for node in model.graph.node if node.op_type == "quantized.conv2d")
    attributes = {each.name: onnx.helper.get_attribute_value(each) for each in conv.attribute}
    assert conv.name == "conv1+act1" and attributes["stride"] == [1, 1] and attributes["high"] == 127
    assert conv.doc_string.splitlines()[1].startswith(f"input {conv.input[0]}, weight {conv.input[1]}")
    assert b"int8, scale " in attributes["grid"] and len(attributes["multiplier"]) == 8
    typed = {info.name: info for info in (*model.graph.value_info, *model.graph.input, *model.graph.output)}
    info = typed[conv.output[0]]
    assert info.type.tensor_type.elem_type == TensorProto.INT8 and "zero point" in info.doc_string
    assert [d.dim_value for d in info.type.tensor_type.shape.dim] == [1, 16, 16, 8]
    held = {tensor.name for tensor in model.graph.initializer}
    assert all(
        name in typed or name in held for node in model.graph.node for name in (*node.input, *node.output) if name
    )
    assert [each.name for each in (*model.graph.input, *model.graph.output)] == ["x", "y"]
    assert model.metadata_props[0].value == "nash-e"


def test_constants_are_initialisers_inside_or_beside(quantized: Module, tmp_path: Path) -> None:
    inside = onnx.load(visualize(quantized, tmp_path / "in.onnx"))
    path = visualize(quantized, tmp_path / "out.onnx", save_as_external_data=True, external_data_file="w.data")
    onnx.checker.check_model(str(path))
    beside = onnx.load(path)
    assert (tmp_path / "w.data").is_file() and len(path.read_bytes()) < len((tmp_path / "in.onnx").read_bytes())
    assert len(inside.graph.initializer) == len(beside.graph.initializer) > 1
    for one, other in zip(inside.graph.initializer, beside.graph.initializer, strict=True):
        np.testing.assert_array_equal(numpy_helper.to_array(one), numpy_helper.to_array(other, str(tmp_path)))


def test_equal_modules_give_equal_bytes(quantized: Module, tmp_path: Path) -> None:
    save(quantized, tmp_path / "m.bc")
    save(quantized, tmp_path / "m.mlir")
    paths = [
        visualize(m, tmp_path / f"{i}.onnx")
        for i, m in enumerate((quantized, load(tmp_path / "m.bc"), load(tmp_path / "m.mlir")))
    ]
    assert len({path.read_bytes() for path in paths}) == 1


_PLAIN = """"builtin.module"() ({
  "func.func"() <{sym_name = "a", function_type = (tensor<2xf32>) -> (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>),
    arg_attrs = [{hbir.name = "x"}], res_attrs = [{hbir.name = "x"}, {hbir.name = "y"}, {hbir.name = "z"}]}> ({
  ^bb0(%x: tensor<2xf32>):
    %0 = "hbir.clip"(%x) <{max = 6.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32>
    "func.return"(%x, %0, %0) : (tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> ()
  }) : () -> ()
  "func.func"() <{sym_name = "b", function_type = () -> (), arg_attrs = [], res_attrs = []}> ({
    "func.return"() : () -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_outputs_may_be_inputs_or_named_twice_and_functions_share_a_graph(tmp_path: Path) -> None:
    model = onnx.load(visualize(Module.parse(_PLAIN), tmp_path / "plain.onnx"))
    onnx.checker.check_model(model)
    assert [each.name for each in model.graph.output] == ["a/x:output", "a/y", "a/z"]
    assert [(n.op_type, *n.input, *n.output) for n in model.graph.node] == [
        ("hbir.clip", "a/x", "a/y"),
        ("Identity", "a/x", "a/x:output"),
        ("Identity", "a/y", "a/z"),
    ]


def test_netron_is_started_where_asked(quantized: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setitem(sys.modules, "netron", SimpleNamespace(start=lambda *a, **k: calls.append((a, k))))
    path = visualize(quantized, tmp_path / "n.onnx", use_netron=True, host="0.0.0.0", port=8081)
    visualize(quantized, path, use_netron=True)
    assert calls == [((str(path),), {"address": ("0.0.0.0", 8081)}), ((str(path),), {"address": ("localhost", None)})]
    monkeypatch.setitem(sys.modules, "netron", None)
    with pytest.raises(ConfigError, match=r"HB0824.*hbir\[view\]"):
        visualize(quantized, tmp_path / "never.onnx", use_netron=True)
    assert not (tmp_path / "never.onnx").exists()


def test_mistakes_are_refused(quantized: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert visualize(quantized) == Path("small.onnx") and Path("small.onnx").is_file()
    with pytest.raises(IrError, match="HB0236"):
        visualize("module")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match="HB0817"):
        visualize(quantized, tmp_path / "x.json")
    for wrong in (tmp_path / "other" / "w.data", tmp_path / "x.onnx"):
        with pytest.raises(ConfigError, match="HB0813"):
            visualize(quantized, tmp_path / "x.onnx", external_data_file=wrong)
