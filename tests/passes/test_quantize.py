"""The integers of each operation against its fake-quantised floats, and the fine print of quantisation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32

from hbir import load, save
from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, tensor_type
from hbir.dialects.hbir import ArgmaxOp, Conv2dOp, FunctionOp, LinearOp, MatmulOp, MinimumOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import PassError
from hbir.module import Module
from hbir.testing import Seeded, example_feeds, operations, quant_params
from hbir.testing.float_graphs import FLOAT_GENERATORS
from hbir.testing.graphs import SeededGraph
from passes import Pipeline, calibrate, convert
from passes.common.analysis import grid_sources

# How many steps of the result's grid the integers may be away from the rounded floats. Both are rounded, which makes less
# than one step between them. An odd multiplier of 15 bits is off by at most 2^-14 of itself, which is another 2^-14 of the
# largest result: nothing for int8, two steps for int16 (where int48 accumulators take 15 bits only). Bilinear resize rounds
# once more inside. Softmax looks up exponentials and reciprocals of 15 bits. Functions are tables: exact, but where the exact
# result lies halfway between two codes, which the floats miss by their own rounding.
STEPS = {FunctionOp.name: (1, 0), "hbir.softmax": (2, 8), "hbir.resize_bilinear": (2, 3)}


def _steps(kind: type[HbOperation], bits: int) -> float:
    narrow, wide = STEPS.get(kind.name, (1, 3))
    return 1.01 * narrow if bits == 8 else wide


def _raw_step(module: Module, index: int) -> float:
    """The accumulator's step behind an output that has no grid: the bias is rounded to it."""
    value = module[0].flatten_outputs[index].value
    scales = [op.grid.scale_array.max() for op in _behind(value) if isinstance(op, q.DequantizeOp)]
    return float(max(scales, default=0.0))


def _behind(value: object) -> list[HbOperation]:
    owner = getattr(value, "owner", None)
    if not isinstance(owner, HbOperation):
        return []
    return [owner, *(op for operand in owner.operands for op in _behind(operand))]


@pytest.mark.parametrize("kind", FLOAT_GENERATORS, ids=lambda kind: kind.name)
def test_integers_follow_the_fake_quantised_floats(kind: type[HbOperation]) -> None:
    @settings(max_examples=8)
    @given(operations(kind), st.booleans(), st.sampled_from((8, 8, 16)))
    def check(module: Module, asymmetric: bool, bits: int) -> None:
        if bits == 16 and any(isinstance(op, FunctionOp) for op in module[0].operations):
            bits = 8  # tables of 65,536 entries: see test_fix_lut
        feeds = [example_feeds(module[0], seed) for seed in range(2)]
        options: dict[str, Any] = {
            "observer": "max",
            "activation_bits": bits,
            "head_bits": bits,
            "asymmetric": asymmetric,
        }
        fake = calibrate(module, feeds, **options)
        try:
            integers = convert(fake, "nash-e", verify="exec")
        except PassError as error:
            assert error.code == "HB0332"  # nothing in the module has an integer form
            return
        for feed in feeds:
            wanted, got = fake[0].feed(feed), integers[0].feed(feed)
            for index, argument in enumerate(fake[0].flatten_outputs):
                a, b = wanted[argument.name], got[argument.name]
                assert (a.shape, a.dtype) == (b.shape, b.dtype)
                if not np.issubdtype(a.dtype, np.floating) or not a.size:
                    continue
                sources = grid_sources(argument.value)
                largest = float(np.abs(a[np.isfinite(a)]).max(initial=0.0))
                if sources:
                    steps = _steps(kind, bits) * max(source.grid.scale for source in sources)
                else:
                    steps = 0.5 * _raw_step(integers, index) + 1e-5 * largest
                np.testing.assert_allclose(b, a, rtol=0, atol=steps + 1e-6 * largest)

    check()


