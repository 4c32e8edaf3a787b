"""How values are held: in the torch dtype of their storage, so that codes of int8 take one byte on their way."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from xdsl.ir import Attribute

from hbir.dialects.base import Array, element_dtype, tensor_type
from hbir.dialects.quant import UniformQuantizedType

__all__ = ["centred", "held", "is_float", "largest", "numpy_dtype", "released", "torch_dtype"]

_DTYPES: dict[np.dtype[Any], torch.dtype] = {
    np.dtype(np.bool_): torch.bool,
    np.dtype(np.int8): torch.int8,
    np.dtype(np.uint8): torch.uint8,
    np.dtype(np.int16): torch.int16,
    np.dtype(np.int32): torch.int32,
    np.dtype(np.int64): torch.int64,
    np.dtype(np.float16): torch.float16,
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float64): torch.float64,
}


def numpy_dtype(type_: Attribute) -> np.dtype[Any]:
    """The numpy dtype of a tensor type's values."""
    return element_dtype(tensor_type(type_).element_type)


def torch_dtype(type_: Attribute) -> torch.dtype:
    """The torch dtype of a tensor type's values."""
    return _DTYPES[numpy_dtype(type_)]


def is_float(type_: Attribute) -> bool:
    """Whether the values of a tensor type are floats: neither integers nor codes."""
    return np.issubdtype(numpy_dtype(type_), np.floating)


def largest(element: UniformQuantizedType) -> int:
    """A bound on |code - zero point|: of all codes of the storage, for what is fed may leave a narrowed range."""
    return (1 << (element.bits - 1)) + int(np.abs(element.zero_point_array).max())


def centred(x: torch.Tensor, element: UniformQuantizedType, dtype: torch.dtype) -> torch.Tensor:
    """code - zero point in a float dtype that holds it: a new tensor. int8 and int16 need float32, int32 needs float64."""
    y = x.to(dtype)
    return y.sub_(element.zero_point) if element.per_axis is None and element.zero_point else y


def held(array: Array, type_: Attribute, device: torch.device) -> torch.Tensor:
    """A numpy array of a tensor type on `device`; a copy."""
    return torch.tensor(np.asarray(array, order="C"), dtype=torch_dtype(type_), device=device)


def released(value: torch.Tensor) -> Array:
    """A value as a numpy array with its elements in order."""
    array: Any = cast(Any, value.contiguous().cpu()).numpy()
    return np.asarray(array, order="C")
