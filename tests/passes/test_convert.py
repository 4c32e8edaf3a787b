"""What leaves a converted network, and in which form it is read again: accumulators and rescales, or floats and quantizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir import export, load, save
from hbir.dialects import quantized as q
from hbir.dialects.base import Array, tensor_type
from hbir.dialects.hbir import Conv2dOp, LinearOp, MatmulOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError, PassError
from hbir.march import MARCHES, load_march
from hbir.module import Module
from hbir.testing import Seeded, example_feeds
from hbir.testing.graphs import SeededGraph
from passes import Pipeline, convert
from tests.float_results import output_and_input
from tests.hbir.frontends.onnx.models import text_model

INTEGER = [name for name in MARCHES if not load_march(name).has_float_results]
FLOAT = [name for name in MARCHES if load_march(name).has_float_results]
LAYERS = ("conv", "linear", "wide linear")


def _same(a: Mapping[str, Array], b: Mapping[str, Array]) -> None:
    for left, right in zip(a.values(), b.values(), strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


def _counts(module: Module) -> Counter[str]:
    return Counter(op.name for op in module[0].operations)


def _readers(value: SSAValue) -> Counter[str]:
    return Counter(use.operation.name for use in value.uses)


def test_the_marches_with_float_results() -> None:
    assert FLOAT == ["nash-p", "nash-h"] and INTEGER == ["nash-e", "nash-m", "bayes"]


@pytest.mark.parametrize("march", INTEGER)
@pytest.mark.parametrize("layer", LAYERS)
def test_an_output_that_is_read_again_is_one_accumulator_and_one_rescale(layer: str, march: str) -> None:
    module = output_and_input(layer)
    integers = convert(module, march, verify="exec")
    first, second = (op for op in integers[0].operations if isinstance(op, q.Conv2dOp))
    assert first.multiplier is second.multiplier is None
    assert first.grid.bits == second.grid.bits == 32
    # One path to the output, one to the second layer. The only quantize is that of the input.
    assert _readers(first.output) == {"quantized.dequantize": 1, "quantized.rescale": 1}
    found = _counts(integers)
    assert (found["quantized.quantize"], found["quantized.rescale"], found["quantized.dequantize"]) == (1, 1, 2)
    assert not any(op.name in ("hbir.linear", "hbir.conv2d") for op in integers[0].operations)
    # The second layer reads what it reads where the first one's result is no output: one epilogue for two.
    alone = module.clone()
    alone[0].return_op.operands = alone[0].return_op.operands[1:]
    alone[0].op.properties.pop("res_attrs", None)
    alone[0].update_type()
    feed = example_feeds(module[0], 4)
    _, through_rescale = integers[0].feed(feed).values()
    (through_epilogue,) = convert(alone, march)[0].feed(feed).values()
    np.testing.assert_array_equal(through_rescale, through_epilogue, strict=True)


@pytest.mark.parametrize("march", FLOAT)
@pytest.mark.parametrize("layer", LAYERS)
def test_an_output_that_is_read_again_is_a_float_and_a_quantize(layer: str, march: str) -> None:
    module = output_and_input(layer)
    floats = convert(module, march, verify="exec")
    first, second = (op for op in floats[0].operations if isinstance(op, q.Conv2dOp))
    assert first.float_type == second.float_type == f32
    elements = [tensor_type(value.type).element_type for op in floats[0].operations for value in op.results]
    assert not any(isinstance(element, UniformQuantizedType) and element.bits == 32 for element in elements)
    found = _counts(floats)
    assert (found["quantized.quantize"], found["quantized.rescale"], found["quantized.dequantize"]) == (2, 0, 0)
    # The first output is the accumulator times its scale on either kind of march.
    feed = example_feeds(module[0], 4)
    left, right = (each[0].feed(feed) for each in (floats, convert(module, "nash-e")))
    name = floats[0].flatten_outputs[0].name
    np.testing.assert_array_equal(left[name], right[name], strict=True)


@pytest.mark.parametrize("layer", LAYERS)
def test_integer_conv_brings_back_the_form_of_nash_e(layer: str, tmp_path: Path) -> None:
    module = output_and_input(layer)
    wanted = convert(module, "nash-e")
    module._integer_conv = True  # pyright: ignore[reportPrivateUsage]
    save(module, tmp_path / "qat.bc")
    save(module, tmp_path / "qat.mlir")
    for each in (module, module.clone(), load(tmp_path / "qat.bc"), load(tmp_path / "qat.mlir")):
        assert each._integer_conv is each.integer_conv is True  # pyright: ignore[reportPrivateUsage]
        for march in FLOAT:
            got = convert(each, march)
            assert got.march == march and got.integer_conv
            got.march, got.integer_conv = "nash-e", False
            assert str(got) == str(wanted)
    module.integer_conv = False
    assert "quantized.dequantize" not in _counts(convert(module, "nash-h"))


@pytest.mark.parametrize("march", MARCHES)
def test_channels_first_networks_have_the_same_two_paths(march: str) -> None:
    """Transposes lie between the layer and the output of an imported network, and none in front of the next layer."""
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(0, 0.1, (8, 8, 3, 3)).astype(np.float32) for name in "wv"}
    scales = {"s": np.array(0.05, np.float32), "t": np.array(0.01, np.float32), "zero": np.array(0, np.int8)}
    body = " ".join(
        f"{n}q = QuantizeLinear({n}, {s}, zero) {n}d = DequantizeLinear({n}q, {s}, zero) {then}"
        for n, s, then in (
            *(("x", "s", ""), ("w", "t", ""), ("v", "t", "y = Conv <pads = [1,1,1,1]> (xd, wd)")),
            ("y", "s", "o = Conv <pads = [1,1,1,1]> (yd, vd)"),
        )
    )
    signature = "(float[1,8,6,6] x) => (float[1,8,6,6] y, float[1,8,6,6] o)"
    module = convert(export(text_model(body, signature, constants={**weights, **scales})), march, verify="exec")
    first, second = (op for op in module[0].operations if isinstance(op, q.Conv2dOp))
    path = "quantized.quantize" if march in FLOAT else "quantized.rescale"
    assert _readers(first.output)[path] == 1
    assert second.input.owner in [use.operation for use in first.output.uses]


def test_integer_conv_is_true_or_false() -> None:
    module = output_and_input("linear")
    assert module.integer_conv is False
    with pytest.raises(IrError, match="HB0235.*_integer_conv is 1"):
        module.integer_conv = 1  # pyright: ignore[reportAttributeAccessIssue]
    assert module.integer_conv is False


def _matmul(bits: int) -> Module:
    graph = SeededGraph(Seeded(0))
    grids = [UniformQuantizedType.get(bits, scale, zero) for scale, zero in ((0.05, 3), (0.02, 0))]
    shapes = ((2, 3, 5), (2, 5, 4))
    a, b = (graph.add(FakeQuantOp.make(graph.input(s, f32), grid=grid)) for s, grid in zip(shapes, grids, strict=True))
    graph.add(MatmulOp.make(a, b))
    return graph.finish()


@pytest.mark.parametrize("march", FLOAT)
@pytest.mark.parametrize("bits", [8, 16])
def test_a_matrix_product_is_a_float_too(bits: int, march: str) -> None:
    module = _matmul(bits)
    floats = convert(module, march, verify="exec")
    (product,) = (op for op in floats[0].operations if isinstance(op, q.MatmulOp))
    assert product.float_type == f32 and "hbir.matmul" not in _counts(floats)
    feed = example_feeds(module[0], 1)
    (got,), (wanted,) = floats[0].feed(feed).values(), module[0].feed(feed).values()
    # The fake-quantised floats round every product and sum, relative 2^-24 each: 5 of each.
    np.testing.assert_allclose(got, wanted, rtol=0, atol=10 * 2.0**-24 * float(np.abs(wanted).max()) * 5)


@pytest.mark.parametrize("march", FLOAT)
def test_int16_activations_have_float_results_and_no_int32_ones(march: str) -> None:
    module = output_and_input("linear", bits=16)
    floats = convert(module, march, verify="exec")
    convs = [op for op in floats[0].operations if isinstance(op, q.Conv2dOp)]
    assert [conv.float_type for conv in convs] == [f32, f32]
    assert "hbir.linear" not in _counts(floats)
    assert "hbir.linear" in _counts(convert(module, "nash-e"))  # whose outputs hold no int48
    feed = example_feeds(module[0], 1)
    for name, wanted in module[0].feed(feed).items():
        # The bias is rounded to a step of the sum, far below 2^-20 of the results here; the rest is as for matrix products.
        np.testing.assert_allclose(floats[0].feed(feed)[name], wanted, rtol=0, atol=2.0**-16 * np.abs(wanted).max())


def test_bounds_stay_with_integers() -> None:
    """The engine's floats are not clamped: a layer with a relu keeps its accumulator, and its second path one rescale."""
    module = output_and_input("relu conv")
    got, wanted = convert(module, "nash-h"), convert(module, "nash-e")
    first = next(op for op in got[0].operations if isinstance(op, q.Conv2dOp))
    assert first.float_type is None and first.multiplier is None
    feed = example_feeds(module[0], 2)
    _same(got[0].feed(feed), wanted[0].feed(feed))


