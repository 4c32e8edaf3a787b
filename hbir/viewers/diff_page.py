"""Differences as one self-contained HTML page, side by side: no network, no fonts, no libraries; light and dark.

Operations stand in program order, those of the first module on the left. Long runs of what is the same are folded, and hold at
most their first and last lines, so that the page of a large module stays small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from itertools import groupby
from typing import Any

from hbir.ir.changes import Change, ModuleDiff

__all__ = ["PageFold", "PageGroup", "PagePart", "count_kinds", "module_page", "module_part", "render_page"]

_SHORT = 3
"""Runs of the same operations up to this length are shown."""
_HELD = 60
"""Lines that a folded run holds of its start, and of its end."""


@dataclass(frozen=True)
class PageFold:
    """Neighbours that are the same in both."""

    count: int
    about: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class PageGroup:
    """Rows under one heading: a function, or a queue."""

    name: str
    rows: Sequence[Change | PageFold]


@dataclass(frozen=True)
class PagePart:
    """A section of the page: a comparison, a pass, or a part of a binary."""

    title: str
    counts: dict[str, int]
    """How many rows there are of each kind."""
    groups: Sequence[PageGroup]
    note: str = ""
    """A line under the title."""


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    # Names come from files of others: everything is escaped.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(files("hbir.viewers").joinpath("diff_page.html.j2").read_text(encoding="utf-8"))


def render_page(
    title: str,
    parts: Sequence[PagePart],
    tables: Sequence[tuple[str, Sequence[tuple[Any, ...]]]] = (),
    models: Sequence[tuple[str, str]] = (),
) -> str:
    """The page. `tables` are (heading, rows) of sections: name, state, bytes before and after, hashes before and after;
    `models` are (name, "added" or "removed")."""
    return _template().render(title=title, parts=parts, tables=tables, models=models, index=len(parts) > 1)


def module_page(title: str, steps: Iterable[tuple[str, ModuleDiff]]) -> str:
    """The page for one comparison (a step without a name), or for the passes of a pipeline."""
    return render_page(title, [module_part(name or "Operations", found) for name, found in steps])


def module_part(title: str, found: ModuleDiff, note: str = "") -> PagePart:
    """What differs between two modules, as a section; no rows when nothing does."""
    function: Callable[[Change], str] = lambda row: row.function  # noqa: E731
    rows = found.rows if found else ()
    groups = [PageGroup(f"@{name}", list(_folded(members))) for name, members in groupby(rows, function)]
    return PagePart(title, count_kinds(found.changes, found.same), groups, note)


def count_kinds(changes: Iterable[Change], same: int | None) -> dict[str, int]:
    """How many rows were changed, added and removed, and how many are the same where that is known."""
    counts: dict[str, int] = dict.fromkeys(("changed", "added", "removed"), 0)
    for change in changes:
        counts[change.kind] += 1
    return counts if same is None else {**counts, "same": same}


def _folded(rows: Iterable[Change]) -> Iterator[Change | PageFold]:
    """The rows, with long runs of the same ones as folds."""
    for same, run in groupby(rows, lambda row: row.kind == "same"):
        members = list(run)
        if not same or len(members) <= _SHORT:
            yield from members
            continue
        about = " … ".join(dict.fromkeys((members[0].layer, members[-1].layer)))
        shown = members if len(members) <= 2 * _HELD + 1 else [*members[:_HELD], *members[-_HELD:]]
        lines = [f"{row.layer}   {row.after}   {row.shown_types[1]}" for row in shown]
        if len(shown) < len(members):
            lines.insert(_HELD, f"… {len(members) - len(shown)} more …")
        yield PageFold(len(members), about, tuple(lines))
