"""From bytecode to a module. Nothing in the bytes is trusted: see `primitives.Cursor` for counts, `_Values` for nesting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, DictionaryAttr, LocationAttr, ModuleOp
from xdsl.dialects.func import Func
from xdsl.ir import Attribute, Block, Dialect, Operation, Region, SSAValue
from xdsl.utils.exceptions import ParseError, VerifyException

from hbir.errors import IrError
from hbir.ir.bytecode.builtin import ATTRIBUTES, TYPES, Native
from hbir.ir.bytecode.layout import BUILTIN, MAGIC, NATIVE_PROPERTIES, RESOURCES, VERSION, Mask, Resource
from hbir.ir.bytecode.primitives import Cursor, Section, damaged
from hbir.ir.limits import DEEPEST, LARGEST, LimitedParser
from hbir.ir.strings import ascii_literals
from hbir.ir.text import ESCAPING, parse_reason, raised_here

__all__ = ["read_bytecode"]

_ATTRIBUTE_ROWS = {row.code: row for row in ATTRIBUTES}
_TYPE_ROWS = {row.code: row for row in TYPES}
# As plain integers: every operation asks for each of them, and an `IntFlag` takes a microsecond to answer.
_ATTRIBUTES, _RESULTS, _OPERANDS = Mask.ATTRIBUTES.value, Mask.RESULTS.value, Mask.OPERANDS.value
_SUCCESSORS, _REGIONS, _PROPERTIES = Mask.SUCCESSORS.value, Mask.REGIONS.value, Mask.PROPERTIES.value
_USE_LIST_ORDERS = Mask.USE_LIST_ORDERS.value


@dataclass(frozen=True)
class _Entry:
    """Where an attribute or type is written."""

    data: memoryview
    dialect: str
    native: bool


class _Source(Cursor):
    """A cursor that knows attributes, types and strings by their numbers."""

    def __init__(self, data: memoryview, tables: _Tables) -> None:
        super().__init__(data)
        self.tables = tables

    def attribute(self) -> Attribute:
        return self.tables.attributes.get(self.varint())

    def type(self) -> Attribute:
        return self.tables.types.get(self.varint())

    def string(self) -> str:
        return self.tables.string(self.varint())

    def optional(self) -> Attribute | None:
        """An attribute that may be absent."""
        number, present = self.flagged()
        if not present and number:
            raise damaged("an attribute that is absent has a number")
        return self.tables.attributes.get(number) if present else None

    def location(self) -> LocationAttr:
        value = self.attribute()
        if not isinstance(value, LocationAttr):
            raise damaged(f"{value.name} where a location is due")
        return value

    def dictionary(self) -> dict[str, Attribute]:
        value = self.attribute()
        if not isinstance(value, DictionaryAttr):
            raise damaged(f"{value.name} where a dictionary is due")
        return dict(value.data)


class _Values:
    """Attributes, or types, by number; each is made when it is first asked for."""

    def __init__(self, tables: _Tables, rows: Mapping[int, Native]) -> None:
        self.tables, self.rows = tables, rows
        self.entries: list[_Entry] = []
        self._made: dict[int, Attribute] = {}
        self._sizes: dict[int, int] = {}

    def get(self, number: int) -> Attribute:
        made = self._made.get(number)
        if made is None:
            made = self._make(number)
        self.tables.size += self._sizes[number]
        return made

    def _make(self, number: int) -> Attribute:
        if number >= len(self.entries):
            raise damaged(f"attribute or type {number} of {len(self.entries)}")
        tables, outer = self.tables, self.tables.size
        tables.depth += 1
        if tables.depth > DEEPEST:  # also where one holds itself
            raise damaged(f"attributes are nested more than {DEEPEST} deep")
        tables.size = 1
        made = self._read(self.entries[number])
        tables.total += tables.size
        if tables.total > LARGEST:
            raise damaged(f"its attributes hold more than {LARGEST} others")
        self._made[number], self._sizes[number] = made, tables.size
        tables.size, tables.depth = outer, tables.depth - 1
        return made

    def _read(self, entry: _Entry) -> Attribute:
        if not entry.native:
            return self.tables.parse(entry, self.rows is _TYPE_ROWS)
        source = _Source(entry.data, self.tables)
        code = source.varint()
        row = self.rows.get(code) if entry.dialect == BUILTIN else None
        if row is None:
            raise damaged(f"encoding {code} of dialect {entry.dialect} is not supported")
        made = row.read(source)
        source.finish()
        return made


class _Tables:
    """What the sections before the code hold."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.strings: list[str] = []
        self.dialects: list[str] = []
        self.operations: list[str] = []
        self.attributes = _Values(self, _ATTRIBUTE_ROWS)
        self.types = _Values(self, _TYPE_ROWS)
        self.properties: list[memoryview] = []
        self.depth, self.size, self.total = 0, 0, 0

    def string(self, number: int) -> str:
        if number >= len(self.strings):
            raise damaged(f"string {number} of {len(self.strings)}")
        return self.strings[number]

    def dialect(self, number: int) -> str:
        if number >= len(self.dialects):
            raise damaged(f"dialect {number} of {len(self.dialects)}")
        return self.dialects[number]

    def parse(self, entry: _Entry, as_type: bool) -> Attribute:
        """An attribute or type of a dialect of ours, from its text."""
        data = bytes(entry.data)
        if data[-1:] != b"\0" or b"\0" in data[:-1]:
            raise damaged("a text does not end where its entry does")
        try:
            text, marked = ascii_literals(data[:-1].decode(), "<bytecode>")
        except UnicodeDecodeError:
            raise damaged("a text is not UTF-8") from None
        if entry.dialect == BUILTIN or marked or not text.startswith(("!" if as_type else "#") + entry.dialect + "."):
            raise damaged(f"{text[:40]!r} is no text of dialect {entry.dialect}")
        parser = LimitedParser(self.context, text, "<bytecode>")
        made = parser.parse_type() if as_type else parser.parse_attribute()
        if parser.pos != len(text):
            raise damaged(f"{text[:40]!r} has something behind its end")
        return made


