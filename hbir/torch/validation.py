"""The state VALIDATION: what leaves the quantised region is what the integers of the converted model give, bit for bit.

Before a prepared model runs in that state, its graph is taken on the shapes at hand and converted for its march, once for each
set of shapes and of weights. During the run the integers are computed from what enters through the QuantStubs, as far as each
DeQuantStub needs them; gradients go straight through to the float approximation, which runs beside them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch.utils import _pytree as pytree

from hbir.errors import TrainingError
from hbir.module import Module
from hbir.torch.exporting.build import build_module
from hbir.torch.fake_quant.fake_quantize import FakeQuantState, fake_quants
from hbir.torch.integers import Evaluator
from hbir.torch.march import get_march
from hbir.torch.preparing.trace import trace
from hbir.torch.tracing.calls import Call, enters_region, leaves_region, upstream
from hbir.torch.tracing.scopes import PREPARED, state
from hbir.torch.tracing.scripted import is_tracing
from passes import convert

__all__ = ["begin", "end", "integers_of", "state_of"]


@dataclass(frozen=True)
class _Converted:
    """The integers of a model for one set of shapes."""

    weights: tuple[tuple[int, int], ...]
    """Where the tensors of the model lay, and how often they had been written."""
    evaluator: Evaluator
    names: tuple[str, ...]
    """The calls that leave the region, in order."""


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
    if state_of(model) is not FakeQuantState.VALIDATION:
        return
    if model.training:
        raise TrainingError(
            62,
            "the model is in training mode, and its fake quantisation in VALIDATION",
            why="batch norm would use statistics of the batch, which no integers know",
            lever="call model.eval() first, then set_fake_quantize(model, FakeQuantState.VALIDATION)",
        )
    found = _for_shapes(model, args, kwargs)
    state.root, state.exact = model, _Run(found)


def end(model: torch.nn.Module, *_: Any) -> None:
    """The hook behind a prepared model, also where it raised."""
    if state.root is model:
        state.root = state.exact = None


def _for_shapes(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Converted:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    shapes = tuple((tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else repr(leaf) for leaf in leaves)
    key = (pytree.treespec_dumps(spec), shapes)
    known = _converted.setdefault(model, {})
    found = known.get(key)
    if found is None or found.weights != _written(model):
        if found is not None:
            known.clear()
        # The trace takes over scales that were observed last, which writes them.
        run = trace(model, args, kwargs)
        found = known[key] = _convert(run.calls, model.__dict__[PREPARED], _written(model), _device(model))
    return found


def _written(model: torch.nn.Module) -> tuple[tuple[int, int], ...]:
    """Where the tensors of a model lie, and how often they were written."""
    return tuple((tensor.data_ptr(), tensor._version) for tensor in (*model.parameters(), *model.buffers()))


def _device(model: torch.nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))


def integers_of(calls: Sequence[Call], march: str, options: Mapping[str, Any] | None = None) -> Module:
    """The converted module of recorded calls."""
    return convert(build_module("main", calls), march, **dict(options or {}))


def _convert(
    calls: Sequence[Call], march: str, weights: tuple[tuple[int, int], ...], device: torch.device
) -> _Converted:
    names = tuple(call.name for call in calls if leaves_region(call))
    return _Converted(weights, Evaluator(integers_of(calls, march)[0], device), names)


class _Run:
    """One forward pass: values enter and leave in the order in which they did when the model was traced."""

    def __init__(self, found: _Converted) -> None:
        self.names, self.run = found.names, found.evaluator.start()
        self.entered, self.left = 0, 0

    def enter(self, call: Call, value: torch.Tensor) -> None:
        if not call.arguments:
            self.run.enter(self.entered, value.detach().float().contiguous())
            self.entered += 1

    def leave(self, call: Call, value: torch.Tensor) -> torch.Tensor:
        if self.left >= len(self.names) or self.names[self.left] != call.name:
            raise TrainingError(
                63,
                "values leave the region in another order than on the run before",
                where=f"layer '{call.name}'",
                lever="keep the control flow of the model the same for inputs of one shape",
            )
        exact = self.run.leave(self.left)
        self.left += 1
        return straight_through(value, exact)


def alone(call: Call, value: torch.Tensor) -> torch.Tensor:
    """What leaves at `call` where a part of a prepared model runs by itself."""
    calls = [*upstream([call])]
    module = integers_of(calls, get_march())
    run = Evaluator(module[0], value.device).start()
    for number, each in enumerate(filter(enters_region, calls)):
        run.enter(number, cast(torch.Tensor, each.value))
    return straight_through(value, run.leave(0))


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
        del value
        return exact.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


def straight_through(value: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """`exact`, with the gradient of `value`."""
    if exact.shape != value.shape:
        shapes = f"{tuple(exact.shape)} instead of {tuple(value.shape)}"
        raise TrainingError(64, f"the integers have the shape {shapes}", lever="report it with the model")
    if not value.is_floating_point():
        return exact.to(value.dtype)
    return cast(Any, _StraightThrough).apply(value, exact.to(value.dtype))