@pytest.mark.parametrize("march", MARCHES)
def test_high_precision_output_in_either_form(march: str) -> None:
    """A fake quant in front of the output, and a reader of it: 8 bits become the accumulator, or its floats."""
    module = output_and_input("conv", on_grid=True)
    plain, wide = convert(module, march), convert(module, march, high_precision_output=True)
    first = next(op for op in wide[0].operations if isinstance(op, q.Conv2dOp))
    assert first.multiplier is None and next(op for op in plain[0].operations if isinstance(op, q.Conv2dOp)).multiplier
    floats = march in FLOAT
    assert first.float_type == (f32 if floats else None)
    expected = {"quantized.quantize": 1} if floats else {"quantized.dequantize": 1, "quantized.rescale": 1}
    assert {name: n for name, n in _readers(first.output).items() if name != "func.return"} == expected
    feed = example_feeds(module[0], 2)
    (coarse, _), (fine, _) = plain[0].feed(feed).values(), wide[0].feed(feed).values()
    assert len(np.unique(fine)) > len(np.unique(coarse))


def test_bayes_sums_int16_in_32_bits() -> None:
    module = output_and_input("linear", bits=16, on_grid=True, reach=4096)
    convert(module, "nash-e")
    with pytest.raises(PassError, match="HB0321.*the accumulator holds 2,147,483,647"):
        convert(module, "bayes")
    small = output_and_input("linear", bits=16, on_grid=True)
    _same(*(convert(small, march)[0].feed(example_feeds(small[0])) for march in ("bayes", "nash-e")))


def test_the_layers_here_are_what_they_say() -> None:
    for layer, kind in (("conv", Conv2dOp), ("linear", LinearOp), ("wide linear", LinearOp), ("relu conv", Conv2dOp)):
        module = output_and_input(layer)
        assert sum(isinstance(op, kind) for op in module[0].operations) == 2
        assert len(module[0].flatten_outputs) == 2


def test_widths_of_sums_that_no_machine_has_are_refused() -> None:
    with pytest.raises(PassError, match="HB0304.*int16_accumulator_bits is 40.*choose 32 or 48"):
        Pipeline("prove-intervals{int16-accumulator-bits=40}").run(output_and_input("linear"))
