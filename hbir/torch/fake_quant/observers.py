"""Observers: what range of values passes a place in the model, and the scale that holds it.

An observer watches in two ways. In calibration (`forward`) it gathers what its kind gathers. In training (`follow`) every kind
follows a moving average of the range, cheap and forgetful, that begins with the scale of the calibration. Nothing that an
observer remembers is part of a state dict: scales alone are, so that models with different observers load one another's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch

from hbir.errors import TrainingError
from hbir.torch.dtype import QuantDType, qint8
from hbir.torch.fake_quant.factory import Factory
from hbir.torch.fake_quant.notices import warn_once, where
from hbir.torch.fake_quant.ranks import range_of_all

__all__ = [
    "FixedScaleObserver",
    "MinMaxObserver",
    "MovingAverageMinMaxObserver",
    "MovingAveragePerChannelMinMaxObserver",
    "Observer",
    "PerChannelMinMaxObserver",
]

SMALLEST_SCALE = 2.0**-27
"""No scale is smaller: rescales from grids of ordinary values (a mean that is 0 but for rounding, behind a norm) stay within
what multipliers of 31 bits can say. In sixteen bits it reaches to 0.0002."""

AVERAGING_CONSTANT = 0.01
"""The weight of the latest batch in a moving average."""


def symmetric_scale(low: torch.Tensor, high: torch.Tensor, dtype: QuantDType) -> torch.Tensor:
    """The scale, float32, with which the largest integer is the largest magnitude: `max(-low, high) / 127`.

    The formula of calibration (`passes.common.observers`). Where all is zero it is the largest scale of the other channels,
    and that of the range [-1, 1] where there are none.
    """
    reach = torch.maximum(-low, high)
    if float(reach.min()) <= 0:
        most = reach.max()
        reach = torch.where(reach > 0, reach, torch.where(most > 0, most, 1.0))
    return (reach / dtype.limits[1]).clamp_(min=SMALLEST_SCALE).float()


class Observer(torch.nn.Module, ABC):
    """The base of all observers: watches values, and derives a symmetric scale from them.

    `axis` is the axis of which each slice has a scale of its own, None for one scale. `averaging_constant` is the weight of
    the latest batch in the moving average of training: 1 for weights, whose range is known, 0 to stay.
    """

    per_channel = False
    """Whether it has a scale for each channel unless told otherwise."""

    def __init__(
        self, dtype: QuantDType = qint8, axis: int | None = None, averaging_constant: float = AVERAGING_CONSTANT
    ) -> None:
        super().__init__()
        if not 0 <= averaging_constant <= 1:
            what = f"averaging_constant is {averaging_constant}"
            raise TrainingError(43, what, why="it is the share of the latest batch", lever="give a number from 0 to 1")
        self.dtype, self.axis, self.averaging_constant = dtype, axis, averaging_constant

    @classmethod
    def with_args(cls, **keywords: Any) -> Factory:
        """The class with some of its arguments given."""
        return Factory(cls, keywords)

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"dtype={self.dtype}" + ("" if self.axis is None else f", axis={self.axis}")

    @abstractmethod
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Watch values for a calibration; they come back as they are. Raises TrainingError HB0940 for NaN and infinity."""

    @abstractmethod
    def follow(self, x: torch.Tensor) -> None:
        """Watch values of a training step. Warns of NaN and infinity (HB0949), and does not follow them."""

    def seed(self, scale: torch.Tensor | None) -> None:
        """Begin anew; with a scale that was loaded, training begins there."""
        del scale

    @abstractmethod
    def scale(self) -> torch.Tensor | None:
        """The scale of what was seen, float32 of shape (1,) or (slices,); None while nothing was."""


def finite(low: torch.Tensor, high: torch.Tensor) -> bool:
    """Whether both ends of a range are numbers."""
    # No width is negative, so that none hides another; a sum that overflows says nothing.
    return math.isfinite(float((high - low).sum())) or bool((torch.isfinite(low) & torch.isfinite(high)).all())


