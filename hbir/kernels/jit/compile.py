"""How loops are compiled and run: tasks are C functions of (task index, record), run by one parallel driver.

A record is a numpy structure of addresses, strides and parameters that a kernel fills once, when it is bound; a call then
passes two addresses and a count. Machine code is cached beside the source, else in the user's cache folder; where neither can
be written it is made anew in each process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from numba import prange, types
from numba.np.numpy_support import from_dtype

from hbir.kernels.jit.simd import call_task
from hbir.numerics.rescale import apply_scale as _apply_scale

__all__ = ["apply_scale", "bind_task", "c_function", "inner", "record_dtype", "task", "threads"]


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


apply_scale = numba.njit(_apply_scale)


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


def _run_tasks(address: Any, count: Any, record: Any) -> None:
    for index in prange(count):
        call_task(address, index, record)


_driver_type = types.void(types.int64, types.int64, types.int64)
_driver: Any = _cached(lambda cache: numba.njit(_driver_type, parallel=True, nogil=True, cache=cache)(_run_tasks))
_run: Callable[[int, int, int], None] = _driver.get_overload(_driver.signatures[0])


def threads() -> int:
    """Worker threads of the parallel driver."""
    return int(numba.get_num_threads())


def bind_task(address: int, count: int, record: npt.NDArray[Any], *alive: Any) -> Callable[[], None]:
    """Function that runs `count` tasks on `record`; it keeps `alive`, whose addresses the record holds, from being freed."""
    place = record.ctypes.data

    def run(_alive: tuple[Any, ...] = (record, *alive)) -> None:
        _run(address, count, place)

    return run
