"""Observers: the scales they derive, in calibration and in training, and the values that no scale holds."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hbir.errors import TrainingError
from hbir.torch.dtype import qint8, qint16
from hbir.torch.fake_quant.histograms import HistogramObserver, KLObserver, MSEObserver, PercentileObserver
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.fake_quant.observers import (
    SMALLEST_SCALE,
    FixedScaleObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
    Observer,
    PerChannelMinMaxObserver,
)
from passes.common.observers import OBSERVERS, Histogram, Request

ALL = [MinMaxObserver, MovingAverageMinMaxObserver, MSEObserver, HistogramObserver, PercentileObserver, KLObserver]
CHANNELS = [PerChannelMinMaxObserver, MovingAveragePerChannelMinMaxObserver]


def scale_of(observer: Observer) -> list[float]:
    found = observer.scale()
    assert found is not None and found.dtype == torch.float32
    return found.tolist()


def f32(value: float) -> float:
    return float(np.float32(value))


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=15, deadline=None)
@given(hnp.arrays(np.float32, (2, 9), elements=st.floats(-(2.0**99), 2.0**99, width=32)))
def test_scales_are_numbers_above_zero(kind: type[Observer], x: np.ndarray) -> None:
    for dtype in (qint8, qint16):
        observer = kind(dtype=dtype)
        assert observer.scale() is None
        observer(torch.from_numpy(x))
        (scale,) = scale_of(observer)
        assert SMALLEST_SCALE <= scale < float("inf")
        observer.follow(torch.from_numpy(x))
        assert SMALLEST_SCALE <= scale_of(observer)[0] < float("inf")


def test_the_largest_magnitude_is_the_largest_integer() -> None:
    observer = MinMaxObserver()
    observer(torch.tensor([-1.0, 3.0]))
    observer(torch.tensor([-6.0, 2.0]))
    assert scale_of(observer) == [f32(6 / 127)]
    wide = MinMaxObserver(qint16)
    wide(torch.tensor([-6.0, 2.0]))
    assert scale_of(wide) == [f32(6 / 32767)]


def test_moving_averages() -> None:
    observer = MovingAverageMinMaxObserver(averaging_constant=0.25)
    for high in (4.0, 8.0, 8.0):
        observer(torch.tensor([-1.0, high]))
    assert scale_of(observer) == [f32((4 + 1 + 0.75) / 127)]
    assert MovingAverageMinMaxObserver().averaging_constant == 0.01


@pytest.mark.parametrize("kind", CHANNELS)
def test_channels_have_scales_of_their_own(kind: type[Observer]) -> None:
    observer = kind()
    observer(torch.tensor([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]]))
    # A channel of zeros has the largest scale of the others, so that it does not stand out.
    assert scale_of(observer) == [f32(2 / 127), f32(0.5 / 127), f32(2 / 127)]
    other = kind(axis=1)
    other(torch.tensor([[1.0, -2.0], [0.5, 0.25], [0.0, 0.0]]))
    assert scale_of(other) == [f32(1 / 127), f32(2 / 127)]


@pytest.mark.parametrize("kind", ALL)
def test_zeros_and_nothing_have_the_scale_of_one(kind: type[Observer]) -> None:
    for x in (torch.zeros(3, 4), torch.zeros(0, 4)):
        observer = kind()
        observer.follow(x)
        assert scale_of(observer) == [f32(1 / 127)]


def test_an_empty_first_batch_counts_as_zeros() -> None:
    observer = MinMaxObserver(averaging_constant=0.5)
    observer.follow(torch.zeros(0))
    observer.follow(torch.tensor([-2.0, 1.0]))
    assert (float(observer.min_val), float(observer.max_val)) == (-1.0, 0.5)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_no_scale_holds_is_refused_or_skipped(kind: type[Observer], bad: float) -> None:
    observer = kind()
    observer(torch.tensor([1.0, 2.0]))
    before = scale_of(observer)
    with pytest.raises(TrainingError, match="HB0940"):
        observer(torch.tensor([bad, 2.0]))
    assert scale_of(observer) == before
    with pytest.warns(TrainingWarning, match="HB0949"):
        observer.follow(torch.tensor([1.0, bad]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observer.follow(torch.tensor([1.0, bad]))
    observer.follow(torch.tensor([1.0, 2.0]))
    assert np.isfinite(scale_of(observer)).all()


@pytest.mark.parametrize("kind", ALL)
def test_training_begins_with_the_scale_that_was_loaded(kind: type[Observer]) -> None:
    observer = kind(averaging_constant=0.5)
    observer(torch.tensor([100.0]))
    observer.seed(torch.tensor([2 / 127]))
    observer.follow(torch.tensor([-1.0, 4.0]))
    assert scale_of(observer) == [f32(3 / 127)]
    fresh = kind(averaging_constant=0.5)
    fresh.follow(torch.tensor([-1.0, 4.0]))
    assert scale_of(fresh) == [f32(4 / 127)]


@pytest.mark.parametrize("method", ["mse", "percentile", "kl"])
def test_histograms_choose_as_calibration_does(method: str) -> None:
    x = np.random.default_rng(0).laplace(size=(4, 500)).astype(np.float32)
    observer, histogram = HistogramObserver(method=method), Histogram()
    for batch in x:
        observer(torch.from_numpy(batch))
        histogram.add(batch)
    low, high = OBSERVERS[method](histogram, Request(8))
    # Both are products of the exact ends with a number of bins, rounded to float32 before the division or behind it.
    assert scale_of(observer)[0] == pytest.approx(max(-low, high) / 127, rel=2**-22)
    assert scale_of(observer)[0] < float(np.abs(x).max()) / 127


def test_merged_histograms_are_one_of_all_values() -> None:
    values = np.random.default_rng(1).normal(size=600).astype(np.float32) * np.float32(3)
    parts = [values[:200] * np.float32(0.01), np.zeros(5, np.float32), values[200:], np.zeros(0, np.float32)]
    for order in (parts, parts[::-1], [parts[1], parts[0], parts[2]]):
        whole, merged = Histogram(), Histogram()
        for part in order:
            one = Histogram()
            one.add(part)
            merged.merge(one)
            whole.add(part)
        assert np.array_equal(whole.counts, merged.counts)
        assert (whole.low, whole.high, whole.reach) == (merged.low, merged.high, merged.reach)


def test_following_a_histogram_begins_with_its_scale() -> None:
    observer = MSEObserver(averaging_constant=0.0)
    observer(torch.randn(1000, generator=torch.Generator().manual_seed(0)))
    before = scale_of(observer)
    observer.follow(torch.tensor([50.0, -3.0]))
    # The range is kept as multiples of 127 steps: one rounding there and back.
    assert scale_of(observer) == pytest.approx(before, rel=2**-22)


def test_arguments_that_mean_nothing_are_refused() -> None:
    for make in (
        lambda: HistogramObserver(method="guess"),
        lambda: HistogramObserver(method="percentile", percentile=99.9),
        lambda: HistogramObserver(method="kl", percentile=0.9),
        lambda: MinMaxObserver(averaging_constant=2.0),
        lambda: FixedScaleObserver(0.0),
        lambda: FixedScaleObserver(float("nan")),
        lambda: FixedScaleObserver(1e-60),
        lambda: FixedScaleObserver(0.1, zero_point=3),
    ):
        with pytest.raises(TrainingError, match="HB0943"):
            make()
    with pytest.raises(TrainingError, match="HB0941"):
        MSEObserver(axis=0)


def test_factories_add_arguments() -> None:
    factory = MovingAverageMinMaxObserver.with_args(averaging_constant=0.5).with_args(dtype=qint16)
    found = factory(axis=1)
    assert (found.averaging_constant, found.dtype, found.axis) == (0.5, qint16, 1)
    assert factory == MovingAverageMinMaxObserver.with_args(averaging_constant=0.5, dtype=qint16)


def test_nothing_an_observer_saw_is_in_a_state_dict() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in [*ALL, *CHANNELS]:
            observer = kind()
            observer(torch.randn(2, 3))
            assert not observer.state_dict()
