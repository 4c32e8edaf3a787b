"""Edits of inputs and outputs against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbir.boundary import insert_image_scale
from hbir.errors import IrError, PassError
from hbir.module import Module
from hbir.testing import assert_round_trips, example_feeds, modules
from passes import calibrate, convert

NETWORK = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main",
    function_type = (tensor<2x3x4x5xf32>, tensor<5xf32>) -> (tensor<2x3x4x5xf32>, tensor<5xf32>),
    arg_attrs = [{hbir.name = "x"}, {hbir.name = "b"}], res_attrs = [{hbir.name = "y"}, {hbir.name = "z"}]}> ({
  ^bb0(%x: tensor<2x3x4x5xf32> loc("x"), %b: tensor<5xf32> loc("b")):
    %0 = "hbir.add"(%x, %b) : (tensor<2x3x4x5xf32>, tensor<5xf32>) -> tensor<2x3x4x5xf32> loc("add")
    "func.return"(%0, %b) : (tensor<2x3x4x5xf32>, tensor<5xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


IMAGE = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x16x16x3xf32>) -> tensor<1x16x16x3xf32>,
    arg_attrs = [{hbir.name = "x"}], res_attrs = [{hbir.name = "y"}]}> ({
  ^bb0(%x: tensor<1x16x16x3xf32> loc("x")):
    %0 = "hbir.clip"(%x) <{min = -128.0 : f64}> : (tensor<1x16x16x3xf32>) -> tensor<1x16x16x3xf32> loc("clip")
    "func.return"(%0) : (tensor<1x16x16x3xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def _network() -> Module:
    return Module.parse(NETWORK)


@given(st.permutations(range(4)), st.booleans())
def test_insert_transpose_is_the_inverse_of_numpys_convention(permutes: list[int], on_input: bool) -> None:
    module, feed = _network(), example_feeds(_network()[0])
    expected = _network()[0].feed(feed)
    function = module[0]
    argument = (function.flatten_inputs if on_input else function.flatten_outputs)[0]
    argument.insert_transpose(permutes)
    for old, new in enumerate(permutes):
        assert (function.flatten_inputs if on_input else function.flatten_outputs)[0].type.shape[new] == (2, 3, 4, 5)[
            old
        ]
    order = np.argsort(permutes)
    if on_input:
        feed["x"] = feed["x"].transpose(order)
    else:
        expected["y"] = expected["y"].transpose(order)
    got = function.feed({name: np.ascontiguousarray(array) for name, array in feed.items()})
    assert list(got) == ["y", "z"]
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, strict=True)
    assert_round_trips(module)


def test_nchw_to_nhwc_as_the_published_workflow_writes_it() -> None:
    module = _network()
    module[0].flatten_inputs[0].insert_transpose([0, 3, 1, 2])
    assert module[0].flatten_inputs[0].type.shape == (2, 4, 5, 3)
    assert module[0].flatten_inputs[0].name == "x"


def test_insert_transpose_refuses_what_is_no_permutation() -> None:
    with pytest.raises(IrError, match="HB0240 at input 'x'"):
        _network()[0].flatten_inputs[0].insert_transpose([0, 1, 1, 2])


@pytest.mark.parametrize("mode", [None, "skip", "bgr2rgb", "rgb2bgr"])
@pytest.mark.parametrize("signed", [True, False])
def test_insert_image_preprocess(mode: str | None, signed: bool) -> None:
    module = _network()
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 1.0, 2.0, 0.25, 0.3]
    module[0].flatten_inputs[0].insert_image_preprocess(mode, 255, mean, std, is_signed=signed)
    image = module[0].flatten_inputs[0]
    assert (image.name, image.type.shape) == ("x", (2, 3, 4, 5))
    assert image.type.np_dtype == (np.int8 if signed else np.uint8)
    x = example_feeds(module[0])["x"]
    b = np.zeros(5, np.float32)
    wanted = (x.astype(np.float64)[..., :: -1 if mode and mode != "skip" else 1] / 255 - mean) / std
    got = module[0].feed({"x": x, "b": b})["y"]
    # One multiplication and one addition in float32, with constants that were rounded to it: four half units.
    bound = 4 * 2.0**-24 * (np.abs(wanted).max() + np.abs(np.divide(mean, std)).max())
    np.testing.assert_allclose(got, wanted, rtol=0, atol=bound)
    assert_round_trips(module)


def test_image_preprocess_defaults_and_refusals() -> None:
    module = _network()
    module[0].flatten_inputs[0].insert_image_preprocess(None)
    x = example_feeds(module[0])["x"]
    np.testing.assert_array_equal(module[0].feed({"x": x, "b": np.zeros(5, np.float32)})["y"], x / np.float32(256))
    with pytest.raises(IrError, match="HB0241.*yuvbt601full2rgb"):
        _network()[0].flatten_inputs[0].insert_image_preprocess("yuvbt601full2rgb")
    with pytest.raises(IrError, match="HB0241.*nv12"):
        _network()[0].flatten_inputs[0].insert_image_convert("nv12")
    refused: tuple[dict[str, Any], ...] = ({"mean": (1.0, 2.0)}, {"std": (0.0,)}, {"divisor": float("nan")})
    for options in refused:
        with pytest.raises(IrError, match="HB0240"):
            _network()[0].flatten_inputs[0].insert_image_preprocess(None, **options)
    with pytest.raises(IrError, match="HB0240.*not a float NHWC image"):
        _network()[0].flatten_inputs[1].insert_image_preprocess(None)
    with pytest.raises(IrError, match="HB0240"):
        _network()[0].flatten_outputs[0].insert_image_preprocess(None)


@pytest.mark.parametrize("signed", [True, False])
def test_every_pixel_lies_on_the_grid(signed: bool) -> None:
    module = Module.parse(IMAGE)
    insert_image_scale(module[0].flatten_inputs[0], 1, 0, signed=signed)
    assert [op.name for op in module[0].operations] == ["qat.fake_quant", "hbir.clip"]  # there is nothing to compute
    pixels = np.resize(np.arange(256) - 128 * signed, (1, 16, 16, 3)).astype(np.float32)
    np.testing.assert_array_equal(module[0](pixels)[0], pixels, strict=True)


def test_an_image_becomes_one_integer_convolution() -> None:
    """Mean, deviation and channel order cost one layer of the tensor engine, and no rounding but that of its result."""
    module = Module.parse(IMAGE)
    module[0].flatten_inputs[0].insert_image_preprocess("bgr2rgb", 1, [120, 110, 100], [60, 50, 40], is_signed=False)
    feeds = [{"x": np.random.default_rng(seed).integers(0, 256, (1, 16, 16, 3)).astype(np.uint8)} for seed in range(2)]
    with pytest.raises(PassError, match="HB0332.*its inputs alone"):
        convert(module, "nash-e")
    integers = convert(calibrate(module, feeds, observer="max", head_bits=8), "nash-e")
    kinds = [op.name for op in integers[0].operations if op.operands]
    assert kinds == ["hbir.cast", "quantized.quantize", "quantized.conv2d", "quantized.dequantize"]
    wanted, got = module[0].feed(feeds[0])["y"], integers[0].feed(feeds[0])["y"]
    # Half a step of eight bits over -2.5 to 3.9, and as much again for weights of seven bits.
    assert np.abs(wanted - got).max() <= 3.9 / 127


@given(st.integers(0, 3), st.booleans())
def test_insert_split(dim: int, on_input: bool) -> None:
    module, feed = _network(), example_feeds(_network()[0])
    expected = _network()[0].feed(feed)
    function = module[0]
    parts = (function.flatten_inputs if on_input else function.flatten_outputs)[0].insert_split(dim)
    count = (2, 3, 4, 5)[dim]
    names = [f"{'x' if on_input else 'y'}_{i}" for i in range(count)]
    assert [part.name for part in parts] == names
    pieces = dict(zip(names, np.split(feed["x"] if on_input else expected["y"], count, dim), strict=True))
    if on_input:
        assert [a.name for a in function.flatten_inputs] == [*names, "b"]
        feed = {**pieces, "b": feed["b"]}
    else:
        expected = {**pieces, "z": expected["z"]}
    got = function.feed(feed)
    assert list(got) == list(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(got[name], value, strict=True)
    assert_round_trips(module)


def test_erase() -> None:
    module = _network()
    function = module[0]
    assert function.flatten_inputs[0].erase() == (False, "x is read by add")
    assert function.flatten_outputs[0].erase() == (True, "")
    assert [op.name for op in function.operations] == []
    assert function.flatten_inputs[0].erase() == (True, "")
    assert [a.name for a in function.flatten_inputs] == ["b"]
    assert function.flatten_outputs[0].erase() == (False, "z is the only output")
    assert function.feed({"b": np.arange(5, dtype=np.float32)})["z"].tolist() == [0, 1, 2, 3, 4]
    assert_round_trips(module)


CHAIN = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x2x2x3xf32>) -> (tensor<1x12xf32>),
    arg_attrs = [{hbir.name = "x"}], res_attrs = [{hbir.name = "y"}]}> ({
  ^bb0(%x: tensor<1x2x2x3xf32>):
    %0 = "hbir.transpose"(%x) <{permutation = array<i64: 0, 3, 1, 2>}>
      : (tensor<1x2x2x3xf32>) -> tensor<1x3x2x2xf32> loc("in_t")
    %1 = "hbir.function"(%0) <{function = "tanh"}> : (tensor<1x3x2x2xf32>) -> tensor<1x3x2x2xf32> loc("tanh")
    %2 = "hbir.reshape"(%1) <{shape = array<i64: 1, 12>}> : (tensor<1x3x2x2xf32>) -> tensor<1x12xf32> loc("flat")
    %3 = "hbir.softmax"(%2) <{axis = 1 : i64}> : (tensor<1x12xf32>) -> tensor<1x12xf32> loc("prob")
    "func.return"(%3) : (tensor<1x12xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def test_remove_io_op_goes_on_until_nothing_is_left() -> None:
    module = Module.parse(CHAIN)
    assert module[0].remove_io_op() == ["in_t", "prob", "flat"]
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 2, 2)
    np.testing.assert_array_equal(module[0].feed({"x": x})["y"], np.tanh(x.astype(np.float64)).astype(np.float32))
    assert_round_trips(module)


def test_remove_io_op_by_type_and_by_name() -> None:
    by_type = Module.parse(CHAIN)
    assert by_type[0].remove_io_op(op_types=["Softmax"]) == ["prob"]
    assert by_type[0].flatten_outputs[0].type.shape == (1, 12)
    by_name = Module.parse(CHAIN)
    assert by_name[0].remove_io_op(op_types=["Softmax"], op_names=["in_t"]) == ["in_t"]
    assert by_name[0].flatten_inputs[0].type.shape == (1, 3, 2, 2)
    with pytest.raises(IrError, match="HB0242.*'Quantise'"):
        by_name[0].remove_io_op(op_types=["Quantise"])
    with pytest.raises(IrError, match="HB0242.*not quantised"):
        by_name[0].remove_io_op(op_types=["Quantize"])


def test_is_removable_gives_reasons() -> None:
    function = _network()[0]
    assert function.flatten_inputs[0].is_removable == (False, "add is a hbir.add, which cannot be removed")
    assert function.flatten_inputs[1].is_removable == (False, "b has multiple uses. cannot remove.")
    assert function.flatten_outputs[1].is_removable[0] is False
    assert [op.name for op in function.flatten_outputs[0].get_attached_op] == ["hbir.add"]


@given(modules(max_ops=4))
def test_removal_leaves_valid_modules(module: Module) -> None:
    module[0].remove_io_op()
    assert_round_trips(module)
    module[0].feed(example_feeds(module[0]))


def test_quantize_and_dequantize_go_after_convert() -> None:
    module = _network()
    feeds = [example_feeds(module[0], seed) for seed in range(3)]
    quantized = convert(calibrate(module, feeds), "nash-e")
    wanted = quantized[0].feed(feeds[0])["y"]
    x, b = quantized[0].flatten_inputs
    removed = quantized[0].remove_io_op(op_types=["Dequantize", "Quantize"])
    assert len(removed) >= 2
    x, y = quantized[0].flatten_inputs[0], quantized[0].flatten_outputs[0]
    assert x.type.quant_info is not None and y.type.quant_info is not None
    grid = x.type.quant_info
    codes = np.clip(np.rint(feeds[0]["x"] / np.float32(grid.scale)) + grid.zero_point, *grid.limits)
    feed = {"x": codes.astype(x.type.np_dtype), b.name: feeds[0]["b"]}
    other = quantized[0].flatten_inputs[1]
    if other.type.quant_info is not None:
        info = other.type.quant_info
        feed["b"] = np.clip(np.rint(feeds[0]["b"] / np.float32(info.scale)) + info.zero_point, *info.limits).astype(
            other.type.np_dtype
        )
    got = quantized[0].feed(feed)["y"].astype(np.float32)
    out = y.type.quant_info
    np.testing.assert_array_equal((got - out.zero_point) * np.float32(out.scale), wanted)
