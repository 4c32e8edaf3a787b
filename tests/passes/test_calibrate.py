"""Calibration: the grids that it chooses, and the data that it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from hbir.dialects.qat import FakeQuantOp
from hbir.errors import CalibrationError
from hbir.module import Module
from hbir.testing import assert_same_semantics, example_feeds, modules
from passes import calibrate

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
    calibrated = calibrate(Module.parse(NETWORK), [GOOD], observer="max", head_bits=8)
    found = sorted(scale for _, scale, _ in _grids(calibrated))
    assert found == [np.float32(reach / 127) for reach in (3, 8, 11)]


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

    calibrated = calibrate(Module.parse(NETWORK), samples(), observer="max", progress=seen.append, head_bits=8)
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
        ([{**GOOD, "a": GOOD["a"] * np.float32(np.nan)}], {}, "HB0401"),
        ([GOOD], {"observer": "median"}, "HB0404.*'median'"),
        ([GOOD], {"activation_bits": 4}, "HB0405"),
        ([GOOD], {"percentile": 95}, "HB0406"),
    ],
)
def test_bad_calibration_is_refused(feeds: list[Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises(CalibrationError, match=message):
        calibrate(Module.parse(NETWORK), feeds, **options)


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
