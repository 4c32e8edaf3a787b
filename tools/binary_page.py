"""Differences between two binaries as an HTML page, in the form of `hbir.viewers.diff_page`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from hbir.ir.changes import Change, Difference
from hbir.viewers.diff_page import PageFold, PageGroup, PagePart, count_kinds, module_part, render_page
from tools.diff_text import weight_text

if TYPE_CHECKING:
    from backends.nash.hbm.diff import HbmDiff, HbmModelDiff
    from backends.nash.hbm.instruction_diff import SameRun
    from backends.nash.hbm.weight_diff import WeightChange

__all__ = ["binary_page"]


def binary_page(title: str, found: HbmDiff) -> str:
    """The page for two `.hbm` files."""
    sections = [
        (s.name, "same" if s.same else "differs", s.before_bytes, s.after_bytes, s.before_hash, s.after_hash)
        for s in found.sections
    ]
    models = [*((name, "removed") for name in found.removed), *((name, "added") for name in found.added)]
    parts = [part for model in found.models for part in _model_parts(model, len(found.models) > 1)]
    tables = [("Sections", sections)]
    return render_page(title, parts, tables, models)


def _model_parts(model: HbmModelDiff, several: bool) -> Iterator[PagePart]:
    prefix = f"{model.name}: " if several else ""
    facts = Change("", "", "description", "description", model.description)
    groups = [PageGroup("", [facts])] if model.description else []
    yield PagePart(f"{prefix}Description", {"changed": len(model.description)}, groups)
    yield _changes(f"{prefix}Layers", model.layers)
    weights = [Change("", w.layer, w.operand, w.operand, (_weight_difference(w),)) for w in model.weights]
    yield _changes(f"{prefix}Constants", weights)
    queues = groupby(model.instructions.rows, lambda row: row.function if isinstance(row, Change) else row.queue)
    groups = [
        PageGroup(queue, [row if isinstance(row, Change) else _run(row) for row in rows]) for queue, rows in queues
    ]
    yield PagePart(f"{prefix}Instructions", count_kinds(model.instructions.changes, model.instructions.same), groups)
    if model.host:
        yield module_part(f"{prefix}Host", model.host)


def _weight_difference(change: WeightChange) -> Difference:
    """The first number that differs, or the numbers of bytes where there is nothing to compare one by one."""
    if change.first is not None:
        return Difference(f"number {change.first}", change.before, change.after, weight_text(change))
    sizes = f"{change.before_bytes} bytes", f"{change.after_bytes} bytes"
    if sizes[0] == sizes[1]:
        sizes = f"{sizes[0]} before", f"{sizes[1]} after"
    return Difference("bytes", *sizes, weight_text(change))


def _run(run: SameRun) -> PageFold:
    return PageFold(run.count, " … ".join(dict.fromkeys(layer for layer in run.layers if layer)))


def _changes(title: str, changes: Sequence[Change]) -> PagePart:
    return PagePart(title, count_kinds(changes, None), [PageGroup("", changes)] if changes else [])
