"""How far a tensor lies from what it should be: one number for each metric.

Computed in float64. NaN in either tensor gives NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from hbir.errors import TrainingError

__all__ = ["METRICS", "Metric", "checked_metric"]

_BINS = 256


@dataclass(frozen=True)
class Metric:
    """A distance or a similarity of `(expected, got)`, tensors of one shape."""

    name: str
    compute: Callable[[torch.Tensor, torch.Tensor], float]
    larger_is_worse: bool
    about: str

    def __call__(self, expected: torch.Tensor, got: torch.Tensor) -> float:
        return self.compute(expected.detach().double().flatten(), got.detach().double().flatten())

    def badness(self, value: float) -> float:
        """A number that is larger the worse `value` is; NaN is worst."""
        if math.isnan(value):
            return math.inf
        return value if self.larger_is_worse else -value


def _cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    # Scaled first, so that squares of very large and very small values stay in range.
    a, b = (each / each.abs().max().clamp(min=1e-300) if each.numel() else each for each in (a, b))
    norms = math.sqrt(float(a @ a) * float(b @ b))
    if norms == 0:
        return 1.0 if not bool(a.any()) and not bool(b.any()) else 0.0
    return float(a @ b) / norms


def _sqnr(a: torch.Tensor, b: torch.Tensor) -> float:
    noise, signal = float((a - b).square().sum()), float(a.square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def _kl(a: torch.Tensor, b: torch.Tensor) -> float:
    both = torch.cat([a, b])
    if not both.numel() or bool(torch.isnan(both).any()):
        return math.nan
    low, high = float(both.min()), float(both.max())
    if low == high:
        return 0.0
    # One more in each bin, so that an empty one has a logarithm.
    p, q = (torch.histc(each, _BINS, low, high) + 1 for each in (a, b))
    p, q = p / p.sum(), q / q.sum()
    return float((p * (p / q).log()).sum())


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("Cosine", _cosine, False, "cosine of the angle between both; 1 is best"),
        Metric("MSE", lambda a, b: float((a - b).square().mean()) if a.numel() else 0.0, True, "mean square error"),
        Metric("L1", lambda a, b: float((a - b).abs().mean()) if a.numel() else 0.0, True, "mean absolute error"),
        Metric("KL", _kl, True, f"divergence of the histograms of {_BINS} bins over the common range, in nats"),
        Metric("SQNR", _sqnr, False, "signal over noise in dB"),
        Metric("ATOL", lambda a, b: float((a - b).abs().max()) if a.numel() else 0.0, True, "largest absolute error"),
    )
}
"""Measures of how far two arrays lie apart, by their published names."""


def checked_metric(name: str) -> Metric:
    """The metric of that name, whatever its case. Raises TrainingError HB0971."""
    found = next((metric for key, metric in METRICS.items() if key.lower() == str(name).lower()), None)
    if found is None:
        raise TrainingError(71, f"the metric is {name!r}", lever=f"choose one of {', '.join(METRICS)}")
    return found
