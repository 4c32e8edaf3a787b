"""Sections: what is written comes back, and nothing else does."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from backends.nash.hbm.container import Section, pack_sections, unpack_sections
from hbir.errors import FileFormatError

SECTIONS = [Section("0/graph", b"{}"), Section("0/empty", b""), Section("0/more", b"abc", required=False)]


def packed() -> bytearray:
    return bytearray(b"".join(pack_sections(SECTIONS)))


def rehash(data: bytearray) -> bytearray:
    """Give a changed header its checksum again: what an attacker would do."""
    end = 32 + 96 * int.from_bytes(data[16:20], "little")
    data[end : end + 32] = hashlib.sha256(data[:end]).digest()
    return data


def test_sections_come_back() -> None:
    found = unpack_sections(memoryview(packed()))
    assert list(found) == ["0/graph", "0/empty", "0/more"]
    assert [(bytes(s.data), s.required) for s in found.values()] == [(b"{}", True), (b"", True), (b"abc", False)]


def put(at: int, size: int, value: int) -> bytearray:
    data = packed()
    data[at : at + size] = value.to_bytes(size, "little")
    return rehash(data)


RECORD = 32


@pytest.mark.parametrize(
    ("at", "size", "value", "code"),
    [
        (8, 4, 2, "HB0622"),
        (12, 4, 1 << 30, "HB0623"),
        (12, 4, 0, "HB0623"),
        (16, 4, 2, "HB0623"),
        (20, 4, 1, "HB0623"),
        (24, 8, 1 << 60, "HB0621"),
        (RECORD + 32, 8, 0, "HB0624"),
        (RECORD + 40, 8, 1 << 63, "HB0624"),
        (RECORD + 40, 8, 1, "HB0624"),
        (RECORD + 48, 4, 2, "HB0624"),
        (RECORD + 52, 4, 1, "HB0624"),
        (RECORD + 88, 4, 1, "HB0624"),
        (RECORD, 1, ord("A"), "HB0624"),
        (RECORD + 96 + 2, 5, int.from_bytes(b"graph", "little"), "HB0624"),
    ],
)
def test_lies_with_a_correct_checksum_are_refused(at: int, size: int, value: int, code: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        unpack_sections(memoryview(put(at, size, value)))
    assert caught.value.code == code


def test_a_count_beyond_the_file_is_refused_before_it_is_used() -> None:
    data = packed()
    data[16:20] = (0xFFFFFFFF).to_bytes(4, "little")
    with pytest.raises(FileFormatError) as caught:
        unpack_sections(memoryview(data))
    assert caught.value.code == "HB0623"


def test_other_files_are_no_hbm() -> None:
    for data in (b"", b"\x7fELF" + bytes(100), bytes(1000)):
        with pytest.raises(FileFormatError) as caught:
            unpack_sections(memoryview(data))
        assert caught.value.code in ("HB0620", "HB0621")


def test_names_are_short_and_plain() -> None:
    for name in ("", "A", "x" * 33, "a b"):
        with pytest.raises(ValueError, match="section name"):
            pack_sections([Section(name, b"")])


def by_hand(sections: list[Section]) -> bytes:
    """The layout as its description gives it."""
    count = len(sections)
    length = -(-(32 + 96 * count + 32) // 64) * 64
    records, body = bytearray(), bytearray()
    for section in sections:
        records += section.name.encode().ljust(32, b"\0")
        records += (length + len(body)).to_bytes(8, "little") + len(section.data).to_bytes(8, "little")
        records += (1 if section.required else 0).to_bytes(4, "little") + bytes(4)
        records += hashlib.sha256(section.data).digest() + bytes(8)
        body += section.data
    head = b"\x89HBM\r\n\x1a\n" + b"".join(n.to_bytes(4, "little") for n in (1, length, count, 0))
    head += (length + len(body)).to_bytes(8, "little") + records
    return (head + hashlib.sha256(head).digest()).ljust(length, b"\0") + body


@pytest.mark.parametrize("count", range(5))
def test_every_byte_is_where_the_description_says(count: int) -> None:
    sections = [Section(f"{i}/views", bytes(range(i * 7)), required=i % 2 == 0) for i in range(count)]
    data = b"".join(pack_sections(sections))
    assert data == by_hand(sections)
    found = unpack_sections(memoryview(data))
    assert [replace(section, data=bytes(section.data)) for section in found.values()] == sections


def test_a_file_may_end_with_its_header() -> None:
    data = memoryview(by_hand([Section("a", b""), Section("x" * 32, b"")]))
    assert list(unpack_sections(data)) == ["a", "x" * 32]


def refused(data: bytes, code: str, *words: str) -> None:
    with pytest.raises(FileFormatError) as caught:
        unpack_sections(memoryview(data))
    assert caught.value.code == code
    assert caught.value.lever
    for word in words:
        assert word in str(caught.value)


def test_short_files_are_told_from_other_files() -> None:
    good = bytes(packed())
    for length in range(32):
        refused(good[:length], "HB0621", f"{length} bytes are shorter than a header")
    refused(good[:32], "HB0621", f"it has 32 bytes, its header says {len(good)}")
    for other in (b"\x89HBN", b"\x89HBM\r\n\x1a\r" + good[8:], b"HBM"):
        refused(other, "HB0620", "it does not start as one")


def test_headers_are_at_most_a_megabyte() -> None:
    largest = [Section(f"s{index}", b"") for index in range(10922)]
    for body in (b"", b"x" * 1024):
        data = by_hand([*largest[:-1], Section("s10921", body)])
        assert int.from_bytes(data[12:16], "little") == 1 << 20
        assert len(unpack_sections(memoryview(data))) == 10922
    refused(by_hand([*largest, Section("last", b"x" * 1024)]), "HB0623", "1048704 bytes for 10923 sections")


def test_bytes_between_header_and_sections_are_zero() -> None:
    data = packed()
    length = int.from_bytes(data[12:16], "little")
    end = RECORD + 96 * 3 + 32
    assert end < length
    for at in (end, length - 1):
        bad = bytearray(data)
        bad[at] = 1
        refused(bytes(bad), "HB0623", "does not have its checksum")


def test_sections_follow_each_other_to_the_end() -> None:
    data = packed()
    length, size = int.from_bytes(data[12:16], "little"), len(data)
    refused(bytes(put(RECORD + 32, 8, length + 1)), "HB0624", f"at {length + 1}; the next free byte is {length}")
    refused(bytes(put(RECORD + 96 + 32, 8, length)), "HB0624", f"the next free byte is {length + 2}")
    # The last section has three bytes: one less leaves one over, one more is not there.
    digest = hashlib.sha256(b"ab").digest()
    short = packed()
    short[RECORD + 192 + 40] = 2
    short[RECORD + 192 + 56 : RECORD + 192 + 88] = digest
    refused(bytes(rehash(short)), "HB0624", "1 bytes behind the last section")
    refused(bytes(put(RECORD + 192 + 40, 8, 4)), "HB0624", f"section '0/more' of 4 bytes at {length + 2}", f"of {size}")
    refused(bytes(put(RECORD + 56, 1, data[RECORD + 56] ^ 1)), "HB0624", "section '0/graph' does not have its checksum")


@pytest.mark.parametrize(
    ("at", "size", "value", "index"),
    [
        (RECORD + 5, 1, ord("H"), 0),
        (RECORD + 20, 1, ord("h"), 0),  # a zero inside the name
        (RECORD + 96 + 2, 5, int.from_bytes(b"graph", "little"), 1),
        (RECORD + 192 + 48, 4, 2, 2),
        (RECORD + 192 + 48, 4, 3, 2),
        (RECORD + 96 + 52, 4, 1, 1),
        (RECORD + 88, 1, 1, 0),
        (RECORD + 95, 1, 1, 0),
    ],
)
def test_records_that_are_not_well_formed(at: int, size: int, value: int, index: int) -> None:
    refused(bytes(put(at, size, value)), "HB0624", f"record {index} of the section table is not well formed")
