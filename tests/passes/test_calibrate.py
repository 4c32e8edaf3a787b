"""Calibration: the grids that it chooses, and the data that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from hbir.dialects.qat import FakeQuantOp
from hbir.errors import CalibrationError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.testing import assert_same_semantics, example_feeds, modules
from passes import calibrate
from passes.common.rewriting import constant_of
from passes.correct_bias import weighted_ops

NETWORK = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x4xf32>,
    arg_attrs = [{hbir.name = "a"}, {hbir.name = "b"}]}> ({
  ^bb0(%a: tensor<1x4xf32>, %b: tensor<1x4xf32>):
    %0 = "hbir.add"(%a, %b) : (tensor<1x4xf32>, tensor<1x4xf32>) -> tensor<1x4xf32> loc("sum")
    "func.return"(%0) : (tensor<1x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
GOOD = {"a": np.array([[1, -2, 3, 0]], np.float32), "b": np.array([[0.5, 0.25, 8, 1]], np.float32)}


def _grids(module: Module) -> list[tuple[int, float, int]]:
    grids = [op.grid for op in module[0].operations if isinstance(op, FakeQuantOp)]
    return [(grid.bits, grid.scale, grid.zero_point) for grid in grids]


def test_grids_follow_the_data() -> None:
    symmetric = calibrate(Module.parse(NETWORK), [GOOD], observer="max", head_bits=8, asymmetric=False)
    found = sorted(scale for _, scale, _ in _grids(symmetric))
    assert found == [np.float32(reach / 127) for reach in (3, 8, 11)]
    # By default the codes cover the range: a in [-2, 3], b in [0, 8], their sum in [-1.75, 11].
    default = calibrate(Module.parse(NETWORK), [GOOD], observer="max", head_bits=8)
    found = sorted((scale, zero) for _, scale, zero in _grids(default))
    ranges = ((-2, 3), (0, 8), (-1.75, 11))
    assert found == [(np.float32((high - low) / 255), round(-128 - low * 255 / (high - low))) for low, high in ranges]


def test_bits_and_asymmetry() -> None:
    plain = calibrate(Module.parse(NETWORK), [GOOD], observer="max", asymmetric=True)
    assert {bits for bits, _, _ in _grids(plain)} == {8, 16} or {bits for bits, _, _ in _grids(plain)} == {16}
    wide = calibrate(Module.parse(NETWORK), [GOOD], observer="max", activation_bits=16)
    assert {bits for bits, _, _ in _grids(wide)} == {16}
    narrow = calibrate(Module.parse(NETWORK), [GOOD], observer="max", asymmetric=True, head_bits=8)
    (positive,) = [zero for _, scale, zero in _grids(narrow) if scale == np.float32(8 / 255)]
    assert positive == -128  # b is never negative: all codes lie above zero
    assert all(zero == 0 for bits, _, zero in _grids(plain) if bits == 16)


def test_progress_and_any_iterable() -> None:
    seen: list[int] = []

    def samples() -> Iterator[dict[str, Any]]:
        for factor in (1, 2, 3):
            yield {name: array * np.float32(factor) for name, array in GOOD.items()}

    calibrated = calibrate(
        Module.parse(NETWORK), samples(), observer="max", progress=seen.append, head_bits=8, asymmetric=False
    )
    assert seen == [1, 2, 3]
    assert max(scale for _, scale, _ in _grids(calibrated)) == np.float32(33 / 127)


@pytest.mark.parametrize(
    ("feeds", "options", "message"),
    [
        ([], {}, "HB0408"),
        ([{"a": GOOD["a"]}], {}, r"HB0402: sample 0 feeds \['a'\]"),
        ([GOOD, {**GOOD, "c": GOOD["a"]}], {}, "HB0402: sample 1"),
        ([{**GOOD, "a": GOOD["a"].astype(np.float64)}], {}, "HB0403: sample 0: input 'a' is float64"),
        ([{**GOOD, "a": GOOD["a"][0]}], {}, r"HB0403: sample 0: input 'a' is float32\[4\]"),
        ([{**GOOD, "a": GOOD["a"] * np.float32(np.nan)}], {}, "HB0401 at sample 0, input 'a'"),
        ([GOOD], {"observer": "median"}, "HB0404.*'median'"),
        ([GOOD], {"activation_bits": 4}, "HB0405"),
        ([GOOD], {"percentile": 95}, "HB0406"),
        ([GOOD], {"wide_below": np.nan}, "HB0411"),
    ],
)
def test_bad_calibration_is_refused(feeds: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate(Module.parse(NETWORK), feeds, **options)


DETECTOR = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x8x8x1xf32>) -> tensor<1x8x8x2xf32>,
    arg_attrs = [{hbir.name = "x"}]}> ({
  ^bb0(%x: tensor<1x8x8x1xf32>):
    %v = "hbir.constant"() <{value = FIRST}> : () -> tensor<2x1x1x1xf32>
    %w = "hbir.constant"() <{value = SECOND}> : () -> tensor<2x1x1x2xf32>
    %b = "hbir.constant"() <{value = BIAS}> : () -> tensor<2xf32>
    %0 = "hbir.conv2d"(%x, %v, %b) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>, stride = array<i64: 1, 1>,
      pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64}>
      : (tensor<1x8x8x1xf32>, tensor<2x1x1x1xf32>, tensor<2xf32>) -> tensor<1x8x8x2xf32> loc("first")
    %1 = "hbir.function"(%0) <{function = "silu"}> : (tensor<1x8x8x2xf32>) -> tensor<1x8x8x2xf32> loc("swish")
    %2 = "hbir.conv2d"(%1, %w, %b) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>, stride = array<i64: 1, 1>,
      pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64}>
      : (tensor<1x8x8x2xf32>, tensor<2x1x1x2xf32>, tensor<2xf32>) -> tensor<1x8x8x2xf32> loc("second")
    %3 = "hbir.softmax"(%2) <{axis = 3 : i64}> : (tensor<1x8x8x2xf32>) -> tensor<1x8x8x2xf32> loc("scores")
    "func.return"(%3) : (tensor<1x8x8x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def _detector() -> Module:
    store, text = ConstantStore(), DETECTOR
    constants = {"FIRST": [1.0, -0.7], "SECOND": [0.5, -0.3, 0.2, 0.9], "BIAS": [0.1, -0.2]}
    for name, numbers in constants.items():
        blob = store.put(np.array(numbers, np.float32))
        text = text.replace(name, f'#hbir.blob<"{blob.digest.data}", {blob.size.data}>')
    return Module.parse(text, store)


def _pictures(spike: float) -> list[dict[str, Any]]:
    """64 pictures of noise with a standard deviation of 1, and one value of 4096 that stands out."""
    x = np.random.default_rng(0).standard_normal((64, 1, 8, 8, 1)).astype(np.float32)
    x[7, 0, 3, 3, 0] = spike
    return [{"x": one} for one in x]


def _bits(module: Module) -> dict[str, int]:
    return {layer_name(op): op.grid.bits for op in module[0].operations if isinstance(op, FakeQuantOp)}


def test_what_eight_bits_would_drown_gets_sixteen() -> None:
    layers = ("x", "first", "swish")
    assert {_bits(calibrate(_detector(), _pictures(3.0)))[layer] for layer in layers} == {8}
    spiked = _bits(calibrate(_detector(), _pictures(100.0), observer="max"))
    assert {spiked[layer] for layer in layers} == {16}
    everything = _bits(calibrate(_detector(), _pictures(3.0), wide_below=np.inf))
    assert {everything[layer] for layer in layers} == {16}
    never = _bits(calibrate(_detector(), _pictures(100.0), observer="max", wide_below=-np.inf))
    assert {never[layer] for layer in layers} == {8}


def test_what_only_a_softmax_reads_before_the_output_gets_the_bits_of_the_head() -> None:
    for bits in (8, 16):
        found = _bits(calibrate(_detector(), _pictures(3.0), head_bits=bits))
        assert (found["second"], found["scores"]) == (bits, bits)


def test_biases_are_corrected_by_default() -> None:
    def biases(**options: Any) -> list[Any]:
        done = calibrate(_detector(), _pictures(3.0), **options)
        operands = [op.bias for op in weighted_ops(done[0].op.body.block)]
        return [None if value is None else constant_of(value, done.constants) for value in operands]

    for kept, corrected in zip(biases(correct_bias=False), biases(), strict=True):
        np.testing.assert_array_equal(kept, np.array([0.1, -0.2], np.float32))
        assert 0 < np.abs(corrected - kept).max() < 0.02  # a step of the inputs is 0.03


def test_two_functions_are_refused() -> None:
    function = NETWORK[NETWORK.index('  "func.func"') : NETWORK.rindex("}) : () -> ()")]
    text = NETWORK.replace(function, function + function.replace('"main"', '"other"'))
    with pytest.raises(CalibrationError, match="HB0407"):
        calibrate(Module.parse(text), [GOOD])


@settings(max_examples=15)
@given(modules(("hbir",), 5))
def test_int16_calibration_changes_little(module: Module) -> None:
    feeds = [example_feeds(module[0], seed) for seed in range(2)]
    text = str(module)
    with np.errstate(invalid="ignore", over="ignore"):
        if not all(np.isfinite(v).all() for feed in feeds for v in module[0].feed(feed).values()):
            return
    try:
        calibrated = calibrate(module, feeds, observer="max", activation_bits=16, weight_bits=16)
    except CalibrationError as error:
        assert error.code == "HB0401"  # a value inside the network is infinite
        return
    assert str(module) == text
    points = sum(isinstance(op, FakeQuantOp) for op in calibrated[0].operations)
    names = {op.name for op in calibrated[0].operations}
    if points and names <= {
        "hbir.constant",
        "qat.fake_quant",
        "hbir.reshape",
        "hbir.transpose",
        "hbir.concat",
        "hbir.slice",
    }:
        assert_same_semantics(module, calibrated, feeds=feeds, tolerance=points * 2.0**-15)
