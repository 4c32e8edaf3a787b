"""String literals on their way into xDSL's parser, which hangs on one that does not end and refuses names beyond ASCII."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import cast

from xdsl.dialects.builtin import (
    ArrayAttr,
    CallSiteLoc,
    DictionaryAttr,
    FusedLoc,
    LocationAttr,
    ModuleOp,
    NameLoc,
    StringAttr,
)
from xdsl.ir import Attribute

from hbir.errors import IrError

__all__ = ["ascii_literals", "restore_literals"]

# A comment, or a string literal with what closes it. Possessive: a string that never ends takes linear time here, where
# xDSL's lexer takes exponential time.
_LITERAL = re.compile(r'//[^\n]*+|"(?P<body>(?:[^"\\\n\v\f]|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*+)(?P<end>"?)')
_ESCAPE = re.compile(rb'\\(?:(["nt\\])|([0-9A-Fa-f]{2}))')
_MARKED = re.compile("\x01([0-9a-f]+)\x02")


def _bytes(body: str) -> bytes:
    """The bytes that the body of a literal stands for."""

    def character(found: re.Match[bytes]) -> bytes:
        letter = found[1]
        if letter is None:
            return bytes([int(found[2], 16)])
        return {b"n": b"\n", b"t": b"\t"}.get(letter, letter)

    return _ESCAPE.sub(character, body.encode())


def _marked(value: str) -> str:
    """An ASCII literal for a string, each character beyond ASCII (and the marks themselves) as its code between marks."""

    def spell(c: str) -> str:
        if c > "\x7f" or c in "\x01\x02":
            return f"\\01{ord(c):x}\\02"
        return c if " " <= c <= "~" and c not in '"\\' else f"\\{ord(c):02X}"

    return f'"{"".join(map(spell, value))}"'


def ascii_literals(text: str, source: str) -> tuple[str, bool]:
    """The text with every string literal in ASCII, and whether any had to change: then call `restore_literals`.

    Line numbers stay. Raises IrError HB0205 for a literal that does not end or is not UTF-8.
    """
    changed = False

    def literal(found: re.Match[str]) -> str:
        nonlocal changed
        body = found["body"]
        if body is None or (body.isascii() and "\\" not in body and found["end"]):
            return found[0]
        where = f"{source}, line {text.count(chr(10), 0, found.start()) + 1}"
        if not found["end"]:
            raise IrError(5, "a string does not end", where=where, lever="mend the text")
        try:
            value = _bytes(body).decode()
        except UnicodeDecodeError:
            raise IrError(5, "a string is not UTF-8", where=where, lever="mend the text") from None
        if value.isascii() and "\x01" not in value:
            return found[0]
        changed = True
        return _marked(value)

    return _LITERAL.sub(literal, text), changed


def _restored(value: str) -> str:
    return _MARKED.sub(lambda found: chr(int(found[1], 16)), value)


def _location(location: Attribute) -> LocationAttr:
    match location:
        case NameLoc():
            return NameLoc(StringAttr(_restored(location.desc.data)), location.location)
        case FusedLoc():
            parts = cast(Sequence[Attribute], location.locations)
            return FusedLoc(tuple(map(_location, parts)), _attribute(location.metadata))
        case CallSiteLoc():
            return CallSiteLoc(_location(location.callee), _location(location.caller))
        case _:
            return cast(LocationAttr, location)


def _attribute(value: Attribute) -> Attribute:
    match value:
        case StringAttr():
            return StringAttr(_restored(value.data))
        case ArrayAttr():
            return ArrayAttr(map(_attribute, value.data))
        case DictionaryAttr():
            return DictionaryAttr({key: _attribute(item) for key, item in value.data.items()})
        case _:
            return value


def restore_literals(module: ModuleOp) -> None:
    """Put back what `ascii_literals` marked, in string attributes and in the names of locations."""
    for op in module.walk():
        op.location = _location(op.location)
        for attributes in (op.attributes, op.properties):
            attributes.update({key: _attribute(value) for key, value in attributes.items()})
        for block in (block for region in op.regions for block in region.blocks):
            for argument in block.args:
                argument.location = _location(argument.location)
