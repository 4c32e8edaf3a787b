"""Observers that keep a histogram in calibration, and choose the scale from it: by mean square error, percentile or KL.

The histogram and the estimators are those of calibration without training (`passes.common.observers`). In training a histogram
would cost more than the step, and would remember what weights long gone gave: these observers follow the range then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch

from hbir.errors import TrainingError
from hbir.torch.dtype import QuantDType, checked_dtype, qint8
from hbir.torch.fake_quant.observers import AVERAGING_CONSTANT, MinMaxObserver, symmetric_scale
from hbir.torch.fake_quant.ranks import histogram_of_all
from passes.common.observers import OBSERVERS, Histogram, Request

__all__ = ["HistogramObserver", "KLObserver", "MSEObserver", "PercentileObserver"]

_OPTIONS = {"max": (), "mse": ("power",), "percentile": ("percentile",), "kl": ()}
_SAME = {"minmax": "max", "min_max": "max"}


class HistogramObserver(MinMaxObserver):
    """A histogram of all values of the calibration, from which `method` chooses the range; one scale for all channels.

    `method` is `mse`, `percentile` (`percentile=0.99995`: the share of values inside), `kl` or `max`.
    Raises TrainingError HB0943 for another, HB0941 for an axis.
    """

    def __init__(
        self,
        dtype: QuantDType = qint8,
        axis: int | None = None,
        averaging_constant: float = AVERAGING_CONSTANT,
        method: str = "mse",
        **method_kwargs: float,
    ) -> None:
        super().__init__(dtype, axis, averaging_constant)
        if axis is not None:
            what = f"{type(self).__name__} is given the axis {axis}"
            lever = "use MinMaxObserver for weights, or a per-tensor qscheme"
            raise TrainingError(41, what, why="a histogram gives one scale for all channels", lever=lever)
        self.histogram = Histogram()
        self._following = False
        self.choose(method, method_kwargs)

    def choose(self, method: str, method_kwargs: Mapping[str, float] | None = None) -> None:
        """Choose ranges by another method from now on. Raises TrainingError HB0943."""
        name, given = _SAME.get(method, method), dict(method_kwargs or {})
        if name not in _OPTIONS:
            raise TrainingError(43, f"the method is {method!r}", lever=f"choose one of {', '.join(sorted(_OPTIONS))}")
        unknown = sorted(given.keys() - set(_OPTIONS[name]))
        percentile = given.get("percentile", 1.0)
        if unknown or not 0 < percentile <= 1:
            what = f"{method} is given {given}"
            lever = f"give {' or '.join(_OPTIONS[name]) or 'no options'}; a percentile is a share, such as 0.9999"
            raise TrainingError(43, what, lever=lever)
        self.method, self.request = name, Request(self.dtype.bits, **cast(Any, given))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        super().forward(x)
        seen = Histogram()
        seen.add(cast(Any, x.detach().float().cpu()).numpy())
        self.histogram.merge(histogram_of_all(seen, x.device))
        self._following = False
        return x

    def follow(self, x: torch.Tensor) -> None:
        if not self._following and self.histogram.counts.any():
            super().seed(self.scale())
        self._following = True
        super().follow(x)

    def seed(self, scale: torch.Tensor | None) -> None:
        super().seed(scale)
        self.histogram, self._following = Histogram(), False

    def scale(self) -> torch.Tensor | None:
        if self._following or not self.histogram.counts.any():
            return super().scale()
        low, high = OBSERVERS[self.method](self.histogram, self.request)
        ends = torch.tensor([[low], [high]], dtype=torch.float32, device=self.min_val.device)
        return symmetric_scale(ends[0], ends[1], self.dtype)

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"method={self.method}, {super().extra_repr()}"

    @staticmethod
    def reset_scale(
        model: torch.nn.Module,
        method: str = "percentile",
        method_kwargs: Mapping[str, float] | None = None,
        dtype: QuantDType | str | None = None,
        prefix: str | Sequence[str] | None = None,
    ) -> dict[str, float]:
        """Choose the scales of a calibrated model anew from the histograms it has kept, without running it again.

        `dtype` limits this to fake quants of that type, `prefix` to layers whose names begin so. Scales that were given stay.
        Returns the new scales by name. Raises TrainingError HB0945 when there is no histogram to choose from, HB0943 for an
        unknown method.
        """
        from hbir.torch.fake_quant.fake_quantize import FakeQuantize

        wanted = None if dtype is None else checked_dtype(dtype, "dtype")
        starts = ("",) if prefix is None else (prefix,) if isinstance(prefix, str) else tuple(prefix)
        found: dict[str, float] = {}
        for name, module in cast("Iterable[tuple[str, Any]]", cast(Any, model).named_modules()):
            observer = module.activation_post_process if isinstance(module, FakeQuantize) else None
            if not isinstance(observer, HistogramObserver) or not observer.histogram.counts.any():
                continue
            if (wanted is None or observer.dtype == wanted) and any(_below(name, start) for start in starts):
                observer.choose(method, method_kwargs)
                observer._following = False
                fake = cast(FakeQuantize, module)
                fake.refresh()
                found[name] = float(fake.scale.detach())
        if not found:
            lever = (
                "calibrate with HistogramObserver, MSEObserver, PercentileObserver or KLObserver in this process first"
            )
            raise TrainingError(45, "there is no histogram to choose scales from", lever=lever)
        return found


def _below(name: str, start: str) -> bool:
    return not start or name == start or name.startswith(start.rstrip(".") + ".")


class MSEObserver(HistogramObserver):
    """The range with the smallest mean square error, rounding and saturation together."""

    def __init__(
        self, dtype: QuantDType = qint8, axis: int | None = None, averaging_constant: float = AVERAGING_CONSTANT
    ) -> None:
        super().__init__(dtype, axis, averaging_constant, "mse")


class PercentileObserver(HistogramObserver):
    """The range that holds the share `percentile` of all magnitudes."""

    def __init__(
        self,
        dtype: QuantDType = qint8,
        axis: int | None = None,
        averaging_constant: float = AVERAGING_CONSTANT,
        percentile: float = 0.99995,
    ) -> None:
        super().__init__(dtype, axis, averaging_constant, "percentile", percentile=percentile)


class KLObserver(HistogramObserver):
    """The range whose quantised distribution diverges least from the observed one; of 16 bits, the whole range."""

    def __init__(
        self, dtype: QuantDType = qint8, axis: int | None = None, averaging_constant: float = AVERAGING_CONSTANT
    ) -> None:
        super().__init__(dtype, axis, averaging_constant, "kl")
