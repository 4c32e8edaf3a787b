"""A module on disk. `NAME.bc` is MLIR bytecode and holds everything; `NAME.mlir` is text, its constants lie in `NAME.weights`,
and so they do when another tool makes bytecode of the text.

Either way constants are mapped into memory on load, never copied, and each is checked against its hash.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Dialect

from hbir.errors import ConfigError, FileFormatError, IrError
from hbir.ir.bytecode import read_bytecode, write_bytecode
from hbir.ir.constants import BlobAttr, ConstantStore
from hbir.ir.text import parse_module, print_module, verify_module
from hbir.ir.weights import read_weights, weights_pieces

__all__ = [
    "MODULE_SUFFIXES",
    "add_constants",
    "load_module",
    "replacing",
    "save_module",
    "used_blobs",
    "write_bytes",
    "write_text",
]

MODULE_SUFFIXES = (".bc", ".mlir")
"""What the files of a module end in: bytecode, and text with its weights beside it."""


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


def write_bytes(path: Path, pieces: Iterable[bytes | bytearray | memoryview]) -> None:
    """Write pieces of bytes, one behind the other, as `replacing` does. Raises ConfigError HB0801."""
    with replacing(path) as file:
        file.writelines(pieces)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, its line ends as they are, as `replacing` does. Raises ConfigError HB0801."""
    write_bytes(path, [text.encode()])


def used_blobs(module: ModuleOp) -> list[BlobAttr]:
    """Every blob that an operation of the module names, each once, in order of first use."""
    found = {
        attribute.digest.data: attribute
        for op in module.walk()
        for attribute in (*op.properties.values(), *op.attributes.values())
        if isinstance(attribute, BlobAttr)
    }
    return list(found.values())


def save_module(module: ModuleOp, store: ConstantStore, path: Path) -> None:
    """Write `path`: bytecode (`.bc`), or text (`.mlir`) and `.weights` beside it.

    Raises IrError HB0201 when the store lacks a constant, HB0209 for what bytecode cannot hold, ConfigError HB0801 when a
    file cannot be written.
    """
    blobs = {blob.digest.data: store.bytes(blob) for blob in used_blobs(module)}
    if path.suffix == ".bc":
        write_bytes(path, write_bytecode(module, blobs))
    else:
        write_bytes(path.with_suffix(".weights"), weights_pieces(blobs))
        write_text(path, print_module(module))


def _mapped(path: Path, missing: IrError) -> memoryview:
    """The bytes of a file, mapped into memory."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return memoryview(b"")
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise missing from None
    except OSError as error:
        raise IrError(6, f"{path.name} cannot be read", why=error.strerror or str(error)) from None


_MUCH = 1 << 20
"""From so many bytes on, threads pay."""


def _digests(pieces: Sequence[memoryview]) -> list[str]:
    """The sha256 of each piece, in hexadecimal digits; of many bytes on all cores."""

    def digest(data: memoryview) -> str:
        return hashlib.sha256(data).hexdigest()

    if sum(map(len, pieces)) < _MUCH:
        return [*map(digest, pieces)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [*pool.map(digest, pieces)]


def add_constants(path: Path, module: ModuleOp, found: Mapping[str, memoryview], store: ConstantStore) -> None:
    """Put what the module takes into the store. Raises FileFormatError HB0601 for a constant that is not what it should be."""
    blobs = used_blobs(module)
    digests = _digests([found.get(blob.digest.data, memoryview(b"")) for blob in blobs])
    for blob, digest in zip(blobs, digests, strict=True):
        name, data = f"constant {blob.digest.data[:12]}…", found.get(blob.digest.data)
        if data is None:
            lever = "give the one that was written with the module, or write the module again with `save`"
            what = f"{path.name} does not hold all constants of the module"
            raise FileFormatError(1, what, why=f"no entry for {name}", lever=lever)
        if len(data) != blob.size.data:
            why = f"{name} has {len(data)} bytes, the module takes {blob.size.data}"
        elif digest != blob.digest.data:
            why = f"{name} does not have its hash"
        else:
            store.add(blob.digest.data, data)
            continue
        raise FileFormatError(1, f"{path.name} is damaged", why=why, lever="write the module again with `save`")


def _beside(path: Path, what: str, why: str) -> dict[str, memoryview]:
    """The blobs of the `.weights` file of a module. Raises IrError HB0206, which says `what` and `why`, when there is none."""
    beside = path.with_suffix(".weights")
    what = f"{what}, and {beside.name} is missing" if what else f"{beside.name} is missing"
    lever = f"keep both files in one folder, as {path.name} and {beside.name}"
    return read_weights(beside.name, _mapped(beside, IrError(6, what, why=why, lever=lever)))


def load_module(path: Path, dialects: Iterable[Dialect]) -> tuple[ModuleOp, ConstantStore]:
    """Read a module that `save_module`, or any MLIR tool, wrote; it is verified.

    Constants that bytecode does not hold are looked for beside it, where those of the text that it was made of lie.

    Raises IrError for a file that is not a module or lacks its constants, FileFormatError HB0601 or HB0602 for a damaged one.
    """
    missing = IrError(7, f"{path} does not exist", lever="check the path")
    store = ConstantStore()
    if path.suffix == ".bc":
        module, blobs = read_bytecode(_mapped(path, missing), dialects)
        verify_module(module)
        if all(blob.digest.data in blobs for blob in used_blobs(module)):
            add_constants(path, module, blobs, store)
        else:
            what = f"{path.name} does not hold all constants of its module"
            why = "bytecode that a tool makes of a text has them in the text's .weights file"
            add_constants(path.with_suffix(".weights"), module, {**_beside(path, what, why), **blobs}, store)
        return module, store
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise missing from None
    except (OSError, UnicodeDecodeError) as error:
        raise IrError(7, f"{path} cannot be read as text", why=str(error), lever="give an .mlir file") from None
    module = parse_module(text, dialects, source=path.name)
    if used_blobs(module):
        found = _beside(path, "", "the module's constants live in it")
        add_constants(path.with_suffix(".weights"), module, found, store)
    return module, store
