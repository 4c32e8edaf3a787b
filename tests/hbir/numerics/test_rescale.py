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


def test_rescale_of_int8_is_the_default() -> None:
    got = rescale(np.array([-10000, -5, 0, 1, 2, 6, 10000]), 1, 2)
    assert got.dtype == np.int8
    assert got.tolist() == [-128, -1, 0, 0, 1, 2, 127]
    assert rescale([2], 1, 2, dtype=np.int32).dtype == np.int32
    assert rescale([7], 1, 2, 1, 3, -(2**15), 2**15 - 1).tolist() == [5]


def test_storage_dtype_of_64_bits_is_the_widest() -> None:
    assert storage_dtype(-(2**63), 2**63 - 1) == np.int64
    assert storage_dtype(-129, 0) == storage_dtype(0, 128) == np.int16
    for low, high in ((-(2**63) - 1, 0), (0, 2**63)):
        with pytest.raises(OverflowError, match="wider than 64 bits"):
            storage_dtype(low, high)


@pytest.mark.parametrize("bits", [15, 31])
def test_shifts_reach_from_2_to_62(bits: int) -> None:
    largest = float(np.nextafter(2.0 ** (bits - 2), 0))
    assert quantize_multiplier(largest, bits) == (2**bits - 1, 2)
    with pytest.raises(PassError, match="HB0331.*too large"):
        quantize_multiplier(2.0 ** (bits - 2), bits)
    assert quantize_multiplier(2.0 ** (bits - 63), bits) == (2 ** (bits - 1) + 1, 62)
    # Smaller ones keep s = 62 and become the nearest odd number.
    assert quantize_multiplier(2.0 ** (bits - 64), bits) == (2 ** (bits - 2) + 1, 62)
    assert [quantize_multiplier(m * 2.0**-62, bits)[0] for m in (0.5, 1.5, 2.5, 4.5)] == [1, 1, 3, 5]


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf"), 2.0**13])
def test_one_bad_factor_among_good_ones_is_refused(bad: float) -> None:
    for factors in ([1.0, bad], [bad, 1.0]):
        with pytest.raises(PassError) as refusal:
            quantize_multiplier(np.array(factors), 15)
        assert refusal.value.code == "HB0331"
        assert ("too large" in str(refusal.value)) == (bad == 2.0**13)


def test_arrays_keep_their_shape() -> None:
    m, s = quantize_multiplier(np.full((2, 1), 0.5), 15)
    assert m.shape == s.shape == (2, 1)
    assert m.dtype == s.dtype == np.int64
    assert [each.size for each in quantize_multiplier(np.zeros(0), 15)] == [0, 0]
    assert all(type(each) is int for each in quantize_multiplier(0.5, 15))


@given(st.integers(1, 2**31 - 1))
def test_reciprocal_scale_is_that_of_tosa(value: int) -> None:
    k = next(k for k in range(32) if value <= 1 << k)
    assert reciprocal_scale(value) == ((2**30 + 1) * 2**k // value, 30 + k)
