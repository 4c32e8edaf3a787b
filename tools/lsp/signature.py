"""Types as they are written: where those of a statement's operands and results stand, and that of a block's argument."""

from __future__ import annotations

import re

from tools.lsp.index import Index, Occurrence, Statement
from tools.lsp.positions import Span

__all__ = ["result_types", "signature_types", "type_of"]

_MARK = re.compile(r'->|[<>(){}\[\],]|"(?:[^"\\\n]|\\.)*+"?|\bloc\b|\n')
_OPENING = "<({["
# What printers write, three brackets deep; everything else is read bracket by bracket.
_INNER = r"<[^<>]*+(?:<[^<>]*+(?:<[^<>]*+>[^<>]*+)*+>[^<>]*+)*+>"
_TYPE = re.compile(rf"[a-z!][\w.]*+(?:{_INNER})?")
_LIST = rf"{_TYPE.pattern}(?:, {_TYPE.pattern})*+"
_PRINTED = re.compile(rf" \(((?:{_LIST})?+)\) -> ({_TYPE.pattern}|\((?:{_LIST})?+\))\s*+")


def _trimmed(text: str, start: int, end: int) -> Span:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return Span(start, end)


def _type_list(text: str, start: int, limit: int) -> tuple[list[Span], int]:
    """Types from `start` on, separated by commas, and where they end: at a bracket that closes more than was opened, an
    arrow, a location, a dictionary, or the line."""
    found: list[Span] = []
    depth, begin, end = 0, start, limit
    for mark in _MARK.finditer(text, start, limit):
        sign = mark[0]
        if sign[0] in _OPENING:
            if depth == 0 and sign == "{":
                end = mark.start()
                break
            depth += 1
        elif sign in (">", ")", "}", "]"):
            depth -= 1
            if depth < 0:
                end = mark.start()
                break
        elif depth == 0 and sign == ",":
            found.append(_trimmed(text, begin, mark.start()))
            begin = mark.end()
        elif depth == 0 and sign in ("->", "loc", "\n"):
            end = mark.start()
            break
    last = _trimmed(text, begin, end)
    # A comma at the end leaves a type that is empty, which nobody can read: it is not dropped.
    return ([*found, last] if found or last.start < last.end else []), end


def _open(text: str, start: int, limit: int) -> int:
    """The offset behind an opening parenthesis that comes next, or -1."""
    while start < limit and text[start].isspace():
        start += 1
    return start + 1 if text[start : start + 1] == "(" and start < limit else -1


def signature_types(text: str, statement: Statement) -> tuple[list[Span], list[Span]] | None:
    """Where the types of operands and of results stand in a generic statement; None when its signature is broken."""
    if statement.types is None:
        statement.types = _signature_types(text, statement) or "broken"
    return None if statement.types == "broken" else statement.types


def _signature_types(text: str, statement: Statement) -> tuple[list[Span], list[Span]] | None:
    limit = statement.location.start if statement.location is not None else statement.end
    printed = _PRINTED.fullmatch(text, statement.signature, limit) if statement.signature >= 0 else None
    if printed is not None:
        operands, results = ([Span(*m.span()) for m in _TYPE.finditer(text, *printed.span(part))] for part in (1, 2))
        return operands, results
    begin = _open(text, statement.signature, limit) if statement.signature >= 0 else -1
    if begin < 0:
        return None
    operands, end = _type_list(text, begin, limit)
    arrow = text.find("->", end, limit)
    if text[end : end + 1] != ")" or arrow < 0 or text[end + 1 : arrow].strip():
        return None
    inside = _open(text, arrow + 2, limit)
    if inside < 0:
        return operands, [_trimmed(text, arrow + 2, limit)]
    results, end = _type_list(text, inside, limit)
    closed = text[end : end + 1] == ")" and not text[end + 1 : limit].strip()
    return (operands, results) if closed else None


def result_types(text: str, statement: Statement) -> list[Span]:
    """Where the types of a statement's results stand; none when it is broken."""
    found = signature_types(text, statement)
    return found[1] if found is not None else []


def type_of(index: Index, definition: Occurrence, place: int = 0) -> Span | None:
    """Where the type of a value stands. `place` counts within a group of results, ``%0#1``."""
    text = index.text
    if definition.place >= 0:
        types = result_types(text, index.statements[definition.owner])
        at = definition.place + place
        return types[at] if at < len(types) else None
    colon = text.find(":", definition.end, definition.end + 16)
    if colon < 0 or text[definition.end : colon].strip():
        return None
    types, _ = _type_list(text, colon + 1, min(len(text), colon + (1 << 20)))
    return types[0] if types else None
