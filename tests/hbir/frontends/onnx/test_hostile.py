"""Damaged models: whatever the bytes, the reader returns a module that verifies or raises its one kind of error."""

from __future__ import annotations

import random
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from hbir.errors import ImportModelError
from hbir.frontends.onnx import export, supported_operators
from tests.hbir.frontends.onnx.models import initializer, save, text_model

BODIES = {
    "convolution": """
        a = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)
        n = BatchNormalization <epsilon = 0.001> (a, b, b, b, b)
        c = Clip(n, low, high)
        p = MaxPool <kernel_shape = [2, 2]> (c)
        r = Resize <mode = "linear"> (p, , two)
        g = GlobalAveragePool(r)
        f = Flatten(g)
        y = Gemm <transB = 1> (f, m, d)
    """,
    "shapes": """
        s = Shape(x)
        i = Constant <value_int = 1> ()
        e = Gather(s, i)
        u = Unsqueeze(e, z)
        k = Constant <value_ints = [-1]> ()
        t = Concat <axis = 0> (u, k)
        r = Reshape(x, t)
        v, o = Split <axis = 1> (r)
        q = Transpose <perm = [1, 0]> (v)
        h = Slice(q, z, two_i)
        l = Tile(h, two_i2)
        j = Pad(l, pads)
        y = Softmax(j)
    """,
    "quantised": """
        a = QuantizeLinear(x, qs, qz)
        c = DequantizeLinear(a, qs, qz)
        k = DequantizeLinear <axis = 0> (qw, ws, wz)
        f = Conv(c, k)
        g = QuantizeLinear(f, qs, qz)
        y = DequantizeLinear(g, qs, qz)
    """,
}
FLOATS = {"w": (4, 3, 3, 3), "b": (4,), "m": (5, 4), "d": (5,)}


def small_model(name: str) -> bytes:
    model = text_model(BODIES[name], "(float[1,3,8,8] x) => (float[N] y)")
    constants = {
        key: np.linspace(0.5, 1.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
        for key, shape in FLOATS.items()
    }
    extra: dict[str, Any] = {
        "low": np.float32(0),
        "high": np.float32(6),
        "two": np.array([1, 1, 2, 2], np.float32),
        "z": np.array([0]),
        "two_i": np.array([2]),
        "two_i2": np.array([2, 1]),
        "pads": np.array([1, 0, 0, 1]),
        "qs": np.float32(0.1),
        "qz": np.int8(3),
        "qw": np.arange(-54, 54).astype(np.int8).reshape(4, 3, 3, 3),
        "ws": np.linspace(0.1, 0.2, 4, dtype=np.float32),
        "wz": np.zeros(4, np.int8),
    }
    used = {operand for node in model.graph.node for operand in node.input}
    arrays = {**constants, **extra}.items()
    model.graph.initializer.extend(initializer(key, array) for key, array in arrays if key in used)
    return model.SerializeToString()


def try_import(path: Path, data: bytes) -> bool:
    path.write_bytes(data)
    try:
        export(path).verify()
    except ImportModelError as error:
        assert error.lever and str(error).startswith("HB01")
        return False
    return True


@pytest.mark.parametrize("name", BODIES)
def test_whole_model_is_read(tmp_path: Path, name: str) -> None:
    assert try_import(tmp_path / "m.onnx", small_model(name))


@pytest.mark.parametrize("name", BODIES)
def test_every_byte_damaged(tmp_path: Path, name: str) -> None:
    data = small_model(name)
    generator = random.Random(name)
    read = 0
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1 << generator.randrange(8)
        read += try_import(tmp_path / "m.onnx", bytes(flipped))
    # Some flips change only a number, others must be noticed.
    assert 0 < read < len(data)


@pytest.mark.parametrize("name", BODIES)
def test_every_truncation(tmp_path: Path, name: str) -> None:
    data = small_model(name)
    for length in range(0, len(data), 3):
        assert not try_import(tmp_path / "m.onnx", data[:length])


@pytest.mark.parametrize("name", BODIES)
def test_many_bytes_damaged(tmp_path: Path, name: str) -> None:
    data, generator = small_model(name), random.Random(name)
    for _ in range(300):
        mixed = bytearray(data)
        for _ in range(generator.randrange(2, 9)):
            mixed[generator.randrange(len(mixed))] = generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))
        begin, end = sorted(generator.randrange(len(mixed)) for _ in range(2))
        try_import(
            tmp_path / "m.onnx", bytes(mixed[:begin] + mixed[end:]) if generator.random() < 0.2 else bytes(mixed)
        )


