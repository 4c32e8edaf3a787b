"""The places of a traced model where values get grids, as the rules that choose dtypes and observers see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from hbir.torch.operations.registry import Kind, Operation
from hbir.torch.tracing.calls import Call, Key, Ref, is_layer, operands, weight_of
from hbir.torch.tracing.fusion import Group, fused_groups

__all__ = ["Place", "places_of"]

_LEAVES = frozenset({"dequant", "quant"})


@dataclass(frozen=True)
class Place:
    """One call of the model's code; a module that runs several times has each of its places once."""

    key: Key
    name: str
    """The user's name for it, `backbone.conv1`."""
    kind: str
    """The name of the operation; `quant` of a stub."""
    module: torch.nn.Module
    """The innermost module around it."""
    source: str
    """`file.py:12`."""
    channels: int = 0
    """Of a layer: how many scales its weight has, along `axis`; 0 without a constant weight."""
    axis: int = 0
    inner: bool = False
    """It is fused with what follows: its value is not rounded."""
    leaves: bool = False
    """A layer whose value only leaves the region: it can hand out its accumulator."""
    scale: float | None = None
    """Of a QuantStub: the scale that it was given."""
    operands: tuple[Key | None, ...] = ()
    """Where the grid of each operand is decided, past what only moves values; None where it has none."""
    runs: int = 1
    """How often it ran."""

    @property
    def is_layer(self) -> bool:
        """Whether it has a weight that is quantised for each channel."""
        return self.channels > 0


def places_of(calls: Sequence[Call], *, marked: bool = False) -> tuple[list[Place], list[Group]]:
    """The places of a traced model in the order they first ran, and the groups that are fused (see `fused_groups`)."""
    groups = fused_groups(calls, marked=marked)
    inner = {member for group in groups for member in group.members[:-1]}
    folded = {group.batch_norm for group in groups}
    layers = {group.last: group.layer for group in groups if len(group.members) == 1 + (group.batch_norm is not None)}
    readers: dict[Call, list[Call]] = {}
    for call in calls:
        for ref in operands((call.arguments, call.keywords)):
            readers.setdefault(ref.call, []).append(call)
    found: dict[Key, Place] = {}
    for call in calls:
        if not _is_place(call):
            continue
        if call.key in found:
            known = found[call.key]
            found[call.key] = _again(known, call in inner)
            continue
        layer = layers.get(call, call)
        reads = readers.get(call, [])
        channels, axis = _channels(call)
        found[call.key] = Place(
            *(call.key, call.name, call.kind, _module(call), call.source, channels, axis),
            inner=call in inner or (call in folded and call not in layers),
            leaves=is_layer(layer) and bool(reads) and all(each.kind in _LEAVES for each in reads),
            scale=getattr(call.module, "scale", None) if call.kind == "quant" else None,
            operands=tuple(_decided(ref) for ref in operands((call.arguments, call.keywords))),
        )
    return list(found.values()), groups


def _again(known: Place, inner: bool) -> Place:
    # What is fused in one run and not in another is rounded in both: a shared module has one behaviour.
    return replace(known, runs=known.runs + 1, inner=known.inner and inner)


def _is_place(call: Call) -> bool:
    if isinstance(call.operation, Operation):
        return call.operation.kind in (Kind.COMPUTE, Kind.WEIGHTED)
    return call.kind == "quant"


def _module(call: Call) -> torch.nn.Module:
    return torch.nn.Identity() if call.module is None else call.module


def _channels(call: Call) -> tuple[int, int]:
    """Number and axis of the output channels of a layer's constant weight."""
    found = weight_of(call) if is_layer(call) else None
    return (0, 0) if found is None else (int(found[0].shape[found[1]]), found[1])


def _decided(ref: Ref) -> Key | None:
    """The place that decides the grid of a value."""
    call = ref.call
    while isinstance(call.operation, Operation) and call.operation.kind in (Kind.KEEP, Kind.SAME):
        sources = list(operands((call.arguments, call.keywords)))
        if not sources:
            return None
        call = sources[0].call
    return call.key if _is_place(call) else None
