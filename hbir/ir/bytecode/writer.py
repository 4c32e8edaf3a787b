"""From a module to bytecode, in two walks: the first counts what the module names, the second writes it by number.

The bytes depend on the module alone: attributes and types are numbered by dialect, then by use, most used first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from io import StringIO

from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, UnknownLoc
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue, TypeAttribute
from xdsl.printer import Printer
from xdsl.traits import IsolatedFromAbove

from hbir.errors import IrError
from hbir.ir.bytecode.builtin import ATTRIBUTES, TYPES, Native
from hbir.ir.bytecode.layout import BUILTIN, MAGIC, NATIVE_PROPERTIES, PRODUCER, RESOURCES, VERSION, Mask, Resource
from hbir.ir.bytecode.primitives import Emitter, Section

__all__ = ["write_bytecode"]

ALIGNMENT = 16
"""Of every constant: what LLVM promises for a small file, which it reads into memory. MLIR refuses to go beyond."""


def _rows(table: Sequence[Native]) -> dict[type, list[Native]]:
    rows: dict[type, list[Native]] = {}
    for row in table:
        rows.setdefault(row.kind, []).append(row)
    return rows


_ATTRIBUTE_ROWS, _TYPE_ROWS = _rows(ATTRIBUTES), _rows(TYPES)


def _native(value: Attribute, as_type: bool) -> Native | None:
    """The row for a value of the builtin dialect; None for what travels as text."""
    kind = type(value)
    if not as_type and isinstance(value, TypeAttribute):
        kind = TypeAttribute
    rows = (_TYPE_ROWS if as_type else _ATTRIBUTE_ROWS).get(kind, ())
    return next((row for row in rows if row.fits(value)), None)


class _Strings:
    """Strings in the order of their numbers."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}

    def __getitem__(self, text: str) -> int:
        return self.number.setdefault(text, len(self.number))

    def section(self) -> Emitter:
        out = Emitter()
        data = [text.encode() + b"\0" for text in self.number]
        out.varint(len(data))
        for each in reversed(data):
            out.varint(len(each))
        out.bytes(b"".join(data))
        return out


class _Values:
    """Attributes, or types: counted in the first walk, numbered in the second. Equal ones are one."""

    def __init__(self, as_type: bool) -> None:
        self.as_type = as_type
        self._uses: dict[Attribute, int] = {}
        self._same: dict[int, Attribute] = {}  # by identity: found without comparing
        self._number: dict[Attribute, int] = {}
        self._number_of: dict[int, int] = {}
        self.groups: list[tuple[str, list[Attribute]]] = []

    def use(self, value: Attribute) -> bool:
        """Count a use; whether it is the first."""
        known = self._same.get(id(value))
        if known is not None:
            self._uses[known] += 1
            return False
        self._same[id(value)] = value
        before = self._uses.get(value, 0)
        self._uses[value] = before + 1
        return not before

    def settle(self, dialects: Iterable[str]) -> None:
        """Give out the numbers, dialect by dialect."""
        groups: dict[str, list[Attribute]] = {dialect: [] for dialect in dialects}
        for value in sorted(self._uses, key=lambda value: -self._uses[value]):
            groups[self.dialect(value)].append(value)
        self.groups = [group for group in groups.items() if group[1]]
        self._number = {value: at for at, value in enumerate(value for _, group in self.groups for value in group)}
        self._number_of = {identity: self._number[value] for identity, value in self._same.items()}

    def __getitem__(self, value: Attribute) -> int:
        known = self._number_of.get(id(value))
        # A row may make attributes as it writes: a dictionary its keys.
        return self._number[value] if known is None else known

    def __len__(self) -> int:
        return sum(len(group) for _, group in self.groups)

    def dialect(self, value: Attribute) -> str:
        """The dialect under which a value is written."""
        if _native(value, self.as_type) is not None:
            return BUILTIN
        dialect, dot, _ = value.name.partition(".")
        if not dot or dialect == BUILTIN:
            raise IrError(9, f"{value.name} has no form in bytecode", lever="save the module as .mlir")
        return dialect


class _Tables:
    """All that a module names."""

    def __init__(self) -> None:
        self.strings = _Strings()
        self.attributes, self.types = _Values(as_type=False), _Values(as_type=True)
        self.dialects: dict[str, int] = {}
        self.operations: dict[str, dict[str, int]] = {}  # dialect -> full name -> number
        self.numbers: dict[str, int] = {}
        self.properties: dict[bytes, int] = {}

    def dialect(self, name: str) -> None:
        self.dialects.setdefault(name, len(self.dialects))

    def operation(self, name: str) -> None:
        dialect = name.partition(".")[0]
        self.dialect(dialect)
        self.operations.setdefault(dialect, {}).setdefault(name, 0)

    def settle(self) -> None:
        self.attributes.settle(self.dialects)
        self.types.settle(self.dialects)
        self.operations = {dialect: self.operations[dialect] for dialect in self.dialects if dialect in self.operations}
        names = [name for group in self.operations.values() for name in group]
        self.numbers = {name: at for at, name in enumerate(names)}