class MinMaxObserver(Observer):
    """The smallest and largest values seen; in training, their moving averages."""

    min_val: torch.Tensor
    max_val: torch.Tensor

    def __init__(
        self, dtype: QuantDType = qint8, axis: int | None = None, averaging_constant: float = AVERAGING_CONSTANT
    ) -> None:
        super().__init__(dtype, axis, averaging_constant)
        self.register_buffer("min_val", torch.tensor([]), persistent=False)
        self.register_buffer("max_val", torch.tensor([]), persistent=False)
        self._begin: torch.Tensor | None = None

    def _range(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if not x.numel():
            none = x.new_zeros(1 if self.axis is None else x.shape[self.axis], dtype=torch.float32)
            return range_of_all(none, none.clone())
        if self.axis is None:
            low, high = torch.aminmax(x)
            return range_of_all(low.reshape(1).float(), high.reshape(1).float())
        # Along an axis two passes are faster than aminmax.
        rows = x.transpose(0, self.axis).reshape(x.shape[self.axis], -1)
        return range_of_all(rows.amin(1).float(), rows.amax(1).float())

    def _watched(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        low, high = self._range(x.detach())
        if not finite(low, high):
            raise TrainingError(
                40,
                "a value is NaN or infinite in calibration",
                where=where(),
                why="no scale holds it",
                lever="check the data and their scaling, and the float model on them",
            )
        return low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = self._watched(x)
        if self.min_val.numel():
            low, high = torch.minimum(self.min_val, low), torch.maximum(self.max_val, high)
        self.min_val, self.max_val = low, high
        return x

    def follow(self, x: torch.Tensor) -> None:
        low, high = self._range(x.detach())
        if not finite(low, high):
            error = TrainingError(
                49,
                "a value is NaN or infinite in training",
                where=where(),
                why="the scale stays as it was",
                lever="lower the learning rate, or clip gradients; keep operands of a logarithm or a division a step of their"
                " grid away from 0",
            )
            warn_once(error, self)
            return
        self._average(low, high)

    def _average(self, low: torch.Tensor, high: torch.Tensor) -> None:
        if not self.min_val.numel() and self._begin is not None:
            # What was loaded is a scale. The range it came from has the shape of the first batch's.
            reach = torch.maximum(-low, high)
            known = self._begin.to(low.device) * self.dtype.limits[1]
            share = torch.where(reach > 0, known / reach, 0)
            self.min_val = torch.where(reach > 0, low * share, -known)
            self.max_val = torch.where(reach > 0, high * share, known)
        if self.min_val.numel():
            self.min_val.lerp_(low, self.averaging_constant)
            self.max_val.lerp_(high, self.averaging_constant)
        else:
            self.min_val, self.max_val = low, high

    def seed(self, scale: torch.Tensor | None) -> None:
        self.min_val, self.max_val = self.min_val.new_empty(0), self.max_val.new_empty(0)
        self._begin = None if scale is None else scale.detach().clone()

    def scale(self) -> torch.Tensor | None:
        return symmetric_scale(self.min_val, self.max_val, self.dtype) if self.min_val.numel() else None


class MovingAverageMinMaxObserver(MinMaxObserver):
    """Moving averages of the smallest and largest values of each batch, in calibration too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low, high = self._watched(x)
        if self.min_val.numel():
            low = torch.lerp(self.min_val, low, self.averaging_constant)
            high = torch.lerp(self.max_val, high, self.averaging_constant)
        self.min_val, self.max_val = low, high
        return x


class PerChannelMinMaxObserver(MinMaxObserver):
    """The smallest and largest values seen in each channel."""

    per_channel = True

    def __init__(
        self, dtype: QuantDType = qint8, axis: int | None = 0, averaging_constant: float = AVERAGING_CONSTANT
    ) -> None:
        super().__init__(dtype, 0 if axis is None else axis, averaging_constant)


class MovingAveragePerChannelMinMaxObserver(MovingAverageMinMaxObserver):
    """Moving averages of the smallest and largest values of each batch in each channel."""

    per_channel = True

    def __init__(
        self, dtype: QuantDType = qint8, axis: int | None = 0, averaging_constant: float = AVERAGING_CONSTANT
    ) -> None:
        super().__init__(dtype, 0 if axis is None else axis, averaging_constant)


class FixedScaleObserver(Observer):
    """Watches nothing: the scale is given. Raises TrainingError HB0943 for a scale that is no number above 0."""

    def __init__(
        self,
        scale: float = 1.0,
        zero_point: int = 0,
        dtype: QuantDType = qint8,
        axis: int | None = None,
        averaging_constant: float = 0.0,
    ) -> None:
        super().__init__(dtype, axis, averaging_constant)
        given = float(torch.tensor(scale, dtype=torch.float32))
        if not 0 < given < float("inf"):
            what = f"a fixed scale is {scale}"
            raise TrainingError(43, what, why="in float32 it must be above 0 and finite", lever="give such a number")
        if zero_point:
            what = f"a fixed zero point is {zero_point}"
            raise TrainingError(43, what, why="grids are symmetric", lever="use 0")
        self.fixed_scale = given

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def follow(self, x: torch.Tensor) -> None:
        del x

    def scale(self) -> torch.Tensor | None:
        return torch.tensor([self.fixed_scale])

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        return f"scale={self.fixed_scale}, {super().extra_repr()}"
