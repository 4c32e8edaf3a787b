"""TensorProto to numpy: all encodings of the format, without a copy where the bytes allow it, and external files."""

from __future__ import annotations

import math
import mmap
import os
import stat
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.dialects.base import Array
from hbir.errors import ImportModelError
from hbir.frontends.onnx.errors import Refusal, check_axes

__all__ = ["DataType", "ExternalData", "decode_text", "tensor_array", "type_name"]


class DataType(IntEnum):
    """`TensorProto.DataType` of the ONNX format."""

    FLOAT = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    STRING = 8
    BOOL = 9
    FLOAT16 = 10
    DOUBLE = 11
    UINT32 = 12
    UINT64 = 13
    BFLOAT16 = 16
    UINT4 = 21
    INT4 = 22

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of decoded values: bfloat16 is held as float32, 4-bit integers as 8-bit ones."""
        return np.dtype(_DTYPES[self])


_DTYPES: dict[DataType, npt.DTypeLike] = {
    DataType.FLOAT: np.float32,
    DataType.UINT8: np.uint8,
    DataType.INT8: np.int8,
    DataType.UINT16: np.uint16,
    DataType.INT16: np.int16,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.STRING: np.object_,
    DataType.BOOL: np.bool_,
    DataType.FLOAT16: np.float16,
    DataType.DOUBLE: np.float64,
    DataType.UINT32: np.uint32,
    DataType.UINT64: np.uint64,
    DataType.BFLOAT16: np.float32,
    DataType.UINT4: np.uint8,
    DataType.INT4: np.int8,
}
_KNOWN = frozenset(int(member) for member in DataType)
# Bytes as they are stored; the types missing here are stored as they are held.
_STORED: dict[DataType, npt.DTypeLike] = {
    DataType.BFLOAT16: np.uint16,
    DataType.UINT4: np.uint8,
    DataType.INT4: np.uint8,
}
_TYPED_FIELDS = {
    DataType.FLOAT: "float_data",
    DataType.DOUBLE: "double_data",
    DataType.INT64: "int64_data",
    DataType.UINT32: "uint64_data",
    DataType.UINT64: "uint64_data",
}
_EXTERNAL = 1


def type_name(data_type: int) -> str:
    """The format's name of an element type, or its number."""
    return DataType(data_type).name.lower() if data_type in _KNOWN else f"element type {data_type}"


def decode_text(text: Any, what: str) -> str:
    """A protobuf string, which is handed out as bytes when it is not UTF-8. Raises HB0102 for those."""
    if isinstance(text, str):
        return text
    raise ImportModelError(
        Refusal.NOT_A_MODEL,
        f"{what} is not text: {bytes(text)!r}",
        why="names in an ONNX file are UTF-8",
        lever="write the file again; this one is damaged",
    )


class ExternalData:
    """Tensor bytes in files beside the model, mapped read-only; no path may lead out of the model's folder."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._maps: dict[str, memoryview] = {}

    def read(self, entries: dict[str, str], size: int, where: str) -> memoryview:
        """The `size` bytes that a tensor's entries (`location`, `offset`, `length`) name. Raises HB0140 to HB0144."""
        if self.folder is None:
            raise ImportModelError(
                Refusal.EXTERNAL_FOLDER,
                "the tensor's data is in another file",
                where=where,
                why="the model was given as an object, so there is no folder to look in",
                lever="give the path of the .onnx file",
            )
        location = entries.get("location", "")
        view = self._map(location, where)
        offset, length = (
            _number(entries.get(key, default), key, where) for key, default in (("offset", "0"), ("length", str(size)))
        )
        if length != size or offset + length > len(view):
            raise ImportModelError(
                Refusal.EXTERNAL_RANGE,
                f"bytes {offset} to {offset + length} of '{location}' do not hold the tensor",
                where=where,
                why=f"the tensor takes {size} bytes, the file has {len(view)}",
                lever="copy the data file again, complete",
            )
        return view[offset : offset + length]

    def _map(self, location: str, where: str) -> memoryview:
        if location in self._maps:
            return self._maps[location]
        path = PurePosixPath(location)
        if (
            not location
            or path.is_absolute()
            or ".." in path.parts
            or "\\" in location
            or "\0" in location
            or ":" in location
        ):
            raise ImportModelError(
                Refusal.EXTERNAL_ESCAPES,
                f"external data '{location}' is not a path inside the model's folder",
                where=where,
                lever="keep the data file beside the model and store its plain relative name",
            )
        at = self.folder or Path()
        for part in path.parts:
            at = at / part
            if at.is_symlink():
                raise ImportModelError(
                    Refusal.EXTERNAL_SYMLINK,
                    f"external data '{location}' goes through a symbolic link",
                    where=where,
                    why="a link could lead out of the model's folder",
                    lever="replace the link by the file",
                )
        self._maps[location] = self._open(at, location, where)
        return self._maps[location]

    @staticmethod
    def _open(path: Path, location: str, where: str) -> memoryview:
        missing = ImportModelError(
            Refusal.EXTERNAL_MISSING,
            f"external data '{location}' cannot be read",
            where=where,
            why="it is missing, or not a regular file",
            lever="keep the data file beside the model",
        )
        try:
            handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        except OSError:
            raise missing from None
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise missing
            return memoryview(mmap.mmap(handle, 0, access=mmap.ACCESS_READ) if status.st_size else b"")
        finally:
            os.close(handle)


