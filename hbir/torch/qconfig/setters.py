"""Rules that users make: a reference with templates, and QConfigs by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hbir.errors import TrainingError
from hbir.torch.dtype import qint8, qint16
from hbir.torch.qconfig.choices import Choice
from hbir.torch.qconfig.plan import Plan, Wish
from hbir.torch.qconfig.qconfig import QConfig, as_qconfig, get_qconfig
from hbir.torch.qconfig.statistics import statistics_places
from hbir.torch.qconfig.templates import SensitivityTemplate, Template, check_known, is_itself, is_named
from hbir.torch.tracing.calls import Key
from hbir.torch.tracing.places import Place

__all__ = ["ModuleNameQconfigSetter", "QconfigSetter", "SensitiveOpQconfigSetter"]


@dataclass(frozen=True)
class QconfigSetter:
    """The QConfig `reference_qconfig` for all places, changed by templates in order.

    Layers whose value only leaves hand out their accumulator. The inner values of a normalisation get sixteen bits where the
    reference has eight, unless `statistics` is False: they are few, and each counts for a whole row. Raises TrainingError
    HB0943 for what is no template.
    """

    reference_qconfig: QConfig = field(default_factory=get_qconfig)
    templates: Sequence[Template] = ()
    name: str = "QconfigSetter"
    statistics: bool = True

    def __post_init__(self) -> None:
        if callable(getattr(self.templates, "apply", None)):  # one alone
            object.__setattr__(self, "templates", (self.templates,))
        given: Any = self.templates
        # A mapping is no sequence, and iterating over it would give names alone.
        for each in cast(Any, given if isinstance(given, list | tuple) else [given]):
            if isinstance(each, type) or not callable(getattr(each, "apply", None)):
                what = f"a template of {self.name} is {each!r}"
                lever = "give a list of templates, such as [ModuleNameTemplate({'layer': qint16})]"
                raise TrainingError(43, what, lever=lever)

    def choose(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> Mapping[Key, Choice]:
        """A choice for each place that no rule before has chosen."""
        plan, reference = Plan(places, chosen), as_qconfig(self.reference_qconfig, self.name)
        plan.statistics = statistics_places(plan) if self.statistics else set()
        for place in places:
            _widen(plan, place, plan.wish(place, reference, f"{self.name}: reference"), "")
        for template in self.templates:
            template.apply(plan)
        return plan.choices()


def _widen(plan: Plan, place: Place, wish: Wish | None, name: str) -> None:
    if wish is not None and wish.output == qint8 and plan.keeps_wide(place, name):
        wish.output = qint16
        wish.reasons.append("one value of a statistic counts for many: qint16")


@dataclass(frozen=True)
class SensitiveOpQconfigSetter:
    """The most sensitive places get sixteen bits; the rules behind it say what all others get."""

    reference_qconfig: QConfig
    template: SensitivityTemplate
    name: str = "SensitiveOpQconfigSetter"

    def choose(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> Mapping[Key, Choice]:
        """Choices for the places of the table's first rows, and for what is fused with them."""
        plan = Plan(places, chosen)
        high, _ = self.template.sensitive()
        wanted = {
            member.key
            for members in plan.groups.values()
            if any(is_named(place, name) for place in members for name, _ in high)
            for member in members
        }
        for place in places:
            if place.key in wanted:
                plan.wish(place, as_qconfig(self.reference_qconfig, self.name), f"{self.name}: reference")
        self.template.apply(plan)
        return plan.choices()


@dataclass(frozen=True)
class ModuleNameQconfigSetter:
    """QConfigs by the name of a module or an operation, for everything in it; the longest name wins, None is float.

    The published dictionary `{"": qconfig, "module_name": {name: qconfig}}` (or a list of pairs) is read as well. Places
    without a name here are left to the rules behind it. Names without a place are warned of (HB0942). Raises TrainingError
    HB0941 for a value that is no QConfig.
    """

    module_name_to_qconfig: Mapping[str, Any]

    def choose(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> Mapping[Key, Choice]:
        """Choices for the places that have a name here, and the ends of what they are fused in."""
        plan, names = Plan(places, chosen), self._names()
        check_known(plan, (name for name in names if name), "ModuleNameQconfigSetter")
        return by_name(plan, names, "ModuleNameQconfigSetter")

    def _names(self) -> dict[str, QConfig | None]:
        given: dict[str, Any] = dict(self.module_name_to_qconfig)
        below: Any = given.pop("module_name", ())
        given.update(dict(below))
        return {name: None if each is None else as_qconfig(each, f"'{name}'") for name, each in given.items()}


def by_name(plan: Plan, names: Mapping[str, QConfig | None], rule: str) -> dict[Key, Choice]:
    """The choices that QConfigs by name make: a place goes by the longest name that means it, a group's output by that of any
    of its members, the last member first."""
    known = {
        place.key: max((n for n in names if is_named(place, n)), key=len, default=None)
        for place in plan.places.values()
    }
    plan.statistics = statistics_places(plan)
    for key, members in plan.groups.items():
        ranked = [name for place in reversed(members) if (name := known[place.key]) is not None]
        for place in members:
            # A layer goes by its own name; what it gives by the name that says most of the group.
            name = max(ranked, key=len) if ranked and place.key == key else known[place.key]
            if name is None:
                continue
            wish = plan.wish(place, names[name], f"{rule} '{name}'" + ("" if names[name] else ": not quantised"))
            if wish is not None:
                wish.named = any(is_itself(each, name) for each in members)
                _widen(plan, place, wish, name)
    return plan.choices()
