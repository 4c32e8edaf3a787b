"""Weights outside the IR: an attribute names bytes by their hash, a store holds them.

Printing, cloning and comparing a module therefore never touches a weight. A store is append-only and keyed by content,
so that modules share it freely and equal weights are held once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntAttr, StringAttr
from xdsl.ir import Attribute, ParametrizedAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer

from hbir.errors import IrError

__all__ = ["BlobAttr", "ConstantStore"]


@irdl_attr_definition
class BlobAttr(ParametrizedAttribute):
    """``#hbir.blob<"9f86d0…", 2500>``: the sha256 and the size, in bytes, of content that the store holds."""

    name = "hbir.blob"

    digest: StringAttr = param_def()
    size: IntAttr = param_def()

    def print_parameters(self, printer: Printer) -> None:
        """Write hash and size."""
        with printer.in_angle_brackets():
            printer.print_string(f'"{self.digest.data}", {self.size.data}')

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Read hash and size."""
        with parser.in_angle_brackets():
            digest = parser.parse_str_literal()
            parser.parse_punctuation(",")
            return StringAttr(digest), IntAttr(parser.parse_integer())


class ConstantStore:
    """Bytes by their sha256."""

    def __init__(self) -> None:
        self._blobs: dict[str, memoryview] = {}

    def __contains__(self, digest: str) -> bool:
        return digest in self._blobs

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._blobs))

    def put(self, array: npt.NDArray[np.generic]) -> BlobAttr:
        """Keep `array`'s bytes (little endian, C order). The array must not be changed afterwards; nothing is copied."""
        array = np.ascontiguousarray(array)
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        data = memoryview(array.reshape(-1).view(np.uint8).data).toreadonly()
        digest = hashlib.sha256(data).hexdigest()
        self._blobs.setdefault(digest, data)
        return BlobAttr(StringAttr(digest), IntAttr(len(data)))

    def add(self, digest: str, data: memoryview) -> None:
        """Keep bytes whose sha256 the caller has checked."""
        self._blobs.setdefault(digest, data)

    def bytes(self, blob: BlobAttr) -> memoryview:
        """The bytes that `blob` names. Raises IrError HB0201 when the store lacks them."""
        data = self._blobs.get(blob.digest.data)
        if data is None:
            raise IrError(
                1,
                f"constant {blob.digest.data[:12]}… ({blob.size.data} bytes) is not in the store",
                why="the text of a module names its weights by hash; the bytes live in the file beside it",
                lever="load the module with its `.weights` file, from the folder where it was saved",
            )
        return data

    def array(self, blob: BlobAttr, dtype: npt.DTypeLike, shape: Sequence[int]) -> npt.NDArray[np.generic]:
        """A read-only view of the bytes as an array; no copy. Raises IrError HB0202 when the size does not fit."""
        data, dtype = self.bytes(blob), np.dtype(dtype)
        if len(data) != dtype.itemsize * int(np.prod(shape, dtype=np.int64)):
            raise IrError(2, f"constant of {len(data)} bytes does not fill a {dtype} tensor of shape {tuple(shape)}")
        return np.frombuffer(data, dtype=dtype).reshape(tuple(shape))

    def subset(self, digests: Iterable[str]) -> dict[str, memoryview]:
        """The named blobs, in the order of their digests."""
        return {digest: self._blobs[digest] for digest in sorted(set(digests)) if digest in self._blobs}