def _linear(outputs: int, *, raw: bool) -> Module:
    text = f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "main", function_type = (tensor<2x3xf32>) -> tensor<2x{outputs}xf32>}}> ({{
  ^bb0(%x: tensor<2x3xf32>):
    %q = "qat.fake_quant"(%x) <{{grid = !quant.uniform<i8:f32, 0.0625>}}> : (tensor<2x3xf32>) -> tensor<2x3xf32>
    %w = "hbir.constant"() <{{value = BLOB}}> : () -> tensor<{outputs}x3xf32>
    %f = "qat.fake_quant"(%w) <{{grid = !quant.uniform<i8<-127:127>:f32:0, {{SCALES}}>}}>
      : (tensor<{outputs}x3xf32>) -> tensor<{outputs}x3xf32>
    %y = "hbir.linear"(%q, %f) : (tensor<2x3xf32>, tensor<{outputs}x3xf32>) -> tensor<2x{outputs}xf32> loc("fc")
    %z = "qat.fake_quant"(%y) <{{grid = !quant.uniform<i8:f32, 0.125>}}> : (tensor<2x{outputs}xf32>) -> tensor<2x{outputs}xf32>
    "func.return"({"%y" if raw else "%z"}) : (tensor<2x{outputs}xf32>) -> ()
  }}) : () -> ()
}}) : () -> ()
"""
    from hbir.ir.constants import ConstantStore

    store = ConstantStore()
    blob = store.put(np.linspace(-1, 1, outputs * 3, dtype=np.float32))
    scales = ", ".join(["0.0078125"] * outputs)
    text = text.replace("BLOB", f'#hbir.blob<"{blob.digest.data}", {blob.size.data}>').replace(
        "{SCALES}", f"{{{scales}}}"
    )
    return Module.parse(text, store)


@pytest.mark.parametrize("outputs", [1, 4])
def test_a_linear_layer_hands_out_its_accumulator_in_its_own_shape(outputs: int) -> None:
    module = _linear(outputs, raw=True)
    integers = convert(module, "nash-e", verify="exec")
    assert integers[0].flatten_outputs[0].type.shape == (2, outputs)
    conv = next(op for op in integers[0].operations if isinstance(op, q.Conv2dOp))
    assert conv.multiplier is None and conv.grid.bits == 32
    x = example_feeds(module[0])["_input_0"]
    # Products of grids with power-of-two scales are exact in float32, and so are their sums: no difference at all.
    np.testing.assert_array_equal(integers[0](x)[0], module[0](x)[0])


def test_powers_of_two_are_exact() -> None:
    """With scales that are powers of two the multiplier is off by 2^-15 of one step: results away from ties are equal."""
    module = _linear(4, raw=False)
    integers = convert(module, "nash-e")
    x = example_feeds(module[0])["_input_0"]
    wanted, got = module[0](x)[0], integers[0](x)[0]
    assert np.abs(wanted - got).max() <= 0.125
    assert LinearOp.name not in [op.name for op in integers[0].operations]


def test_every_type_agrees_with_its_multipliers() -> None:
    for op in convert(_linear(4, raw=False), "nash-e")[0].operations:
        for value in op.results:
            element = tensor_type(value.type).element_type
            assert not isinstance(element, UniformQuantizedType) or element.scale > 0
        if isinstance(op, q.Conv2dOp):
            m = op.values["multiplier"]
            assert (m % 2 == 1).all() and (m < 2**15).all() and (m >= 2**14).all()


@pytest.mark.parametrize("kind", [Conv2dOp, LinearOp], ids=lambda kind: kind.name)
def test_a_layer_read_as_floats_and_on_a_grid_is_computed_once(kind: type[Conv2dOp] | type[LinearOp]) -> None:
    """The integers on the grid are those of the layer's own epilogue, bit for bit."""

    @settings(max_examples=25)
    @given(operations(kind), quant_params((8, 16), scales=(0.05, 0.3, 1.7)))
    def check(module: Module, grid: UniformQuantizedType) -> None:
        fake = calibrate(module, [example_feeds(module[0])], observer="max")
        layer = next(op for op in fake[0].operations if isinstance(op, kind))
        assume(not (isinstance(layer, Conv2dOp) and layer.residual is not None))
        assume(any(isinstance(op, FakeQuantOp) for op in fake[0].operations))
        both, alone = fake.clone(), fake.clone()
        for each, outputs in ((both, 2), (alone, 1)):
            output = next(op for op in each[0].operations if isinstance(op, kind)).results[0]
            on_grid = FakeQuantOp.make(output, grid=grid)
            each[0].op.body.block.insert_op_before(on_grid, each[0].return_op)
            each[0].return_op.operands = [on_grid.output, output][:outputs]
            each[0].op.properties.pop("res_attrs", None)
            each[0].update_type()
        got, wanted = (convert(each, "nash-e") for each in (both, alone))
        layers = [op for op in got[0].operations if isinstance(op, q.Conv2dOp | kind)]
        assert [isinstance(op, q.Conv2dOp) and op.multiplier is None for op in layers] == [True]
        feed = example_feeds(fake[0], 3)
        floats, (on_grid, plain) = both[0].feed(feed), got[0].feed(feed).values()
        np.testing.assert_array_equal(on_grid, next(iter(wanted[0].feed(feed).values())), strict=True)
        reach = float(np.abs(floats["_output_1"]).max(initial=0.0))
        np.testing.assert_allclose(plain, floats["_output_1"], rtol=0, atol=0.5 * _raw_step(got, 1) + 1e-5 * reach)

    check()


