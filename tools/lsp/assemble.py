"""Operations put together from texts that were read before: what most of a module repeats are its types and attributes.

The parser takes half a millisecond for an operation, which is ten seconds for a large module. What is assembled here
without a complaint is well formed; about everything else the parser is asked.
"""

from __future__ import annotations

import re
from inspect import getclosurevars
from typing import Any, cast

from xdsl.context import Context
from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerAttr, StringAttr, TensorType
from xdsl.ir import Attribute, Block, Operation
from xdsl.irdl import OperandDef
from xdsl.utils.exceptions import ParseError, VerifyException

from hbir.dialects.base import HbOperation, tensor
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError
from hbir.ir.limits import Budget
from hbir.ir.strings import ascii_literals
from hbir.ir.text import ESCAPING, MlirParser
from tools.lsp.index import Statement
from tools.lsp.signature import signature_types

__all__ = ["Assembler", "judged_by_types"]

_ENTRIES = re.compile(r"\s*+<\{")
_KEY = re.compile(r"\s*+([A-Za-z_][\w$.]*+)\s*+=\s*+")
_MARK = re.compile(r'->|[<>(){}\[\],]|"(?:[^"\\\n]|\\.)*+"')
_SHAPED = re.compile(r"tensor<((?:[1-9]\d{0,8}x)*+)([a-z!][^x]*)>")
_QUANTIZED = re.compile(r"!quant\.uniform<i(8|16|32):f32, (\d\.\d{1,20}e[+-]\d\d)(?::(-?\d{1,9}))?>")


class Assembler:
    """Builds operations from the types and attributes of one document, each of which is read once.

    `budget` is what the text that is being checked may hold yet; its other readers share it.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._aliases: dict[str, Attribute] = {}
        self._types: dict[str, Attribute | None] = {}
        self._values: dict[str, Attribute | None] = {}
        self._judged: dict[type[Operation], bool] = {}
        self._forms: set[tuple[object, ...]] = set()
        self.budget = Budget()

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
                found = tensor([int(extent) for extent in shaped[1].split("x")[:-1]], element)
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
        parser.budget = self.budget
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
        self.budget.add(operations=1)
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
        form = self._form(op, operands, results, found)
        try:
            if form is not None and form in self._forms and issubclass(op, HbOperation):
                return op.inferred(operands, found) == results
            arguments = Block(arg_types=[each for each in operands if each is not None]).args
            kept = [each for each in results if each is not None]
            op.create(operands=arguments, result_types=kept, properties=found).verify(verify_nested_ops=False)
        except (VerifyException, *ESCAPING):
            return False
        if form is not None:
            self._forms.add(form)
        return True

    def _form(
        self,
        op: type[Operation],
        operands: list[Attribute | None],
        results: list[Attribute | None],
        properties: dict[str, Attribute],
    ) -> tuple[object, ...] | None:
        """What the constraints of an operation see of its types and properties; None where they may see more.

        Operations of one form need their types inferred and compared, and nothing else: that is half of the time.
        """
        if op not in self._judged:
            self._judged[op] = judged_by_types(op)
        if not self._judged[op]:
            return None
        kinds = frozenset((name, _kind(value)) for name, value in properties.items())
        return op, tuple(map(_kind, operands)), tuple(map(_kind, results)), kinds


def judged_by_types(op: type[Operation]) -> bool:
    """Whether an operation verifies when its operands and properties are of the right kinds, and its types are inferred."""
    if not issubclass(op, HbOperation) or not op.__module__.startswith("hbir.dialects."):
        return False
    # xDSL's verifier checks the constraints and calls the one that the class was written with.
    if getclosurevars(op.verify_).nonlocals.get("custom_verify") is not HbOperation.verify_:
        return False
    definition = op.get_irdl_definition()
    return all(type(each) is OperandDef for _, each in definition.operands) and not definition.regions


def _kind(attribute: Attribute | None) -> object:
    """An attribute as constraints see it that ask for a kind, and not for a value."""
    value: Any = attribute
    if isinstance(value, TensorType | UniformQuantizedType | StringAttr):
        return cast(Any, value).__class__
    if isinstance(value, IntegerAttr | FloatAttr):
        return cast(Any, value).__class__, cast(Any, value).type
    if isinstance(value, DenseArrayBase):
        return cast(Any, value).__class__, cast(Any, value).elt_type
    return attribute
