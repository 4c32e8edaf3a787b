"""Modules that are called several times: their calls share grids and scales, so they have to run the same operations."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from hbir.errors import TrainingError
from hbir.torch.tracing.calls import Call, Key, is_layer, weight_of

__all__ = ["check_shared"]


def check_shared(calls: Iterable[Call]) -> None:
    """Compare the calls of a traced model that stand in the same place: the same number in the same module.

    A call of a module may run fewer operations than another one, at the end. Raises TrainingError HB0939 where one runs another
    operation than the call before it, or a layer on another weight.
    """
    first: dict[Key, Call] = {}
    for call in calls:
        before = first.setdefault(call.key, call)
        if before.kind != call.kind:
            raise _differs(before, call, "operations", "a place in a module has the grid of one operation")
        if is_layer(call) and not _same_weight(before, call):
            raise _differs(before, call, "weights", "a place in a module has the scales of one weight")


def _same_weight(one: Call, other: Call) -> bool:
    """Whether two calls of a layer have the same weight. One that is made of parameters is another tensor in each call."""
    found = weight_of(one), weight_of(other)
    if found[0] is None or found[1] is None:
        return found[0] is found[1]
    weight, again = found[0][0], found[1][0]
    return weight is again or torch.equal(weight, again)


def _differs(before: Call, call: Call, what: str, why: str) -> TrainingError:
    path = call.key[0]
    shown = f"module '{path}'" if path else "the model"
    return TrainingError(
        39,
        f"{shown} is called several times and runs different {what}: {_shown(before)} and {_shown(call)}",
        where=f"layer '{call.name}', {call.source}",
        why=why,
        lever="use two modules, or pass a first state through a QuantStub of its own",
    )


def _shown(call: Call) -> str:
    return f"{call.kind} ({call.source})"