def test_two_grids_are_two_epilogues() -> None:
    module = _linear(4, raw=False)
    block, (layer,) = module[0].op.body.block, [op for op in module[0].operations if isinstance(op, LinearOp)]
    second = FakeQuantOp.make(layer.output, grid=UniformQuantizedType.get(8, 0.5))
    block.insert_op_before(second, module[0].return_op)
    module[0].return_op.operands = [*module[0].return_op.operands, second.output]
    module[0].update_type()
    convs = [op for op in convert(module, "nash-e")[0].operations if isinstance(op, q.Conv2dOp)]
    assert [conv.grid.bits for conv in convs] == [8, 8]


def test_weights_that_leave_int8_have_no_int32_accumulator() -> None:
    """Far from their zero point they take part as int16, whose accumulator no output holds: the layer stays float."""
    module = _linear(4, raw=True)
    scales = "{7.812500e-03,7.812500e-03,7.812500e-03,7.812500e-03}"
    text = str(module).replace(f"!quant.uniform<i8<-127:127>:f32:0, {scales}>", "!quant.uniform<i8:f32:0, ZEROS>")
    assert "ZEROS" in text
    module = Module.parse(text.replace("ZEROS", f"{{{','.join(['0.004:-100'] * 4)}}}"), module.constants)
    integers = convert(module, "nash-e", verify="exec")
    x = example_feeds(module[0])["_input_0"]
    np.testing.assert_allclose(integers[0](x)[0], module[0](x)[0], atol=1e-6)


def test_scales_per_axis_on_an_activation_are_refused() -> None:
    text = str(_linear(4, raw=False)).replace(
        "!quant.uniform<i8:f32, 6.250000e-02>", "!quant.uniform<i8:f32:0, {0.5,0.25}>"
    )
    module = Module.parse(text, _linear(4, raw=False).constants)
    with pytest.raises(PassError, match="HB0311.*scales per axis"):
        Pipeline("quantize").run(module)


def test_convert_refuses_what_it_does_not_know() -> None:
    with pytest.raises(PassError, match=r"HB0334.*\['advice'\]"):
        convert(_linear(1, raw=True), "nash-e", advice=True)
    floats = _linear(1, raw=True)
    for op in list(floats[0].operations):
        if op.name == "qat.fake_quant":
            op.results[0].replace_all_uses_with(op.operands[0])
            op.detach()
            op.erase()
    with pytest.raises(PassError, match="HB0332.*no fake quantisation"):
        convert(floats, "nash-e")


