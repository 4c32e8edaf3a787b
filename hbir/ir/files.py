"""A module on disk: `NAME.mlir` holds the text, `NAME.weights` the constants (safetensors layout, memory-mapped on load)."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Dialect

from hbir.errors import ConfigError, FileFormatError, IrError
from hbir.ir.constants import BlobAttr, ConstantStore
from hbir.ir.text import parse_module, print_module

__all__ = ["load_module", "replacing", "save_module", "used_blobs"]

_HEADER_CAP = 100 << 20


@contextmanager
def replacing(path: Path) -> Generator[IO[bytes]]:
    """Open a binary file beside `path` and rename it into place at the end, so that nothing half-written looks finished.

    Raises ConfigError HB0801 when the folder cannot be written.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            yield file
        aside.replace(path)
    except OSError as error:
        raise ConfigError(
            1,
            f"cannot write {path}",
            why=error.strerror or str(error),
            lever="choose an output folder you may write to",
        ) from None
    finally:
        if aside.parent.is_dir():  # it may be the file that stood in the way
            aside.unlink(missing_ok=True)


def used_blobs(module: ModuleOp) -> list[BlobAttr]:
    """Every blob that an operation of the module names, each once, in order of first use."""
    found = {
        attribute.digest.data: attribute
        for op in module.walk()
        for attribute in (*op.properties.values(), *op.attributes.values())
        if isinstance(attribute, BlobAttr)
    }
    return list(found.values())


def _alignment(size: int) -> int:
    return min(size & -size, 64) if size else 1


def _write_weights(path: Path, blobs: dict[str, memoryview]) -> None:
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
    with replacing(path) as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for digest in order:
            file.write(blobs[digest])


def _bad_weights(path: Path, why: str) -> FileFormatError:
    return FileFormatError(1, f"{path.name} is damaged", why=why, lever="write the module again with `save`")


def _read_weights(path: Path, needed: Sequence[BlobAttr], store: ConstantStore) -> None:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < 8:
                raise _bad_weights(path, "shorter than its header")
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise IrError(
            6, f"{path.name} is missing", why="the module's constants live in it", lever="keep both files in one folder"
        ) from None
    except OSError as error:
        raise IrError(6, f"{path.name} cannot be read", why=error.strerror or str(error)) from None
    size = int.from_bytes(view[:8], "little")
    if size > min(_HEADER_CAP, len(view) - 8):
        raise _bad_weights(path, f"header of {size} bytes in a file of {len(view)}")
    try:
        header = cast(object, json.loads(bytes(view[8 : 8 + size])))
    except (ValueError, RecursionError) as error:
        raise _bad_weights(path, f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise _bad_weights(path, "header is not a JSON object")
    body = view[8 + size :]
    spans = _spans(path, cast(dict[str, Any], header), len(body))
    for blob in needed:
        digest = blob.digest.data
        if digest not in spans:
            raise _bad_weights(path, f"no entry for constant {digest[:12]}…")
        begin, end = spans[digest]
        if end - begin != blob.size.data:
            raise _bad_weights(
                path, f"constant {digest[:12]}… has {end - begin} bytes, the module takes {blob.size.data}"
            )
        if hashlib.sha256(body[begin:end]).hexdigest() != digest:
            raise _bad_weights(path, f"constant {digest[:12]}… does not have its hash")
        store.add(digest, body[begin:end])


def _spans(path: Path, table: Mapping[str, Any], length: int) -> dict[str, tuple[int, int]]:
    """The bytes of every entry, which cover all `length` bytes behind the header: no hole, no overlap, nothing appended."""
    spans: dict[str, tuple[int, int]] = {}
    for digest, entry in table.items():
        try:
            begin, end = (int(at) for at in entry["data_offsets"])
        except (KeyError, TypeError, ValueError, OverflowError):
            raise _bad_weights(path, f"entry {digest[:12]}… states no bytes") from None
        spans[digest] = (begin, end)
    at = 0
    for begin, end in sorted(spans.values()):
        if begin != at or end < begin:
            raise _bad_weights(
                path, f"an entry begins at byte {begin} and ends at {end}, where the last one ended at {at}"
            )
        at = end
    if at != length:
        raise _bad_weights(path, f"its entries take {at} bytes, {length} bytes follow the header")
    return spans


def save_module(module: ModuleOp, store: ConstantStore, path: Path) -> None:
    """Write `path` (`.mlir`, UTF-8) and, beside it, `.weights` with the constants that the module uses.

    Raises IrError HB0201 when the store lacks one of them, ConfigError HB0801 when a file cannot be written.
    """
    _write_weights(path.with_suffix(".weights"), {blob.digest.data: store.bytes(blob) for blob in used_blobs(module)})
    with replacing(path) as file:
        file.write(print_module(module).encode())


def load_module(path: Path, dialects: Iterable[Dialect]) -> tuple[ModuleOp, ConstantStore]:
    """Read `path` and the constants beside it; each constant is checked against its hash and never copied.

    Raises IrError for text that is not a module or lacks its constants, FileFormatError HB0601 for damaged constants.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise IrError(7, f"{path} does not exist", lever="check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise IrError(7, f"{path} cannot be read as text", why=str(error), lever="give an .mlir file") from None
    module = parse_module(text, dialects, source=path.name)
    store = ConstantStore()
    if needed := used_blobs(module):
        _read_weights(path.with_suffix(".weights"), needed, store)
    return module, store
