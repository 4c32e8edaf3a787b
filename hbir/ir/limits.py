"""What a few bytes of IR may not ask for: numbers and types of any width, constants written as one value, attributes that hold
others over and over."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from xdsl.dialects.builtin import (
    ArrayAttr,
    BytesAttr,
    DenseArrayBase,
    DictionaryAttr,
    FixedBitwidthType,
    IntegerType,
    ModuleOp,
    StringAttr,
    UnitAttr,
    f32,
    f64,
)
from xdsl.ir import Attribute, Operation, ParametrizedAttribute, TypeAttribute
from xdsl.parser import Parser

from hbir.errors import IrError

__all__ = ["DEEPEST", "LARGEST", "MOST_AXES", "WIDEST", "Budget", "LimitedParser", "check_size"]

WIDEST = 1024
"""Bits of an integer type. The range of a type is computed with integers of its width."""

DEEPEST = 64
"""Attributes inside attributes."""

LARGEST = 1 << 21
"""Attributes that all attributes hold, each counted as often as it stands there: sharing lets a few bytes hold any number."""

_EXTENT = 1 << 62
MOST_AXES = 64
"""Axes of a tensor. An array of numpy has no more."""
_ELEMENTS = 1 << 16
"""Of all `dense` attributes of a text; constants of ours are blobs."""
_DENSE = 256
"""`dense` attributes of a text. No operation of this project takes one, and each costs a millisecond."""
_FREE, _PER_OPERATION = 24_000, 64
"""Attributes and types of a text: so many, and so many more for each operation. What is written has about 20 of them."""

_PER_LOCATION = 16
"""And for each name of a location (``#loc1 = …``): tools print them all, and they are read before the operations."""

_ALIAS = re.compile(r"^[ \t]*[#!][\w.$-]+[ \t]*=", re.MULTILINE)
_NUMBER = r"-?+\d{1,18}+(?:\.\d{0,40}+(?:e[+-]?+\d{1,3}+)?+)?+"
# Whole numbers and numbers with a point, never both; what else an array may hold is left to xDSL's parser.
_ARRAY = re.compile(rf"<\s*+(i8|i16|i32|i64|f32|f64)\s*+:\s*+({_NUMBER}(?:\s*+,\s*+{_NUMBER})*+)\s*+>")


@dataclass
class Budget:
    """What is left of the things that a text may hold, whatever reads its parts."""

    attributes: int = _FREE
    dense: int = _DENSE
    elements: int = _ELEMENTS

    def add(self, *, operations: int = 0, locations: int = 0) -> None:
        """What so many operations, and names of locations, may hold."""
        self.attributes += _PER_OPERATION * operations + _PER_LOCATION * locations


def _packed(element: str, body: str) -> tuple[Any, bytes] | None:
    """The type and the bytes of an array's numbers; None for what is to be read number by number."""
    whole = element.startswith("i")
    if whole == ("." in body):
        return None
    try:
        values = list(map(int if whole else float, body.split(",")))
    except ValueError:
        return None
    bits = int(element[1:])
    if whole:
        half = 1 << (bits - 1)
        if min(values) < -half or max(values) >= half:
            return None
        return IntegerType(bits), np.array(values, f"<i{bits // 8}").tobytes()
    with np.errstate(over="ignore"):
        numbers = np.array(values, f"<f{bits // 8}")
    return ((f32 if bits == 32 else f64), numbers.tobytes()) if np.isfinite(numbers).all() else None


class LimitedParser(Parser):
    """xDSL's parser, within the limits. Each is asked while the text is read, so that no more is read than it allows.

    Parsers of the parts of one text share a `budget`.
    """

    _axes, _behind = 0, -2

    def __init__(self, *arguments: Any) -> None:
        self.budget = Budget()
        super().__init__(*arguments)

    def _spend(self, count: int = 1) -> None:
        self.budget.attributes -= count
        if self.budget.attributes < 0:
            self.raise_error(f"more attributes and types than {_FREE} and {_PER_OPERATION} for each operation")

    def parse_operation(self) -> Operation:
        """An operation, which pays for some attributes."""
        self.budget.add(operations=1)
        return super().parse_operation()

    def parse_optional_attribute(self) -> Attribute | None:
        """An attribute that counts; so does each that it holds."""
        found = super().parse_optional_attribute()
        self._spend(found is not None)
        return found

    def parse_optional_type(self) -> TypeAttribute | None:
        """A type that counts; so does each that it holds."""
        found = super().parse_optional_type()
        self._spend(found is not None)
        return found

    def _parse_attribute_entry(self) -> tuple[str, Attribute]:
        found = super()._parse_attribute_entry()
        self._spend(isinstance(found[1], UnitAttr))  # one that is a name alone was not counted yet
        return found

    def _parse_location(self) -> Any:
        self._spend()
        return super()._parse_location()

    def parse_optional_unresolved_operand(self) -> Any:
        """An operand that counts: it has a type, and that comes later."""
        self._spend()
        return super().parse_optional_unresolved_operand()

    def _parse_optional_integer_or_float_type(self) -> TypeAttribute | None:
        found = super()._parse_optional_integer_or_float_type()
        if isinstance(cast(Any, found), IntegerType) and cast(Any, found).bitwidth > WIDEST:
            self.raise_error(f"an integer type of more than {WIDEST} bits")
        return found

    def parse_shape_dimension(self, allow_dynamic: bool = True) -> int:
        """An extent of at most 2^62, of a shape of at most 64 axes."""
        begin = self.pos
        extent = super().parse_shape_dimension(allow_dynamic)
        if extent > _EXTENT:
            self.raise_error("an extent of more than 2^62")
        # The rest of a shape is one token, read again at every axis. Extents of one shape have an x between them.
        self._axes, self._behind = self._axes + 1 if begin == self._behind + 1 else 1, self.pos
        if self._axes > MOST_AXES:
            self.raise_error(f"a shape of more than {MOST_AXES} axes")
        return extent

    def parse_optional_symbol_name(self) -> StringAttr | None:
        """A name that counts: a reference holds any number of them."""
        self._spend()
        return super().parse_optional_symbol_name()

    def _parse_int_or_question(self, context_msg: str = "") -> Any:
        self._spend()
        return super()._parse_int_or_question(context_msg)

    def _parse_tensor_literal(self) -> Any:
        self._spend()
        return super()._parse_tensor_literal()

    def _parse_dense_literal_type(self) -> Any:
        found: Any = super()._parse_dense_literal_type()
        self.budget.dense -= 1
        self.budget.elements -= math.prod(found.get_shape())
        if self.budget.elements < 0:
            self.raise_error(f"dense attributes of more than {_ELEMENTS} elements")
        if self.budget.dense < 0:
            self.raise_error(f"more than {_DENSE} dense attributes")
        return found

    def _parse_typed_integer(self, *arguments: Any, **named: Any) -> int:
        self._spend()
        return super()._parse_typed_integer(*arguments, **named)

    def parse_float(self, *, allow_negative: bool = True) -> float:
        """A number that counts."""
        self._spend()
        return super().parse_float(allow_negative=allow_negative)

    def _parse_builtin_densearray_attr(self) -> Any:
        """Numbers of the usual form are read as one piece of text: token by token, those of a network take seconds."""
        lexer = cast(Any, self.lexer)
        whole = _ARRAY.match(lexer.input.content, self.pos)
        packed = _packed(whole[1], whole[2]) if whole is not None else None
        if whole is None or packed is None:
            return super()._parse_builtin_densearray_attr()
        lexer.pos = whole.end() - 1
        self.parse_punctuation("<")
        self.parse_punctuation(">")
        return DenseArrayBase(packed[0], BytesAttr(packed[1]))


def _inner(attribute: Attribute) -> Iterable[Attribute]:
    match attribute:
        case ArrayAttr():
            return attribute.data
        case DictionaryAttr():
            return attribute.data.values()
        case ParametrizedAttribute() if not isinstance(attribute, FixedBitwidthType):
            return attribute.parameters
        case _:
            return ()


def _attributes(module: ModuleOp) -> Iterable[Attribute]:
    for op in module.walk():
        yield op.location
        yield from op.properties.values()
        yield from op.attributes.values()
        yield from op.result_types
        for block in (block for region in op.regions for block in region.blocks):
            for argument in block.args:
                yield argument.type
                yield argument.location


def check_size(module: ModuleOp, text: str, source: str) -> None:
    """Raise IrError HB0205 when the module's attributes, written out, are too many or too deep.

    Only names for attributes (``#a = …``) can make them so: a text without any is not looked at.
    """
    if not _ALIAS.search(text):
        return
    sizes: dict[int, int] = {}

    def size(attribute: Attribute, depth: int) -> int:
        found = sizes.get(id(attribute))
        if found is None:
            if depth > DEEPEST:
                raise IrError(5, f"attributes are nested more than {DEEPEST} deep", where=source, lever="mend the text")
            found = sizes[id(attribute)] = 1 + sum(size(each, depth + 1) for each in _inner(attribute))
        return found

    if sum(size(attribute, 0) for attribute in _attributes(module)) > LARGEST:
        raise IrError(5, f"its attributes hold more than {LARGEST} others", where=source, lever="mend the text")