def _read_strings(section: Cursor, tables: _Tables) -> None:
    sizes = [section.varint() for _ in range(section.count())]
    for size in reversed(sizes):
        data = bytes(section.bytes(size))
        if data[-1:] != b"\0":
            raise damaged("a string does not end")
        try:
            tables.strings.append(data[:-1].decode())
        except UnicodeDecodeError:
            raise damaged("a string is not UTF-8") from None
    section.finish()


def _read_dialects(section: Cursor, tables: _Tables) -> None:
    for _ in range(section.count()):
        name, versioned = section.flagged()
        if versioned:
            section.section()  # of a dialect that is not ours: MLIR's own have no versions that matter here
        tables.dialects.append(tables.string(name))
    expected = section.varint()
    while section.left:
        dialect = tables.dialect(section.varint())
        for _ in range(section.count()):
            name, _registered = section.flagged()
            tables.operations.append(f"{dialect}.{tables.string(name)}")
    if expected != len(tables.operations):
        raise damaged(f"{expected} names of operations are announced, {len(tables.operations)} follow")


def _read_entries(offsets: Cursor, entries: Cursor, tables: _Tables) -> None:
    for values, count in [(values, offsets.varint()) for values in (tables.attributes, tables.types)]:
        while len(values.entries) < count:
            dialect = tables.dialect(offsets.varint())
            group = offsets.count()
            if not group:
                raise damaged("a group of attributes is empty")
            for _ in range(group):
                size, native = offsets.flagged()
                values.entries.append(_Entry(entries.bytes(size), dialect, native))
        if len(values.entries) != count:
            raise damaged(f"{count} attributes are announced, {len(values.entries)} follow")
    offsets.finish()
    entries.finish()


