"""Bounds of accumulators against every input that could reach them."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
from hypothesis import given

from hbir.numerics.intervals import accumulator_bounds

WEIGHTS = st.lists(st.lists(st.integers(-9, 9), min_size=3, max_size=3), min_size=1, max_size=3)


@given(WEIGHTS, st.integers(-4, 4), st.integers(0, 3), st.integers(-6, 6), st.booleans())
def test_bounds_are_those_of_all_partial_sums(
    rows: list[list[int]], low: int, width: int, zero_point: int, biased: bool
) -> None:
    weight = np.array(rows, np.int8).reshape(len(rows), 3, 1, 1)
    bias = np.arange(5, 5 + len(rows), dtype=np.int32) if biased else None
    smallest, largest = accumulator_bounds(weight, bias, low, low + width, zero_point)
    assert smallest.dtype == largest.dtype == np.int64
    # 0: what padding contributes, and what is not summed yet.
    values = {x - zero_point for x in range(low, low + width + 1)} | {0}
    for row, offset, below, above in zip(rows, bias.tolist() if biased else [0] * 3, smallest, largest, strict=False):
        sums = [offset + sum(map(int.__mul__, row, inputs)) for inputs in itertools.product(values, repeat=3)]
        assert (below, above) == (min(sums), max(sums))


def test_sums_are_exact_beyond_32_bits() -> None:
    weight = np.full((1, 1 << 16), -32768, np.int16)
    bias = np.array([-(2**31)], np.int32)
    smallest, largest = accumulator_bounds(weight, bias, -32768, 32767, 0)
    assert smallest.tolist() == [-(2**31) - 32768 * 32767 * 65536]
    assert largest.tolist() == [-(2**31) + 32768 * 32768 * 65536]