@pytest.mark.parametrize(
    "body",
    [
        "c0 = Concat <axis = 0> (x, x)"
        + "".join(f" c{i} = Concat <axis = 0> (c{i - 1}, c{i - 1})" for i in range(1, 60))
        + " y = Relu(c59)",
        "n = Constant <value_ints = [999999999]> () c = ConstantOfShape(n) y = Add(x, c)",
        "n = Constant <value_float = 1e30> () c = Range(zero, n, one) y = Add(x, c)",
        "n = Constant <value_ints = [99999, 99999]> () e = Expand(ones, n) y = Add(x, e)",
        "n = Constant <value_ints = [999999999]> () e = Tile(ones, n) y = Add(x, e)",
        # Each of these is below the limit of one tensor; all of them together are not.
        "n = Constant <value_ints = [4000000]> () c0 = ConstantOfShape(n)"
        + "".join(f" c{i} = Add(c{i - 1}, one)" for i in range(1, 40))
        + " y = Add(x, c39)",
        "n = Constant <value_ints = [4000000]> () c = ConstantOfShape(n)"
        + "".join(f" r{i} = ReduceSum <keepdims = 0> (c)" for i in range(40))
        + " y = Add(x, r0)"
        + "".join(f" z{i} = Add(x, r{i})" for i in range(40)),
        (
            "n = Constant <value_ints = [2, 2000000]> () i = ConstantOfShape(m) j = Cast <to = 7> (i) c = ConstantOfShape(n)"
            " g = Gather <axis = 0> (c, j) y = Add(x, g)"
        ),
        "n = Constant <value_ints = [30000, 30000]> () s = Expand(x1, n) y = Trilu(s)",
        "n = Constant <value_ints = [1, 30000, 1, 1]> () s = Expand(x1, n) y = LRN <size = 5> (s)",
        "d = Constant <value_int = 100000000> () y = OneHot(zero_i, d, pair)",
        "n = Constant <value_ints = [0, 999999999]> () e = Pad(ones, n) y = Add(x, e)",
    ],
)
def test_small_file_cannot_ask_for_much_memory(body: str) -> None:
    constants = {"zero": np.float32(0), "one": np.float32(1), "ones": np.ones(1, np.float32), "m": np.array([1000])}
    constants |= {"zero_i": np.array([0]), "pair": np.array([0, 1], np.float32)}
    model = text_model(body, "(float[8] x, float[1] x1) => (float[N] y)", constants=constants)
    tracemalloc.start()
    try:
        with pytest.raises(ImportModelError) as caught:
            export(model)
        assert caught.value.code == "HB0122"
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_mutated_nodes(tmp_path: Path) -> None:
    """Other operators, attribute values, operands and opsets in place of the right ones."""
    generator = random.Random(0)
    operators = [name for name in supported_operators() if "::" not in name]
    numbers = [0, 1, -1, 2, 7, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63)]
    outcomes: set[bool] = set()
    for _ in range(1500):
        model = onnx.ModelProto.FromString(small_model(generator.choice(list(BODIES))))
        for _ in range(generator.randrange(1, 4)):
            node = generator.choice(model.graph.node)
            match generator.randrange(5):
                case 0:
                    node.op_type = generator.choice(operators)
                case 1 if node.attribute:
                    attribute = generator.choice(node.attribute)
                    attribute.i = generator.choice(numbers)
                    attribute.f = generator.choice((0.0, float("nan"), float("inf"), -1e38))
                    attribute.ints.append(generator.choice(numbers))
                case 2 if node.input:
                    node.input[generator.randrange(len(node.input)) :] = []
                case 3:
                    node.input.append("x")
                case _:
                    model.opset_import[0].version = generator.randrange(7, 23)
        outcomes.add(try_import(tmp_path / "m.onnx", model.SerializeToString()))
    assert outcomes == {True, False}


