"""Templates: what a QconfigSetter changes of its reference, by name, by kind of operation, by sensitivity."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, cast, runtime_checkable

import torch

from hbir.errors import TrainingError
from hbir.torch.dtype import QuantDType, checked_dtype, qint8, qint16
from hbir.torch.qconfig.plan import Plan, Wish, warn
from hbir.torch.tracing.places import Place

__all__ = ["ConvDtypeTemplate", "MatmulDtypeTemplate", "ModuleNameTemplate", "SensitivityTemplate", "Template"]


class Template(Protocol):
    """A change of a plan's wishes. Later templates change what earlier ones said, unless it is frozen."""

    def apply(self, plan: Plan) -> None:
        """Change the wishes of the places it knows something about."""
        ...


def is_below(name: str, start: str) -> bool:
    """Whether a name is that of a module or of something in it; the empty name is the model's."""
    return not start or name == start or name.startswith(f"{start}.")


def names_of(place: Place) -> tuple[str, ...]:
    """What a place is called by: the user's name for it, the path of its module, and the child that prepare may put there."""
    path, number = place.key
    generated = f"{path}._generated_{place.kind}_{number}".lstrip(".")
    return tuple(dict.fromkeys((place.name, path, generated)))


def is_named(place: Place, start: str) -> bool:
    """Whether a name means a place, or something around it."""
    return any(is_below(name, start) for name in names_of(place))


def is_itself(place: Place, name: str) -> bool:
    """Whether a name means this place alone, and nothing around it."""
    return bool(name) and name in names_of(place) and (name != place.key[0] or not _has_parts(place))


def _has_parts(place: Place) -> bool:
    # A module without children of its own is one operation for the user.
    return any(not name.endswith("fake_quant") for name, _ in place.module.named_children())


def _is_last(plan: Plan, place: Place, name: str) -> bool:
    path, number = place.key
    return name != path or number == max(other for each, other in plan.places if each == path)


def _open(plan: Plan, place: Place) -> Wish | None:
    wish = plan.wishes.get(place.key)
    return None if wish is None or wish.frozen or wish.qconfig is None else wish


def check_known(plan: Plan, names: Iterable[str], rule: str) -> None:
    """Warn (HB0942) of names that mean no place."""
    known = {name for place in plan.places.values() for name in names_of(place) if name}
    for name in names:
        if not any(is_below(each, name) for each in known):
            near = ", ".join(difflib.get_close_matches(name, sorted(known), 3)) or ", ".join(sorted(known)[:10])
            what = f"{rule} names '{name}', and nothing of that name is quantised"
            warn(what, "the setting has no effect", f"mean one of: {near}")


def _dtype(given: Any, where: str) -> QuantDType | None:
    """A dtype of a template; None for a place that stays in float."""
    if given is None or given in (torch.float32, "float32"):
        return None
    if given in (torch.float16, "float16"):
        lever = "use qint8 or qint16, or None for a place that is not quantised"
        raise TrainingError(
            43, f"{where} is torch.float16", why="the workflow quantises to integers alone", lever=lever
        )
    return checked_dtype(given, where)


def scale_of(threshold: Any, dtype: QuantDType | None, where: str) -> float:
    """The scale of a threshold: `threshold / 128`, of sixteen bits `/ 32768`. Raises TrainingError HB0943."""
    value = float(threshold) if isinstance(threshold, (int, float)) else float("nan")
    if not 0 < value < float("inf"):
        what = f"the threshold of {where} is {threshold!r}"
        raise TrainingError(43, what, why="it is the largest magnitude of a value", lever="give a number above 0")
    return value / -(dtype or qint8).limits[0]


def _mapping(given: Any, alone: str) -> dict[str, Any]:
    """A mapping as it is; anything else under the key `alone`."""
    return dict(cast(Mapping[str, Any], given)) if isinstance(given, Mapping) else {alone: given}


_PARTS = frozenset({"input", "output", "weight"})


