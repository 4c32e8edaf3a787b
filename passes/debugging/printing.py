"""Prints the module after passes: after those that are named, after all, or after those that changed it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TextIO

from hbir.module import Module

__all__ = ["Printer"]


@dataclass
class Printer:
    """Prints to `stream` after each pass in `after` (None: after every pass), or, with `changed`, after those that changed it.

    `text` is the module as it was before the first pass; only `changed` needs it.
    """

    stream: TextIO
    after: Collection[str] | None
    changed: bool
    text: str

    def __call__(self, name: str, before: int, after: int, module: Module) -> None:
        """Print what is due behind the pass `name`, which found `before` operations and left `after`."""
        named = self.after is None or name in self.after
        if not named and not self.changed:
            return
        text = str(module)
        if named or text != self.text:
            self.stream.write(f"// ----- after {name}: {before} -> {after} operations -----\n{text}\n")
        else:
            self.stream.write(f"// ----- after {name}: no change -----\n")
        self.text = text
