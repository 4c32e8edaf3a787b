"""The outer layer of an `.hbm`: named sections behind a header that leaves no byte unaccounted for.

    magic (8)  version u32  header length u32  section count u32  zero u32  file size u64
    count records of 96 bytes: name (32, zero padded)  offset u64  size u64  flags u32  zero u32  sha256 (32)  zero (8)
    sha256 of the header up to here (32), zeros up to a multiple of 64
    the sections, in the order of the records, without gaps, to the end of the file

The checksum of the header and those of the sections cover every byte, so that any flipped bit and any truncation is
refused. No count or size is believed before it was compared with the size of the file.
"""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from hbir.errors import FileFormatError

__all__ = ["HEADER_CAP", "MAGIC", "VERSION", "Section", "pack_sections", "unpack_sections"]

MAGIC = b"\x89HBM\r\n\x1a\n"
"""The first eight bytes of a file."""
VERSION = 1
"""Version of the format."""
HEADER_CAP = 1 << 20
"""Most bytes of a header."""

_HEAD = struct.Struct("<8sIIIIQ")
_RECORD = struct.Struct("<32sQQII32s8s")
_REQUIRED = 1
_NAME = re.compile(rb"[0-9a-z/_]{1,32}")


@dataclass(frozen=True, slots=True)
class Section:
    """Named bytes; a reader that does not know a required section must refuse the file."""

    name: str
    data: bytes | memoryview
    required: bool = True


def _header_length(count: int) -> int:
    return -(-(_HEAD.size + count * _RECORD.size + 32) // 64) * 64


def pack_sections(sections: Sequence[Section]) -> list[bytes | memoryview]:
    """The file as pieces to write one after the other; deterministic."""
    length = _header_length(len(sections))
    at, records = length, list[bytes]()
    for section in sections:
        name, size = section.name.encode("ascii"), len(section.data)
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"'{section.name}' is not a section name")
        digest = hashlib.sha256(section.data).digest()
        records.append(_RECORD.pack(name, at, size, _REQUIRED * section.required, 0, digest, b""))
        at += size
    head = _HEAD.pack(MAGIC, VERSION, length, len(sections), 0, at) + b"".join(records)
    head += hashlib.sha256(head).digest()
    return [head.ljust(length, b"\0"), *(section.data for section in sections)]


def _damaged(number: int, why: str) -> FileFormatError:
    return FileFormatError(number, "the .hbm file is damaged", why=why, lever="copy or compile it again")


def _check_head(data: memoryview) -> tuple[int, int]:
    """Length of the header and number of sections."""
    if bytes(data[:8]) != MAGIC[: len(data)]:
        raise FileFormatError(
            20, "not an .hbm file", why="it does not start as one", lever="give a file that `compile` wrote"
        )
    if len(data) < _HEAD.size:
        raise _damaged(21, f"{len(data)} bytes are shorter than a header")
    _, version, length, count, zero, size = _HEAD.unpack_from(data)
    if version != VERSION:
        raise FileFormatError(
            22,
            f"format version {version}",
            why=f"this reader knows version {VERSION}",
            lever="use the tool that wrote it",
        )
    if size != len(data):
        raise _damaged(21, f"it has {len(data)} bytes, its header says {size}")
    if length > min(HEADER_CAP, len(data)) or length != _header_length(count) or zero:
        raise _damaged(23, f"a header of {length} bytes for {count} sections")
    end = _HEAD.size + count * _RECORD.size
    if hashlib.sha256(data[:end]).digest() != bytes(data[end : end + 32]) or any(data[end + 32 : length]):
        raise _damaged(23, "the header does not have its checksum")
    return length, count


def unpack_sections(data: memoryview) -> dict[str, Section]:
    """The sections by name, each a view of `data`, after all checks.

    Raises FileFormatError HB0620 (no .hbm), HB0621 (size), HB0622 (version), HB0623 (header), HB0624 (sections).
    """
    length, count = _check_head(data)
    sections: dict[str, Section] = {}
    at = length
    for index in range(count):
        raw, offset, size, flags, zero, digest, rest = _RECORD.unpack_from(data, _HEAD.size + index * _RECORD.size)
        name = raw.rstrip(b"\0")
        text = name.decode("ascii", "replace")
        if _NAME.fullmatch(name) is None or text in sections or zero or any(rest) or flags not in (0, _REQUIRED):
            raise _damaged(24, f"record {index} of the section table is not well formed")
        if offset != at or size > len(data) - at:
            raise _damaged(
                24, f"section '{text}' of {size} bytes at {offset}; the next free byte is {at} of {len(data)}"
            )
        body = data[at : at + size]
        if hashlib.sha256(body).digest() != digest:
            raise _damaged(24, f"section '{text}' does not have its checksum")
        sections[text] = Section(text, body, bool(flags))
        at += size
    if at != len(data):
        raise _damaged(24, f"{len(data) - at} bytes behind the last section")
    return sections
