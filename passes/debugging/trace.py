"""What each pass of a run changed, gathered for one HTML page."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from hbir.ir import ModuleDiff, diff
from hbir.ir.files import write_text
from hbir.module import Module

__all__ = ["Trace", "TraceStep"]


@dataclass(frozen=True)
class TraceStep:
    """One pass: its text form, what it promises and did as a line, and what it changed."""

    name: str
    about: str
    changes: ModuleDiff


@dataclass
class Trace:
    """The steps of a run; `module` is what the next pass is compared with."""

    module: Module
    steps: list[TraceStep] = field(default_factory=list[TraceStep])

    def add(self, name: str, about: str, after: Module) -> None:
        """Note what the pass `name` (with its options) made of the module."""
        found = diff(self.module, after)
        if found:
            self.module = after.clone()
        # Here the pass is known, also that of what was removed.
        by = (name.partition("{")[0],)
        rows = tuple(row if row.kind == "same" else replace(row, passes=by) for row in found.rows)
        changes = tuple(row for row in rows if row.kind != "same")
        self.steps.append(TraceStep(name, about, ModuleDiff(changes, found.same, rows)))

    def write(self, path: Path) -> None:
        """Write the page. Raises ConfigError HB0801 when the file cannot be written."""
        from hbir.viewers.diff_page import module_part, render_page

        parts = [module_part(step.name, step.changes, step.about) for step in self.steps]
        write_text(path, render_page("What each pass changed", parts))
