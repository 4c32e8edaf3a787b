"""What every kernel shares: where a result goes, and the shape of a window's output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Pad", "Pair", "accumulator_dtype", "address", "check_image", "make_record", "result_array", "window_output"]

Pair = Sequence[int]
"""Two numbers: of height and width."""
Pad = Sequence[int]
"""Four numbers: top, left, bottom, right."""


def accumulator_dtype(*operands: npt.NDArray[Any]) -> np.dtype[Any]:
    """int32 for products of int8, int64 (holding int48) as soon as an operand is wider."""
    return np.dtype(np.int32 if all(x.dtype.itemsize == 1 for x in operands) else np.int64)


def result_array(
    out: npt.NDArray[Any] | None, shape: tuple[int, ...], dtype: npt.DTypeLike | None, default: npt.DTypeLike
) -> npt.NDArray[Any]:
    """`out` after a check of its shape, or a new array of `dtype` (of `default` when `dtype` is None).

    Raises ValueError when `out` has another shape, or another dtype than asked for.
    """
    if out is None:
        return np.empty(shape, default if dtype is None else dtype)
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, the result has {shape}")
    if dtype is not None and out.dtype != np.dtype(dtype):
        raise ValueError(f"out has dtype {out.dtype}, asked for {np.dtype(dtype)}")
    return out


def window_output(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    """Positions of a sliding window along one axis (floor). Raises ValueError if the window never fits."""
    if min(before, after) < 0 or min(kernel, stride, dilation) < 1:
        raise ValueError(
            f"kernel {kernel}, stride {stride}, dilation {dilation} must be >= 1 and pads {before}, {after} >= 0"
        )
    span = size + before + after - dilation * (kernel - 1) - 1
    if span < 0:
        raise ValueError(
            f"a window of {kernel} (dilation {dilation}) does not fit {size} + {before} + {after} elements"
        )
    return span // stride + 1


def check_image(name: str, image: npt.NDArray[Any]) -> None:
    """ValueError unless `image` has four axes and contiguous channels, which the compiled loops take on trust."""
    if image.ndim != 4 or (image.shape[3] > 1 and image.strides[3] != image.itemsize):
        raise ValueError(
            f"{name} must be NHWC with contiguous channels, not shape {image.shape}, strides {image.strides}"
        )


def address(array: npt.NDArray[Any]) -> int:
    """Where the first element of `array` lies in memory."""
    return array.__array_interface__["data"][0]


def make_record(dtype: np.dtype[Any], fields: dict[str, int]) -> npt.NDArray[np.int64]:
    """The words of a record of int64 fields; fields not named are 0. KeyError for a name the record lacks."""
    # Binding is part of every unbound call: one array from a list is ten times faster than field by field.
    names = dtype.names or ()
    words = np.array([fields.pop(name, 0) for name in names], np.int64)
    if fields:
        raise KeyError(f"no field {', '.join(fields)} in the record")
    return words