def _read_properties(section: Cursor, tables: _Tables) -> None:
    tables.properties = [section.bytes(section.varint()) for _ in range(section.count())]
    section.finish()


def _read_resources(offsets: Cursor, content: Cursor, tables: _Tables) -> dict[str, memoryview]:
    """The constants, by their keys. Resources of others are not looked at."""
    blobs: dict[str, memoryview] = {}
    groups = offsets.count()
    while offsets.left:
        group = offsets.varint()
        ours = groups > 0 and tables.string(group) == RESOURCES
        groups -= 1
        for _ in range(offsets.count()):
            key, size, kind = tables.string(offsets.varint()), offsets.varint(), offsets.byte()
            entry = Cursor(content.bytes(size), content.origin + content.at - size)
            if ours and kind == Resource.BLOB:
                alignment, length = entry.varint(), entry.varint()
                entry.align(alignment)
                if key in blobs:
                    raise damaged(f"constant {key[:12]}… is there twice")
                blobs[key] = entry.bytes(length)
                entry.finish()
    content.finish()
    return blobs


class _Body:
    """Reads the operations."""

    def __init__(self, tables: _Tables) -> None:
        self.tables = tables

    def operation(self, source: _Source, values: list[SSAValue], depth: int) -> Operation:
        tables, number = self.tables, source.varint()
        if number >= len(tables.operations):
            raise damaged(f"operation name {number} of {len(tables.operations)}")
        name = tables.operations[number]
        kind = tables.context.get_optional_op(name)
        if kind is None:
            raise IrError(10, f"operation {name} is not known", lever="save the module with this version of hbir")
        mask = source.byte()
        location = source.location()
        attributes = source.dictionary() if mask & _ATTRIBUTES else {}
        properties = self._properties(name, source) if mask & _PROPERTIES else {}
        results = [source.type() for _ in range(source.count())] if mask & _RESULTS else []
        operands = [self._value(source, values) for _ in range(source.count())] if mask & _OPERANDS else []
        if mask & _SUCCESSORS:
            raise damaged(f"{name} jumps to other blocks")
        if mask & _USE_LIST_ORDERS:
            _skip_use_lists(source, len(results))
        regions = self._regions(source, depth) if mask & _REGIONS else []
        op = kind.create(
            operands=operands, result_types=results, properties=properties, attributes=attributes, regions=regions
        )
        op.location = location
        values.extend(op.results)
        return op

    def _value(self, source: _Source, values: list[SSAValue]) -> SSAValue:
        number = source.varint()
        if number >= len(values):
            raise damaged(f"value {number} is used where {len(values)} are defined")
        return values[number]

    def _properties(self, name: str, source: _Source) -> dict[str, Attribute]:
        number = source.varint()
        if number >= len(self.tables.properties):
            raise damaged(f"properties {number} of {len(self.tables.properties)}")
        content = _Source(self.tables.properties[number], self.tables)
        native = NATIVE_PROPERTIES.get(name)
        if native is None:
            found: dict[str, Attribute] = content.dictionary()
        else:
            read = ((key, content.attribute() if needed else content.optional()) for key, needed in native)
            found = {key: value for key, value in read if value is not None}
        content.finish()
        return found

    def _regions(self, source: _Source, depth: int) -> list[Region]:
        if depth == 3:
            raise damaged("regions are nested deeper than a module, its functions and their operations")
        count, isolated = source.flagged()
        if not isolated or count > source.left:
            raise damaged("a region that sees values around it")
        regions: list[Region] = []
        for _ in range(count):
            number, content = source.section()
            if number != Section.IR:
                raise damaged(f"section {number} where code is due")
            regions.append(self._region(_Source(content.data, self.tables), depth))
        return regions

    def _region(self, source: _Source, depth: int) -> Region:
        blocks: list[Block] = []
        count = source.count()
        expected = source.varint() if count else 0
        values: list[SSAValue] = []
        for _ in range(count):
            operations, has_arguments = source.flagged()
            block = Block()
            if has_arguments:
                self._arguments(source, block)
                values.extend(block.args)
            if operations > source.left:
                raise damaged(f"{operations} operations are announced where {source.left} bytes are left")
            for _ in range(operations):
                block.add_op(self.operation(source, values, depth + 1))
            blocks.append(block)
        if len(values) != expected:
            raise damaged(f"{expected} values are announced, {len(values)} are defined")
        source.finish()
        return Region(blocks)

    def _arguments(self, source: _Source, block: Block) -> None:
        for index in range(source.count()):
            number, located = source.flagged()
            argument = block.insert_arg(self.tables.types.get(number), index)
            if located:
                argument.location = source.location()
        if source.byte():
            _skip_use_lists(source, len(block.args))


