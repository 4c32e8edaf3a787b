"""Metrics against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch

from hbir.errors import TrainingError
from hbir.torch.debugging.metrics import METRICS, checked_metric

A, B = torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])


def test_by_hand() -> None:
    assert METRICS["Cosine"](A, B) == pytest.approx(24 / 25, abs=1e-12)
    assert METRICS["MSE"](A, B) == METRICS["L1"](A, B) == METRICS["ATOL"](A, B) == 1.0
    assert METRICS["SQNR"](A, B) == pytest.approx(10 * math.log10(25 / 2))
    assert METRICS["KL"](A, A) == 0 < METRICS["KL"](torch.zeros(9), torch.ones(9))


@pytest.mark.parametrize("name", list(METRICS))
def test_the_same_is_best(name: str) -> None:
    metric = METRICS[name]
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    assert metric.badness(metric(x, x)) < metric.badness(metric(x, x + 0.1)) < metric.badness(metric(x, -x))
    assert metric.badness(math.nan) == math.inf


@pytest.mark.parametrize("name", list(METRICS))
@pytest.mark.parametrize("x", [torch.zeros(4), torch.zeros(0), torch.full((3,), 1e30)])
def test_borders_have_a_value(name: str, x: torch.Tensor) -> None:
    assert not math.isnan(METRICS[name](x, x)) or (name == "KL" and not x.numel())


def test_cosine_of_zeros() -> None:
    assert METRICS["Cosine"](torch.zeros(2), torch.zeros(2)) == 1.0
    assert METRICS["Cosine"](torch.zeros(2), A) == 0.0


def test_names_in_any_case() -> None:
    assert checked_metric("cosine") is METRICS["Cosine"]
    with pytest.raises(TrainingError, match="HB0971"):
        checked_metric("PSNR")
