"""Fake quantisation: floats held to the grid of an integer type, with the gradient of the identity inside its range.

State dicts hold `scale` and `zero_point` of each fake quant and nothing of its observer, so that a model prepared for training
loads, strictly, what one prepared for calibration saved, whatever their observers. A dict tells the dtype of each scale, too: a
scale of eight bits that a fake quant of sixteen loads becomes the one with the same range.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from enum import Enum
from typing import Any, cast

import numpy as np
import torch

from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import TrainingError
from hbir.torch.dtype import QuantDType, checked_dtype, qint8
from hbir.torch.fake_quant.factory import Factory
from hbir.torch.fake_quant.kernels import held, held_learning
from hbir.torch.fake_quant.notices import forget, warn_once, where
from hbir.torch.fake_quant.observers import (
    SMALLEST_SCALE,
    FixedScaleObserver,
    MovingAverageMinMaxObserver,
    Observer,
)

__all__ = ["FakeQuantState", "FakeQuantize", "fake_quants", "lasting", "set_fake_quantize"]


class FakeQuantState(Enum):
    """What fake quantisation does in a forward pass."""

    CALIBRATION = "calibration"
    """Observe only; values pass unchanged."""
    QAT = "qat"
    """Observe, and hold values to the grid."""
    VALIDATION = "validation"
    """Hold values to the grid; what leaves the quantised region is what the integers give, bit for bit."""
    _FLOAT = "float"
    """Neither: the float model, for diagnosis."""


class FakeQuantize(torch.nn.Module):
    """Holds values to the grid of `dtype`: `clamp(round(x / scale), limits) * scale`, rounding half to even.

    `observer` is an observer, or a class or factory of them; it follows the values while the state says so and the module
    trains. With `scale`, or a FixedScaleObserver, the scale is given and stays. `axis` is the channel axis of weights,
    `channels` their number. `freeze` keeps the scale that calibration found (or a state dict brought) through training.
    `learned` makes the scale a parameter that training changes (learned step size) from where calibration left it.
    `intended` is the state that the settings were made for: calibration in another state is then warned of.
    The published spellings `ch_axis`, `qscheme`, `quant_min` and `quant_max` are read; other options are the observer's.

    Buffers: `scale` float32 of shape (1,) or (channels,), never 0, 1 until something was observed; `zero_point` int32, 0.
    Raises TrainingError HB0941 for arguments that do not fit, HB0940 for NaN and infinity in calibration.
    """

    scale: torch.Tensor
    zero_point: torch.Tensor

    def __init__(
        self,
        observer: Observer | Callable[..., Observer] | None = None,
        dtype: QuantDType | str = qint8,
        axis: int | None = None,
        channels: int = 1,
        scale: float | None = None,
        *,
        learned: bool = False,
        freeze: bool = False,
        intended: FakeQuantState | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.dtype = checked_dtype(str(dtype).removeprefix("torch."), "dtype")
        self.quant_min, self.quant_max = self.dtype.limits
        axis = _axis(axis, options, observer)
        self._check_limits(options.pop("quant_min", None), options.pop("quant_max", None))
        if isinstance(observer, Observer):
            made: Observer | None = observer
        elif observer is None and scale is not None:
            made = None
        else:
            if scale is not None:
                options["scale"] = scale
            made = (observer or MovingAverageMinMaxObserver)(dtype=self.dtype, axis=axis, **options)
        if isinstance(made, FixedScaleObserver):
            scale = made.fixed_scale
        elif scale is not None:
            scale = FixedScaleObserver(scale).fixed_scale
        self.channel_axis = axis if scale is None else None
        self.activation_post_process = made
        self.state = FakeQuantState.QAT
        self.state_given = False
        """Whether `set_fake_quantize` chose the state."""
        self.frozen, self.learned, self.intended = freeze, learned and scale is None, intended
        self.calibrated = scale is not None
        """Whether the scale is more than the 1 it began with."""
        self._stale = False
        self._settled: torch.Tensor | None = None
        """Of a learned scale: the last one that was used."""
        shape = (channels,) if self.channel_axis is not None else (1,)
        first = torch.full(shape, 1.0 if scale is None else scale)
        if self.learned:
            self.scale = torch.nn.Parameter(first)
        else:
            self.register_buffer("scale", first)
        self.register_buffer("zero_point", torch.zeros(shape, dtype=torch.int32))

    @classmethod
    def with_args(cls, **keywords: Any) -> Factory:
        """The class with some of its arguments given: what a QConfig holds."""
        return Factory(cls, keywords)

    def _check_limits(self, low: int | None, high: int | None) -> None:
        for given, limit, name in ((low, self.quant_min, "quant_min"), (high, self.quant_max, "quant_max")):
            if given is not None and given != limit:
                what, lever = f"{name} is {given}", f"leave it out: of {self.dtype} it is {limit}"
                raise TrainingError(41, what, why="integers have all values of their type", lever=lever)

    def __getattr__(self, name: str) -> Any:
        # The scale of a histogram is computed when it is asked for, not with each batch.
        if name == "scale" and self.__dict__.get("_stale"):
            self.refresh()
        return super().__getattr__(name)

    @property
    def axis(self) -> int:
        """The channel axis; 0 where there is one scale for all, which any axis has."""
        return 0 if self.channel_axis is None else self.channel_axis

    @property
    def fixed(self) -> bool:
        """Whether the scale was given, and is not learned from values."""
        return self.activation_post_process is None or isinstance(self.activation_post_process, FixedScaleObserver)

    @property
    def grid(self) -> UniformQuantizedType:
        """The grid in the IR's words."""
        self.settle()
        axis = -1 if self.channel_axis is None else self.channel_axis
        return UniformQuantizedType.get(self.dtype.bits, _numpy(self.scale), axis=axis)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Observe and hold float values, as the state says; same shape and dtype."""
        state = self.state
        if state is _FLOAT:
            return x
        if self.training and state in _OBSERVES and not self.fixed:
            self._observe(x, state)
        elif not self.fixed and (state is FakeQuantState.CALIBRATION or not self.calibrated):
            self._misused()
        if state is FakeQuantState.CALIBRATION:
            return x
        self.settle()
        if self.learned and state is FakeQuantState.QAT:
            return held_learning(x, self.scale, self.channel_axis, self.dtype.limits)
        return held(x, self.scale, self.channel_axis, self.dtype.limits)

    def _observe(self, x: torch.Tensor, state: FakeQuantState) -> None:
        observer = cast(Observer, self.activation_post_process)
        if state is FakeQuantState.CALIBRATION:
            with lasting():
                observer(x)
            self._stale = self.calibrated = True
            return
        if not self.state_given and (self.intended is FakeQuantState.CALIBRATION or not torch.is_grad_enabled()):
            warn_once(_NOT_CALIBRATING, self)
        if (self.frozen or self.learned) and self.calibrated:
            return
        if self.frozen:
            self._misused()
            return
        with lasting():
            observer.follow(x)
            self.refresh()

    def refresh(self) -> None:
        """Take over the scale of what the observer has seen, if it has seen anything."""
        self._stale = False
        found = None if self.activation_post_process is None else self.activation_post_process.scale()
        if found is not None:
            self._write(found)
            self.calibrated = True

    def _write(self, scale: torch.Tensor) -> None:
        """Set the scale; a fake quant made without a number of channels gets it with its first scale."""
        with lasting(), torch.no_grad():
            if scale.shape != self.scale.shape:
                self.scale.data = self.scale.new_ones(scale.shape)
                self.zero_point.data = self.zero_point.new_zeros(scale.shape)
            self.scale.copy_(scale)
        self._settled = None

    def settle(self) -> None:
        """Bring a learned scale that an optimizer changed to between a half and twice of what it was.

        So it never reaches 0, from where no gradient leads back. Raises TrainingError HB0940 for NaN and infinity.
        """
        if not self.learned:
            return
        with torch.no_grad():
            if not bool(torch.isfinite(self.scale).all()):
                lever = "lower the learning rate of scales, or clip gradients"
                raise TrainingError(40, "a learned scale is NaN or infinite", where=where(), lever=lever)
            found = self.scale.detach().clamp(min=SMALLEST_SCALE)
            if self._settled is not None:
                before = self._settled.to(found.device)
                found = torch.clamp(found, before / 2, before * 2)
            # A scale that stays is not written: gradients of an earlier run of this step may still need it.
            if not torch.equal(found, self.scale):
                self.scale.copy_(found)
            self._settled = found

    def _misused(self) -> None:
        if self.state is FakeQuantState.CALIBRATION:
            warn_once(_NOT_OBSERVING, self)
        else:
            warn_once(_NEVER_CALIBRATED, self)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        if self._stale:
            self.refresh()
        self.settle()
        metadata = getattr(destination, "_metadata", None)
        if metadata is not None:
            metadata.setdefault(prefix[:-1], {})["dtype"] = self.dtype.name
        cast(Any, super())._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, local_metadata: Any, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride] - PyTorch passes them by position
        # Older dicts, and those of other tools, hold what observers saw.
        for key in [key for key in state_dict if key.startswith(f"{prefix}activation_post_process.")]:
            del state_dict[key]
        given = state_dict.get(f"{prefix}scale")
        if given is not None and self.fixed:
            state_dict[f"{prefix}scale"] = self.scale.detach()
        elif given is not None and given is not self.scale:
            name = local_metadata.get("dtype", self.dtype.name)
            scale = _fitting(given, self.scale, checked_dtype(name, "dtype of a saved scale"), self.dtype)
            state_dict[f"{prefix}scale"] = scale
            # Nothing observed leaves all scales at 1.
            self.calibrated, self._stale, self._settled = not bool((given == 1).all()), False, None
            if self.activation_post_process is not None:
                self.activation_post_process.seed(scale.to(self.scale.device) if self.calibrated else None)
        if f"{prefix}zero_point" in state_dict:
            state_dict[f"{prefix}zero_point"] = torch.zeros_like(self.zero_point)
        cast(Any, super())._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        """What `print` shows of it."""
        kind = "per_tensor_symmetric" if self.channel_axis is None else "per_channel_symmetric"
        axis = -1 if self.channel_axis is None else self.channel_axis
        return (
            f"state={self.state.name}, quant_min={self.quant_min}, quant_max={self.quant_max}, dtype={self.dtype}, "
            f"qscheme={kind}, ch_axis={axis}, scale={self.scale.detach()}, zero_point={self.zero_point}"
        )


_FLOAT = FakeQuantState["_FLOAT"]
_OBSERVES = (FakeQuantState.CALIBRATION, FakeQuantState.QAT)

_NOT_CALIBRATING = TrainingError(
    46,
    "the model runs in train() and no state was set: this trains it, and calibrates nothing",
    why="fake quantisation begins in the state QAT",
    lever="to calibrate, call model.eval() and then set_fake_quantize(model, FakeQuantState.CALIBRATION);"
    " to train, set_fake_quantize(model, FakeQuantState.QAT)",
)
_NEVER_CALIBRATED = TrainingError(
    47,
    "fake quantisation runs with scales that were never calibrated: they are all 1",
    why="observers work only in train(), or behind set_fake_quantize",
    lever="calibrate first: model.eval(), set_fake_quantize(model, FakeQuantState.CALIBRATION), run data; or load the state"
    " dict of a calibrated model",
)
_NOT_OBSERVING = TrainingError(
    48,
    "the state is CALIBRATION and nothing is observed",
    why="model.eval() behind set_fake_quantize turned the observers off",
    lever="call model.eval() first and set_fake_quantize(model, FakeQuantState.CALIBRATION) last",
)


@contextlib.contextmanager
def lasting() -> Generator[None]:
    """Tensors that are made within can be trained, also in inference mode: those of that mode never can."""
    if not torch.is_inference_mode_enabled():
        yield
        return
    with torch.inference_mode(False), torch.no_grad():
        yield


def _numpy(scale: torch.Tensor) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(cast(Any, scale.detach().cpu()).numpy(), np.float32)


def _axis(axis: int | None, options: dict[str, Any], observer: Any) -> int | None:
    """The channel axis that the arguments mean; the published spellings are taken out of `options`."""
    named, scheme = options.pop("ch_axis", None), options.pop("qscheme", None)
    if axis is None and named is not None and named >= 0:
        axis = named
    if scheme is None:
        made = observer.function if isinstance(observer, Factory) else observer
        return 0 if axis is None and getattr(made, "per_channel", False) else getattr(observer, "axis", None) or axis
    if scheme == torch.per_tensor_symmetric:
        return None
    if scheme == torch.per_channel_symmetric:
        return axis or 0
    what, lever = f"the qscheme is {scheme}", "use torch.per_tensor_symmetric or torch.per_channel_symmetric"
    raise TrainingError(41, what, why="grids are symmetric", lever=lever)


def _fitting(given: torch.Tensor, own: torch.Tensor, then: QuantDType, now: QuantDType) -> torch.Tensor:
    """A scale that was saved, in the dtype and number of channels it is loaded into; its range stays."""
    scale = given.detach().float() * (then.limits[1] / now.limits[1])
    if scale.shape == own.shape:
        return scale
    if scale.numel() == 1:
        return scale.reshape(1).expand(own.shape).clone()
    return scale.max().reshape(1) if own.numel() == 1 else scale


WAITING = "_hbir_waiting"
"""The key under which a model whose fake quantisation comes with its first run keeps what it will get; it has a `state`."""


def set_fake_quantize(model: torch.nn.Module, state: FakeQuantState) -> None:
    """Set the state of all fake quantisation of a prepared model; call it behind `model.train()` and `model.eval()`.

    CALIBRATION and QAT turn the observers on, which `model.eval()` would turn off again. Raises TrainingError HB0904 for what
    is no state, HB0905 for a model without fake quantisation.
    """
    if not isinstance(cast(object, state), FakeQuantState):
        raise TrainingError(
            4, f"the state is {state!r}", lever=f"choose one of {', '.join(s.name for s in FakeQuantState)}"
        )
    waiting = [module for module in model.modules() if WAITING in module.__dict__]
    for module in waiting:
        module.__dict__[WAITING].state = state
    found = fake_quants(model)
    if not found and not waiting:
        what = "the model has no fake quantisation"
        raise TrainingError(
            5, what, why="its float values would be taken for quantised ones", lever="call prepare first"
        )
    forget(model)
    for module in found:
        module.settle()
        module.state, module.state_given = state, True
        module.train(state in _OBSERVES)


def fake_quants(model: torch.nn.Module) -> list[FakeQuantize]:
    """All fake quants of a model, each once."""
    return [module for module in model.modules() if isinstance(module, FakeQuantize)]