def _skip_use_lists(source: _Source, values: int) -> None:
    """The order in which MLIR lists the uses of a value says nothing about the module."""
    for _ in range(source.count() if values > 1 else 1):
        if values > 1:
            source.varint()
        count, _pairs = source.flagged()
        if count > source.left:
            raise damaged(f"{count} uses are announced where {source.left} bytes are left")
        for _ in range(count):
            source.varint()


def _sections(file: Cursor) -> dict[int, Cursor]:
    if bytes(file.bytes(min(4, file.left))) != MAGIC:
        raise damaged("it does not begin as bytecode does")
    version = file.varint()
    if version != VERSION:
        raise damaged(f"it has version {version} of the format, not {VERSION}")
    while file.byte():
        pass  # the producer's name
    found: dict[int, Cursor] = {}
    while file.left:
        number, content = file.section()
        if number in found or number > max(Section):
            raise damaged(f"section {number} is unknown, or there twice")
        found[number] = content
    for needed in (Section.STRING, Section.DIALECT, Section.ATTR_TYPE, Section.ATTR_TYPE_OFFSET, Section.IR):
        if needed not in found:
            raise damaged(f"it lacks section {needed}")
    return found


def read_bytecode(data: memoryview, dialects: Iterable[Dialect]) -> tuple[ModuleOp, dict[str, memoryview]]:
    """A module, not yet verified, and the blobs that lie in the file, by their keys: views of `data`.

    Raises FileFormatError HB0602 for bytes that are damaged, IrError HB0210 for an operation that no dialect knows.
    """
    context = Context()
    for dialect in (Builtin, Func, *dialects):
        context.load_dialect(dialect)
    tables = _Tables(context)
    try:
        sections = _sections(Cursor(data))
        _read_strings(sections[Section.STRING], tables)
        _read_dialects(sections[Section.DIALECT], tables)
        _read_entries(sections[Section.ATTR_TYPE_OFFSET], sections[Section.ATTR_TYPE], tables)
        if Section.PROPERTIES in sections:
            _read_properties(sections[Section.PROPERTIES], tables)
        blobs: dict[str, memoryview] = {}
        if Section.RESOURCE in sections and Section.RESOURCE_OFFSET in sections:
            blobs = _read_resources(sections[Section.RESOURCE_OFFSET], sections[Section.RESOURCE], tables)
        code = _Source(sections[Section.IR].data, tables)
        if code.flagged() != (1, False):
            raise damaged("it holds more than one module, or none")
        module = _Body(tables).operation(code, [], 0)
        code.finish()
    except ParseError as error:
        raise damaged(parse_reason(error)) from None
    except VerifyException as error:
        raise damaged(str(error).strip().splitlines()[-1]) from None
    except ESCAPING as error:
        if raised_here(error):
            raise
        raise damaged(f"{type(error).__name__}: {error}") from error
    if not isinstance(module, ModuleOp):
        raise damaged(f"it holds {module.name}, not a module")
    return module, blobs
