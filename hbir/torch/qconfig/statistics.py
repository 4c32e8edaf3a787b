"""Places whose one value carries many: the inner values of a normalisation, and what functions with a pole read and give.

An error of a feature is one among hundreds that a layer sums; that of a row's deviation changes the whole row. These places get
sixteen bits, as `passes.common.statistics_values` gives them in calibration without training.
"""

from __future__ import annotations

from torch import nn

from hbir.torch.qconfig.plan import Plan
from hbir.torch.tracing.calls import Key
from hbir.torch.tracing.places import Place

__all__ = ["statistics_places"]

_NORMS = (
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
_POLES = frozenset({"rsqrt", "reciprocal", "log"})
_MEANS = frozenset({"mean", "sum"})
_PASSES = frozenset({"add", "mul", "clamp", "clamp_min", "clamp_max", "sqrt", "maximum"})
"""What lies between a statistic and the pole that reads it: an epsilon, a factor, a root."""


def statistics_places(plan: Plan) -> set[Key]:
    """The places that get sixteen bits where nothing else is said."""
    found = _in_norms(plan)
    for place in plan.places.values():
        if place.kind in _POLES:
            found.add(place.key)
            _back(plan, _operand(plan, place, 0), found)
    return {key for key in found if not plan.places[key].is_layer and plan.places[key].kind != "quant"}


def _in_norms(plan: Plan) -> set[Key]:
    """All places in a module of a norm but the last, whose value is a feature."""
    inside: dict[str, list[Key]] = {}
    for place in plan.places.values():
        if isinstance(place.module, _NORMS):
            inside.setdefault(place.key[0], []).append(place.key)
    return {key for keys in inside.values() for key in keys if key != max(keys)}


def _operand(plan: Plan, place: Place, number: int) -> Place | None:
    key = place.operands[number] if number < len(place.operands) else None
    return None if key is None else plan.places[key]


def _back(plan: Plan, place: Place | None, found: set[Key]) -> None:
    """What a pole reads, back to the squares that its statistic sums."""
    while place is not None:
        found.add(place.key)
        if place.kind in _MEANS:
            _squares(plan, _operand(plan, place, 0), found)
            return
        if place.kind not in _PASSES:
            return
        place = _operand(plan, place, 0)
        # Behind an epsilon stands a statistic. Anything else is a feature.
        if place is not None and place.kind not in _PASSES | _MEANS:
            return


def _squares(plan: Plan, place: Place | None, found: set[Key]) -> None:
    if place is None or not (
        place.kind in ("square", "pow") or (place.kind == "mul" and len(set(place.operands)) == 1)
    ):
        return
    found.add(place.key)
    centred = _operand(plan, place, 0)
    if centred is not None and (mean := _own_mean(plan, centred)) is not None:
        found.update((centred.key, mean.key))


def _own_mean(plan: Plan, place: Place) -> Place | None:
    """Of `x - mean(x)`, the mean."""
    if place.kind != "sub" or len(place.operands) != 2:
        return None
    mean = _operand(plan, place, 1)
    if mean is None or mean.kind != "mean" or mean.operands[:1] != place.operands[:1]:
        return None
    return mean
