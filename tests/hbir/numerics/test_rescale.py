"""Rescaling against Python integers and exact fractions."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbir.errors import PassError
from hbir.numerics import apply_scale, quantize_multiplier, reciprocal_scale, rescale, storage_dtype

SHIFTS = st.integers(2, 62)


@given(st.integers(-(2**47), 2**47 - 1), st.integers(0, 2**15 - 1), SHIFTS)
def test_apply_scale_is_floor_of_x_m_over_two_to_s_plus_half(x: int, m: int, s: int) -> None:
    exact = Fraction(x * m, 2**s) + Fraction(1, 2)
    assert apply_scale(x, m, s) == exact.numerator // exact.denominator
    assert apply_scale(np.array([x], np.int64), np.int64(m), np.int64(s))[0] == apply_scale(x, m, s)


@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=20), st.integers(0, 2**31 - 1), SHIFTS)
def test_apply_scale_on_int32_times_31_bits(values: list[int], m: int, s: int) -> None:
    got = apply_scale(np.array(values, np.int64), np.int64(m), np.int64(s))
    assert got.tolist() == [(x * m + (1 << (s - 1))) >> s for x in values]


def test_ties_round_up() -> None:
    assert [apply_scale(x, 1, 2) for x in (-6, -2, 2, 6)] == [-1, 0, 1, 2]


@given(
    st.lists(st.integers(-(2**31), 2**31 - 1), min_size=6, max_size=6),
    st.lists(st.integers(0, 2**31 - 1), min_size=3, max_size=3),
    st.lists(SHIFTS, min_size=3, max_size=3),
    st.integers(-128, 127),
    st.integers(-128, 127),
)
def test_rescale_per_channel(values: list[int], ms: list[int], ss: list[int], zp_in: int, zp_out: int) -> None:
    values = [max(v, -(2**31) + 128 + zp_in) for v in values]
    got = rescale(np.array(values, np.int32).reshape(2, 3), np.array(ms), np.array(ss), zp_in, zp_out, -100, 90)
    expected = [
        min(max((((x - zp_in) * ms[i % 3] + (1 << (ss[i % 3] - 1))) >> ss[i % 3]) + zp_out, -100), 90)
        for i, x in enumerate(values)
    ]
    assert got.dtype == np.int8
    assert got.reshape(-1).tolist() == expected


@given(st.floats(2.0**-30, 2.0**12, exclude_max=True), st.sampled_from([15, 31]))
def test_quantize_multiplier_is_the_nearest_odd(factor: float, bits: int) -> None:
    m, s = quantize_multiplier(factor, bits)
    assert m % 2 == 1
    assert 2 ** (bits - 1) <= m < 2**bits
    exact = Fraction(factor) * 2**s
    assert abs(m - exact) <= 1
    assert all(abs(m - exact) <= abs(other - exact) for other in (m - 2, m + 2))


def test_quantize_multiplier_of_arrays_equals_scalars() -> None:
    factors = np.array([1e-9, 0.1, 0.5, 1.0, 3.7])
    m, s = quantize_multiplier(factors, 31)
    assert [(int(a), int(b)) for a, b in zip(m, s, strict=True)] == [quantize_multiplier(float(f), 31) for f in factors]


@given(st.floats(1e-300, 2.0**-48), st.integers(-(2**31), 2**31 - 1))
def test_tiny_factors_take_every_int32_to_zero(factor: float, x: int) -> None:
    m, s = quantize_multiplier(factor, 15)
    assert s == 62
    assert m % 2 == 1
    assert apply_scale(x, m, s) == 0


@pytest.mark.parametrize("factor", [0.0, -1.0, float("nan"), float("inf"), 2.0**13])
def test_bad_factors_are_refused_with_a_lever(factor: float) -> None:
    with pytest.raises(PassError) as refusal:
        quantize_multiplier(factor, 15)
    assert refusal.value.code == "HB0331"
    assert refusal.value.lever


@given(st.integers(1, 65535))
def test_reciprocal_scale_is_close_and_in_range(value: int) -> None:
    m, s = reciprocal_scale(value)
    assert 2**30 <= m < 2**31
    assert abs(Fraction(m, 2**s) * value - 1) < Fraction(1, 2**29)


def test_storage_dtype() -> None:
    assert [storage_dtype(*r).name for r in ((-128, 127), (0, 255), (-32768, 0), (-32769, 0), (0, 2**31))] == [
        "int8", "int16", "int16", "int32", "int64",
    ]  # fmt: skip
