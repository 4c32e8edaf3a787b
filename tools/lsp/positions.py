"""Offsets in a text as the protocol's positions: lines end in LF, CRLF or CR, columns count units of an encoding."""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass

__all__ = ["Lines", "Span"]

_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters [start, end) of a text."""

    start: int
    end: int


_UNITS = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}


class Lines:
    """Where the lines of a text begin. Columns count units of `encoding`: utf-8, utf-16 or utf-32."""

    def __init__(self, text: str, encoding: str = "utf-16") -> None:
        self.text = text
        self.starts = [0, *(found.end() for found in _LINE_END.finditer(text))]
        self._codec, self._size = _UNITS[encoding]

    def position(self, offset: int) -> tuple[int, int]:
        """(line, column) of an offset, both from 0."""
        offset = min(max(offset, 0), len(self.text))
        line = bisect_right(self.starts, offset) - 1
        before = self.text[self.starts[line] : offset]
        units = len(before) if before.isascii() else len(before.encode(self._codec, "surrogatepass")) // self._size
        return line, units

    def offset(self, line: int, column: int) -> int:
        """The offset of a position; one behind the end of its line, or of the text, is taken as that end."""
        if line >= len(self.starts):
            return len(self.text)
        start = self.starts[line]
        end = self.starts[line + 1] if line + 1 < len(self.starts) else len(self.text)
        body = self.text[start:end].rstrip("\r\n")
        if body.isascii():
            return start + min(column, len(body))
        units = body.encode(self._codec, "surrogatepass")[: self._size * column]
        return start + len(units.decode(self._codec, "ignore"))

    def edited(self, start: tuple[int, int], end: tuple[int, int], replacement: str) -> str:
        """The text with what lies between two positions replaced."""
        first = self.offset(*start)
        return self.text[:first] + replacement + self.text[max(first, self.offset(*end)) :]
