"""What `calibrate` can be told, checked before any data is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from hbir.arguments import Refuse, checked_index, checked_kind, checked_number, shown
from hbir.errors import CalibrationError
from passes.common.observers import DEFAULT_OBSERVER, OBSERVER_NAMES

__all__ = ["WIDE_BELOW", "CalibrationOptions", "checked_samples"]

WIDE_BELOW = 31.0
"""Signal to rounding noise in dB under which a positional value gets sixteen bits; eight bits give an even distribution 48."""


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """The options of `calibrate`, known to fit. Raises CalibrationError HB0404, 0405, 0406, 0409, 0411 or 0412."""

    observer: str
    activation_bits: int
    weight_bits: int
    head_bits: int
    per_channel: bool
    asymmetric: bool
    percentile: float
    wide_below: float
    correct_bias: bool
    progress: Callable[[int], None] | None

    def __post_init__(self) -> None:
        checked_kind(self.observer, str, _refusal(4, "observer", f"choose one of {list(OBSERVER_NAMES)}"))
        if self.observer not in OBSERVER_NAMES:
            lever = f"choose one of {list(OBSERVER_NAMES)}"
            raise CalibrationError(4, f"there is no observer '{self.observer}'", lever=lever)
        self._check_bits()
        for name in ("per_channel", "asymmetric", "correct_bias"):
            checked_kind(getattr(self, name), bool, _refusal(12, name, "choose True or False"))
        share = checked_number(
            self.percentile, _refusal(6, "percentile", "give the share of values that stays in range")
        )
        if not 0.5 <= share <= 1:
            lever = "give the share of values that stays in range"
            raise CalibrationError(6, f"percentile {self.percentile} is not between 0.5 and 1", lever=lever)
        number = "give a number, -inf for eight bits everywhere"
        if np.isnan(checked_number(self.wide_below, _refusal(11, "wide_below", number))):
            raise CalibrationError(11, "wide_below is not a number of dB", lever=number)
        if self.progress is not None and not callable(self.progress):
            what = f"progress is {shown(self.progress)}"
            raise CalibrationError(
                12, what, why="it is called with the number of samples", lever="give a function or None"
            )

    def _check_bits(self) -> None:
        widths = {name: getattr(self, name) for name in ("activation_bits", "weight_bits", "head_bits")}
        for name, bits in widths.items():
            if checked_index(bits, _refusal(5, name, "choose 8 or 16")) not in (8, 16):
                raise CalibrationError(5, f"{name} is {bits}", lever="choose 8 or 16")
        if self.weight_bits > self.activation_bits:
            raise CalibrationError(
                9,
                "16-bit weights with 8-bit activations",
                why="the tensor engine multiplies int8 by int8, int16 by int8 and int16 by int16",
                lever="ask for activation_bits=16 as well",
            )

    @property
    def estimator(self) -> str:
        """The key of the observer in `OBSERVERS`."""
        return DEFAULT_OBSERVER if self.observer == "default" else self.observer


def _refusal(number: int, name: str, lever: str) -> Refuse:
    return lambda given, why: CalibrationError(number, f"{name} is {given}", why=why, lever=lever)


def checked_samples(feeds: object) -> Iterable[Mapping[str, Any]]:
    """`feeds`, known to yield one mapping for each sample. Raises CalibrationError HB0413 or, while iterating, HB0402."""
    lever = "give a list or another iterable of {input name: array}, one for each sample"
    if isinstance(feeds, Mapping):
        raise CalibrationError(13, "feeds is a mapping", why="that is one sample", lever="put it into a list")
    if not isinstance(feeds, Iterable):
        raise CalibrationError(13, f"feeds is {shown(feeds)}", why="it takes an iterable of samples", lever=lever)
    return _mappings(cast("Iterable[object]", feeds), lever)


def _mappings(feeds: Iterable[object], lever: str) -> Iterable[Mapping[str, Any]]:
    for number, sample in enumerate(feeds):
        if not isinstance(sample, Mapping):
            raise CalibrationError(2, f"sample {number} is {shown(sample)}", why="it takes a mapping", lever=lever)
        yield cast("Mapping[str, Any]", sample)
