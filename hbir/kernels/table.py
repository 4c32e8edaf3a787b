"""Table lookups: 256 entries for int8, and TOSA's 513 interpolated entries for int16."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import result_array
from hbir.numerics.rescale import apply_scale

__all__ = ["bind_table_int16", "bind_table_int8", "table_int16", "table_int8"]

Array = npt.NDArray[Any]


def _lookup(x: Array, table: Array, out: Array) -> None:
    np.take(table, x.view(np.uint8) ^ np.uint8(0x80), out=out, mode="clip")


def table_int8(x: Array, table: Array, *, out: Array | None = None) -> Array:
    """table[x + 128] for int8 `x` of any shape and a table of 256 entries; the result has the table's dtype."""
    if table.shape != (256,) or x.dtype != np.int8:
        raise ValueError(f"an int8 table has 256 entries and an int8 input, not {table.shape} and {x.dtype}")
    y = result_array(out, x.shape, None, table.dtype)
    _lookup(x, table, y)
    return y


def bind_table_int8(x: Array, table: Array, *, out: Array) -> Callable[[], object]:
    """`table_int8` with everything resolved: call the result to run it on what `x` and `table` then hold."""
    return partial(table_int8, x, table, out=out)


def table_int16(
    x: Array,
    table: Array,
    *,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -32768,
    hi: int = 32767,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """TOSA 1.0 TABLE of int16: (t[i] << 7) + (t[i+1] - t[i]) * frac, with i = (x + 32768) >> 7 and frac = x & 127.

    `multiplier` None gives that raw int32; else clamp(apply_scale(raw, multiplier, shift) + zp_out, lo, hi), int16 by default.
    """
    if table.shape != (513,) or x.dtype != np.int16:
        raise ValueError(f"an int16 table has 513 entries and an int16 input, not {table.shape} and {x.dtype}")
    y = result_array(out, x.shape, out_dtype, np.int32 if multiplier is None else np.int16)
    wide, entries = x.astype(np.int64), table.astype(np.int64)
    index = (wide + 32768) >> 7
    base = entries[index]
    raw = (base << 7) + (entries[index + 1] - base) * (wide & 127)
    if multiplier is not None:
        raw = np.clip(apply_scale(raw, np.int64(multiplier), np.asarray(shift, np.int64)) + zp_out, lo, hi)
    y[...] = raw
    return y


def bind_table_int16(x: Array, table: Array, *, out: Array, **options: Any) -> Callable[[], object]:
    """`table_int16` with everything resolved: call the result to run it on what `x` and `table` then hold."""
    return partial(table_int16, x, table, out=out, **options)
