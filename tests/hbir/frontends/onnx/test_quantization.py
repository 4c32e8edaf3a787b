"""QDQ models: the grids that QuantizeLinear and DequantizeLinear mean, exactly, and networks against onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest

from hbir.dialects.base import HbOperation
from hbir.dialects.hbir import ConstantOp
from hbir.dialects.qat import FakeQuantOp, fake_quantize
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import ImportModelError
from hbir.frontends.onnx import export
from hbir.ir.locations import layer_name
from hbir.module import Module
from tests.hbir.frontends.onnx.models import Array, load, text_model
from tests.networks import calibration_feeds, run
from tests.quantized_networks import VARIANTS, quantized_network

PAIR = "q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z)"


def model_of(
    body: str, constants: dict[str, Any], *, opset: int = 17, signature: str = "(float[6] x) => (float[6] y)"
) -> onnx.ModelProto:
    return text_model(body, signature, opset=opset, ir_version=10, domains=', "com.microsoft" : 1', constants=constants)


def grids(module: Module) -> list[UniformQuantizedType]:
    return [op.grid for op in module[0].operations if isinstance(op, FakeQuantOp)]


def refusal(model: onnx.ModelProto) -> ImportModelError:
    with pytest.raises(ImportModelError) as caught:
        export(model)
    assert caught.value.lever
    return caught.value


@pytest.mark.parametrize(
    ("dtype", "zero", "opset", "bits", "signed_zero"),
    [
        (np.int8, -5, 17, 8, -5),
        (np.uint8, 0, 17, 8, -128),
        (np.uint8, 250, 10, 8, 122),
        (np.int16, 7, 21, 16, 7),
        (np.uint16, 32768, 21, 16, 0),
    ],
)
def test_pair_is_fake_quantisation(dtype: npt.DTypeLike, zero: int, opset: int, bits: int, signed_zero: int) -> None:
    scale = np.float32(0.1)
    model = model_of(PAIR, {"s": scale, "z": np.array(zero, dtype)}, opset=opset)
    module = export(model)
    assert grids(module) == [UniformQuantizedType.get(bits, float(scale), signed_zero)]
    # Ties, saturation on both sides, and the values beside zero.
    x = np.array([0.05, -0.25, 1e6, -1e6, 0.3, -0.0], np.float32)
    expected = run(model.SerializeToString(), [{"x": x}], optimise=False)[0]["y"]
    assert np.array_equal(module[0].feed({"x": x})["y"], expected)


def test_contrib_domain() -> None:
    body = "q = com.microsoft.QuantizeLinear(x, s, z) y = com.microsoft.DequantizeLinear(q, s, z)"
    model = model_of(body, {"s": np.float32(0.5), "z": np.array(3, np.int16)})
    assert grids(export(model)) == [UniformQuantizedType.get(16, 0.5, 3)]


def test_pair_without_zero_point_is_uint8() -> None:
    model = model_of("q = QuantizeLinear(x, s) y = DequantizeLinear(q, s)", {"s": np.float32(0.5)})
    assert grids(export(model)) == [UniformQuantizedType.get(8, 0.5, -128)]


def test_output_dtype_without_zero_point() -> None:
    body = "q = QuantizeLinear <output_dtype = 5> (x, s) y = DequantizeLinear(q, s)"
    assert grids(export(model_of(body, {"s": np.float32(0.5)}, opset=21))) == [UniformQuantizedType.get(16, 0.5, 0)]


def test_one_quantize_with_two_readers() -> None:
    body = "q = QuantizeLinear(x, s, z) a = DequantizeLinear(q, s, z) b = DequantizeLinear(q, s, z) y = Add(a, b)"
    assert len(grids(export(model_of(body, {"s": np.float32(0.5), "z": np.int8(1)})))) == 1


def test_moving_integers_is_moving_floats() -> None:
    body = """
        q = QuantizeLinear(x, s, z)
        m = MaxPool <kernel_shape = [1, 2]> (q)
        t = Transpose <perm = [0, 2, 3, 1]> (m)
        y = DequantizeLinear(t, s, z)
    """
    model = model_of(
        body, {"s": np.float32(0.5), "z": np.uint8(9)}, signature="(float[1,2,3,4] x) => (float[1,3,3,2] y)"
    )
    x = np.random.default_rng(0).normal(size=(1, 2, 3, 4)).astype(np.float32)
    expected = run(model.SerializeToString(), [{"x": x}], optimise=False)[0]["y"]
    assert np.array_equal(export(model)[0].feed({"x": x})["y"], expected)


# Weights


def test_per_axis_weight_moves_with_the_layout() -> None:
    generator = np.random.default_rng(1)
    constants: dict[str, Any] = {
        "w": generator.integers(0, 256, (4, 3, 2, 2)).astype(np.uint8),
        "ws": generator.uniform(0.01, 0.1, 4).astype(np.float32),
        "wz": np.array([100, 128, 0, 255], np.uint8),
        "b": np.array([5, -7, 1000, 0], np.int32),
        "bs": np.full(4, 0.5, np.float32),
    }
    body = """
        k = DequantizeLinear <axis = 0> (w, ws, wz)
        c = DequantizeLinear <axis = 0> (b, bs)
        y = Conv <kernel_shape = [2, 2]> (x, k, c)
    """
    module = export(model_of(body, constants, signature="(float[1,3,5,5] x) => (float[1,4,4,4] y)"))
    (grid,) = grids(module)
    assert grid == UniformQuantizedType.get(8, constants["ws"].tolist(), [-28, 0, -128, 127], axis=0)
    arrays = [op.array(module.constants) for op in module[0].operations if isinstance(op, ConstantOp)]
    weight, bias = (next(a for a in arrays if a.ndim == rank) for rank in (4, 1))
    levels = constants["w"].astype(np.int64) - constants["wz"].astype(np.int64)[:, None, None, None]
    real = (levels * constants["ws"].astype(np.float64)[:, None, None, None]).astype(np.float32)
    assert np.array_equal(weight, real.transpose(0, 2, 3, 1))
    assert bias.tolist() == [2.5, -3.5, 500, 0]


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
def test_quantising_a_stored_weight_again_is_exact(dtype: npt.DTypeLike) -> None:
    limits = np.iinfo(dtype)
    stored = np.linspace(limits.min, limits.max, 4096).astype(dtype)
    for scale in np.random.default_rng(2).uniform(1e-6, 3, 20).astype(np.float32):
        constants = {"w": stored, "s": scale, "z": np.array(limits.max // 3, dtype)}
        model = model_of(
            "k = DequantizeLinear(w, s, z) y = Add(x, k)",
            constants,
            signature="(float[4096] x) => (float[4096] y)",
            opset=21,
        )
        module = export(model)
        (grid,) = grids(module)
        (weight,) = (op.array(module.constants) for op in module[0].operations if isinstance(op, ConstantOp))
        assert np.array_equal(fake_quantize(weight, grid), weight)
        levels = np.rint(weight.astype(np.float64) / float(scale)).astype(np.int64) + limits.max // 3
        assert np.array_equal(levels, stored)


def test_weight_quantised_by_the_graph() -> None:
    body = "r = Reshape(w, n) k = QuantizeLinear(r, s, z) d = DequantizeLinear(k, s, z) y = MatMul(x, d)"
    constants = {
        "w": np.array([[0.26, -9.0]], np.float32),
        "n": np.array([2, 1]),
        "s": np.float32(0.1),
        "z": np.int8(-3),
    }
    model = model_of(body, constants, signature="(float[1,2] x) => (float[1,1] y)")
    assert [op.name for op in export(model)[0].operations] == ["hbir.constant", "qat.fake_quant", "hbir.linear"]
    expected = run(model.SerializeToString(), [{"x": np.array([[1, 0]], np.float32)}], optimise=False)[0]["y"]
    assert np.array_equal(export(model)[0].feed({"x": np.array([[1, 0]], np.float32)})["y"], expected)


# The graph's edges


def test_integer_input_and_output() -> None:
    body = "a = DequantizeLinear(x, s, z) r = Relu(a) y = QuantizeLinear(r, s, z)"
    model = model_of(body, {"s": np.float32(0.5), "z": np.int8(2)}, signature="(int8[6] x) => (int8[6] y)")
    module = export(model)
    module.verify()
    function = module[0]
    assert [op.name for op in function.operations] == [
        "quantized.dequantize",
        "hbir.clip",
        "qat.fake_quant",
        "quantized.quantize",
    ]
    assert function.flatten_inputs[0].type.quant_info == UniformQuantizedType.get(8, 0.5, 2)
    x = np.array([-128, -1, 1, 2, 3, 127], np.int8)
    feed: Any = {"x": x}
    expected = run(model.SerializeToString(), [feed], optimise=False)[0]["y"]
    assert np.array_equal(function.feed(feed)["y"], expected)


def test_unsigned_edges_are_refused() -> None:
    unsigned_output = model_of(
        "y = QuantizeLinear(x, s)", {"s": np.float32(0.5)}, signature="(float[6] x) => (uint8[6] y)"
    )
    assert refusal(unsigned_output).code == "HB0152"
    unsigned_input = model_of(
        "y = DequantizeLinear(x, s)", {"s": np.float32(0.5)}, signature="(uint8[6] x) => (float[6] y)"
    )
    assert refusal(unsigned_input).code == "HB0118"


# Refusals


@pytest.mark.parametrize("scale", [0.0, -0.1, np.nan, np.inf])
def test_scale_that_means_nothing(scale: float) -> None:
    error = refusal(model_of(PAIR, {"s": np.float32(scale), "z": np.int8(0)}))
    assert error.code == "HB0150" and "node 'q' (QuantizeLinear)" in str(error)
    weight = {"w": np.ones(6, np.int8), "s": np.float32(scale)}
    assert refusal(model_of("k = DequantizeLinear(w, s) y = Add(x, k)", weight)).code == "HB0150"


def test_scales_that_do_not_fit() -> None:
    constants = {"s": np.full(5, 0.5, np.float32), "z": np.zeros(5, np.int8)}
    assert refusal(model_of(PAIR.replace("Linear(", "Linear <axis = 0> ("), constants)).code == "HB0150"


def test_zero_point_of_another_type() -> None:
    body = "k = DequantizeLinear(w, s, z) y = Add(x, k)"
    constants = {"w": np.ones(6, np.int8), "s": np.float32(1), "z": np.uint8(0)}
    assert refusal(model_of(body, constants)).code == "HB0150"


def test_pair_with_two_scales() -> None:
    constants = {"s": np.float32(0.5), "t": np.float32(0.25), "z": np.int8(0)}
    assert refusal(model_of(PAIR.replace("(q, s", "(q, t"), constants)).code == "HB0151"


@pytest.mark.parametrize("user", ["y = Sigmoid(q)", "y = Add(q, q)", "y = Cast <to = 1> (q)"])
def test_integers_that_are_not_dequantised(user: str) -> None:
    error = refusal(model_of("q = QuantizeLinear(x, s) " + user, {"s": np.float32(0.5)}))
    assert error.code == "HB0152" and "node 'y'" in error.where


def test_scale_from_the_data() -> None:
    model = model_of("m = ReduceMax <keepdims = 0> (x) q = QuantizeLinear(x, m) y = DequantizeLinear(q, m)", {})
    assert refusal(model).code == "HB0119"


def test_blocks_are_refused() -> None:
    body = "q = QuantizeLinear <block_size = 2> (x, s) y = DequantizeLinear <block_size = 2> (q, s)"
    assert refusal(model_of(body, {"s": np.ones(3, np.float32)}, opset=21)).code == "HB0113"


# Whole networks


def grid_values(path: Path, feed: Any) -> tuple[dict[str, str], dict[str, Array]]:
    """onnxruntime's activations behind each pair: names of QuantizeLinear nodes to tensors, and the tensors."""
    model = load(path)
    readers = {node.input[0]: node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    initial = {tensor.name for tensor in model.graph.initializer}
    behind = {
        node.name: readers[node.output[0]]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in initial and node.output[0] in readers
    }
    present = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in behind.values() if name not in present)
    return behind, run(model.SerializeToString(), [feed], optimise=False)[0]