@dataclass(frozen=True)
class ModuleNameTemplate:
    """Dtypes by the name of a module or an operation, which holds for everything in it; the longest name wins, "" is all.

    A value is a dtype, for outputs (None: not quantised); or `{"input": …, "output": …, "weight": …}`; or
    `{"dtype": either of these, "threshold": {"input": 0.5, "output": 1.0}}`, where a threshold fixes a scale at
    `threshold / 128` (of sixteen bits `/ 32768`), and a number alone is the output's. With `freeze` later templates do not
    change these places. Names without a place are warned of (HB0942). Raises TrainingError HB0943 for what is no such value.
    """

    names: Mapping[str, Any]
    freeze: bool = False

    def apply(self, plan: Plan) -> None:
        """Set what the names say, short ones first."""
        check_known(plan, (name for name in self.names if name), "ModuleNameTemplate")
        for name in sorted(self.names, key=len):
            dtypes, thresholds = self._parsed(name)
            for key, members in plan.groups.items():
                spoken = [place for place in members if is_named(place, name)]
                if spoken:
                    self._output(plan, plan.places[key], spoken, name, dtypes, thresholds)
                for place in spoken:
                    self._place(plan, place, name, dtypes, thresholds)
        # A mark of this template alone, so that its own longer names still change what shorter ones said.
        if self.freeze:
            for place in plan.places.values():
                if place.key in plan.wishes and any(name and is_named(place, name) for name in self.names):
                    plan.wishes[place.key].frozen = True

    def _parsed(self, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
        value = _mapping(self.names[name], "dtype")
        if _PARTS & set(value):
            value = {"dtype": value}
        dtypes, thresholds = _mapping(value.get("dtype", {}), "output"), _mapping(value.get("threshold", {}), "output")
        unknown = {
            *(set(value) - {"dtype", "threshold"}),
            *(set(dtypes) - _PARTS),
            *(set(thresholds) - {"input", "output"}),
        }
        if unknown:
            lever = 'write {"dtype": qint16, "threshold": {"output": 1.0}} or {"input": …, "output": …, "weight": …}'
            raise TrainingError(43, f"the template of '{name}' has the key {min(unknown)!r}", lever=lever)
        found = {part: _dtype(dtype, f"{part} of '{name}'") for part, dtype in dtypes.items()}
        return found, thresholds

    def _output(
        self, plan: Plan, end: Place, spoken: Sequence[Place], name: str, dtypes: Mapping[str, Any], thresholds: Any
    ) -> None:
        wish = _open(plan, end)
        if wish is None:
            return
        reason = f"ModuleNameTemplate '{name}'"
        if "output" in dtypes and dtypes["output"] is None:
            for place in plan.groups[end.key]:
                if (each := _open(plan, place)) is not None:
                    each.qconfig, each.reasons = None, [*each.reasons, f"{reason}: not quantised"]
            return
        if "output" in dtypes and not (dtypes["output"] == qint8 and plan.keeps_wide(end, name)):
            wish.output, wish.scale = dtypes["output"], None
            wish.named = any(is_itself(place, name) for place in spoken)
            wish.reasons.append(f"{reason}: output {dtypes['output']}")
        # Of a module that computes in several steps, the last one's value is the output.
        if "output" in thresholds and any(is_itself(place, name) and _is_last(plan, place, name) for place in spoken):
            wish.scale, wish.named = scale_of(thresholds["output"], wish.output, f"'{name}'"), True
            wish.reasons.append(f"{reason}: output threshold {thresholds['output']}")

    def _place(self, plan: Plan, place: Place, name: str, dtypes: Mapping[str, Any], thresholds: Any) -> None:
        wish = _open(plan, place)
        if wish is None:
            return
        reason = f"ModuleNameTemplate '{name}'"
        if place.is_layer and dtypes.get("weight") is not None:
            wish.weight = dtypes["weight"]
            wish.reasons.append(f"{reason}: weight {wish.weight}")
        for number, key in enumerate(place.operands):
            # What comes from within the named module is no input of it.
            if key is None or plan.places[key].inner or is_named(plan.places[key], name):
                continue
            if dtypes.get("input") is not None:
                wish.inputs[number] = dtypes["input"]
                wish.reasons.append(f"{reason}: input {number} {dtypes['input']}")
            if "input" in thresholds:
                wish.input_scales[number] = scale_of(thresholds["input"], wish.inputs.get(number), f"'{name}'")
                wish.reasons.append(f"{reason}: input threshold {thresholds['input']}")


@dataclass(frozen=True)
class ConvDtypeTemplate:
    """What convolutions and linear layers read, and the dtype of their weights."""

    input_dtype: QuantDType = qint8
    weight_dtype: QuantDType = qint8

    def apply(self, plan: Plan) -> None:
        """Set the dtypes of convolutions, unless a name said otherwise."""
        for place in plan.places.values():
            wish = _open(plan, place)
            if wish is not None and place.is_layer:
                wish.inputs[0] = checked_dtype(self.input_dtype, "input_dtype")
                wish.weight = checked_dtype(self.weight_dtype, "weight_dtype")
                wish.reasons.append(f"ConvDtypeTemplate: input {self.input_dtype}, weight {self.weight_dtype}")


@dataclass(frozen=True)
class MatmulDtypeTemplate:
    """What products of two computed matrices read. Raises TrainingError HB0943 unless two dtypes are given."""

    input_dtypes: Sequence[QuantDType] | QuantDType = (qint8, qint8)

    def apply(self, plan: Plan) -> None:
        """Set the dtypes of matrix products, unless a name said otherwise."""
        given = (self.input_dtypes,) * 2 if isinstance(self.input_dtypes, QuantDType) else tuple(self.input_dtypes)
        if len(given) != 2:
            raise TrainingError(43, f"input_dtypes has {len(given)} dtypes", lever="give two, one for each operand")
        dtypes = [checked_dtype(dtype, "input_dtypes") for dtype in given]
        for place in plan.places.values():
            wish = _open(plan, place)
            if wish is not None and place.kind in _PRODUCTS and not place.is_layer:
                wish.inputs.update(zip(range(len(place.operands)), dtypes, strict=False))
                wish.reasons.append(f"MatmulDtypeTemplate: inputs {dtypes[0]} and {dtypes[1]}")


_PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "linear", "einsum"})


