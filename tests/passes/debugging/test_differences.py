"""How far arrays lie apart: NaN, infinities, long integers."""

from __future__ import annotations

import numpy as np
import pytest

from passes.debugging.differences import differences, relative_differences

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("a", "b", "apart"),
    [
        ([1.0, -2.0], [1.5, 2.0], [0.5, 4.0]),
        ([NAN, NAN, 1.0], [NAN, 1.0, NAN], [0, INF, INF]),
        ([INF, INF, -INF, INF], [INF, -INF, 0.0, NAN], [0, INF, INF, INF]),
        ([0.0], [-0.0], [0]),
    ],
)
def test_floats(a: list[float], b: list[float], apart: list[float]) -> None:
    np.testing.assert_array_equal(differences(np.array(a, np.float32), np.array(b, np.float32)), apart)


def test_integers_and_booleans() -> None:
    assert differences(np.array([-128], np.int8), np.array([127], np.int8)) == [255]
    assert differences(np.array([2**60]), np.array([2**60 + 1])) == [1], "one float64, yet not one number"
    assert differences(np.array([True, False]), np.array([True, True])).tolist() == [0, 1]


def test_shares_are_of_the_largest_finite_value() -> None:
    assert relative_differences(np.array([4.0, 1.0, INF]), np.array([4.0, 2.0, INF])).tolist() == [0, 0.25, 0]
    assert relative_differences(np.array([0.0]), np.array([1e-3])) > 1e20
    assert relative_differences(np.zeros((0, 3)), np.zeros((0, 3))).shape == (0, 3)
    assert relative_differences(np.array(2.0), np.array(1.0)) == 0.5