def check_layers(module: Module, feed: dict[str, Array], behind: dict[str, str], reference: dict[str, Array]) -> int:
    """Evaluate every operation on onnxruntime's own values; the number of values compared.

    A sum in another order may round a value to the neighbouring step, but only where it lies beside the threshold:
    within the rounding of a float32 sum of 1280 products, the longest here. Going on from onnxruntime's value keeps
    such steps from piling up through the network.
    """
    function = module[0]
    env: dict[Any, Array] = {argument.value: feed[argument.name] for argument in function.flatten_inputs}
    compared = 0
    for op in function.operations:
        if isinstance(op, ConstantOp):
            env[op.output] = op.array(module.constants)
            continue
        assert isinstance(op, HbOperation)
        operands = [None if value is None else env[value] for value in op.aligned_operands]
        out = op.evaluate(*operands, **op.values)
        if isinstance(op, FakeQuantOp) and layer_name(op) in behind:
            expected, before = reference[behind[layer_name(op)]], operands[0]
            assert before is not None
            steps = before.astype(np.float64) / op.grid.scale
            differs = out != expected
            apart = np.abs(out.astype(np.float64) - expected) / op.grid.scale
            from_threshold = np.abs(steps - np.floor(steps) - 0.5)
            assert np.rint(apart).max() <= 1
            assert (from_threshold[differs] <= 2 * 2.0**-24 * np.sqrt(1280) * np.abs(steps).max()).all()
            compared += out.size
            out = expected
        env[op.results[0]] = out
    return compared


@pytest.mark.parametrize("variant", sorted(VARIANTS))
@pytest.mark.parametrize("name", ["mnist", "mobilenetv2"])
def test_quantised_network(name: str, variant: str) -> None:
    path = quantized_network(name, variant)
    module = export(path)
    module.verify()
    setting = VARIANTS[variant]
    bits = {grid.bits for grid in grids(module)}
    assert bits == ({8, 16} if "int16" in variant else {8})
    assert any(grid.per_axis == 0 for grid in grids(module)) == setting.per_channel
    feed: dict[str, Array] = dict(calibration_feeds(name, 1)[0])
    behind, reference = grid_values(path, feed)
    assert check_layers(module, feed, behind, reference) > {"mnist": 5_000, "mobilenetv2": 5_000_000}[name]