@dataclass(frozen=True)
class SensitivityTemplate:
    """The most sensitive places get `high_precision_dtype`.

    `sensitive_table` has a row for each place, the most sensitive first: a name, or a sequence that begins with one and may
    hold `activation` or `weight`, or what `hbir.torch.profiler.sensitivity` gives for an output; a mapping from names to
    numbers is sorted, the largest first. `topk_or_ratio` is a number of rows, or as a float the share of them.
    `sensitive_type` limits this to `activation` or `weight`. With `low_precision_dtype` the other rows get that. Raises
    TrainingError HB0944 for a table or a number that is none of these.
    """

    sensitive_table: Any
    topk_or_ratio: int | float
    sensitive_type: str = "both"
    low_precision_dtype: QuantDType | None = None
    high_precision_dtype: QuantDType = qint16
    rows: list[tuple[str, str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.sensitive_type not in ("activation", "weight", "both"):
            lever = "choose activation, weight or both"
            raise TrainingError(44, f"sensitive_type is {self.sensitive_type!r}", lever=lever)
        object.__setattr__(self, "rows", _rows(self.sensitive_table))

    def sensitive(self) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The rows that get the higher dtype, and the others, of the type that was asked for."""
        rows = [row for row in self.rows if self.sensitive_type in ("both", row[1]) or row[1] == "both"]
        given = self.topk_or_ratio
        if isinstance(given, bool) or not ((isinstance(given, int) and given >= 0) or 0 <= given <= 1):
            lever = "give a number of rows, or a share from 0.0 to 1.0"
            raise TrainingError(44, f"topk_or_ratio is {given!r}", lever=lever)
        count = given if isinstance(given, int) else round(given * len(rows))
        return rows[:count], rows[count:]

    def apply(self, plan: Plan) -> None:
        """Raise what is sensitive."""
        high, low = self.sensitive()
        check_known(plan, dict.fromkeys(name for name, _ in high), "the table of sensitivities")
        if self.low_precision_dtype is not None:
            for name, kind in reversed(low):
                self._set(plan, name, kind, checked_dtype(self.low_precision_dtype, "low_precision_dtype"))
        for name, kind in high:
            self._set(plan, name, kind, checked_dtype(self.high_precision_dtype, "high_precision_dtype"))

    def _set(self, plan: Plan, name: str, kind: str, dtype: QuantDType) -> None:
        kind = self.sensitive_type if kind == "both" else kind
        for place in plan.places.values():
            if not is_named(place, name):
                continue
            wish, end = _open(plan, place), _open(plan, plan.places[plan.end(place)])
            if kind != "activation" and place.is_layer and wish is not None:
                wish.weight = dtype
                wish.reasons.append(f"SensitivityTemplate '{name}': weight {dtype}")
            if kind != "weight" and end is not None and end.output is not None:
                end.output = dtype
                end.reasons.append(f"SensitivityTemplate '{name}': output {dtype}")


@runtime_checkable
class _Measured(Protocol):
    """A row of the tool that measures sensitivities, which stands above these rooms."""

    name: str
    sensitive_type: str


def _items(row: Any) -> list[Any]:
    if isinstance(row, _Measured):
        return [row.name, row.sensitive_type]
    if isinstance(row, str):
        return [row]
    return list(cast(Any, row)) if isinstance(row, Sequence) else []


def _rows(table: Any) -> list[tuple[str, str]]:
    """Names and types of a table of sensitivities, the most sensitive first."""
    if isinstance(table, Mapping):
        values = cast(Mapping[str, Any], table)
        table = sorted(values, key=lambda name: -float(values[name]))
    if isinstance(table, str) or not isinstance(table, Iterable):
        raise TrainingError(
            44, f"the table of sensitivities is {table!r}", lever="give what torch.load reads of its .pt file"
        )
    found: list[tuple[str, str]] = []
    for row in cast(Iterable[Any], table):
        items = _items(row)
        if items and isinstance(items[0], _Measured):
            what, lever = "several tables of sensitivities are given", "give the table of one output: sensitivity(…)[0]"
            raise TrainingError(44, what, why="each output has its own", lever=lever)
        if not items or not isinstance(items[0], str):
            what = f"a row of the table of sensitivities is {row!r}"
            raise TrainingError(44, what, lever="begin each row with the name of a layer")
        found.append((items[0], next((each for each in items[1:] if each in ("activation", "weight")), "both")))
    return found
