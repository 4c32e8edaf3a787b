"""Sections: what is written comes back, and nothing else does."""

from __future__ import annotations

import hashlib

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
