"""Runs models for diagnosis: the value of every place, before and behind its grid, with chosen grids switched on."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch.utils import _pytree as pytree

from hbir.dialects.base import Array, tensor_type
from hbir.dialects.hbir.constant import ConstantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import TrainingError
from hbir.ir.locations import layer_name
from hbir.module import Function, Module
from hbir.torch.exporting.build import folded_weight
from hbir.torch.exporting.export import get_hbir_input_flattener
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, fake_quants
from hbir.torch.march import get_march
from hbir.torch.operations.registry import Kind, Operation
from hbir.torch.preparing.prepare import choices_of
from hbir.torch.preparing.trace import Trace, as_arguments, live, plain_outputs, trace
from hbir.torch.stubs import adopt
from hbir.torch.tracing.calls import Call, enters_region
from hbir.torch.tracing.qtensor import plain
from hbir.torch.tracing.scopes import PREPARED, install, state
from hbir.torch.validation import integers_of

__all__ = [
    "Feature",
    "LayerValues",
    "Recording",
    "aligned",
    "checked_prepared",
    "integers_for",
    "is_place",
    "is_prepared",
    "layer_values",
    "only",
    "ready",
    "record",
    "run",
    "switched",
    "value_of",
    "weight_of",
]

_FLOAT = FakeQuantState["_FLOAT"]


@dataclass(frozen=True, eq=False)
class Feature:
    """The value of one place in one run of its module."""

    name: str
    """The place's name; `name(2)` of the second run of a shared module."""
    call: Call
    before: torch.Tensor
    """The value before it is held to its grid; float32."""
    value: torch.Tensor
    """What the next place reads."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A run of a model: its places in order, and the tensors that came out."""

    features: dict[str, Feature]
    outputs: tuple[torch.Tensor, ...]
    trace: Trace


def is_prepared(model: object) -> bool:
    """Whether a model is what `prepare` returned."""
    return isinstance(model, torch.nn.Module) and PREPARED in model.__dict__


def checked_prepared(model: Any, tool: str) -> torch.nn.Module:
    """`model`, if it is prepared and its fake quantisation is placed. Raises TrainingError HB0970 otherwise."""
    if is_prepared(model) and fake_quants(model):
        choices_of(model)
        return model
    what = "has not run yet" if is_prepared(model) else "is not prepared"
    raise TrainingError(
        70,
        f"the model given to {tool} {what}",
        why="there is no fake quantisation to report on",
        lever="give what `prepare` returned; run it once where it was prepared without example inputs",
    )


def ready(model: Any) -> torch.nn.Module:
    """A model that can be recorded: a prepared one as it is, of a float one a copy with hooks. Raises HB0970 for neither."""
    if is_prepared(model):
        return model
    if not isinstance(model, torch.nn.Module):
        lever = "give a torch.nn.Module, float or prepared"
        raise TrainingError(70, f"the model is a {type(model).__name__}", lever=lever)
    work = copy.deepcopy(model)
    adopt(work)
    install(work)
    return work


@contextlib.contextmanager
def switched(model: torch.nn.Module, on: Callable[[FakeQuantize], bool]) -> Generator[None]:
    """Inside, the model is in evaluation mode, and those grids hold values that `on` says; modes and states come back."""
    modes = [(module, module.training) for module in model.modules()]
    states = [(fake, fake.state) for fake in fake_quants(model)]
    model.eval()
    for fake, _ in states:
        fake.state = FakeQuantState.VALIDATION if on(fake) else _FLOAT
    try:
        yield
    finally:
        for fake, before in states:
            fake.state = before
        for module, mode in modes:
            module.training = mode


@contextlib.contextmanager
def _watching(watch: Callable[[Call, Any, Any], None] | None) -> Generator[None]:
    before, state.watch = state.watch, watch
    try:
        yield
    finally:
        state.watch = before


def run(
    model: torch.nn.Module,
    example_inputs: Any,
    watch: Callable[[Call, Any, Any], None] | None = None,
    on: Callable[[FakeQuantize], bool] = lambda fake: True,
) -> tuple[Trace, tuple[torch.Tensor, ...]]:
    """Run a model that is `ready` on the arguments of one call; the trace, and the tensors among its outputs.

    Values between the stubs, and what leaves, are those of fake quantisation: floats on their grids.
    """
    with switched(model, on), _watching(watch):
        found = trace(model, as_arguments(example_inputs))
    leaves = pytree.tree_leaves(plain_outputs(found))
    return found, tuple(leaf.detach() for leaf in leaves if isinstance(leaf, torch.Tensor))


def is_place(call: Call) -> bool:
    """Whether a call computes values, and does not only move them."""
    if isinstance(call.operation, Operation):
        return call.operation.kind in (Kind.COMPUTE, Kind.WEIGHTED)
    return call.kind == "quant"


def record(
    model: torch.nn.Module, example_inputs: Any, on: Callable[[FakeQuantize], bool] = lambda fake: True
) -> Recording:
    """`run`, and the values of all places."""
    seen: list[tuple[Call, torch.Tensor, torch.Tensor]] = []

    def watch(call: Call, before: Any, value: Any) -> None:
        # Of several results the first has the grid.
        first, held = (each if isinstance(each, torch.Tensor) else each[0] for each in (before, value))
        if is_place(call) and held.is_floating_point():
            seen.append((call, plain(first).detach().clone(), plain(held).detach().clone()))

    found, outputs = run(model, example_inputs, watch, on)
    features: dict[str, Feature] = {}
    runs: dict[str, int] = {}
    # Names are given when the run is over.
    for call, before, value in seen:
        runs[call.name] = number = runs.get(call.name, 0) + 1
        name = call.name if number == 1 else f"{call.name}({number})"
        features[name] = Feature(name, call, before, value)
    return Recording(features, outputs, found)


