"""How the builtin dialect's attributes and types are encoded: one row for each, with its number, its writer and its reader.

The numbers and layouts are MLIR's (`BuiltinDialectBytecode.td`). What has no row here, and all that other dialects define,
travels as text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from xdsl.dialects import builtin as b
from xdsl.ir import Attribute, TypeAttribute

from hbir.ir.bytecode.primitives import damaged
from hbir.ir.limits import WIDEST

__all__ = ["ATTRIBUTES", "TYPES", "Native", "Source", "Target"]


class Target(Protocol):
    """What a row writes to; attributes, types and strings become their numbers."""

    def byte(self, value: int) -> None:
        """Write one byte."""
        ...

    def bytes(self, data: bytes) -> None:
        """Write bytes as they are."""
        ...

    def varint(self, value: int) -> None:
        """Write a number from 0 up, in as few bytes as it takes."""
        ...

    def signed(self, value: int) -> None:
        """Write a number with a sign."""
        ...

    def attribute(self, value: Attribute) -> None:
        """Write the number of an attribute."""
        ...

    def type(self, value: Attribute) -> None:
        """Write the number of a type."""
        ...

    def string(self, value: str) -> None:
        """Write the number of a string."""
        ...


class Source(Protocol):
    """What a row reads from."""

    def byte(self) -> int:
        """One byte."""
        ...

    def bytes(self, count: int) -> memoryview:
        """The next bytes."""
        ...

    def varint(self) -> int:
        """A number from 0 up."""
        ...

    def signed(self) -> int:
        """A number with a sign."""
        ...

    def count(self) -> int:
        """The length of a list, which what is left of the file can hold."""
        ...

    def attribute(self) -> Attribute:
        """An attribute by its number."""
        ...

    def type(self) -> Attribute:
        """A type by its number."""
        ...

    def string(self) -> str:
        """A string by its number."""
        ...


@dataclass(frozen=True)
class Native:
    """The encoding `code` of `kind`; `fits` tells the rows of one class apart."""

    code: int
    kind: type[Attribute]
    write: Callable[[Any, Target], None]
    read: Callable[[Source], Attribute]
    fits: Callable[[Any], bool] = lambda _: True


def _nothing(_: Attribute, __: Target) -> None:
    """For what has no parameters."""


def _attributes(values: Sequence[Attribute], to: Target) -> None:
    to.varint(len(values))
    for value in values:
        to.attribute(value)


def _write_dictionary(value: b.DictionaryAttr, to: Target) -> None:
    to.varint(len(value.data))
    for key, item in sorted(value.data.items()):
        to.attribute(b.StringAttr(key))
        to.attribute(item)


def _read_dictionary(source: Source) -> Attribute:
    items: dict[str, Attribute] = {}
    for _ in range(source.count()):
        key = source.attribute()
        if not isinstance(key, b.StringAttr) or key.data in items:
            raise damaged("a dictionary has two equal keys, or a key that is no string")
        items[key.data] = source.attribute()
    return b.DictionaryAttr(items)


def _width(type_: Attribute) -> int:
    if isinstance(type_, b.IndexType):
        return 64
    if not isinstance(type_, b.IntegerType):
        raise damaged(f"{type_.name} is no integer type")
    return cast("b.IntegerType", type_).width.data


def _write_bits(value: int, width: int, to: Target) -> None:
    """The low `width` bits of an integer: a byte, a signed integer, or the words that are not 0."""
    value &= (1 << width) - 1
    if width <= 8:
        to.byte(value)
    elif width <= 64:
        to.signed(value - (1 << 64) if value >> 63 else value)
    else:
        words = [value >> at & (1 << 64) - 1 for at in range(0, max(1, value.bit_length()), 64)]
        to.varint(len(words))
        for word in words:
            to.signed(word - (1 << 64) if word >> 63 else word)


def _read_bits(width: int, source: Source) -> int:
    if width <= 8:
        return source.byte() & (1 << width) - 1
    if width <= 64:
        return source.signed() & (1 << width) - 1
    words = [source.signed() & (1 << 64) - 1 for _ in range(source.count())]
    return sum(word << 64 * at for at, word in enumerate(words)) & (1 << width) - 1


def _write_integer(value: b.IntegerAttr[Any], to: Target) -> None:
    to.type(value.type)
    _write_bits(value.value.data, _width(value.type), to)


def _read_integer(source: Source) -> Attribute:
    type_ = source.type()
    width = _width(type_)
    if width > 1 << 16:
        raise damaged(f"an integer of {width} bits")
    bits = _read_bits(width, source)
    made = cast("b.IntegerType", type_)  # or IndexType, which has no sign either
    unsigned = not isinstance(type_, b.IndexType) and made.signedness.data == b.Signedness.UNSIGNED
    if width and bits >> width - 1 and not unsigned:
        bits -= 1 << width
    return b.IntegerAttr(bits, made)


def _float_type(type_: Attribute) -> b.AnyFloat:
    if not isinstance(type_, b.BFloat16Type | b.Float16Type | b.Float32Type | b.Float64Type):
        raise damaged(f"a number of type {type_.name}")
    return type_


def _write_float(value: b.FloatAttr[Any], to: Target) -> None:
    to.type(value.type)
    data: bytes = value.type.pack((value.value.data,))
    _write_bits(int.from_bytes(data, "little"), 8 * len(data), to)


def _read_float(source: Source) -> Attribute:
    type_ = _float_type(source.type())
    data = _read_bits(8 * type_.size, source).to_bytes(type_.size, "little")
    return b.FloatAttr(type_.unpack(data, 1)[0], cast(b.Float32Type, type_))


def _write_dense_array(value: b.DenseArrayBase[Any], to: Target) -> None:
    to.type(value.elt_type)
    to.varint(len(value))
    data = value.data.data
    if value.elt_type == b.i1:
        data = bytes(byte & 1 for byte in data)
    to.varint(len(data))
    to.bytes(data)


def _read_dense_array(source: Source) -> Attribute:
    type_ = source.type()
    elements, data = source.varint(), bytes(source.bytes(source.varint()))
    if not isinstance(type_, b.IntegerType):
        type_ = _float_type(type_)
    size = type_.size
    if type_ == b.i1:
        data = bytes(0xFF if byte & 1 else 0 for byte in data)
    if elements * size != len(data):
        raise damaged(f"{elements} elements of {size} bytes in {len(data)} bytes")
    return b.DenseArrayBase(cast(b.IntegerType, type_), b.BytesAttr(data))


def _write_symbol(value: b.SymbolRefAttr, to: Target) -> None:
    to.attribute(value.root_reference)
    if value.nested_references.data:
        _attributes([b.SymbolRefAttr(each.data) for each in value.nested_references], to)


def _read_text(source: Source) -> b.StringAttr:
    value = source.attribute()
    if not isinstance(value, b.StringAttr):
        raise damaged(f"{value.name} where a string is due")
    return value


def _read_nested_symbol(source: Source) -> Attribute:
    root, nested = _read_text(source), [source.attribute() for _ in range(source.count())]
    if not all(isinstance(each, b.SymbolRefAttr) for each in nested):
        raise damaged("a symbol is made of something else")
    return b.SymbolRefAttr(root, [cast(b.SymbolRefAttr, each).root_reference for each in nested])


def _read_location(source: Source) -> b.LocationAttr:
    value = source.attribute()
    if not isinstance(value, b.UnknownLoc | b.FileLineColLoc | b.NameLoc | b.FusedLoc | b.CallSiteLoc):
        raise damaged(f"{value.name} where a location is due")
    return value


def _write_file_location(value: b.FileLineColLoc, to: Target) -> None:
    to.attribute(value.filename)
    to.varint(value.line.data)
    to.varint(value.column.data)


def _read_file_location(source: Source) -> Attribute:
    return b.FileLineColLoc(_read_text(source), b.IntAttr(source.varint()), b.IntAttr(source.varint()))


def _read_file_range(source: Source) -> Attribute:
    """A place or a range in a file; xDSL keeps where it begins."""
    file, length = _read_text(source), source.varint()
    if not 1 <= length <= 4:
        raise damaged(f"a range of a file with {length} numbers")
    numbers = [source.varint() for _ in range(length)]
    return b.FileLineColLoc(file, b.IntAttr(numbers[0]), b.IntAttr(numbers[1] if length > 1 else 0))


def _write_name(value: b.NameLoc, to: Target) -> None:
    to.attribute(value.desc)
    to.attribute(b.UNKNOWN_LOC if isinstance(value.location, b.NoneAttr) else value.location)


def _read_name(source: Source) -> Attribute:
    name, child = _read_text(source), _read_location(source)
    return b.NameLoc(name, b.NoneAttr() if isinstance(child, b.UnknownLoc) else child)


def _parts(value: b.FusedLoc) -> Sequence[Attribute]:
    return cast(b.ArrayAttr[Attribute], value.locations).data


def _write_fused_with_metadata(value: b.FusedLoc, to: Target) -> None:
    _attributes(_parts(value), to)
    to.attribute(value.metadata)


def _read_locations(source: Source) -> tuple[b.LocationAttr, ...]:
    return tuple(_read_location(source) for _ in range(source.count()))


def _read_call_site(source: Source) -> Attribute:
    return b.CallSiteLoc(_read_location(source), _read_location(source))


def _write_call_site(value: b.CallSiteLoc, to: Target) -> None:
    to.attribute(value.callee)
    to.attribute(value.caller)


def _plain(value: b.FusedLoc) -> bool:
    return isinstance(value.metadata, b.NoneAttr)


ATTRIBUTES: tuple[Native, ...] = (
    Native(
        0,
        b.ArrayAttr,
        lambda v, to: _attributes(v.data, to),
        lambda s: b.ArrayAttr([s.attribute() for _ in range(s.count())]),
    ),
    Native(1, b.DictionaryAttr, _write_dictionary, _read_dictionary),
    Native(2, b.StringAttr, lambda v, to: to.string(v.data), lambda s: b.StringAttr(s.string())),
    Native(
        4,
        b.SymbolRefAttr,
        _write_symbol,
        lambda s: b.SymbolRefAttr(_read_text(s)),
        lambda v: not v.nested_references.data,
    ),
    Native(5, b.SymbolRefAttr, _write_symbol, _read_nested_symbol),
    Native(6, TypeAttribute, lambda v, to: to.type(v), lambda s: s.type()),
    Native(7, b.UnitAttr, _nothing, lambda _: b.UnitAttr()),
    Native(8, b.IntegerAttr, _write_integer, _read_integer),
    Native(
        9, b.FloatAttr, _write_float, _read_float,
        lambda v: isinstance(v.type, b.BFloat16Type | b.Float16Type | b.Float32Type | b.Float64Type),
    ),
    Native(10, b.CallSiteLoc, _write_call_site, _read_call_site),
    Native(11, b.FileLineColLoc, _write_file_location, _read_file_location),
    Native(
        12,
        b.FusedLoc,
        lambda v, to: _attributes(_parts(v), to),
        lambda s: b.FusedLoc(_read_locations(s), b.NoneAttr()),
        _plain,
    ),
    Native(
        13,
        b.FusedLoc,
        _write_fused_with_metadata,
        lambda s: b.FusedLoc(_read_locations(s), s.attribute()),
    ),
    Native(14, b.NameLoc, _write_name, _read_name),
    Native(15, b.UnknownLoc, _nothing, lambda _: b.UNKNOWN_LOC),
    Native(17, b.DenseArrayBase, _write_dense_array, _read_dense_array),
    Native(22, b.FileLineColLoc, _write_file_location, _read_file_range, lambda _: False),
)  # fmt: skip
"""The builtin dialect's attributes that have an encoding of their own."""


