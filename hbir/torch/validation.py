"""The state VALIDATION: what leaves the quantised region is what the integers of the converted model give, bit for bit.

Before a prepared model runs in that state, its graph is taken on the shapes at hand and converted for its march, once for each
set of shapes and of weights. During the run the integers are computed from what enters through the QuantStubs, as far as each
DeQuantStub needs them; gradients go straight through to the float approximation, which runs beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary
from zlib import crc32

import torch
from torch.utils import _pytree as pytree

from hbir.errors import TrainingError
from hbir.module import Function, Module
from hbir.torch.exporting.build import build_module
from hbir.torch.fake_quant.fake_quantize import FakeQuantState, fake_quants
from hbir.torch.fake_quant.notices import warn_once
from hbir.torch.integers import Evaluator
from hbir.torch.march import get_march
from hbir.torch.operations.registry import Operation
from hbir.torch.preparing.trace import trace
from hbir.torch.tracing.calls import Call, Ref, enters_region, leaves_region, replaced, upstream
from hbir.torch.tracing.qtensor import plain
from hbir.torch.tracing.scopes import PREPARED, source_line, state
from hbir.torch.tracing.scripted import is_tracing
from passes import convert

__all__ = ["alone", "begin", "end", "integers_for", "integers_of", "state_of"]


_KEPT = 8
"""Sets of shapes whose integers are kept."""


@dataclass(frozen=True)
class _Converted:
    """The integers of a model for one set of shapes."""

    weights: int
    """The checksum of the tensors of the model."""
    evaluator: Evaluator
    steps: tuple[tuple[Any, ...], ...]
    """The operations in order, with what they were called with beside values of the region."""
    leaving: tuple[tuple[str, int], ...]
    """The calls that leave the region, in order, and how many operations ran before."""


_converted: WeakKeyDictionary[torch.nn.Module, dict[object, _Converted]] = WeakKeyDictionary()


def state_of(model: torch.nn.Module) -> FakeQuantState | None:
    """The state of a prepared model; None without any fake quantisation. Raises TrainingError HB0965 where states are mixed."""
    states = {module.state for module in fake_quants(model)}
    if len(states) > 1:
        raise TrainingError(
            65,
            f"the fake quantisation of the model is in the states {', '.join(sorted(s.name for s in states))}",
            why="a part of the model would be quantised, and another not",
            lever="call set_fake_quantize(model, FakeQuantState.…) on the whole model",
        )
    return next(iter(states), None)


def begin(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """The hook before a prepared model runs."""
    if state.calls is not None or state.root is not None or is_tracing():
        return
    found = state_of(model)
    if found is FakeQuantState.CALIBRATION and model.training:
        warn_once(_CALIBRATES_IN_TRAINING, model)
    if found is not FakeQuantState.VALIDATION:
        return
    if model.training:
        raise TrainingError(
            62,
            "the model is in training mode, and its fake quantisation in VALIDATION",
            why="batch norm would use statistics of the batch, which no integers know",
            lever="call model.eval() first, then set_fake_quantize(model, FakeQuantState.VALIDATION)",
        )
    state.root, state.exact = model, _Run(model, _for_shapes(model, args, kwargs))


_CALIBRATES_IN_TRAINING = TrainingError(
    66,
    "the model is calibrated in training mode",
    why="batch norm changes its statistics, and dropout what is observed",
    lever="call model.eval() first and set_fake_quantize(model, FakeQuantState.CALIBRATION) last",
)


def end(model: torch.nn.Module, *_: Any) -> None:
    """The hook behind a prepared model, also where it raised."""
    if state.root is model:
        state.root = state.exact = None


def _for_shapes(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Converted:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    shapes = tuple((tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves)
    key = (repr(spec), shapes)
    known = _converted.setdefault(model, {})
    found = known.get(key)
    if found is None or found.weights != _checksum(model):
        if found is not None:
            known.clear()
        # The trace takes over scales that were observed last, which writes them.
        run = trace(model, args, kwargs)
        found = known[key] = _convert(run.calls, model.__dict__[PREPARED], _checksum(model), _device(model))
        while len(known) > _KEPT:
            del known[next(iter(known))]
    return found


def _checksum(*modules: torch.nn.Module) -> int:
    """Of all parameters and buffers. PyTorch counts how often a tensor is written, but not what goes through `.data`."""
    found = 0
    for module in modules:
        for tensor in (*module.parameters(), *module.buffers()):
            found = crc32(_bytes(tensor), found)
    return found


def _bytes(tensor: torch.Tensor) -> Any:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(cast(Any, flat.view(torch.uint8)).numpy()) if flat.numel() else b""


def _step(call: Call) -> tuple[Any, ...]:
    """What an operation is called with, but for the values of the region and the weights, which have their own checksum."""
    found: list[Any] = [call.key, call.kind]

    def note(leaf: Any) -> None:
        if isinstance(leaf, torch.Tensor):
            found.append((tuple(leaf.shape), 0 if isinstance(leaf, torch.nn.Parameter) else crc32(_bytes(plain(leaf)))))
        elif not isinstance(leaf, Ref):
            found.append(repr(leaf))

    replaced((call.arguments, call.keywords), note)
    return tuple(found)


def _device(model: torch.nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def integers_of(calls: Sequence[Call], march: str, options: Mapping[str, Any] | None = None) -> Module:
    """The converted module of recorded calls."""
    return convert(build_module("main", calls), march, **dict(options or {}))


def integers_for(model: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None = None) -> Function:
    """What the integers of a prepared model are, for arguments of the shapes of these."""
    found = trace(model, args, dict(kwargs or {}))
    return integers_of(found.calls, model.__dict__[PREPARED])[0]


def _convert(calls: Sequence[Call], march: str, weights: int, device: torch.device) -> _Converted:
    steps: list[tuple[Any, ...]] = []
    leaving: list[tuple[str, int]] = []
    for call in calls:
        if isinstance(call.operation, Operation):
            steps.append(_step(call))
        if leaves_region(call):
            leaving.append((call.name, len(steps)))
    return _Converted(weights, Evaluator(integers_of(calls, march)[0], device), tuple(steps), tuple(leaving))


class _Run:
    """One forward pass: values enter, operations run and values leave as they did when the model was traced."""

    def __init__(self, model: torch.nn.Module, found: _Converted) -> None:
        self.model, self.found, self.run = model, found, found.evaluator.start()
        self.entered, self.ran, self.left = 0, 0, 0

    def step(self, call: Call) -> None:
        """An operation runs. Raises TrainingError HB0963 where another one ran, or with other constants."""
        if self.ran >= len(self.found.steps) or self.found.steps[self.ran] != _step(call):
            raise self._otherwise(call)
        self.ran += 1

    def _otherwise(self, call: Call) -> TrainingError:
        _converted.pop(self.model, None)
        line = source_line()
        return TrainingError(
            63,
            f"{call.kind} runs where the integers have something else",
            where=f"layer '{call.name}', {line}" if line else f"layer '{call.name}'",
            why="the model takes another path than on the run that its integers were made of, or was changed since",
            lever="keep the control flow of the model the same for inputs of one shape; behind a change that is meant, call the"
            " model again: its integers are made anew",
        )

    def enter(self, call: Call, value: torch.Tensor) -> None:
        if not call.arguments:
            self.run.enter(self.entered, value.detach().float().contiguous())
            self.entered += 1

    def leave(self, call: Call, value: torch.Tensor) -> torch.Tensor:
        leaving = self.found.leaving
        if self.left >= len(leaving) or leaving[self.left] != (call.name, self.ran):
            raise self._otherwise(call)
        exact = self.run.leave(self.left)
        self.left += 1
        return straight_through(value, exact)


def alone(call: Call, value: torch.Tensor) -> torch.Tensor:
    """What leaves at `call` where a part of a prepared model runs by itself."""
    calls = upstream([call])
    entered = [cast(torch.Tensor, each.value) for each in calls if enters_region(each)]
    return straight_through(value, standalone(call)(entered))


def standalone(call: Call) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    """What computes the value that leaves at `call` from those that enter, of their shapes.

    Its integers are made when it is first called, and anew when weights or scales have changed.
    """
    calls, march = upstream([call]), get_march()
    modules = {each.module: None for each in calls if each.module is not None}
    known: dict[int, Evaluator] = {}

    def run(entered: Sequence[torch.Tensor]) -> torch.Tensor:
        weights = _checksum(*modules)
        if weights not in known:
            known.clear()
            known[weights] = Evaluator(integers_of(calls, march)[0], entered[0].device)
        one = known[weights].start()
        for number, tensor in enumerate(entered):
            one.enter(number, tensor.detach().float().contiguous())
        return one.leave(0)

    return run


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        ctx.dtype = value.dtype
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0].to(ctx.dtype), None


def straight_through(value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """`exact`, with the gradient of `value`. It stays float32 where `value` is narrower, under autocast say: the integers'
    results are rounded once."""
    if exact.shape != value.shape:
        shapes = f"{tuple(exact.shape)} instead of {tuple(value.shape)}"
        raise TrainingError(64, f"the integers have the shape {shapes}", lever="report it with the model")
    if not value.is_floating_point():
        return exact.to(value.dtype)
    return cast(Any, _StraightThrough).apply(value, exact.to(torch.promote_types(exact.dtype, value.dtype)))
