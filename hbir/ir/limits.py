"""What a few bytes of IR may not ask for: numbers and types of any width, constants written as one value, attributes that hold
others over and over."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from typing import Any, cast

from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FixedBitwidthType, IntegerType, ModuleOp
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.parser import Parser

from hbir.errors import IrError

__all__ = ["DEEPEST", "LARGEST", "WIDEST", "LimitedParser", "check_size"]

WIDEST = 1024
"""Bits of an integer type. The range of a type is computed with integers of its width."""

DEEPEST = 64
"""Attributes inside attributes."""

LARGEST = 1 << 21
"""Attributes that all attributes hold, each counted as often as it stands there: sharing lets a few bytes hold any number."""

_EXTENT = 1 << 62
_AXES = 64
_ELEMENTS = 1 << 16
"""Of a `dense` attribute; constants of ours are blobs."""

_ALIAS = re.compile(r"^[ \t]*[#!][\w.$-]+[ \t]*=", re.MULTILINE)


class LimitedParser(Parser):
    """xDSL's parser, within the limits."""

    _axes, _behind = 0, -2

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
        if self._axes > _AXES:
            self.raise_error(f"a shape of more than {_AXES} axes")
        return extent

    def _parse_dense_literal_type(self) -> Any:
        found: Any = super()._parse_dense_literal_type()
        if math.prod(found.get_shape()) > _ELEMENTS:
            self.raise_error(f"a dense attribute of more than {_ELEMENTS} elements")
        return found


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
