"""The constants of a module whose text lies beside them, in the safetensors layout: names are hashes, values are bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

from hbir.errors import FileFormatError

__all__ = ["read_weights", "weights_pieces"]

_HEADER_CAP = 8 << 20
"""Bytes: room for 60,000 constants. JSON takes twenty times as much memory as its text."""


def _alignment(size: int) -> int:
    return min(size & -size, 64) if size else 1


def weights_pieces(blobs: Mapping[str, memoryview]) -> list[bytes | memoryview]:
    """The pieces of a file that holds `blobs` by their hashes, none of them copied."""
    # Larger powers of two first: every blob then starts at a multiple of its own alignment without a gap.
    order = sorted(blobs, key=lambda digest: (-_alignment(len(blobs[digest])), digest))
    header: dict[str, object] = {}
    at = 0
    for digest in order:
        size = len(blobs[digest])
        header[digest] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}
        at += size
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-(8 + len(head)) % 64)
    return [len(head).to_bytes(8, "little") + head, *(blobs[digest] for digest in order)]


def _damaged(name: str, why: str) -> FileFormatError:
    return FileFormatError(1, f"{name} is damaged", why=why, lever="write the module again with `save`")


def read_weights(name: str, view: memoryview) -> dict[str, memoryview]:
    """The blobs of a file's content by their hashes, which are not checked; views of it.

    Raises FileFormatError HB0601 for a content that is not covered, byte by byte, by what its header states.
    """
    if len(view) < 8:
        raise _damaged(name, "shorter than its header")
    size = int.from_bytes(view[:8], "little")
    if size > min(_HEADER_CAP, len(view) - 8):
        raise _damaged(name, f"header of {size} bytes in a file of {len(view)}")
    try:
        header = cast(object, json.loads(bytes(view[8 : 8 + size])))
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _damaged(name, "header is not a JSON object")
    body = view[8 + size :]
    spans = _spans(name, cast(dict[str, Any], header), len(body))
    return {digest: body[begin:end] for digest, (begin, end) in spans.items()}


def _spans(name: str, table: Mapping[str, Any], length: int) -> dict[str, tuple[int, int]]:
    """The bytes of every entry, which cover all `length` bytes behind the header: no hole, no overlap, nothing appended."""
    spans: dict[str, tuple[int, int]] = {}
    for digest, entry in table.items():
        try:
            begin, end = (int(at) for at in entry["data_offsets"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise _damaged(name, f"entry {digest[:12]}… states no bytes") from None
        spans[digest] = (begin, end)
    at = 0
    for begin, end in sorted(spans.values()):
        if begin != at or end < begin:
            raise _damaged(name, f"an entry begins at byte {begin} and ends at {end}, where the last one ended at {at}")
        at = end
    if at != length:
        raise _damaged(name, f"its entries take {at} bytes, {length} bytes follow the header")
    return spans
