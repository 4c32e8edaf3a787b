"""What is no option of `calibrate` is refused with a code and a lever, before any sample runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hbir.errors import CalibrationError, HbError
from hbir.module import Module
from passes import calibrate
from passes.common.calibration_options import checked_samples
from passes.common.observers import DEFAULT_OBSERVER, OBSERVER_NAMES, OBSERVERS

NETWORK = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x4xf32>) -> tensor<1x4xf32>,
    arg_attrs = [{hbir.name = "a"}]}> ({
  ^bb0(%a: tensor<1x4xf32>):
    %0 = "hbir.clip"(%a) <{min = 0.0 : f64}> : (tensor<1x4xf32>) -> tensor<1x4xf32>
    "func.return"(%0) : (tensor<1x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
FEED = {"a": np.array([[1, -2, 3, 0]], np.float32)}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"observer": None}, "HB0404"),
        ({"observer": ["mse"]}, "HB0404"),
        ({"observer": "median"}, "HB0404"),
        ({"activation_bits": "8"}, "HB0405"),
        ({"activation_bits": [8]}, "HB0405"),
        ({"weight_bits": 8.0}, "HB0405"),
        ({"head_bits": True}, "HB0405"),
        ({"head_bits": 12}, "HB0405"),
        ({"weight_bits": 16}, "HB0409"),
        ({"percentile": "a"}, "HB0406"),
        ({"percentile": None}, "HB0406"),
        ({"percentile": float("nan")}, "HB0406"),
        ({"wide_below": "31"}, "HB0411"),
        ({"wide_below": float("nan")}, "HB0411"),
        ({"per_channel": 1}, "HB0412"),
        ({"asymmetric": "no"}, "HB0412"),
        ({"correct_bias": None}, "HB0412"),
        ({"progress": 5}, "HB0412"),
    ],
)
def test_options_that_do_not_fit(options: dict[str, Any], code: str) -> None:
    with pytest.raises(CalibrationError, match=code) as refusal:
        calibrate(Module.parse(NETWORK), [FEED], **options)
    (name,) = options
    assert name in str(refusal.value) or code == "HB0409"
    assert refusal.value.lever


@pytest.mark.parametrize(
    ("feeds", "code"),
    [
        (None, "HB0413"),
        (3, "HB0413"),
        (FEED, "HB0413"),
        ([None], "HB0402"),
        ([[FEED["a"]]], "HB0402"),
        ("ab", "HB0402"),
        ([{1: FEED["a"], "b": FEED["a"]}], "HB0402"),
        ([{"a": [[1.0], [2.0, 3.0]]}], "HB0403"),
        ([{"a": None}], "HB0403"),
    ],
)
def test_samples_that_are_none(feeds: Any, code: str) -> None:
    with pytest.raises(CalibrationError, match=code) as refusal:
        calibrate(Module.parse(NETWORK), feeds)
    assert refusal.value.lever


@pytest.mark.parametrize("module", [None, "model.onnx", 5])
def test_what_is_no_module(module: Any) -> None:
    with pytest.raises(HbError, match="HB0236"):
        calibrate(module, [FEED])


def test_numbers_of_numpy_are_numbers() -> None:
    options: dict[str, Any] = {"activation_bits": np.int64(16), "percentile": np.float32(0.75)}
    calibrate(Module.parse(NETWORK), [FEED], **options)


def test_samples_come_one_by_one() -> None:
    taken: list[int] = []

    def samples() -> Any:
        for number in range(3):
            taken.append(number)
            yield FEED

    assert next(iter(checked_samples(samples()))) is FEED
    assert taken == [0]


def test_names_of_observers() -> None:
    assert set(OBSERVER_NAMES) == {"default", *OBSERVERS}
    assert DEFAULT_OBSERVER in OBSERVERS