def _write_integer_type(value: b.IntegerType, to: Target) -> None:
    to.varint(value.width.data << 2 | _SIGNS.index(value.signedness.data))


def _read_integer_type(source: Source) -> Attribute:
    value = source.varint()
    if value & 3 == 3 or value >> 2 > WIDEST:
        raise damaged(f"an integer type of no sign, or of more than {WIDEST} bits")
    return b.IntegerType(value >> 2, _SIGNS[value & 3])


_SIGNS = (b.Signedness.SIGNLESS, b.Signedness.SIGNED, b.Signedness.UNSIGNED)


def _write_function_type(value: b.FunctionType, to: Target) -> None:
    for types in (value.inputs.data, value.outputs.data):
        to.varint(len(types))
        for each in types:
            to.type(each)


def _read_function_type(source: Source) -> Attribute:
    inputs, outputs = ([source.type() for _ in range(source.count())] for _ in range(2))
    return b.FunctionType.from_lists(inputs, outputs)


def _write_extents(shape: Sequence[int], to: Target) -> None:
    to.varint(len(shape))
    for extent in shape:
        to.signed(extent)


def _read_extents(source: Source) -> list[int]:
    shape = [source.signed() for _ in range(source.count())]
    if any(extent < 0 and extent != b.DYNAMIC_INDEX for extent in shape):
        raise damaged("a shape has a negative extent")
    return shape


