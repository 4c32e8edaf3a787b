# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba and llvmlite ship no types)
"""How loops are compiled: a task is a C function of (task index, record), run by the threads of `workers`.

A record is a numpy structure of addresses, strides and parameters that a kernel fills once, when it is bound; a call then
passes two addresses and a count. Machine code is cached beside the source, else in the user's cache folder; where neither can
be written it is made anew in each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.np.numpy_support import from_dtype

from hbir.numerics.rescale import apply_scale as _apply_scale

__all__ = ["apply_scale", "c_function", "inner", "record_dtype", "released", "task"]


def _cached(compile_with: Callable[[bool], Any]) -> Any:
    try:
        return compile_with(True)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        return compile_with(False)


def inner(function: Callable[..., Any]) -> Any:
    """A helper that tasks call; compiled into each of them."""
    return _cached(lambda cache: numba.njit(cache=cache, error_model="numpy")(function))


def released(function: Callable[..., Any]) -> Any:
    """A function of int64 that Python calls and that runs without the interpreter lock: its compiled entry point."""
    signature = types.int64(*[types.int64] * function.__code__.co_argcount)
    compiled = _cached(lambda cache: numba.njit(signature, cache=cache, nogil=True, error_model="numpy")(function))
    return compiled.get_overload(compiled.signatures[0])


apply_scale = numba.njit(_apply_scale)
"""`hbir.numerics.rescale.apply_scale`, compiled."""


def c_function(arguments: int) -> Callable[[Callable[..., None]], int]:
    """Decorator: the address of the function compiled as C, taking that many int64; for code that several tasks share."""
    signature = types.void(*[types.int64] * arguments)
    return lambda function: _cached(
        lambda cache: numba.cfunc(signature, cache=cache, error_model="numpy")(function).address
    )


def record_dtype(integers: tuple[str, ...], floats: tuple[str, ...] = ()) -> np.dtype[Any]:
    """Structure of int64 fields (addresses, sizes, byte strides, parameters), then float64 fields."""
    return np.dtype([(name, np.int64) for name in integers] + [(name, np.float64) for name in floats], align=True)


def task(dtype: np.dtype[Any]) -> Callable[[Callable[[Any, Any], None]], int]:
    """Decorator: the address of a task, a function of (index, carray pointer to a record of `dtype`)."""
    signature = types.void(types.int64, types.CPointer(from_dtype(dtype)))
    return lambda function: _cached(
        lambda cache: numba.cfunc(signature, cache=cache, error_model="numpy")(function).address
    )
