"""Table lookups: 256 entries for int8, TOSA's 513 interpolated entries and the segmented form for int16."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import address, result_array
from hbir.kernels.elementwise import bind_elementwise

__all__ = ["bind_table_int16", "bind_table_int8", "bind_table_segmented", "table_int16", "table_int8"]

Array = npt.NDArray[Any]


def bind_table_int8(x: Array, table: Array, *, out: Array) -> Callable[[], None]:
    """`table_int8` with everything resolved: call the result to run it on what `x` and `table` then hold."""
    _check(x, table, np.dtype(np.int8), 256)
    return bind_elementwise("table_int8", x, table, out)


def table_int8(x: Array, table: Array, *, out: Array | None = None) -> Array:
    """table[x + 128] for int8 `x` of any shape and a table of 256 entries; the result has the table's dtype."""
    y = result_array(out, x.shape, None, table.dtype)
    bind_table_int8(x, table, out=y)()
    return y


def bind_table_int16(
    x: Array,
    table: Array,
    *,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -32768,
    hi: int = 32767,
    out: Array,
) -> Callable[[], None]:
    """`table_int16` with everything resolved: call the result to run it on what `x` and `table` then hold."""
    _check(x, table, np.dtype(np.int16), 513)
    if multiplier is None or shift is None:
        return bind_elementwise("table_int16", x, table, out)
    return bind_elementwise(
        "table_int16", x, table, out, multiplier=multiplier, shift=shift, zp_out=zp_out, lo=lo, hi=hi, rescaled=1
    )


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
    y = result_array(out, x.shape, out_dtype, np.int32 if multiplier is None else np.int16)
    bind_table_int16(x, table, multiplier=multiplier, shift=shift, zp_out=zp_out, lo=lo, hi=hi, out=y)()
    return y


def bind_table_segmented(x: Array, starts: Array, spacings: Array, entries: Array, *, out: Array) -> Callable[[], None]:
    """`hbir.numerics.lut.SegmentedTable` with everything resolved: call the result to run it on what the arrays then hold.

    int16 `x` and `out` of any shape; int16 `starts` (N,), int8 or uint8 `spacings` (N,), int16 `entries` (N, 64), contiguous,
    N from 1 to 64. Raises ValueError for others.
    """
    segments = len(starts)
    table = (starts, np.dtype(np.int16), (segments,)), (entries, np.dtype(np.int16), (segments, 64))
    fits = all(part.dtype == dtype and part.shape == shape and part.flags.c_contiguous for part, dtype, shape in table)
    fits = fits and spacings.itemsize == 1 and spacings.shape == (segments,) and spacings.flags.c_contiguous
    if not fits or not 1 <= segments <= 64 or x.dtype != np.int16:
        raise ValueError(
            "a segmented table is 1 to 64 int16 starts, as many int8 spacings and rows of 64 int16, its input int16, not "
            f"{starts.dtype} {starts.shape}, {spacings.dtype} {spacings.shape}, {entries.dtype} {entries.shape}, {x.dtype}"
        )
    run = bind_elementwise(
        "table_segmented", x, entries, out, starts=address(starts), spacings=address(spacings), segments=segments
    )

    def call(_alive: tuple[Array, Array] = (starts, spacings)) -> None:
        run()

    return call


def _check(x: Array, table: Array, dtype: np.dtype[Any], entries: int) -> None:
    if table.shape != (entries,) or table.dtype.kind != "i" or not table.flags.c_contiguous or x.dtype != dtype:
        raise ValueError(
            f"a table of {dtype} is {entries} contiguous integers and its input {dtype}, "
            f"not {table.dtype} {table.shape} and {x.dtype}"
        )
