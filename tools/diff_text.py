"""Differences as coloured text and as plain values for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tools.console import print_coloured, print_table

if TYPE_CHECKING:
    from backends.nash.hbm.diff import HbmDiff, HbmModelDiff
    from backends.nash.hbm.weight_diff import WeightChange
    from hbir.ir.changes import Change, Difference, ModuleDiff

__all__ = ["binary_json", "module_json", "print_binary", "print_module", "weight_text"]

_SIGNS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def weight_text(change: WeightChange) -> str:
    """How far two constants lie apart."""
    from hbir.ir.apart import distance_text

    if change.differing is None or change.largest is None:
        return "cut into other pieces, or of another type"
    what = "bytes" if change.dtype == "u8" else f"{change.dtype} numbers".lstrip()
    first = f"; first at {change.first}: {change.before} -> {change.after}"
    return f"{change.differing} of {change.numbers} {what} differ, by {distance_text(change.largest)} at most{first}"


def _lines(change: Change, passes: bool) -> Iterator[tuple[str, str]]:
    """(text, colour) of each line that tells a change."""
    sign, colour = _SIGNS[change.kind]
    kinds = f"{change.before} -> {change.after}" if change.before != change.after else change.before
    name = change.after if change.before is None else change.before if change.after is None else kinds
    layer = f" '{change.layer}'" if change.layer else ""
    layer += f" {change.place}" if change.place else ""
    alone = "".join(change.shown_types) if None in (change.before, change.after) else ""
    layer += f": {alone}" if alone else ""
    by = f"   by {', '.join(change.passes)}" if passes and change.passes else ""
    yield f"{sign} {name}{layer}{by}", colour
    for each in change.differences:
        yield f"    {_difference_text(each)}", ""


def _difference_text(difference: Difference) -> str:
    before, after = difference.shown
    return f"{difference.what}: {before} -> {after}" + (f"   {difference.note}" if difference.note else "")


def _print_changes(
    title: str, changes: Sequence[Change], same: int | None, *, whole: bool, passes: bool, at: str
) -> None:
    """A heading with the counts, and the changes under the functions (or queues) that they are in."""
    counts = {kind: sum(change.kind == kind for change in changes) for kind in _SIGNS}
    told = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count) or "no difference"
    print_coloured([(f"{title}{told}" + ("" if same is None else f", {same} the same"), "bold")])
    if not whole:
        return
    function = ""
    lines: list[tuple[str, str]] = []
    for change in changes:
        if change.function != function:
            function = change.function
            lines.append((f"{at}{function}", "bold"))
        lines += _lines(change, passes)
    print_coloured(lines)


def print_module(title: str, found: ModuleDiff, *, whole: bool, passes: bool) -> None:
    """Print a module's changes, or their counts alone; `passes` adds who did it."""
    _print_changes(title, found.changes, found.same, whole=whole, passes=passes, at="@")


def print_binary(found: HbmDiff, *, whole: bool) -> None:
    """Print what differs between two binaries, or the counts alone."""
    if not found:
        print_coloured([("no difference", "bold")])
        return
    rows = [
        (s.name, "same" if s.same else "differs", s.before_bytes, s.after_bytes, *_hashes(s.before_hash, s.after_hash))
        for s in found.sections
    ]
    print_table("Sections", ("section", "", "#bytes before", "#bytes after", "sha256 before", "sha256 after"), rows)
    for sign, names in (("removed", found.removed), ("added", found.added)):
        print_coloured((f"{_SIGNS[sign][0]} model {name}", _SIGNS[sign][1]) for name in names)
    for model in found.models:
        _print_model(model, whole)


def _hashes(*hashes: str | None) -> Iterable[str]:
    return ("none" if each is None else f"{each[:12]}…" for each in hashes)


def _print_model(model: HbmModelDiff, whole: bool) -> None:
    print_coloured([(f"Model {model.name}", "bold")])
    facts = len(model.description)
    print_coloured([(f"description: {f'{facts} differences' if facts else 'no difference'}", "bold")])
    if whole:
        print_coloured((f"~ {_difference_text(each)}", "yellow") for each in model.description)
    _print_changes("layers: ", model.layers, None, whole=whole, passes=False, at="")
    weights = len(model.weights)
    print_coloured([(f"constants: {f'{weights} changed' if weights else 'no difference'}", "bold")])
    for each in model.weights if whole else ():
        size = f"{each.before_bytes} -> {each.after_bytes} bytes, " if each.before_bytes != each.after_bytes else ""
        told = weight_text(each)
        layer = f" '{each.layer}'" if each.layer else ""
        print_coloured([(f"~ {each.operand}{layer}: {size}{told}", "yellow")])
    instructions = model.instructions
    _print_changes("instructions: ", instructions.changes, instructions.same, whole=whole, passes=False, at="")
    if model.host:
        _print_changes("host: ", model.host.changes, model.host.same, whole=whole, passes=False, at="@")


def module_json(found: ModuleDiff) -> dict[str, Any]:
    """What differs between two modules, as plain values."""
    return {"same": found.same, "changes": _changes_json(found.changes)}


def _changes_json(changes: Iterable[Change]) -> list[dict[str, Any]]:
    return [
        {"kind": change.kind, **asdict(change), "differences": [_difference_json(each) for each in change.differences]}
        for change in changes
    ]


def _difference_json(difference: Difference) -> dict[str, str]:
    """Values in full; what a line would show of them is left out."""
    return {name: value for name, value in asdict(difference).items() if name != "short"}


def _weight_json(change: WeightChange) -> dict[str, Any]:
    """JSON has no infinities: a distance from one of them is left out."""
    finite = change.largest is not None and math.isfinite(change.largest)
    return {**asdict(change), "largest": change.largest if finite else None}


def binary_json(found: HbmDiff) -> dict[str, Any]:
    """What differs between two binaries, as plain values."""
    models = [
        {
            "name": model.name,
            "description": [_difference_json(each) for each in model.description],
            "layers": _changes_json(model.layers),
            "instructions": {"same": model.instructions.same, "changes": _changes_json(model.instructions.changes)},
            "constants": [_weight_json(each) for each in model.weights],
            "host": module_json(model.host),
        }
        for model in found.models
    ]
    sections = [{"same": section.same, **asdict(section)} for section in found.sections]
    return {"sections": sections, "models": models, "removed": found.removed, "added": found.added}
