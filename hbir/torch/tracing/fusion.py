"""Which calls become one operation of the hardware: a layer, its batch norm, a residual sum, and its activation.

No value inside such a group gets a grid. A batch norm behind a layer goes into the weights; the sum must take the layer's
value, and the layer must not be read elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from hbir.torch.tracing.calls import Call, Key, is_layer, operands, weight_of

__all__ = ["MARKED", "Group", "fused_groups"]

MARKED = "_hbir_fused"
"""The key under which a layer keeps the modules that the user fused with it."""

_ACTIVATIONS = frozenset({"relu", "relu6", "hardtanh", "clamp"})


@dataclass
class Group:
    """A layer and what is computed along with it; the last call gives the group's value."""

    layer: Call
    batch_norm: Call | None = None
    members: list[Call] = field(default_factory=list[Call])
    """All calls, the layer first."""

    @property
    def last(self) -> Call:
        """The call whose value the group gives."""
        return self.members[-1]


def fused_groups(calls: Sequence[Call], *, marked: bool = False) -> list[Group]:
    """The groups of a traced model, in the order of their layers; where `marked`, those alone that the user fused by hand."""
    readers: dict[Call, list[Call]] = {}
    shared: dict[Key, int] = {}
    for call in calls:
        shared[call.key] = shared.get(call.key, 0) + 1
        for ref in operands((call.arguments, call.keywords)):
            readers.setdefault(ref.call, []).append(call)
    groups: list[Group] = []
    taken: set[Call] = set()
    for call in calls:
        if not is_layer(call):
            continue
        group = Group(call, members=[call])
        while (follower := _only(readers.get(group.last, []))) is not None and follower not in taken:
            if marked and not _is_marked(call, follower):
                break
            if not _joins(group, follower, shared):
                break
            if follower.kind == "batch_norm":
                group.batch_norm = follower
            group.members.append(follower)
            if follower.kind in _ACTIVATIONS:
                break
        taken.update(group.members)
        if len(group.members) > 1:
            groups.append(group)
    return groups


def _joins(group: Group, follower: Call, shared: dict[Key, int]) -> bool:
    """Whether the only reader of a group's value can be computed along with it."""
    layer, done = group.layer, {each.kind for each in group.members[1:]}
    if follower.kind == "batch_norm":
        alone = shared[layer.key] == shared[follower.key] == 1
        return not done and alone and _is_of_its_module(follower) and _has_scale_for_each_channel(layer)
    if follower.kind == "add":
        # What the hardware adds is another map; transposed convolutions are several convolutions there.
        summable = layer.kind in ("conv", "linear") and "add" not in done and not done & _ACTIVATIONS
        values = list(operands((follower.arguments, follower.keywords)))
        return summable and len(values) == 2 and values[0].shape == values[1].shape
    return follower.kind in _ACTIVATIONS and not done & _ACTIVATIONS


_BATCH_NORMS = (torch.nn.modules.batchnorm._BatchNorm,)  # pyright: ignore[reportPrivateUsage]
_PARAMETERS = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")


def _arguments(batch_norm: Call) -> dict[str, Any]:
    """The arguments of `torch.nn.functional.batch_norm` by name."""
    defaults = {"weight": None, "bias": None, "eps": 1e-5}
    return {**defaults, **dict(zip(_PARAMETERS, batch_norm.arguments, strict=False)), **batch_norm.keywords}


def _is_of_its_module(batch_norm: Call) -> bool:
    """Whether a batch norm is computed with what its module holds: in training the weight is folded with that."""
    module, given = batch_norm.module, _arguments(batch_norm)
    held = ("running_mean", "running_var", "weight", "bias")
    if not isinstance(module, _BATCH_NORMS) or any(given[name] is not getattr(module, name) for name in held):
        return False
    return given["eps"] == module.eps


def _has_scale_for_each_channel(layer: Call) -> bool:
    """Not so of a transposed convolution with groups: its weight has the channels of one group."""
    shape, found = layer.shapes[0], weight_of(layer)
    channels = shape[-1] if layer.kind == "linear" else shape[1] if len(shape) > 1 else 0
    return found is not None and found[0].shape[found[1]] == channels


def _is_marked(layer: Call, follower: Call) -> bool:
    known = () if layer.module is None else layer.module.__dict__.get(MARKED, ())
    return any(follower.module is module for module in known)


def _only(readers: Sequence[Call]) -> Call | None:
    return readers[0] if len(readers) == 1 else None
