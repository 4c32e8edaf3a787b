"""What calibration remembers of a tensor, and how a range becomes a scale: max, percentile, mse and kl.

Every observer works on one kind of statistic, a histogram of signed values whose range grows by doubling, so that two bins
merge exactly into one and the order of the data does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import CalibrationError

__all__ = ["OBSERVERS", "Histogram", "grid_for", "weight_grid"]

Doubles = npt.NDArray[np.float64]
BINS = 4096


@dataclass
class Histogram:
    """Counts of values in `BINS` equal bins over [-reach, reach], with the exact smallest and largest value."""

    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    reach: float = 0.0
    low: float = np.inf
    high: float = -np.inf

    def add(self, x: npt.NDArray[Any]) -> None:
        """Count the values of a float array. Raises CalibrationError HB0401 for NaN or infinity."""
        if not x.size:
            return
        low, high = float(x.min()), float(x.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise CalibrationError(
                1, "an activation is NaN or infinite", lever="check the calibration data and its scaling"
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if largest > 0 and self.reach == 0:
            self.reach = float(2.0 ** np.ceil(np.log2(largest)))
            zeros, self.counts = int(self.counts.sum()), np.zeros(BINS, np.int64)
            self.counts[BINS // 2] += zeros
        while largest > self.reach:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4, np.int64), merged, np.zeros(BINS // 4, np.int64)])
            self.reach *= 2
        if self.reach == 0:
            self.counts[BINS // 2] += x.size
            return
        # float32 places a value within one bin of where it belongs, which is all that a histogram knows.
        index = (x.reshape(-1) * np.float32(BINS / (2 * self.reach)) + np.float32(BINS // 2)).astype(np.int32)
        np.clip(index, 0, BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=BINS)

    @property
    def centers(self) -> Doubles:
        """The middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach


Range = tuple[float, float]


def _max(histogram: Histogram, bits: int, symmetric: bool, percentile: float) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, bits: int, symmetric: bool, percentile: float) -> Range:
    """Cut the rarest values: `percentile` of the mass stays inside (symmetric: of |x|)."""
    centers, counts = histogram.centers, histogram.counts
    width = 2 * histogram.reach / BINS
    if symmetric:
        folded = counts[BINS // 2 :] + counts[: BINS // 2][::-1]
        at = int(np.searchsorted(np.cumsum(folded), percentile * counts.sum()))
        edge = min((at + 1) * width, max(-histogram.low, histogram.high))
        return max(-edge, histogram.low), min(edge, histogram.high)
    mass = np.cumsum(counts)
    tail = (1 - percentile) / 2 * counts.sum()
    first, last = int(np.searchsorted(mass, tail, "right")), int(np.searchsorted(mass, counts.sum() - tail))
    return max(centers[first] - width / 2, histogram.low), min(centers[min(last, BINS - 1)] + width / 2, histogram.high)


def _candidates(histogram: Histogram) -> Doubles:
    return np.linspace(0.2, 1.0, 81)


def _mse(histogram: Histogram, bits: int, symmetric: bool, percentile: float) -> Range:
    """The range with the smallest mean squared error of rounding plus saturation."""
    used = np.flatnonzero(histogram.counts)
    values, weights = histogram.centers[used], histogram.counts[used].astype(np.float64)
    best, found = np.inf, (histogram.low, histogram.high)
    # The rounding error inside a bin is that of a uniform distribution, step^2 / 12; beyond the range it is the distance.
    for fraction in _candidates(histogram)[::-1]:
        low, high = fraction * histogram.low, fraction * histogram.high
        grid = grid_for((low, high), bits, symmetric)
        smallest = (grid.limits[0] - grid.zero_point) * grid.scale
        largest = (grid.limits[1] - grid.zero_point) * grid.scale
        outside = np.maximum(values - largest, 0) + np.maximum(smallest - values, 0)
        error = float((weights * (outside**2 + (outside == 0) * grid.scale**2 / 12)).sum())
        if error < best:
            best, found = error, (low, high)
    return found


def _kl(histogram: Histogram, bits: int, symmetric: bool, percentile: float) -> Range:
    """The range whose quantised distribution diverges least (Kullback-Leibler) from the observed one."""
    if bits > 8:
        return _max(histogram, bits, symmetric, percentile)
    folded = (histogram.counts[BINS // 2 :] + histogram.counts[: BINS // 2][::-1]).astype(np.float64)
    levels = 1 << (bits - 1)
    top = int(np.flatnonzero(folded)[-1]) + 1
    width = histogram.reach / folded.size
    best, found = np.inf, top
    for stop in range(levels, top + 1, max(1, (top - levels) // 64)):
        reference = folded[:stop].copy()
        reference[-1] += folded[stop:].sum()
        edges = np.linspace(0, stop, levels + 1).astype(int)
        sums = np.add.reduceat(folded[:stop], edges[:-1])
        filled = np.add.reduceat((folded[:stop] > 0).astype(np.float64), edges[:-1])
        level = np.repeat(np.divide(sums, filled, out=np.zeros_like(sums), where=filled > 0), np.diff(edges))
        model = np.where(folded[:stop] > 0, level, 0.0)
        if not model.sum():
            continue
        p, q = reference / reference.sum(), model / model.sum()
        both = p > 0
        divergence = float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())
        if divergence < best:
            best, found = divergence, stop
    edge = found * width
    return max(-edge, histogram.low), min(edge, histogram.high)


OBSERVERS: dict[str, Callable[[Histogram, int, bool, float], Range]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
    "kl": _kl,
}
"""Range estimators by name; each takes (histogram, bits, symmetric, percentile) and returns (low, high)."""


def grid_for(values: Range, bits: int, symmetric: bool) -> UniformQuantizedType:
    """The grid of a range: symmetric, `max(|low|, |high|) / qmax`; otherwise the range, widened to hold 0, over all codes."""
    half = 1 << (bits - 1)
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    if symmetric:
        reach = max(-low, high)
        return UniformQuantizedType.get(bits, reach / (half - 1) if reach > 0 else 1.0)
    scale = np.float32((high - low) / (2 * half - 1)) if high > low else np.float32(1.0)
    zero = int(np.clip(-half - np.rint(low / float(scale)), -half, half - 1))
    return UniformQuantizedType.get(bits, float(scale), zero)


def weight_grid(
    weight: npt.NDArray[Any], bits: int, per_channel: bool, smallest: Doubles | None = None
) -> UniformQuantizedType:
    """Symmetric narrow grid of a weight, one scale for each output channel (axis 0) or one for all; empty channels get 1.

    No scale is below `smallest` (per channel), where that is given.
    """
    flat = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1).astype(np.float64)
    reach = flat if per_channel else flat.max(keepdims=True)
    # A float32 scale must stay a normal number, or dividing by it would round wildly.
    tiny = float(np.finfo(np.float32).tiny) * ((1 << (bits - 1)) - 1)
    scales = np.where(reach > tiny, reach, (1 << (bits - 1)) - 1) / ((1 << (bits - 1)) - 1)
    if smallest is not None:
        scales = np.maximum(scales, smallest if per_channel else smallest.max(keepdims=True, initial=0))
    return UniformQuantizedType.get(bits, scales.tolist(), axis=0 if per_channel else -1, narrow=True)