class _Counter(Emitter):
    """The first walk: counts what is written to it and all that this names in turn. Its bytes are not used."""

    def __init__(self, tables: _Tables) -> None:
        super().__init__()
        self.tables = tables

    def attribute(self, value: Attribute) -> None:
        self._use(self.tables.attributes, value)

    def optional(self, value: Attribute | None) -> None:
        if value is not None:
            self.attribute(value)

    def type(self, value: Attribute) -> None:
        self._use(self.tables.types, value)

    def located_type(self, value: Attribute, located: bool) -> None:
        self.type(value)

    def string(self, value: str) -> None:
        """Strings are numbered as they are written."""

    def operation(self, name: str) -> None:
        self.tables.operation(name)

    def properties(self, content: Emitter) -> None:
        """They were counted as they were written."""

    def inner(self) -> _Counter:
        return self

    def region(self, content: Emitter) -> None:
        """As `properties`."""

    def _use(self, values: _Values, value: Attribute) -> None:
        if values.use(value):
            self.tables.dialect(values.dialect(value))
            row = _native(value, values.as_type)
            if row is not None:
                row.write(value, self)


class _Writer(Emitter):
    """The second walk: attributes, types and strings become their numbers."""

    def __init__(self, tables: _Tables) -> None:
        super().__init__()
        self.tables = tables

    def attribute(self, value: Attribute) -> None:
        self.varint(self.tables.attributes[value])

    def optional(self, value: Attribute | None) -> None:
        if value is None:
            self.varint(0)
        else:
            self.flagged(self.tables.attributes[value], True)

    def type(self, value: Attribute) -> None:
        self.varint(self.tables.types[value])

    def located_type(self, value: Attribute, located: bool) -> None:
        self.flagged(self.tables.types[value], located)

    def string(self, value: str) -> None:
        self.varint(self.tables.strings[value])

    def operation(self, name: str) -> None:
        self.varint(self.tables.numbers[name])

    def properties(self, content: Emitter) -> None:
        known = self.tables.properties
        self.varint(known.setdefault(bytes(content.out), len(known)))

    def inner(self) -> _Writer:
        return _Writer(self.tables)

    def region(self, content: Emitter) -> None:
        self.section(Section.IR, content)


@dataclass
class _Walk:
    """Writes operations, first to a `_Counter`, then to a `_Writer`: what is counted and what is written cannot differ."""

    dictionaries: dict[int, DictionaryAttr] = field(default_factory=dict[int, DictionaryAttr])

    def _dictionary(self, attributes: dict[str, Attribute]) -> DictionaryAttr:
        """One object for both walks."""
        return self.dictionaries.setdefault(id(attributes), DictionaryAttr(attributes))

    def _properties(self, op: Operation, out: _Counter | _Writer) -> None:
        native = NATIVE_PROPERTIES.get(op.name)
        if native is None:
            out.attribute(self._dictionary(op.properties))
            return
        unknown = set(op.properties) - {name for name, _ in native}
        if unknown:
            raise IrError(9, f"{op.name} has a property '{min(unknown)}' of its own", lever="make it an attribute")
        for name, needed in native:
            if needed:
                out.attribute(op.properties[name])
            else:
                out.optional(op.properties.get(name))

    def operation(self, op: Operation, numbers: dict[SSAValue, int], out: _Counter | _Writer) -> None:
        """An operation; `numbers` are those of the values of its region, and gain its results."""
        mask = Mask(0)
        out.operation(op.name)
        at = len(out.out)
        out.byte(0)
        out.attribute(op.location)
        if op.attributes:
            mask |= Mask.ATTRIBUTES
            out.attribute(self._dictionary(op.attributes))
        if NATIVE_PROPERTIES.get(op.name, op.properties):
            mask |= Mask.PROPERTIES
            content = out.inner()
            self._properties(op, content)
            out.properties(content)
        if op.results:
            mask |= Mask.RESULTS
            out.varint(len(op.results))
            for result in op.results:
                out.type(result.type)
        if op.operands:
            mask |= Mask.OPERANDS
            out.varint(len(op.operands))
            for operand in op.operands:
                out.varint(numbers[operand])
        if op.regions:
            mask |= Mask.REGIONS
            if not op.has_trait(IsolatedFromAbove):
                raise IrError(9, f"{op.name} has regions that see values around them", lever="save the module as .mlir")
            out.flagged(len(op.regions), True)
            for region in op.regions:
                content = out.inner()
                self._region(region, content)
                out.region(content)
        for result in op.results:
            numbers[result] = len(numbers)
        out.out[at] = mask

    def _region(self, region: Region, out: _Counter | _Writer) -> None:
        blocks = list(region.blocks)
        out.varint(len(blocks))
        if not blocks:
            return
        out.varint(sum(len(block.args) + sum(len(op.results) for op in block.ops) for block in blocks))
        numbers: dict[SSAValue, int] = {}
        for block in blocks:
            out.flagged(len(block.ops), bool(block.args))
            if block.args:
                self._arguments(block, numbers, out)
            for op in block.ops:
                self.operation(op, numbers, out)

    def _arguments(self, block: Block, numbers: dict[SSAValue, int], out: _Counter | _Writer) -> None:
        out.varint(len(block.args))
        for argument in block.args:
            numbers[argument] = len(numbers)
            located = not isinstance(argument.location, UnknownLoc)
            out.located_type(argument.type, located)
            if located:
                out.attribute(argument.location)
        out.byte(0)  # uses stand in the order in which MLIR finds them