def calls_of_import(path: Path) -> int:
    """Python functions called during an import: a measure of work that no other load disturbs."""
    calls = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        export(path)
    finally:
        sys.setprofile(None)
    return calls


def test_import_is_linear(tmp_path: Path) -> None:
    path, counts = tmp_path / "m.onnx", list[int]()
    for length in (250, 1000):
        body = (
            "t0 = Relu(x) "
            + "".join(f"t{i} = Add(t{i - 1}, t0) " for i in range(1, length))
            + f"y = Relu(t{length - 1})"
        )
        model = text_model(body, "(float[8] x) => (float[8] y)")
        save(model, path)
        export(path)  # what is loaded once
        counts.append(calls_of_import(path))
    assert counts[1] <= 4.2 * counts[0]


@pytest.mark.parametrize("version", [1 << 40, -1, -(1 << 63)])
def test_opset_of_another_domain_that_does_not_exist(version: int) -> None:
    model = text_model("y = Relu (x)", "(float[8] x) => (float[8] y)", domains=', "com.microsoft" : 1')
    model.graph.node[0].domain, model.graph.node[0].op_type = "com.microsoft", "Gelu"
    model.opset_import[1].version = version
    with pytest.raises(ImportModelError) as caught:
        export(model)
    assert caught.value.code == "HB0105"
    assert str(version) in str(caught.value)


def _wide(nodes: list[Any], extents: list[int] | None = None, **constants: Any) -> onnx.ModelProto:
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, extents or [1, 4])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    graph = onnx.helper.make_graph(nodes, "net", [x], [y], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def _constant_of(dims: list[int], data: bytes) -> onnx.ModelProto:
    model = _wide([_node("Add", "x", "w")])
    model.graph.initializer.append(onnx.TensorProto(name="w", data_type=1, dims=dims, raw_data=data))
    return model


def _node(operator: str, *operands: str, result: str = "y", **attributes: Any) -> onnx.NodeProto:
    return onnx.helper.make_node(operator, operands, [result], **attributes)


ONES, FOUR = np.array([1] * 99 + [4]), np.ones(4, np.float32)
WIDE = {
    "input": lambda: _wide([_node("Relu", "x")], [1] * 65),
    "constant": lambda: _constant_of([1] * 274, bytes(4)),
    "empty constant": lambda: _constant_of([0, 1 << 62, 1 << 62], b""),
    "Reshape": lambda: _wide([_node("Reshape", "x", "s")], s=ONES),
    "Unsqueeze": lambda: _wide([_node("Unsqueeze", "x", "s")], s=np.arange(63)),
    "Expand": lambda: _wide([_node("Expand", "x", "s")], s=ONES),
    "ConstantOfShape": lambda: _wide([_node("ConstantOfShape", "s", result="c"), _node("Add", "x", "c")], s=ONES),
    "Reshape of a constant": lambda: _wide([_node("Reshape", "w", "s", result="c"), _node("Add", "x", "c")], s=ONES, w=FOUR),
    "Gather": lambda: _wide([_node("Gather", "x", "s", axis=1)], s=np.zeros([1] * 64, np.int64)),
    # numpy 2.1.3 ends the process over a result of so many axes.
    "Gather of a constant": lambda: _wide(
        [_node("Gather", "w", "s", result="c", axis=1), _node("Add", "x", "c")],
        s=np.zeros([1] * 63, np.int64),
        w=np.ones([1] * 40, np.float32),
    ),
}  # fmt: skip


@pytest.mark.parametrize("model", WIDE.values(), ids=WIDE)
def test_a_tensor_of_more_axes_than_an_array_has(model: Any, tmp_path: Path) -> None:
    path = tmp_path / "wide.onnx"
    path.write_bytes(model().SerializeToString())
    with pytest.raises(ImportModelError, match=r"HB0122|HB0117"):
        export(path)


def test_sixty_four_axes_are_not_too_many(tmp_path: Path) -> None:
    path = tmp_path / "wide.onnx"
    path.write_bytes(
        _wide([_node("Reshape", "x", "s", result="r"), _node("Relu", "r")], s=ONES[-64:]).SerializeToString()
    )
    assert export(path)[0].flatten_outputs[0].type.shape[-1] == 4
