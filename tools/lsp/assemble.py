"""Operations put together from texts that were read before: what most of a module repeats are its types and attributes.

The parser takes half a millisecond for an operation, which is ten seconds for a large module. What is assembled here
without a complaint is well formed; about everything else the parser is asked.
"""

from __future__ import annotations

import re

from xdsl.context import Context
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute, Block
from xdsl.utils.exceptions import ParseError, VerifyException

from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError
from hbir.ir.strings import ascii_literals
from hbir.ir.text import ESCAPING, MlirParser
from tools.lsp.index import Statement
from tools.lsp.signature import signature_types

__all__ = ["Assembler"]

_ENTRIES = re.compile(r"\s*+<\{")
_KEY = re.compile(r"\s*+([A-Za-z_][\w$.]*+)\s*+=\s*+")
_MARK = re.compile(r'->|[<>(){}\[\],]|"(?:[^"\\\n]|\\.)*+"')
_SHAPED = re.compile(r"tensor<((?:[1-9]\d{0,8}x)*+)([a-z!][^x]*)>")
_QUANTIZED = re.compile(r"!quant\.uniform<i(8|16|32):f32, (\d\.\d{1,20}e[+-]\d\d)(?::(-?\d{1,9}))?>")


class Assembler:
    """Builds operations from the types and attributes of one document, each of which is read once."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._aliases: dict[str, Attribute] = {}
        self._types: dict[str, Attribute | None] = {}
        self._values: dict[str, Attribute | None] = {}

    def reset(self, aliases: dict[str, Attribute]) -> None:
        """Forget what was read; from now on these aliases stand for these attributes."""
        self._aliases = aliases
        self._types.clear()
        self._values.clear()

    def type(self, text: str) -> Attribute | None:
        """A type as an attribute, None for a text that is none."""
        if text in self._types:
            return self._types.get(text)  # an editor's question may come while another thread forgets
        found: Attribute | None = None
        shaped, quantized = _SHAPED.fullmatch(text), _QUANTIZED.fullmatch(text)
        element = self.type(shaped[2]) if shaped is not None else None
        try:
            if quantized is not None:
                bits, scale, zero = quantized.groups(default="0")
                found = UniformQuantizedType.get(int(bits), float(scale), int(zero))
            elif shaped is not None and element is not None:
                found = TensorType(element, [int(extent) for extent in shaped[1].split("x")[:-1]])
            else:
                found = self._read(text, type_=True)
        except (ParseError, VerifyException, IrError, *ESCAPING):
            found = None
        self._types[text] = found
        return found

    def _read(self, text: str, *, type_: bool) -> Attribute | None:
        plain, changed = ascii_literals(text, "")
        if changed:
            return None  # strings beyond ASCII are restored only in whole modules
        parser = MlirParser(self._context, plain)
        parser.attribute_aliases.update(self._aliases)
        found = parser.parse_type() if type_ else parser.parse_attribute()
        return found if parser.pos >= len(plain) else None

    def _value(self, text: str) -> Attribute | None:
        if text.startswith("!"):
            return self.type(text)
        if text not in self._values:
            try:
                self._values[text] = self._read(text, type_=False)
            except (ParseError, VerifyException, IrError, *ESCAPING):
                self._values[text] = None
        return self._values[text]

    def _properties(self, text: str, start: int, limit: int) -> tuple[dict[str, Attribute], int] | None:
        """The properties that begin at `start`, and where they end; None for what is to be read by the parser."""
        found: dict[str, Attribute] = {}
        opening = _ENTRIES.match(text, start, limit)
        if opening is None:
            return found, start
        at, depth = opening.end(), 0
        key = _KEY.match(text, at, limit)
        for mark in _MARK.finditer(text, at, limit):
            sign = mark[0]
            if sign in "<({[":
                depth += 1
                continue
            if depth and sign in ">)}]":
                depth -= 1
                continue
            if depth or sign not in ",}":
                continue
            value = self._value(text[key.end() : mark.start()].rstrip()) if key is not None else None
            if key is None or value is None or key[1] in found:
                return None
            found[key[1]] = value
            if sign == "}":
                return (found, mark.end() + 1) if text[mark.end() : mark.end() + 1] == ">" else None
            key = _KEY.match(text, mark.end(), limit)
        return None

    def accepts(self, text: str, statement: Statement, start: int) -> bool:
        """Whether a generic operation, whose operands end at `start`, was put together and verifies; False says nothing."""
        op = self._context.get_optional_op(statement.name)
        types = signature_types(text, statement)
        properties = self._properties(text, start, statement.end)
        if op is None or types is None or properties is None:
            return False
        found, end = properties
        if text[end : statement.signature].strip() != ":" or len(types[0]) != len(statement.operands):
            return False
        operands = [self.type(text[span.start : span.end]) for span in types[0]]
        results = [self.type(text[span.start : span.end]) for span in types[1]]
        if None in operands or None in results or (statement.results or len(results)) != len(results):
            return False
        try:
            arguments = Block(arg_types=[each for each in operands if each is not None]).args
            kept = [each for each in results if each is not None]
            op.create(operands=arguments, result_types=kept, properties=found).verify(verify_nested_ops=False)
        except (VerifyException, *ESCAPING):
            return False
        return True