def _text(value: Attribute) -> bytes:
    out = StringIO()
    Printer(out).print_attribute(value)
    return out.getvalue().encode() + b"\0"


def _value_sections(tables: _Tables) -> tuple[Emitter, Emitter]:
    """The entries of all attributes and types, and where each lies."""
    entries, offsets = Emitter(), Emitter()
    for values in (tables.attributes, tables.types):
        offsets.varint(len(values))
    for values in (tables.attributes, tables.types):
        for dialect, group in values.groups:
            offsets.varint(tables.dialects[dialect])
            offsets.varint(len(group))
            for value in group:
                row = _native(value, values.as_type)
                entry = _Writer(tables)
                if row is None:
                    entry.bytes(_text(value))
                else:
                    entry.varint(row.code)
                    row.write(value, entry)
                offsets.flagged(len(entry.out), row is not None)
                entries.bytes(entry.out)
    return entries, offsets


def _dialect_section(tables: _Tables) -> Emitter:
    out = Emitter()
    out.varint(len(tables.dialects))
    for name in tables.dialects:
        out.flagged(tables.strings[name], False)
    out.varint(len(tables.numbers))
    for dialect, names in tables.operations.items():
        out.varint(tables.dialects[dialect])
        out.varint(len(names))
        for name in names:
            out.flagged(tables.strings[name.partition(".")[2]], name in NATIVE_PROPERTIES)
    return out


def _property_section(tables: _Tables) -> Emitter:
    out = Emitter()
    out.varint(len(tables.properties))
    for entry in tables.properties:
        out.varint(len(entry))
        out.bytes(entry)
    return out


def _resource_sections(blobs: Mapping[str, memoryview], tables: _Tables) -> tuple[Emitter, list[bytes | memoryview]]:
    """Where each blob lies, and the pieces of the section that holds them, which begins at a multiple of `ALIGNMENT`."""
    offsets, pieces, at = Emitter(), list[bytes | memoryview](), 0
    offsets.varint(1)
    offsets.varint(tables.strings[RESOURCES])
    offsets.varint(len(blobs))
    for key, data in blobs.items():
        head = Emitter()
        head.varint(ALIGNMENT)
        head.varint(len(data))
        head.padding(-(at + len(head.out)) % ALIGNMENT)
        pieces += [bytes(head.out), data]
        at += len(head.out) + len(data)
        offsets.varint(tables.strings[key])
        offsets.varint(len(head.out) + len(data))
        offsets.byte(Resource.BLOB)
    return offsets, pieces


def write_bytecode(module: ModuleOp, blobs: Mapping[str, memoryview]) -> list[bytes | bytearray | memoryview]:
    """The pieces of a bytecode file; those of `blobs` (by their keys) are the views that were given, not copies.

    Raises IrError HB0209 for what the format, or MLIR without our dialects, cannot hold.
    """
    tables, walk = _Tables(), _Walk()
    tables.dialect(BUILTIN)
    walk.operation(module, {}, _Counter(tables))
    tables.settle()
    code = _Writer(tables)
    code.flagged(1, False)
    walk.operation(module, {}, code)
    entries, offsets = _value_sections(tables)
    resource_offsets, pieces = _resource_sections(blobs, tables)

    file = Emitter()
    file.bytes(MAGIC)
    file.varint(VERSION)
    file.bytes(PRODUCER + b"\0")
    file.section(Section.DIALECT, _dialect_section(tables))
    file.section(Section.ATTR_TYPE_OFFSET, offsets)
    file.section(Section.ATTR_TYPE, entries)
    file.section(Section.IR, code)
    if tables.properties:
        file.section(Section.PROPERTIES, _property_section(tables))
    if blobs:
        file.section(Section.RESOURCE_OFFSET, resource_offsets)
    file.section(Section.STRING, tables.strings.section())
    if blobs:
        file.byte(Section.RESOURCE | 0x80)
        file.varint(sum(map(len, pieces)))
        file.varint(ALIGNMENT)
        file.padding(-len(file.out) % ALIGNMENT)
    return [file.out, *pieces]
