"""A module without the operations of its functions: what is left to read once each of them was read by itself."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from tools.lsp.index import Index, Statement
from tools.lsp.positions import Span
from tools.lsp.signature import result_types

__all__ = ["Skeleton", "build_skeleton", "is_leaf"]

_RETURNS = ("func.return", "return")


@dataclass
class Skeleton:
    """A text without the operations of its functions. `pieces` are (offset here, offset there, length)."""

    text: str = ""
    pieces: list[tuple[int, int, int]] = field(default_factory=list[tuple[int, int, int]])

    def there(self, span: Span) -> Span:
        """Where in the whole text a part of this one stands."""
        at = max(bisect_right(self.pieces, span.start, key=lambda piece: piece[0]) - 1, 0)
        here, there, length = self.pieces[at]
        start = there + min(span.start - here, length)
        return Span(start, max(start, min(there + length, there + span.end - here)))


def is_leaf(index: Index, statement: Statement) -> bool:
    """Whether a statement is an operation of a function's body, checked by itself."""
    inside = statement.parent >= 0 and index.statements[statement.parent].name == "func.func"
    return inside and not statement.regions and statement.name not in _RETURNS


def build_skeleton(index: Index) -> Skeleton:
    """The text without the operations of functions; what a function returns is defined by casts from nothing."""
    made, at, parts = Skeleton(), 0, list[str]()
    size = 0

    def add(piece: str, there: int) -> None:
        nonlocal size
        made.pieces.append((size, there, len(piece)))
        parts.append(piece)
        size += len(piece)

    returned = {
        (target.owner, target.start): target
        for statement in index.statements
        if statement.name in _RETURNS
        for target in (index.definition(index.occurrences[position]) for position in statement.operands)
        if target is not None and target.place >= 0
    }
    owners = {owner for owner, _ in returned}
    for number, statement in enumerate(index.statements):
        if not is_leaf(index, statement):
            continue
        add(index.text[at : statement.start], at)
        if number in owners:
            made.pieces.append((size, statement.start, 0))
            cast = _cast(index, statement)
            parts.append(cast)
            size += len(cast)
        at = statement.end
    add(index.text[at:], at)
    made.text = "".join(parts)
    return made


def _cast(index: Index, statement: Statement) -> str:
    text = index.text
    types = ", ".join(text[span.start : span.end] for span in result_types(text, statement))
    names = text[statement.start : statement.name_span.start]
    return f'{names}"builtin.unrealized_conversion_cast"() : () -> ({types})'
