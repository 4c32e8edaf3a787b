"""What every part of a bytecode file is made of: variable-width integers, sections, padding.

A `Cursor` reads them from bytes that it does not trust: each count is checked against the bytes that are left, so that a
few bytes can never ask for much memory. An `Emitter` writes them.
"""

from __future__ import annotations

from enum import IntEnum

from hbir.errors import FileFormatError

__all__ = ["Cursor", "Emitter", "Section", "damaged"]

PADDING = 0xCB
LARGEST = (1 << 64) - 1


class Section(IntEnum):
    """Numbers of the sections."""

    STRING = 0
    DIALECT = 1
    ATTR_TYPE = 2
    ATTR_TYPE_OFFSET = 3
    IR = 4
    RESOURCE = 5
    RESOURCE_OFFSET = 6
    DIALECT_VERSIONS = 7
    PROPERTIES = 8


def damaged(why: str) -> FileFormatError:
    """The error for bytes that are no bytecode of ours."""
    return FileFormatError(
        2, "the bytecode is damaged", why=why, lever="write the module again with `save`, or with `tosa-opt`"
    )


class Cursor:
    """A place in `data`; every method moves it, and raises FileFormatError HB0602 rather than leave the data."""

    def __init__(self, data: memoryview, origin: int = 0) -> None:
        self.data, self.at, self.origin = data, 0, origin

    @property
    def left(self) -> int:
        """Bytes behind the cursor."""
        return len(self.data) - self.at

    def bytes(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        if count > self.left:
            raise damaged(f"{count} bytes are announced where {self.left} are left")
        self.at += count
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        """One byte."""
        return self.bytes(1)[0]

    def varint(self) -> int:
        """An unsigned integer of up to 64 bits; the zeros at the low end of the first byte count the bytes that follow."""
        data, at = self.data, self.at
        if at >= len(data):
            raise damaged("an integer is announced where nothing is left")
        first = data[at]
        if first & 1:  # most are one byte
            self.at = at + 1
            return first >> 1
        size = 9 if first == 0 else (first & -first).bit_length()
        value = int.from_bytes(self.bytes(size), "little")
        return value >> 8 if first == 0 else value >> size

    def flagged(self) -> tuple[int, bool]:
        """An integer above one bit."""
        value = self.varint()
        return value >> 1, bool(value & 1)

    def signed(self) -> int:
        """A signed integer whose sign is its lowest bit."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def count(self) -> int:
        """How many things follow, each of which takes a byte at least."""
        value = self.varint()
        if value > self.left:
            raise damaged(f"{value} entries are announced where {self.left} bytes are left")
        return value

    def align(self, alignment: int) -> None:
        """Skip padding up to a multiple of `alignment`, counted from the beginning of the file."""
        if alignment < 1 or alignment & (alignment - 1) or alignment > 1 << 32:
            raise damaged(f"{alignment} is no alignment")
        padding = self.bytes(-(self.origin + self.at) % alignment)
        if any(byte != PADDING for byte in padding):
            raise damaged("padding holds something")

    def section(self) -> tuple[int, Cursor]:
        """The number and the content of a section."""
        head = self.byte()
        length = self.varint()
        if head & 0x80:
            self.align(self.varint())
        begin = self.origin + self.at
        return head & 0x7F, Cursor(self.bytes(length), begin)

    def finish(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise damaged(f"{self.left} bytes too many")


class Emitter:
    """Bytes in the making."""

    def __init__(self) -> None:
        self.out = bytearray()

    def byte(self, value: int) -> None:
        """One byte."""
        self.out.append(value)

    def bytes(self, data: bytes | bytearray | memoryview) -> None:
        """Bytes as they are."""
        self.out += data

    def varint(self, value: int) -> None:
        """An unsigned integer of up to 64 bits."""
        size = max(1, -(-value.bit_length() // 7))
        if size > 8:
            self.out.append(0)
            self.out += value.to_bytes(8, "little")
        else:
            self.out += ((value << 1 | 1) << size - 1).to_bytes(size, "little")

    def flagged(self, value: int, flag: bool) -> None:
        """An integer above one bit."""
        self.varint(value << 1 | flag)

    def signed(self, value: int) -> None:
        """A signed integer of up to 64 bits."""
        self.varint((value << 1 ^ value >> 63) & LARGEST)

    def padding(self, count: int) -> None:
        """Bytes that say nothing."""
        self.out += bytes([PADDING]) * count

    def section(self, number: Section, content: Emitter) -> None:
        """A section without alignment."""
        self.byte(number)
        self.varint(len(content.out))
        self.bytes(content.out)
