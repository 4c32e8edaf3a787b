"""How loops are compiled: cached on disk when that is possible, one machine-code version per tuple of array types."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.np.numpy_support import from_dtype

from hbir.numerics.rescale import apply_scale as _apply_scale

__all__ = ["apply_scale", "jit", "specialise"]


def jit(parallel: bool = False) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` for a kernel loop: cached beside the source, in the user's cache folder, or (neither writable) not at all."""

    def decorate(function: Callable[..., Any]) -> Any:
        # Loops index with range variables only; error_model numpy keeps divisions free of exception branches.
        options: dict[str, Any] = {"nogil": True, "parallel": parallel, "error_model": "numpy"}
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # "cannot cache function: no locator available": nowhere to write
            return numba.njit(cache=False, **options)(function)

    return decorate


apply_scale = numba.njit(_apply_scale)


def _numba_type(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        # Layout "A" takes contiguous arrays and strided views alike: one version of the code instead of one per layout.
        layout = "C" if argument.ndim == 1 and argument.flags.c_contiguous else "A"
        return types.Array(from_dtype(argument.dtype), argument.ndim, layout, readonly=not argument.flags.writeable)
    if isinstance(argument, float):
        return types.float64
    return types.int64


def specialise(loop: Any, *arguments: npt.NDArray[Any] | int | float) -> Callable[..., None]:
    """Compiled entry point of `loop` for arguments of these types; scalars are int64 (float64 for floats).

    The entry point skips numba's type dispatch: pass it arguments of exactly these types.
    """
    signature = tuple(_numba_type(argument) for argument in arguments)
    loop.compile(signature)
    return loop.get_overload(signature)
