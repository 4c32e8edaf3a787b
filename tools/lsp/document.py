"""One open file: its text, its index, and answers to what an editor asks; everything here is a plain function of the text."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property

from hbir.errors import ConfigError
from tools.lsp.checks import Checker, Problem
from tools.lsp.describe import Completion, Entry, complete, hover, outline
from tools.lsp.index import Index, Occurrence, build_index
from tools.lsp.positions import Lines, Span
from tools.refusals import Refusal

__all__ = ["Document"]

_NAME = re.compile(r"[\w$.-]+", re.ASCII)
_SIGIL = {"value": "%", "block": "^", "symbol": "@"}


class Document:
    """A version of a file. Its successors share the checker, which remembers what was found clean."""

    def __init__(self, text: str, version: int = 0, checker: Checker | None = None, encoding: str = "utf-16") -> None:
        self.text, self.version = text, version
        self.checker = checker or Checker()
        self.lines = Lines(text, encoding)
        self._encoding = encoding

    def successor(self, text: str, version: int) -> Document:
        """The next version."""
        return Document(text, version, self.checker, self._encoding)

    @cached_property
    def index(self) -> Index:
        """The names and statements of the text."""
        return build_index(self.text)

    def check(self, wanted: Callable[[], bool] = lambda: True) -> list[Problem]:
        """What is wrong with the text; as far as it was found, when it is not `wanted` any more."""
        return self.checker.check(self.index, wanted)

    def hover(self, offset: int) -> tuple[Span, str] | None:
        """What to show over an offset, as Markdown."""
        return hover(self.index, self.checker, offset)

    def outline(self) -> list[Entry]:
        """Functions, layers and operations."""
        return outline(self.index)

    def complete(self, offset: int) -> list[Completion]:
        """Names that may stand at an offset."""
        return complete(self.index, self.checker, offset)

    def definition(self, offset: int) -> Span | None:
        """Where the name at an offset is defined."""
        one = self.index.at(offset)
        target = self.index.definition(one) if one is not None else None
        return target.span if target is not None else None

    def references(self, offset: int, *, definition: bool = True) -> list[Span]:
        """Every place that means the thing at an offset."""
        one = self.index.at(offset)
        if one is None or one.kind in ("operation", "type"):
            return []
        return [each.span for each in self.index.references(one) if definition or not each.defines]

    def renamable(self, offset: int) -> Occurrence | None:
        """The name at an offset, if it is one that a text gives: a value, symbol, block or alias."""
        one = self.index.at(offset)
        if one is None or one.kind in ("operation", "type") or self.index.definition(one) is None:
            return None
        return one

    def rename(self, offset: int, name: str) -> list[tuple[Span, str]]:
        """The edits that give the thing at an offset another name. Raises ConfigError HB0813 for a name that cannot be."""
        one = self.renamable(offset)
        if one is None:
            raise ConfigError(Refusal.VALUE, "nothing here has a name that can be changed")
        sigil = _SIGIL.get(one.kind, one.name[:1])
        bare = name.removeprefix(sigil)
        written = bare if one.kind == "symbol" else sigil + bare
        starts_well = one.kind in ("value", "block") or not bare[:1].isdigit()
        # %1 is a name, %a1 is one, %1a is none.
        numbered = bare[:1].isdigit() and not bare.isdigit()
        if not _NAME.fullmatch(bare) or not starts_well or numbered or (one.kind == "alias" and "." in bare):
            why = "a name is letters, digits, _, $, . and -"
            raise ConfigError(Refusal.VALUE, f"'{name}' is no name", why=why, lever="choose another one")
        if any(each.kind == one.kind and each.name == written for each in self.index.occurrences):
            raise ConfigError(Refusal.VALUE, f"the text has a {written} already", lever="choose another name")
        return [(span, written) for span in self.references(offset)]