def weight_of(call: Call) -> torch.Tensor | None:
    """The constant weight of a layer, with its batch norm folded in, before it is held to its grid."""
    if not isinstance(call.operation, Operation) or call.operation.kind is not Kind.WEIGHTED:
        return None
    weight = call.arguments[1] if len(call.arguments) > 1 else call.keywords.get("weight")
    if not isinstance(weight, torch.Tensor):
        return None
    return folded_weight(plain(weight), None, call)[0].detach()


def integers_for(model: torch.nn.Module, example_inputs: Any) -> tuple[Function, list[Array]]:
    """The converted function of a prepared model for the shapes at hand, and what enters it."""
    found, _ = run(model, example_inputs)
    calls = live(found.calls)
    module = integers_of(calls, str(model.__dict__.get(PREPARED) or get_march()))
    entering = [call for call in calls if enters_region(call)]
    return module[0], [_numpy(plain(cast(torch.Tensor, call.value))) for call in entering]


LayerValues = dict[str, list[torch.Tensor]]
"""By the name of a place: what its operations gave, one value for each time that the module comes to them."""


def layer_values(module: Module | Function, example_inputs: Any) -> tuple[LayerValues, tuple[torch.Tensor, ...]]:
    """The values of the layers of a module that came of a model, as floats, by the name of the place whose values they are; and
    the outputs. Where places were joined, the last one's value is there. Axes lie as the module has them (`aligned`).

    `example_inputs` are the arguments of one call of the model, or what enters the function, as a list of arrays.
    """
    function = module[0] if isinstance(module, Module) else module
    arrays = cast("list[Array]", example_inputs)
    if not isinstance(example_inputs, list):
        arrays = [_numpy(each) for each in get_hbir_input_flattener(module)(*as_arguments(example_inputs))]
    values: LayerValues = {}
    last, inner = "", set[str]()

    def hook(op: Any, results: Sequence[Array]) -> None:
        nonlocal last
        if isinstance(op, ConstantOp) or not results or not _computed(op):
            return
        joined = layer_name(op)
        *before, name = joined.split("+")
        inner.update(before)
        floats = _floats(np.asarray(results[0]), op.results[0].type)
        if floats is None:
            return
        # A place is often several operations, which stand together; the last one gives its value.
        known = values.setdefault(name, [])
        if joined == last:
            known.pop()
        known.append(_tensor(floats))
        last = joined

    named = dict(zip([argument.name for argument in function.flatten_inputs], arrays, strict=True))
    results = function.feed(named, hook)
    # What bears the name of a place that was joined with the next one only prepares it: a transpose, a rescale.
    for name in inner:
        values.pop(name, None)
    return values, tuple(_tensor(np.array(each)) for each in results.values())


def _computed(op: Any) -> bool:
    """Whether something else than a constant enters."""
    return any(not isinstance(value.owner, ConstantOp) for value in op.operands)


def _floats(array: Array, type_: Any) -> np.ndarray[Any, Any] | None:
    element = tensor_type(type_).element_type
    if isinstance(element, UniformQuantizedType):
        shape = [1] * array.ndim
        if element.per_axis is not None:
            shape[element.per_axis] = -1
        else:
            shape = [1] * max(array.ndim, 1)
        scale, zero = (np.asarray(each).reshape(shape) for each in (element.scale_array, element.zero_point_array))
        return ((array.astype(np.float64) - zero) * scale).astype(np.float32).reshape(array.shape)
    return array.astype(np.float32).copy() if array.dtype.kind == "f" else None


def value_of(values: LayerValues, feature: Feature, runs: int) -> torch.Tensor | None:
    """The value of a place that ran `runs` times; None where the module does not have it, or not as often."""
    found = values.get(feature.call.name, [])
    if runs == 1:
        return found[-1] if found else None
    number = 1 if feature.name == feature.call.name else int(feature.name[len(feature.call.name) + 1 : -1])
    return found[number - 1] if len(found) == runs else None


def aligned(value: torch.Tensor, like: torch.Tensor) -> torch.Tensor | None:
    """`value` with the axes of `like`; None where it cannot be.

    Modules put the channels last where units want them, and drop and add axes of extent 1. Where more than one order of axes
    gives the shape, it is the one that lies nearest to `like`: another order is no small error.
    """
    found = [each for each in _orders(value) if each.shape == like.shape]
    if not found and value.numel() == like.numel():
        found = [each.reshape(like.shape) for each in _orders(value)]
    if len(found) < 2:
        return found[0] if found else None
    return min(found, key=lambda each: float((each - like).double().square().sum()))


def _orders(value: torch.Tensor) -> Iterator[torch.Tensor]:
    yield value
    if value.dim() > 2:
        yield value.movedim(-1, 1)


def _tensor(array: Any) -> torch.Tensor:
    return cast(Any, torch).from_numpy(array)


def _numpy(value: Any) -> Array:
    tensor = value if isinstance(value, torch.Tensor) else torch.as_tensor(value)
    return np.ascontiguousarray(cast(Any, tensor.detach().cpu()).numpy())


def only(fakes: Collection[FakeQuantize]) -> Callable[[FakeQuantize], bool]:
    """Switches on these alone."""
    wanted = {id(fake) for fake in fakes}
    return lambda fake: id(fake) in wanted
