"""Runs a model on example inputs, and records what happens between its stubs."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch.utils import _pytree as pytree

from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.observers import Observer
from hbir.torch.tracing.calls import Call, leaves_region, operands
from hbir.torch.tracing.qtensor import Outside, QTensor, plain
from hbir.torch.tracing.scopes import Scope, replaced_module, state

__all__ = ["Trace", "recording", "trace"]


@dataclass(frozen=True)
class Trace:
    """A run of a model: its calls in order, the pytrees of what went in and came out, and the leaves of both."""

    calls: tuple[Call, ...]
    inputs: Any
    outputs: Any
    results: tuple[Any, ...]
    """The leaves of the output: tensors of the region, tensors outside, anything else."""
    given: tuple[Any, ...] = ()
    """The leaves of the input, as the model saw them."""

    def place_of(self, value: Any) -> int | None:
        """Which leaf of the input a value is, or None."""
        return next((number for number, leaf in enumerate(self.given) if leaf is value), None)

    def left_at(self, value: Any) -> Call | None:
        """The call at which a value left the region, or None for what was made of it afterwards."""
        return next((call for call in reversed(self.calls) if call.value is not None and call.value is value), None)


@contextlib.contextmanager
def recording(calls: list[Call]) -> Generator[None]:
    """Calls are added to `calls` inside the `with`."""
    before, state.calls = state.calls, calls
    exact, state.exact = state.exact, None
    try:
        yield
    finally:
        state.calls, state.exact = before, exact


def as_arguments(example_inputs: object) -> tuple[Any, ...]:
    """The positional arguments that example inputs mean: a tuple is several, anything else is one."""
    return cast("tuple[Any, ...]", example_inputs) if isinstance(example_inputs, tuple) else (example_inputs,)


def trace(model: torch.nn.Module, args: Sequence[Any], kwargs: dict[str, Any] | None = None) -> Trace:
    """Run `model.forward` without gradients and record it; the modules need their hooks (`install`).

    Raises TrainingError HB0910 for an operation without a quantised form, HB0911 for an operand outside the region, HB0930 for
    a model without stubs, HB0931 for a value that leaves the model without a DeQuantStub.
    """
    leaves, spec = pytree.tree_flatten((tuple(args), dict(kwargs or {})))
    given = [
        leaf.detach().as_subclass(Outside) if isinstance(leaf, torch.Tensor) and not leaf.is_complex() else leaf
        for leaf in leaves
    ]
    if (path := replaced_module(model)) is not None:
        raise TrainingError(
            15,
            f"module '{path}' is not the one that was prepared",
            why="its fake quantisation went with it, and what reads it would be computed in float",
            lever="change the float model, and prepare it again",
        )
    calls: list[Call] = []
    with recording(calls), torch.no_grad(), _buffers_kept(model):
        state.scopes.append(Scope("", model))
        depth = len(state.scopes)
        try:
            result = _run(model, *pytree.tree_unflatten(given, spec))
        finally:
            del state.scopes[depth - 1 :]
    _check_stubs(calls)
    _name(calls)
    results, shape = pytree.tree_flatten(result)
    for number, leaf in enumerate(results):
        if isinstance(leaf, QTensor) and leaf.is_floating_point():
            raise TrainingError(
                31,
                f"output {number} leaves the model inside the quantised region",
                where=f"layer '{leaf.made.call.name}', {leaf.made.call.source}",
                why="its integers have no meaning outside",
                lever="put a DeQuantStub on that branch",
            )
    return Trace(tuple(calls), spec, shape, tuple(results), tuple(given))


@contextlib.contextmanager
def _buffers_kept(model: torch.nn.Module) -> Generator[None]:
    """Buffers are afterwards what they were, but for scales: a model that counts its runs does not count this one."""
    modules = [module for module in model.modules() if not isinstance(module, FakeQuantize | Observer)]
    before = [(module, name, old, old.clone()) for module in modules for name, old in _buffers(module)]
    try:
        yield
    finally:
        for module, name, old, value in before:
            if not torch.equal(old, value):
                old.copy_(value)
            if getattr(module, name) is not old:
                setattr(module, name, old)


def _buffers(module: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    return list(module.named_buffers(recurse=False))


def _run(model: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return model.forward(*args, **kwargs)
    except TrainingError:
        raise
    except TypeError as error:
        if "forward()" not in str(error):
            raise
        lever = "give one tuple with an entry for each argument of forward"
        raise TrainingError(32, "the example inputs do not fit the model", why=str(error), lever=lever) from error


def _name(calls: Sequence[Call]) -> None:
    """A module that is one operation gives it its name; in one that is several they have numbers."""
    numbers: dict[str, set[int]] = {}
    for call in calls:
        numbers.setdefault(call.key[0], set()).add(call.key[1])
    for call in calls:
        path, number = call.key
        whole = path and len(numbers[path]) == 1 and not (call.module is not None and _has_modules(call.module))
        call.name = path if whole else f"{path}.{call.kind}_{number}".lstrip(".")


def _has_modules(module: torch.nn.Module) -> bool:
    """Whether a module is made of others, beside what was added to it."""
    added = ("activation_", "weight_fake", "input_fake", "_generated_")
    return any(not name.startswith(added) for name, _ in module.named_children())


def _check_stubs(calls: Sequence[Call]) -> None:
    if not any(call.kind == "quant" for call in calls):
        raise TrainingError(
            30,
            "no QuantStub ran",
            why="nothing says where the quantised region begins",
            lever="put a QuantStub on each input branch and a DeQuantStub on each output branch",
        )
    if not any(leaves_region(call) for call in calls):
        raise TrainingError(
            30,
            "nothing leaves the quantised region",
            why="no DeQuantStub ran on a value of it",
            lever="put a DeQuantStub on each output branch",
        )


def live(calls: Sequence[Call]) -> list[Call]:
    """The calls that a value which leaves the region needs, and those of QuantStubs, in order."""
    needed = {call for call in calls if leaves_region(call)}
    for call in reversed(calls):
        if call in needed:
            needed.update(ref.call for ref in operands((call.arguments, call.keywords)))
    return [call for call in calls if call in needed or call.kind == "quant"]


def plain_outputs(found: Trace) -> Any:
    """The outputs of a traced run as plain tensors."""
    leaves = [plain(leaf) if isinstance(leaf, Outside) else leaf for leaf in found.results]
    return pytree.tree_unflatten(leaves, found.outputs)
