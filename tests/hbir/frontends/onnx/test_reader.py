"""Every refusal of the ONNX reader: one error with its code, the node and a remedy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from hbir.errors import ImportModelError
from hbir.frontends.onnx import export, reader
from tests.hbir.frontends.onnx.models import initializer, load, save, text_model


def refusal(source: Any, **options: Any) -> ImportModelError:
    with pytest.raises(ImportModelError) as caught:
        export(source, **options)
    assert caught.value.lever, "a refusal says what to change"
    return caught.value


# (code, operator line, opset, what the message names)
NODES = [
    ("HB0110", "y = Hardmax(x)", 17, "Hardmax"),
    ("HB0111", "y = my.domain.Fancy(x)", 17, "my.domain"),
    ("HB0112", "y = HardSwish(x)", 13, "from opset 14"),
    ("HB0112", "y = Gelu(x)", 19, "from opset 20"),
    ("HB0113", 'y = Resize <mode = "cubic"> (x, none, four)', 17, "mode=cubic"),
    ("HB0113", "y = Softmax <axis = 7> (x)", 17, "axis 7"),
    ("HB0113", "y = Relu <shiny = 1> (x)", 17, "shiny"),
    ("HB0113", "y = Elu <alpha = 1> (x)", 17, "wrong type"),
    ("HB0113", "y = MaxPool <kernel_shape = [2, 2], dilations = [2, 2]> (x)", 17, "dilations"),
    ("HB0113", "y = MaxPool (x)", 17, "kernel_shape"),
    ("HB0113", "y = AveragePool <kernel_shape = [2, 2], strides = [0, 1]> (x)", 17, "strides"),
    ("HB0113", "y = Transpose <perm = 3> (x)", 17, "perm"),
    ("HB0115", "y = Add(x)", 17, "operand 1"),
    ("HB0116", "y = GlobalAveragePool(vector)", 17, "has shape 1;"),
    ("HB0117", "y = Add(x, five)", 17, "broadcast"),
    ("HB0117", "r = Constant <value_ints = [1, 7]> () y = Reshape(x, r)", 17, "reshape"),
    ("HB0117", "y = Transpose <perm = [0, 1]> (x)", 17, "permute"),
    ("HB0118", "i = ArgMax(x) y = Sqrt(i)", 17, "integers"),
    ("HB0119", "y = Expand(x, extents)", 17, "depends on the network's data"),
    ("HB0119", "n = NonZero(x) y = Cast <to = 1> (n)", 17, "operand 0"),
    ("HB0122", "r = Constant <value_ints = [999999, 999999, 8, 8]> () y = Expand(one, r)", 17, "too large"),
    ("HB0122", "r = Constant <value_ints = [999999, 999999]> () c = ConstantOfShape(r) y = Add(x, c)", 17, "999999"),
    (
        "HB0130",
        "c = Constant <value_float = 1.0> () z = Constant <value_float = 0.0> () d = Div(c, z) y = Add(x, d)",
        17,
        "infinity",
    ),
]


@pytest.mark.parametrize(("code", "body", "opset", "text"), NODES)
def test_refused_node(code: str, body: str, opset: int, text: str) -> None:
    signature = "(float[1,3,8,8] x, float[1] vector, int64[4] extents) => (float[1,3,8,8] y)"
    model = text_model(body, opset=opset, signature=signature, domains=', "my.domain" : 1')
    shapes = {"five": (5,), "none": (0,), "four": (4,), "one": (1, 1, 1, 1)}
    model.graph.initializer.extend(initializer(n, np.ones(s, np.float32)) for n, s in shapes.items())
    error = refusal(model)
    assert error.code == code, str(error)
    assert text in str(error) and "node '" in error.where


def test_result_that_inference_does_not_have() -> None:
    model = text_model("y, mask = Dropout(x)")
    model.graph.output.append(helper.make_tensor_value_info("mask", TensorProto.BOOL, [1, 3, 8, 8]))
    assert refusal(model).code == "HB0115"


def test_node_that_nothing_needs_is_not_looked_at() -> None:
    export(text_model("n = Hardmax(x) y = Relu(x)"))


def test_codes_name_the_node() -> None:
    model = text_model("y = Hardmax(x)")
    model.graph.node[0].name = "head/argmax"
    assert refusal(model).where == "node 'head/argmax' (Hardmax)"


@pytest.mark.parametrize("operator", ["LSTM", "GRU", "RNN", "Loop", "Scan", "If"])
def test_control_flow_is_refused_politely(operator: str) -> None:
    model = text_model("y = Relu(x)")
    model.graph.node[0].op_type = operator
    error = refusal(model)
    assert error.code == "HB0114" and "without control flow" in error.lever


def test_subgraph_attribute() -> None:
    model = text_model("y = Relu(x)")
    model.graph.node[0].attribute.append(helper.make_attribute("body", text_model("y = Relu(x)").graph))
    assert refusal(model).code == "HB0114"


# Files and models


def test_missing_file(tmp_path: Path) -> None:
    error = refusal(tmp_path / "none.onnx")
    assert error.code == "HB0101" and "none.onnx" in str(error)
    assert refusal(tmp_path).code == "HB0101"


def test_other_object() -> None:
    assert refusal(42).code == "HB0101"


@pytest.mark.parametrize("data", [b"not a model at all", b"\x08\x08\x3a\xff\xff\x03", b"PK\x03\x04zip"])
def test_garbage(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert refusal(tmp_path / "m.onnx").code in ("HB0102", "HB0103")


def test_truncated(tmp_path: Path) -> None:
    whole = text_model("y = Relu(x)").SerializeToString()
    (tmp_path / "m.onnx").write_bytes(whole[:-9])
    assert refusal(tmp_path / "m.onnx").code == "HB0102"


def test_name_that_is_no_text(tmp_path: Path) -> None:
    model = text_model("y = Relu(x)")
    model.graph.node[0].name = "layer_name"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString().replace(b"layer_name", b"layer\xffname"))
    assert refusal(tmp_path / "m.onnx").code == "HB0102"


def test_no_graph(tmp_path: Path) -> None:
    (tmp_path / "empty.onnx").write_bytes(b"")
    assert refusal(tmp_path / "empty.onnx").code == "HB0103"
    model = text_model("y = Relu(x)")
    del model.graph.output[:]
    assert refusal(model).code == "HB0103"


def test_beyond_protobuf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(text_model("y = Relu(x)"), tmp_path / "m.onnx")
    monkeypatch.setattr(reader, "MAX_FILE", 10)
    error = refusal(tmp_path / "m.onnx")
    assert error.code == "HB0104" and "external data" in error.lever


@pytest.mark.parametrize("opset", [6, 27, 99])
def test_opset(opset: int) -> None:
    error = refusal(text_model("y = Relu(x)", opset=opset))
    assert error.code == "HB0105" and "version_converter" in error.lever


def test_no_opset() -> None:
    model = text_model("y = Relu(x)")
    del model.opset_import[:]
    assert refusal(model).code == "HB0105"


@pytest.mark.parametrize("version", [1, 2, onnx.IR_VERSION + 1])
def test_ir_version(version: int) -> None:
    assert refusal(text_model("y = Relu(x)", ir_version=version)).code == "HB0106"


@pytest.mark.parametrize("version", range(3, onnx.IR_VERSION + 1))
def test_ir_versions_that_are_read(version: int) -> None:
    assert export(text_model("y = Relu(x)", ir_version=version))[0].name == "net"


def test_duplicate_names() -> None:
    model = text_model("y = Relu(x)")
    model.graph.node.append(helper.make_node("Abs", ["x"], ["y"]))
    assert refusal(model).code == "HB0107"
    model = text_model("y = Relu(x)")
    model.graph.input.append(model.graph.input[0])
    assert refusal(model).code == "HB0107"
    model = text_model("y = Relu(x)")
    model.graph.output.append(model.graph.output[0])
    assert refusal(model).code == "HB0107"
    model = text_model("y = Relu(x)")
    model.graph.initializer.extend([initializer("w", np.ones(1, np.float32))] * 2)
    assert refusal(model).code == "HB0107"


def test_undefined_operand() -> None:
    error = refusal(text_model("y = Add(x, ghost)"))
    assert error.code == "HB0108" and "ghost" in str(error) and "node 'y' (Add)" in str(error)


def test_use_before_definition() -> None:
    error = refusal(text_model("y = Relu(t) t = Abs(x)"))
    assert error.code == "HB0108" and "topologically" in error.lever


def test_undefined_output() -> None:
    model = text_model("y = Relu(x)")
    model.graph.output[0].name = "z"
    assert refusal(model).code == "HB0108"


@pytest.mark.parametrize("body", ["y = Add(x, y)", "a = Add(x, b) b = Abs(a) y = Relu(b)"])
def test_cycle(body: str) -> None:
    assert refusal(text_model(body)).code == "HB0109"


# Inputs


def test_dynamic_input_names_the_lever() -> None:
    model = text_model("y = Relu(x)", signature="(float[N,3,H,8] x) => (float[N,3,H,8] y)")
    error = refusal(model)
    assert error.code == "HB0120" and error.where == "input 'x'"
    assert "'H'" in error.why and "input_shapes=" in error.lever and "--input-shape x:" in error.lever
    assert export(model, input_shapes={"x": (2, 3, 5, 8)})[0].flatten_outputs[0].type.shape == (2, 3, 5, 8)


def test_unknown_first_extent_becomes_one() -> None:
    model = text_model("y = Relu(x)", signature="(float[batch,3] x) => (float[batch,3] y)")
    assert export(model)[0].flatten_inputs[0].type.shape == (1, 3)


def test_symbols_are_shared_between_inputs() -> None:
    model = text_model("y = Add(x, z)", signature="(float[N,S] x, float[N,S] z) => (float[N,S] y)")
    assert export(model, input_shapes={"x": (4, 5)})[0].flatten_inputs[1].type.shape == (4, 5)


@pytest.mark.parametrize("shape", ["0,3", "3,0"])
def test_a_stated_extent_of_0_stays_0(shape: str) -> None:
    error = refusal(text_model("y = Relu(x)", signature=f"(float[{shape}] x) => (float[{shape}] y)"))
    assert error.code == "HB0120" and "stated to be 0" in error.why


@pytest.mark.parametrize("options", [{"name": 3}, {"input_shapes": 3}, {"input_shapes": [("x", (1,))]}])
def test_arguments_of_another_kind(options: dict[str, Any]) -> None:
    with pytest.raises(ImportModelError, match="HB0124"):
        export(text_model("y = Relu(x)"), **options)


def test_operands_that_an_operator_does_not_have() -> None:
    error = refusal(text_model("y = Relu(x, x)"))
    assert error.code == "HB0115" and "Relu has 2 operands, it takes 1" in error.what and "node" in error.where


def test_input_without_rank() -> None:
    model = text_model("y = Relu(x)")
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert refusal(model).code == "HB0120"


@pytest.mark.parametrize("shape", [(1, 3, 8), (1, 4, 8, 8), (1, 3, 0, 8), (1, 3, 8, -1), (1, 3, 8.5, 8)])
def test_contradicting_input_shapes(shape: tuple[int, ...]) -> None:
    assert refusal(text_model("y = Relu(x)"), input_shapes={"x": shape}).code == "HB0121"


def test_input_shapes_of_no_input() -> None:
    error = refusal(text_model("y = Relu(x)"), input_shapes={"image": (1, 3, 8, 8)})
    assert error.code == "HB0121" and "inputs are x" in error.lever


def test_input_types() -> None:
    model = text_model("y = Cast <to = 1> (x)", signature="(string[2] x) => (float[2] y)")
    assert refusal(model).code == "HB0118"
    sequence = text_model("y = Relu(x)")
    sequence.graph.input[0].CopyFrom(helper.make_tensor_sequence_value_info("x", TensorProto.FLOAT, [1]))
    assert refusal(sequence).code == "HB0123"


# Weights


def with_weight(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = text_model("y = Add(x, w)", signature="(float[2] x) => (float[2] y)")
    tensor.name = "w"
    model.graph.initializer.append(tensor)
    return model


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(bad: float) -> None:
    error = refusal(with_weight(initializer("w", np.array([1, bad], np.float32))))
    assert error.code == "HB0130" and "'w'" in str(error) and "node 'y' (Add)" in str(error)


def test_float64_weight_beyond_float32() -> None:
    assert refusal(with_weight(initializer("w", [1, 1e300]))).code == "HB0130"


def test_weight_of_another_size() -> None:
    tensor = initializer("w", np.ones(2, np.float32))
    tensor.raw_data = tensor.raw_data[:-1]
    assert refusal(with_weight(tensor)).code == "HB0131"
    typed = TensorProto(data_type=TensorProto.FLOAT, dims=[2], float_data=[1, 2, 3])
    assert refusal(with_weight(typed)).code == "HB0131"
    assert refusal(with_weight(TensorProto(data_type=TensorProto.FLOAT, dims=[-2], float_data=[1, 2]))).code == "HB0131"


def test_weight_types() -> None:
    assert (
        refusal(with_weight(TensorProto(data_type=TensorProto.STRING, dims=[1], string_data=[b"a"]))).code == "HB0132"
    )
    assert refusal(with_weight(TensorProto(data_type=77, dims=[1], raw_data=b"a"))).code == "HB0132"
    model = text_model("y = Relu(x)")
    model.graph.sparse_initializer.append(onnx.SparseTensorProto())
    assert refusal(model).code == "HB0132"


@pytest.mark.parametrize(
    ("tensor", "values"),
    [
        (TensorProto(data_type=TensorProto.FLOAT, dims=[2], float_data=[1.5, 2]), [1.5, 2]),
        (TensorProto(data_type=TensorProto.DOUBLE, dims=[2], double_data=[1.5, 2]), [1.5, 2]),
        (TensorProto(data_type=TensorProto.FLOAT16, dims=[2], int32_data=[0x3E00, 0x4000]), [1.5, 2]),
        (TensorProto(data_type=TensorProto.BFLOAT16, dims=[2], int32_data=[0x3FC0, 0x4000]), [1.5, 2]),
        (TensorProto(data_type=TensorProto.BFLOAT16, dims=[2], raw_data=b"\xc0\x3f\x00\x40"), [1.5, 2]),
    ],
)
def test_encodings_of_floats(tensor: onnx.TensorProto, values: list[float]) -> None:
    got = export(with_weight(tensor))[0].feed({"x": np.zeros(2, np.float32)})["y"]
    assert got.tolist() == values


@pytest.mark.parametrize("kind", ["int32_data", "int64_data", "uint64_data", "raw_data"])
def test_encodings_of_integers(kind: str) -> None:
    types = {"int32_data": TensorProto.INT16, "int64_data": TensorProto.INT64, "uint64_data": TensorProto.UINT32}
    tensor = TensorProto(data_type=types.get(kind, TensorProto.INT8), dims=[2], name="i")
    if kind == "raw_data":
        tensor.raw_data = b"\x03\x04"
    else:
        getattr(tensor, kind).extend([3, 4])
    model = text_model("c = Cast <to = 1> (i) y = Add(x, c)", signature="(float[2] x) => (float[2] y)")
    model.graph.initializer.append(tensor)
    assert export(model)[0].feed({"x": np.zeros(2, np.float32)})["y"].tolist() == [3, 4]


# External data


def external_model(folder: Path, location: str, **entries: str) -> Path:
    model = with_weight(TensorProto(data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL))
    for key, value in {"location": location, **entries}.items():
        model.graph.initializer[0].external_data.add(key=key, value=value)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def write_data(path: Path) -> None:
    path.write_bytes(np.array([0, 1, 2], np.float32).tobytes())


def test_external_data(tmp_path: Path) -> None:
    write_data(tmp_path / "w.bin")
    path = external_model(tmp_path, "w.bin", offset="4", length="8")
    assert export(path)[0].feed({"x": np.zeros(2, np.float32)})["y"].tolist() == [1, 2]


@pytest.mark.parametrize("location", ["../w.bin", "a/../../w.bin", "/etc/passwd", "..\\w.bin", "", "C:w.bin", "a\0b"])
def test_external_data_outside_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "in").mkdir()
    write_data(tmp_path / "w.bin")
    error = refusal(external_model(tmp_path / "in", location))
    assert error.code == "HB0140" and "tensor 'w'" in str(error)


def _file_link(folder: Path) -> None:
    (folder / "in/w.bin").symlink_to(folder / "w.bin")


def _folder_link(folder: Path) -> None:
    (folder / "in/sub").symlink_to(folder)


@pytest.mark.parametrize(("link", "location"), [(_file_link, "w.bin"), (_folder_link, "sub/w.bin")])
def test_external_data_behind_a_link(tmp_path: Path, link: Callable[[Path], None], location: str) -> None:
    (tmp_path / "in").mkdir()
    write_data(tmp_path / "w.bin")
    link(tmp_path)
    assert refusal(external_model(tmp_path / "in", location)).code == "HB0141"


def test_external_data_missing(tmp_path: Path) -> None:
    assert refusal(external_model(tmp_path, "w.bin")).code == "HB0142"
    os.mkfifo(tmp_path / "pipe")
    assert refusal(external_model(tmp_path, "pipe")).code == "HB0142"


@pytest.mark.parametrize(
    "entries", [{"offset": "8"}, {"length": "4"}, {"offset": "-1"}, {"offset": "99999999999999999999"}, {"length": "x"}]
)
def test_external_data_out_of_range(tmp_path: Path, entries: dict[str, str]) -> None:
    write_data(tmp_path / "w.bin")
    assert refusal(external_model(tmp_path, "w.bin", **entries)).code == "HB0143"


def test_external_data_without_a_file(tmp_path: Path) -> None:
    write_data(tmp_path / "w.bin")
    model = load(external_model(tmp_path, "w.bin"))
    assert refusal(model).code == "HB0144"