def test_the_same_text_whatever_the_hash_seed(tmp_path: Path) -> None:
    module = _linear(4, raw=False)
    save(module, tmp_path / "qat.mlir")
    code = (
        "import sys; from hbir import load; from passes import convert\n"
        "sys.stdout.write(str(convert(load(sys.argv[1]), 'nash-m', high_precision_output=True)))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "qat.mlir")],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(texts) == 1
    assert texts == {str(convert(load(tmp_path / "qat.mlir"), "nash-m", high_precision_output=True))}


def test_a_weight_that_something_else_reads_is_a_float_there() -> None:
    """Scales along an axis belong to weights: whatever else reads such a constant computes with its floats."""
    graph = SeededGraph(Seeded(0, []))
    eight = UniformQuantizedType.get(8, 0.05)
    x = graph.add(FakeQuantOp.make(graph.input((2, 3), f32), grid=eight))
    per_axis = UniformQuantizedType.get(8, [0.01, 0.02], axis=0, narrow=True)
    numbers = np.array([[0.5, -1.0, 0.25], [1.5, 0.75, -2.0]], np.float32)
    weight = graph.add(FakeQuantOp.make(graph.constant(numbers, f32), grid=per_axis))
    layer = graph.add(LinearOp.make(x, weight, None, min=None, max=None))
    graph.add(FakeQuantOp.make(layer, grid=UniformQuantizedType.get(8, 0.1)))
    smaller = graph.add(MinimumOp.make(x, weight))
    graph.add(FakeQuantOp.make(smaller, grid=eight))
    graph.add(FakeQuantOp.make(weight, grid=eight))
    graph.add(LinearOp.make(weight, weight, None, min=None, max=None))
    graph.add(ArgmaxOp.make(weight, axis=0, keep=False))
    fake = graph.finish()
    integers = convert(fake, "nash-e")
    feed = example_feeds(fake[0], 1)
    expected, found = fake[0].feed(feed), integers[0].feed(feed)
    assert {op.name for op in integers[0].operations} >= {"quantized.conv2d", "hbir.minimum"}
    for name, value in expected.items():
        assert np.abs(found[name] - value).max() <= 0.1, name


@pytest.mark.parametrize("kind", ["linear", "conv2d", "matmul"])
def test_a_layer_whose_weights_have_scales_along_another_axis_computes_with_floats(kind: str) -> None:
    """No sum of products has one scale then: the layer gets the floats of its operands, and gives floats."""
    graph = SeededGraph(Seeded(0, []))
    eight = UniformQuantizedType.get(8, 0.05)
    shape = (1, 4, 4, 3) if kind == "conv2d" else (2, 3)
    x = graph.add(FakeQuantOp.make(graph.input(shape, f32), grid=eight))
    numbers = np.array([[0.5, -1.0, 0.25], [1.5, 0.75, -2.0]], np.float32)
    array = {"linear": numbers, "conv2d": numbers.reshape(2, 1, 1, 3), "matmul": numbers.T}[kind]
    axis = {"linear": 1, "conv2d": 3, "matmul": 0}[kind]
    grid = UniformQuantizedType.get(8, [0.01, 0.02, 0.03], axis=axis, narrow=True)
    weight = graph.add(FakeQuantOp.make(graph.constant(np.ascontiguousarray(array), f32), grid=grid))
    ones = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "min": None, "max": None}
    layer = {
        "linear": lambda: LinearOp.make(x, weight, None, min=None, max=None),
        "conv2d": lambda: Conv2dOp.make(x, weight, None, None, **ones),
        "matmul": lambda: MatmulOp.make(x, weight, min=None, max=None),
    }[kind]()
    first = graph.add(layer)
    graph.add(FakeQuantOp.make(first, grid=UniformQuantizedType.get(8, 0.1)))
    fake = graph.finish()
    integers = convert(fake, "nash-e")
    names = {op.name for op in integers[0].operations}
    assert not names & {"quantized.conv2d", "quantized.matmul"} and "quantized.quantize" in names
    feed = example_feeds(fake[0], 1)
    expected, found = fake[0].feed(feed), integers[0].feed(feed)
    for name, value in expected.items():
        assert np.array_equal(found[name], value), name