def _write_tensor(value: b.TensorType[Any], to: Target) -> None:
    _write_extents(value.get_shape(), to)
    to.type(value.element_type)
    if not isinstance(value.encoding, b.NoneAttr):
        to.attribute(value.encoding)


def _read_tensor(source: Source) -> Attribute:
    shape = _read_extents(source)
    return b.TensorType(source.type(), shape)


def _read_encoded_tensor(source: Source) -> Attribute:
    shape = _read_extents(source)
    return b.TensorType(source.type(), shape, source.attribute())


def _write_unranked(value: b.UnrankedTensorType[Any], to: Target) -> None:
    to.type(value.element_type)


def _write_tuple(value: b.TupleType, to: Target) -> None:
    to.varint(len(value.types.data))
    for each in value.types.data:
        to.type(each)


def _read_tuple(source: Source) -> Attribute:
    return b.TupleType(tuple(cast(TypeAttribute, source.type()) for _ in range(source.count())))


def _bare(kind: Callable[[], Attribute], code: int) -> Native:
    made = kind()
    return Native(code, type(made), _nothing, lambda _: made)


TYPES: tuple[Native, ...] = (
    Native(0, b.IntegerType, _write_integer_type, _read_integer_type),
    _bare(b.IndexType, 1),
    Native(2, b.FunctionType, _write_function_type, _read_function_type),
    _bare(b.BFloat16Type, 3),
    _bare(b.Float16Type, 4),
    _bare(b.Float32Type, 5),
    _bare(b.Float64Type, 6),
    _bare(b.Float80Type, 7),
    _bare(b.Float128Type, 8),
    _bare(b.NoneType, 12),
    Native(13, b.TensorType, _write_tensor, _read_tensor, lambda v: isinstance(v.encoding, b.NoneAttr)),
    Native(14, b.TensorType, _write_tensor, _read_encoded_tensor),
    Native(15, b.TupleType, _write_tuple, _read_tuple),
    Native(18, b.UnrankedTensorType, _write_unranked, lambda s: b.UnrankedTensorType(s.type())),
)
"""The builtin dialect's types that have an encoding of their own."""