def _number(text: str, key: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise ImportModelError(
            Refusal.EXTERNAL_RANGE,
            f"{key} '{text[:40]}' of external data is not a number of bytes",
            where=where,
            lever="write the file again",
        )
    return int(text)


def _unpack(stored: Array, data_type: DataType, count: int) -> Array:
    """Stored integers to values: bfloat16 is the upper half of a float32, 4-bit integers lie two a byte, low first."""
    if data_type is DataType.BFLOAT16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    if data_type in (DataType.INT4, DataType.UINT4):
        pairs = np.stack([stored & 0xF, stored >> 4], axis=-1).reshape(-1)[:count]
        return ((pairs ^ 8).astype(np.int8) - 8).astype(np.int8) if data_type is DataType.INT4 else pairs
    return stored


def _typed(tensor: Any, data_type: DataType, stored: np.dtype[Any]) -> Array:
    """Values from the field that the format assigns to the type; 16-bit floats stand there as bit patterns."""
    if data_type in _TYPED_FIELDS:
        return np.array(getattr(tensor, _TYPED_FIELDS[data_type]), stored)
    values = np.array(tensor.int32_data, np.int32)
    if data_type is DataType.FLOAT16:
        return values.astype(np.uint16).view(np.float16)
    return values.astype(stored)


def tensor_array(tensor: Any, external: ExternalData, name: str | None = None) -> Array:
    """The values of a TensorProto, read-only where they share the model's bytes. Raises HB0122, HB0131, HB0132,
    HB014x."""
    where = f"tensor '{name if name is not None else decode_text(tensor.name, 'the name of a tensor')}'"
    if tensor.data_type not in _KNOWN - {DataType.STRING} or tensor.HasField("segment"):
        raise ImportModelError(
            Refusal.TENSOR_TYPE,
            f"{type_name(tensor.data_type)} cannot be imported",
            where=where,
            lever="store the tensor as float32 or as integers, in one piece",
        )
    data_type = DataType(tensor.data_type)
    dims: Sequence[int] = tuple(tensor.dims)
    if min(dims, default=0) < 0:
        raise ImportModelError(
            Refusal.TENSOR_SIZE, f"shape {dims} has a negative extent", where=where, lever="write the file again"
        )
    check_axes(dims, where)
    count = math.prod(dims)
    stored = np.dtype(_STORED.get(data_type, data_type.dtype))
    # An array without elements has strides, too.
    if math.prod(extent or 1 for extent in dims) * stored.itemsize > np.iinfo(np.intp).max:
        raise ImportModelError(
            Refusal.TOO_LARGE_TENSOR, f"shape {list(dims)} is too large", where=where, lever="write the file again"
        )
    packed = -(-count // 2) if data_type in (DataType.INT4, DataType.UINT4) else count
    if tensor.data_location == _EXTERNAL:
        entries = {decode_text(e.key, "a key"): decode_text(e.value, "external data") for e in tensor.external_data}
        found = np.frombuffer(external.read(entries, packed * stored.itemsize, where), stored)
    elif tensor.HasField("raw_data"):
        raw: bytes = tensor.raw_data
        if len(raw) != packed * stored.itemsize:
            raise _size_error(dims, data_type, f"{len(raw)} bytes", where)
        found = np.frombuffer(raw, stored)
    else:
        found = _typed(tensor, data_type, stored)
        if len(found) != packed:
            raise _size_error(dims, data_type, f"{len(found)} values", where)
    return _unpack(found, data_type, count).reshape(dims)


def _size_error(dims: Sequence[int], data_type: DataType, found: str, where: str) -> ImportModelError:
    return ImportModelError(
        Refusal.TENSOR_SIZE,
        f"{found} do not fill a {data_type.name.lower()} tensor of shape {list(dims)}",
        where=where,
        lever="write the file again; this one is damaged",
    )
