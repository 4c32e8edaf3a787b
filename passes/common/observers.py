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

__all__ = [
    "DEFAULT_OBSERVER",
    "OBSERVERS",
    "OBSERVER_NAMES",
    "RARE_POWER",
    "Histogram",
    "Request",
    "grid_for",
    "resolution",
    "weight_grid",
]

Doubles = npt.NDArray[np.float64]
BINS = 4096
_TINY = float(np.finfo(np.float32).tiny)


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
        self._grow(largest)
        if self.reach == 0:
            self.counts[BINS // 2] += x.size
            return
        # float32 places a value within one bin of where it belongs, which is all that a histogram knows. Of values that
        # are all tiny the factor would be infinite.
        kind = np.float32 if self.reach > _TINY else np.float64
        index = (x.reshape(-1) * kind(BINS / (2 * self.reach)) + kind(BINS // 2)).astype(np.int32)
        np.clip(index, 0, BINS - 1, out=index)
        self.counts += np.bincount(index, minlength=BINS)

    def _grow(self, largest: float) -> None:
        while largest > self.reach:
            merged = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.concatenate([np.zeros(BINS // 4, np.int64), merged, np.zeros(BINS // 4, np.int64)])
            self.reach *= 2

    def merge(self, other: Histogram) -> None:
        """Count what `other` has counted; the same as adding its values, bins and all."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        # A histogram of nothing but zeros has no bins yet: all of it lies in the bin above 0.
        if self.reach == 0:
            zeros, self.counts = int(self.counts.sum()), np.zeros(BINS, np.int64)
            self.counts[BINS // 2] += zeros
            self.reach = other.reach
        wider = Histogram(other.counts, other.reach)
        if other.reach:
            self._grow(other.reach)
            wider._grow(self.reach)
        self.counts = self.counts + wider.counts

    @property
    def centers(self) -> Doubles:
        """The middle of each bin."""
        return (np.arange(BINS) + 0.5) * (2 * self.reach / BINS) - self.reach


Range = tuple[float, float]

RARE_POWER = 4.0
"""Power of the error where rare large values matter (a detection's score): between the mean square and the largest error."""

FRACTIONS = np.linspace(1.0, 0.1, 91)


@dataclass(frozen=True, slots=True)
class Request:
    """What a range is wanted for: `percentile` is the share of values inside, for the observer of that name; `curve` is
    the function that reads the values, when there is only one; `power` is that of the error which `mse` minimises."""

    bits: int
    symmetric: bool = True
    percentile: float = 0.99995
    curve: Callable[[Doubles], Doubles] | None = None
    power: float = 2.0


def _max(histogram: Histogram, wanted: Request) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, wanted: Request) -> Range:
    """Cut the rarest values: `percentile` of the mass stays inside (symmetric: of |x|)."""
    centers, counts = histogram.centers, histogram.counts
    width = 2 * histogram.reach / BINS
    if wanted.symmetric:
        folded = counts[BINS // 2 :] + counts[: BINS // 2][::-1]
        at = int(np.searchsorted(np.cumsum(folded), float(wanted.percentile * counts.sum())))
        edge = min((at + 1) * width, max(-histogram.low, histogram.high))
        return max(-edge, histogram.low), min(edge, histogram.high)
    mass = np.cumsum(counts)
    total = float(counts.sum())
    tail = (1 - wanted.percentile) / 2 * total
    first, last = int(np.searchsorted(mass, tail, "right")), int(np.searchsorted(mass, total - tail))
    return max(centers[first] - width / 2, histogram.low), min(centers[min(last, BINS - 1)] + width / 2, histogram.high)


def _mse(histogram: Histogram, wanted: Request) -> Range:
    """The range with the smallest mean error to the power `wanted.power`, rounding and saturation together.

    The error is measured behind `wanted.curve`, the function that reads the values: what a swish flattens need not be told
    apart, and the steps are better spent where it bends.
    """
    used = np.flatnonzero(histogram.counts)
    values, weights = histogram.centers[used], histogram.counts[used].astype(np.float64)
    targets = values if wanted.curve is None else wanted.curve(values)
    best, found = np.inf, (histogram.low, histogram.high)
    for fraction in FRACTIONS:
        low, high = fraction * histogram.low, fraction * histogram.high
        grid = grid_for((low, high), wanted.bits, wanted.symmetric)
        if wanted.curve is None:
            smallest, largest = ((limit - grid.zero_point) * grid.scale for limit in grid.limits)
            outside = np.maximum(values - largest, 0) + np.maximum(smallest - values, 0)
            # Inside the range the rounding error is uniform over a step: the mean of |e|^p is (step / 2)^p / (p + 1).
            rounding = (grid.scale / 2) ** wanted.power / (wanted.power + 1)
            errors = np.where(outside > 0, outside**wanted.power, rounding)
        else:
            codes = np.clip(np.rint(values / grid.scale) + grid.zero_point, *grid.limits)
            errors = np.abs(wanted.curve((codes - grid.zero_point) * grid.scale) - targets) ** wanted.power
        error = float((weights * errors).sum())
        if error < best:
            best, found = error, (low, high)
    return found


def _kl(histogram: Histogram, wanted: Request) -> Range:
    """The range whose quantised distribution diverges least (Kullback-Leibler) from the observed one."""
    if wanted.bits > 8 or not histogram.counts.any():
        return _max(histogram, wanted)
    folded = (histogram.counts[BINS // 2 :] + histogram.counts[: BINS // 2][::-1]).astype(np.float64)
    # Zeros (of a relu, of padding) are exact on every grid; left in, their mass would hide what clipping costs.
    folded[0] = 0
    if not folded.any():
        return _max(histogram, wanted)
    levels = 1 << (wanted.bits - 1)
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


OBSERVERS: dict[str, Callable[[Histogram, Request], Range]] = {
    "max": _max,
    "percentile": _percentile,
    "mse": _mse,
    "kl": _kl,
}
"""Range estimators by name; each takes (histogram, request) and returns (low, high)."""

DEFAULT_OBSERVER = "mse"
"""What `default` stands for."""

OBSERVER_NAMES = ("default", *OBSERVERS)
"""What can be asked for."""


def grid_for(values: Range, bits: int, symmetric: bool) -> UniformQuantizedType:
    """The grid of a range: symmetric, `max(|low|, |high|) / qmax`; otherwise the range, widened to hold 0, over all codes.

    Grids of 16 bits are always symmetric: TOSA's int16 has no zero points.
    """
    half = 1 << (bits - 1)
    low, high = min(values[0], 0.0), max(values[1], 0.0)
    # A float32 scale must stay a normal number, or dividing by it would round wildly: nothing but zeros is left there.
    smallest = _TINY * (2 * half - 1)
    if symmetric or bits > 8:
        reach = max(-low, high)
        return UniformQuantizedType.get(bits, reach / (half - 1) if reach > smallest else 1.0)
    scale = np.float32((high - low) / (2 * half - 1)) if high - low > smallest else np.float32(1.0)
    zero = int(np.clip(-half - np.rint(low / float(scale)), -half, half - 1))
    return UniformQuantizedType.get(bits, float(scale), zero)


def resolution(
    histogram: Histogram, grid: UniformQuantizedType, curve: Callable[[Doubles], Doubles] | None = None
) -> float:
    """How far the signal of a tensor stands above what `grid` loses of it, in dB: variance over mean square error, both
    behind `curve`. Infinite for a tensor that loses nothing."""
    used = np.flatnonzero(histogram.counts)
    values, weights = histogram.centers[used], histogram.counts[used].astype(np.float64)
    codes = np.clip(np.rint(values / grid.scale) + grid.zero_point, *grid.limits)
    rounded = (codes - grid.zero_point) * grid.scale
    if curve is not None:
        values, rounded = curve(values), curve(rounded)
    noise = float((weights * (rounded - values) ** 2).sum())
    signal = float((weights * (values - np.average(values, weights=weights)) ** 2).sum()) if weights.any() else 0.0
    return 10 * float(np.log10(signal / noise)) if signal > 0 and noise > 0 else np.inf


def weight_grid(
    weight: npt.NDArray[Any], bits: int, per_channel: bool, smallest: Doubles | None = None
) -> UniformQuantizedType:
    """Symmetric narrow grid of a weight, one scale for each output channel (axis 0) or one for all.

    No scale is below `smallest` (per channel), where that is given. Channels without weights have the largest scale of the
    others, that of the range [-1, 1] where there are none: one that stands out would set the layer's rescale for nothing.
    """
    flat = np.abs(weight.reshape(weight.shape[0], -1)).max(axis=1, initial=0).astype(np.float64)
    reach, largest = flat if per_channel else flat.max(keepdims=True), (1 << (bits - 1)) - 1
    scales = np.where(reach > _TINY * largest, reach, 0) / largest
    if smallest is not None:
        scales = np.maximum(scales, smallest if per_channel else smallest.max(keepdims=True, initial=0))
    scales = np.where(scales > _TINY, scales, scales.max(initial=0) or 1 / largest)
    return UniformQuantizedType.get(bits, scales.tolist(), axis=0 if per_channel else -1, narrow=True)
