"""Float to integer: float32 division, ties to even, clamp."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbir.numerics import dequantize, fake_quantize, quantize, quantized_range

FLOATS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=20)


@given(FLOATS, st.floats(2.0**-20, 2.0**10, width=32), st.integers(-20, 20))
def test_quantize_is_round_of_the_float32_quotient(values: list[float], scale: float, zero: int) -> None:
    x = np.array(values, np.float32)
    with np.errstate(over="ignore"):
        quotients = (x / np.float32(scale)).tolist()
    expected = [
        -128 if q == -np.inf else 127 if q == np.inf else min(max(round(q) + zero, -128), 127)  # round() ties to even
        for q in quotients
    ]
    assert quantize(x, scale, zero).tolist() == expected
    real = (np.array(expected, np.float64) - zero) * np.float64(np.float32(scale))
    assert np.array_equal(fake_quantize(x, scale, zero), real.astype(np.float32))
    assert np.array_equal(dequantize(np.array(expected, np.int8), scale, zero), real.astype(np.float32))


def test_ties_go_to_even_and_nan_to_the_lowest() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5, np.nan, np.inf, -np.inf], np.float32)
    assert quantize(x, 1.0, 0, -8, 7).tolist() == [0, 2, 2, 0, -2, -8, 7, -8]


def test_scales_along_an_axis() -> None:
    x = np.array([[1.0, 1.0], [2.0, 2.0]], np.float32)
    scale, zero = np.array([0.5, 0.25], np.float32), np.array([0, 1])
    assert quantize(x, scale, zero, axis=0).tolist() == [[2, 2], [9, 9]]
    assert quantize(x, scale, zero, axis=1).tolist() == [[2, 5], [4, 9]]
    assert dequantize(quantize(x, scale, zero, axis=0), scale, zero, axis=0).tolist() == x.tolist()


def test_accumulators_are_dequantised_with_one_rounding() -> None:
    q = np.array([2**31 - 1, 2**24 + 1, -(2**31)], np.int32)
    scale = np.float32(0.1)
    assert dequantize(q, scale).tolist() == [float(np.float32(int(v) * float(scale))) for v in q]


@pytest.mark.parametrize(
    ("bits", "narrow", "expected"), [(8, False, (-128, 127)), (8, True, (-127, 127)), (4, False, (-8, 7))]
)
def test_quantized_range(bits: int, narrow: bool, expected: tuple[int, int]) -> None:
    assert quantized_range(bits, narrow=narrow) == expected


def test_what_is_left_out_is_int8_without_zero_point() -> None:
    x = np.array([-1e9, -0.5, 1.0, 1e9], np.float32)
    assert quantized_range(8) == (-128, 127)
    assert quantize(x, 0.5).tolist() == [-128, -1, 2, 127]
    assert fake_quantize(x, 0.5).tolist() == [-64.0, -0.5, 1.0, 63.5]
    assert dequantize(np.array([-128, 3], np.int8), 0.5).tolist() == [-64.0, 1.5]
    assert fake_quantize(x, 0.5).dtype == dequantize(np.array([1], np.int8), 0.5).dtype == np.float32


def test_the_result_has_the_type_that_is_asked_for() -> None:
    x = np.array([1.0, 70000.0], np.float32)
    assert quantize(x, 1.0).dtype == np.int8
    assert quantize(x, 1.0, 0, -(2**15), 2**15 - 1).dtype == np.int16
    assert quantize(x, 1.0, 0, -(2**15), 2**15 - 1, dtype=np.int32).dtype == np.int32
    half = dequantize(np.array([1, 32767], np.int16), 4.0, dtype=np.float16)
    assert half.dtype == np.float16
    assert half.tolist() == [4.0, np.inf]  # beyond float16, without a warning


def test_scalars_have_no_axis() -> None:
    assert quantize(np.array(1.0, np.float32), 0.5, 1, axis=0).tolist() == 3
    assert dequantize(np.array(3, np.int8), 0.5, 1, axis=0).tolist() == 1.0


def test_every_axis_of_a_tensor_may_have_scales() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    for axis, extent in enumerate(x.shape):
        scale, zero = np.linspace(0.25, 2.0, extent, dtype=np.float32), np.arange(extent)
        for step in range(extent):
            at = (*[slice(None)] * axis, step)
            mine = quantize(x[at], scale[step], int(zero[step]))
            assert np.array_equal(quantize(x, scale, zero, axis=axis)[at], mine)
            assert np.array_equal(dequantize(quantize(x, scale, zero, axis=axis), scale, zero, axis=axis)[at],
                                  dequantize(mine, scale[step], int(zero[step])))  # fmt: skip
            assert np.array_equal(fake_quantize(x, scale, zero, axis=axis)[at],
                                  fake_quantize(x[at], scale[step], int(zero[step])))  # fmt: skip


def test_division_by_a_scale_that_is_too_small_does_not_warn() -> None:
    with np.errstate(all="raise"):
        assert quantize(np.array([3e38, -3e38], np.float32), 1e-3).tolist() == [127, -128]
        assert quantize(np.array([1.0, 0.0], np.float32), 0.0).tolist() == [127, -128]
