"""What a comparison of two modules finds, as plain values: changes, their differences, and the passes that made them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from hbir.ir.apart import excerpts

__all__ = ["Change", "Difference", "ModuleDiff"]


@dataclass(frozen=True)
class Difference:
    """One thing in which a pair differs: `what` ("attribute 'pad'", "operand 0", "constant", …), and its two texts in full.

    The texts differ. `note` tells how far lists of numbers lie apart; `short` are other texts for a line.
    """

    what: str
    before: str
    after: str
    note: str = ""
    short: tuple[str, str] | None = field(default=None, compare=False, kw_only=True)

    @property
    def shown(self) -> tuple[str, str]:
        """Both texts for a line: long ones cut to what stands around the first difference."""
        return self.short or excerpts(self.before, self.after)


@dataclass(frozen=True)
class Change:
    """An operation that is in one module only, or in both. `before` and `after` are kinds, None where it is not.

    The types are those of its results. `passes` are the ones that made or changed it on the way from one module to the
    other, the first pass first, one that came back as often as it did. Of what was removed they are the passes that changed
    what took its place: what carries its layer now, and what read its results.
    """

    function: str
    layer: str
    before: str | None
    after: str | None
    differences: tuple[Difference, ...] = ()
    before_type: str = ""
    after_type: str = ""
    passes: tuple[str, ...] = ()

    @property
    def kind(self) -> Literal["added", "removed", "changed", "same"]:
        """What happened to it."""
        if self.before is None or self.after is None:
            return "added" if self.before is None else "removed"
        return "changed" if self.differences or self.before != self.after else "same"

    @property
    def shown_types(self) -> tuple[str, str]:
        """Both types for a line: long ones cut, to what stands around the first difference where there is one."""
        return excerpts(self.before_type, self.after_type)

    @property
    def place(self) -> str:
        """Where it stands, when that is no more than a number."""
        return ""


@dataclass(frozen=True)
class ModuleDiff:
    """All changes, in program order, and how many operations are the same in both modules.

    `rows` holds every operation of both modules, each pair once, in the order of the second module; what was removed stands
    behind what stood in front of it.
    """

    changes: tuple[Change, ...]
    same: int
    rows: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything differs."""
        return bool(self.changes)
