"""Range estimators against brute force on the data itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbir.errors import CalibrationError
from hbir.numerics import fake_quantize
from passes.common.observers import BINS, OBSERVERS, Histogram, Request, grid_for, resolution, weight_grid

Array = npt.NDArray[np.float32]


def _data(kind: str, count: int = 20000) -> Array:
    rng = np.random.default_rng(7)
    values = {
        "normal": rng.standard_normal(count),
        "heavy": rng.standard_t(2, count),
        "positive": np.abs(rng.standard_normal(count)) * 30,
        "negative": -np.abs(rng.standard_t(3, count)) * 1e-3,
        "relu": np.maximum(rng.standard_normal(count), 0),
        "shifted": rng.standard_normal(count) + 4,
        "constant": np.full(count, 2.5),
        "zero": np.zeros(count),
    }[kind]
    return values.astype(np.float32)


KINDS = ("normal", "heavy", "positive", "negative", "relu", "shifted", "constant", "zero")


def _histogram(data: Array, pieces: int = 7) -> Histogram:
    histogram = Histogram()
    for piece in np.array_split(data, pieces):
        histogram.add(piece)
    return histogram


@pytest.mark.parametrize("kind", KINDS)
def test_counts_agree_with_the_data(kind: str) -> None:
    data = _data(kind)
    histogram = _histogram(data)
    assert histogram.counts.sum() == data.size
    assert (histogram.low, histogram.high) == (data.min(), data.max())
    if histogram.reach:
        assert histogram.reach == 2.0 ** np.ceil(np.log2(np.abs(data).max()))
        edges = np.linspace(-histogram.reach, histogram.reach, BINS + 1)
        # float32 may put a value into the next bin: cumulative counts then differ by what one bin holds.
        true = np.cumsum(np.histogram(data.astype(np.float64), edges)[0])
        ours = np.cumsum(histogram.counts)
        assert (ours[:-1] <= true[1:]).all() and (ours[1:] >= true[:-1]).all()


@given(st.permutations(range(7)))
def test_the_order_of_the_data_does_not_matter(order: list[int]) -> None:
    pieces = [_data("heavy", 700)[100 * i : 100 * (i + 1)] * 4.0**i for i in range(7)]
    ordered, other = Histogram(), Histogram()
    for number, piece in enumerate(pieces):
        ordered.add(piece)
        other.add(pieces[order[number]])
    assert (ordered.reach, ordered.low, ordered.high) == (other.reach, other.low, other.high)
    # Two roundings of one value to float32 may fall on two sides of an edge.
    assert np.abs(np.cumsum(ordered.counts) - np.cumsum(other.counts)).max() <= 2


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(CalibrationError, match="HB0401"):
        Histogram().add(np.array([1.0, value], np.float32))


def test_values_that_are_all_tiny_or_huge() -> None:
    for value in (1e-45, 1e-40, 3e38):
        histogram = _histogram(np.array([value, -value, 0.0], np.float32), 1)
        assert histogram.counts.sum() == 3
        for observer in OBSERVERS.values():
            low, high = observer(histogram, Request(8))
            grid = grid_for((low, high), 8, True)
            assert np.isfinite(grid.scale) and grid.scale >= np.finfo(np.float32).tiny
    assert Histogram().add(np.zeros((0,), np.float32)) is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.99, 0.999, 1.0])
def test_percentile(kind: str, share: float) -> None:
    data = _data(kind)
    histogram = _histogram(data)
    width = 2 * histogram.reach / BINS
    low, high = OBSERVERS["percentile"](histogram, Request(8, True, share))
    wanted = np.quantile(np.abs(data), share, method="inverted_cdf")
    assert abs(max(-min(low, 0), max(high, 0)) - wanted) <= 2 * width
    low, high = OBSERVERS["percentile"](histogram, Request(8, False, share))
    inside = np.count_nonzero((data >= low - width) & (data <= high + width))
    assert inside >= np.floor(share * data.size)
    assert data.min() <= low <= high <= data.max()


def _true_error(data: Array, low: float, high: float, bits: int, symmetric: bool, curve: Any = None) -> float:
    grid = grid_for((low, high), bits, symmetric)
    rounded = fake_quantize(data, grid.scale, grid.zero_point, *grid.limits).astype(np.float64)
    if curve is None:
        return float(((rounded - data) ** 2).mean())
    return float(((curve(rounded) - curve(data.astype(np.float64))) ** 2).mean())


def _swish(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("curve", [None, _swish])
def test_mse_is_the_best_of_its_candidates(kind: str, symmetric: bool, curve: Any) -> None:
    data = _data(kind)
    histogram = _histogram(data)
    low, high = OBSERVERS["mse"](histogram, Request(8, symmetric, curve=curve))
    errors = [
        _true_error(data, f * float(data.min()), f * float(data.max()), 8, symmetric, curve)
        for f in np.linspace(1.0, 0.1, 46)
    ]
    found = _true_error(data, low, high, 8, symmetric, curve)
    # The histogram knows a value to a bin; a step of int8 is at least 16 bins wide unless the range is cut hard.
    bin_error = (2 * histogram.reach / BINS) ** 2
    assert found <= 1.1 * min(errors) + bin_error


def test_max_is_the_range() -> None:
    data = _data("heavy")
    assert OBSERVERS["max"](_histogram(data), Request(8)) == (data.min(), data.max())


def test_kl_cuts_tails_and_keeps_what_has_none() -> None:
    rng = np.random.default_rng(0)
    uniform = rng.uniform(-1, 1, 50000).astype(np.float32)
    low, high = OBSERVERS["kl"](_histogram(uniform), Request(8))
    assert max(-low, high) >= 0.9
    outliers = np.concatenate([rng.standard_normal(50000), [60.0, -55.0]]).astype(np.float32)
    low, high = OBSERVERS["kl"](_histogram(outliers), Request(8))
    assert 2.5 <= max(-low, high) <= 12
    assert OBSERVERS["kl"](_histogram(outliers), Request(16)) == (outliers.min(), outliers.max())


@given(st.floats(-1e30, 1e30), st.floats(-1e30, 1e30), st.sampled_from((8, 16)), st.booleans())
def test_grids_hold_their_range(a: float, b: float, bits: int, symmetric: bool) -> None:
    low, high = min(a, b), max(a, b)
    grid = grid_for((low, high), bits, symmetric)
    if symmetric or bits == 16:
        assert grid.zero_point == 0
    if max(-low, high) > 1e-30:
        for value in (low, high, 0.0):
            back = float(fake_quantize(np.array(value, np.float32), grid.scale, grid.zero_point, *grid.limits))
            # Half a step, and what rounding the zero point moves the ends by: another half.
            assert abs(back - value) <= 1.01 * grid.scale


def test_weight_grids() -> None:
    weight = np.array([[1.0, -2.0], [0.0, 0.0], [1e-44, 0.0], [4.0, 3.0]], np.float32)
    grid = weight_grid(weight, 8, True)
    np.testing.assert_allclose(grid.scale_array, [2 / 127, 4 / 127, 4 / 127, 4 / 127], rtol=1e-7)
    assert (grid.limits, grid.per_axis) == ((-127, 127), 0)
    assert weight_grid(0 * weight, 8, True).scale_array.tolist() == [np.float32(1 / 127)] * 4
    assert weight_grid(weight, 8, False).scale == np.float32(4 / 127)
    assert weight_grid(weight, 16, True).limits == (-32767, 32767)
    raised = weight_grid(weight, 8, True, np.array([1.0, 0.5, 2.0, 0.01]))
    np.testing.assert_allclose(raised.scale_array, [1, 0.5, 2, 4 / 127], rtol=1e-7)


def test_zeros_do_not_make_kl_clip_the_rest() -> None:
    rng = np.random.default_rng(3)
    histogram = Histogram()
    histogram.add(np.concatenate([np.zeros(90_000), np.abs(rng.standard_normal(10_000))]).astype(np.float32))
    _, high = OBSERVERS["kl"](histogram, Request(8))
    assert high > 2.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("curve", [None, _swish])
def test_resolution_is_signal_over_noise(kind: str, curve: Any) -> None:
    data = _data(kind).astype(np.float64)
    grid = grid_for((float(data.min()), float(data.max())), 8, False)
    found = resolution(_histogram(data.astype(np.float32)), grid, curve)
    signal = data if curve is None else curve(data)
    noise = _true_error(data.astype(np.float32), float(data.min()), float(data.max()), 8, False, curve)
    if signal.var() < 1e-12 or noise < 1e-9 * signal.var():
        assert found > 60
    else:
        # Values are known to a bin, a sixteenth of a step.
        assert found == pytest.approx(10 * np.log10(signal.var() / noise), abs=0.7)


def test_an_even_distribution_keeps_48_dB_and_a_spike_drowns_it() -> None:
    even = np.random.default_rng(4).uniform(-1, 1, 100_000).astype(np.float32)
    assert resolution(_histogram(even), grid_for((-1, 1), 8, True)) == pytest.approx(48, abs=0.5)
    spike = np.append(even, np.float32(30))
    assert resolution(_histogram(spike), grid_for((-30, 30), 8, True)) < 20
    assert resolution(Histogram(), grid_for((-1, 1), 8, True)) == np.inf
