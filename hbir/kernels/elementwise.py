"""Elementwise integer kernels with numpy broadcasting: sums in TOSA's rescaled pattern, products, extrema, rescales."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NotRequired, TypedDict, Unpack

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import address, make_record, result_array

__all__ = [
    "SumScales",
    "add",
    "arithmetic_right_shift",
    "bind_add",
    "bind_maximum",
    "bind_minimum",
    "bind_mul",
    "bind_rescale",
    "bind_sub",
    "clz",
    "maximum",
    "minimum",
    "mul",
    "rescale",
    "sub",
]

Array = npt.NDArray[Any]

_BLOCK = 512  # elements of a block, as in the compiled loop
_ELEMENT = 0.55  # nanoseconds for one element, but for operations that take more:
_NANOSECONDS = {"table_int16": 1.1, "table_segmented": 5.0}


def _merged(shape: tuple[int, ...], operands: list[Array]) -> tuple[list[int], list[list[int]]]:
    """Sizes and byte strides of `operands` (all of `shape`) after joining axes that are one run in every operand."""
    sizes: list[int] = []
    strides: list[list[int]] = [[] for _ in operands]
    for axis, size in enumerate(shape):
        if size == 1:
            continue
        steps = [operand.strides[axis] for operand in operands]
        if sizes and all(known[-1] == step * size for known, step in zip(strides, steps, strict=True)):
            sizes[-1] *= size
            for known, step in zip(strides, steps, strict=True):
                known[-1] = step
        else:
            sizes.append(size)
            for known, step in zip(strides, steps, strict=True):
                known.append(step)
    if not sizes:
        return [1], [[operand.itemsize] for operand in operands]
    return sizes, strides


def bind_elementwise(
    operation: str, a: Array, b: Array | None, out: Array, *, keep_last: bool = False,
    vectors: tuple[Array, Array] | None = None, **parameters: int,
) -> Callable[[], None]:  # fmt: skip
    """Bound loop of `operation` (see `jit.elementwise.OPERATIONS`): the shared machinery of this room and of tables.

    `parameters` are fields of the loop's record; `vectors` the multiplier and shift arrays of a rescale (one element, or
    one per index of the last axis, which `keep_last` then keeps from being merged).
    """
    from hbir.kernels.jit import workers as jit
    from hbir.kernels.jit.elementwise import ELEMENTWISE, OPERATIONS, elementwise_task

    if out.size == 0:
        return lambda: None
    table = operation.startswith("table")
    views = [np.broadcast_to(a, out.shape), out, out if b is None or table else np.broadcast_to(b, out.shape)]
    head, last = (out.shape[:-1], out.shape[-1]) if keep_last else (out.shape, None)
    sizes, strides = _merged(head, views)
    if last is not None:
        sizes = [*sizes, last] if head and sizes != [1] else [last]
        strides = [
            [*known, view.strides[-1]] if len(sizes) > 1 else [view.strides[-1]]
            for known, view in zip(strides, views, strict=True)
        ]
    layout = np.array([sizes, *strides], np.int64)
    blocks = -(-sizes[-1] // _BLOCK)
    total = blocks * math.prod(sizes[:-1])
    tasks = jit.split(_NANOSECONDS.get(operation, _ELEMENT) * out.size, total)
    fields = {
        "tasks": tasks, "operation": OPERATIONS.index(operation), "rank": len(sizes), "sizes": address(layout),
        "blocks": blocks, "total": total, **parameters,
    }  # fmt: skip
    for i, (name, operand) in enumerate((("a", a), ("y", out), ("b", out if b is None else b)), start=1):
        fields[name], fields[f"{name}_size"] = address(operand), operand.itemsize
        fields[f"{name}_strides"] = address(layout) + i * layout.strides[0]
    for name, vector in zip("ms", vectors or (), strict=False):
        fields[name], fields[f"{name}_size"] = address(vector), vector.itemsize
        fields[f"{name}_stride"] = 0 if vector.size == 1 else vector.strides[-1]
    return jit.bind_task(elementwise_task, tasks, make_record(ELEMENTWISE, fields), a, b, out, layout, vectors)


def _integers(*operands: Array) -> None:
    for operand in operands:
        if operand.dtype.kind != "i":
            raise ValueError(f"integer kernels take signed integers, not {operand.dtype}")


class SumScales(TypedDict):
    """How a sum is brought to a common scale and out of it; as `add` says. Zero points are 0 and bounds int8 by default."""

    zp_a: NotRequired[int]
    zp_b: NotRequired[int]
    multiplier_a: int
    shift_a: int
    multiplier_b: int
    shift_b: int
    multiplier_out: int
    shift_out: int
    zp_out: NotRequired[int]
    lo: NotRequired[int]
    hi: NotRequired[int]


def _bind_sum(
    operation: str, a: Array, b: Array, *, zp_a: int = 0, zp_b: int = 0, multiplier_a: int, shift_a: int, multiplier_b: int,
    shift_b: int, multiplier_out: int, shift_out: int, zp_out: int = 0, lo: int = -128, hi: int = 127, out: Array,
) -> Callable[[], None]:  # fmt: skip
    _integers(a, b, out)
    return bind_elementwise(
        operation, a, b, out, zp_a=zp_a, zp_b=zp_b, multiplier_a=multiplier_a, shift_a=shift_a, multiplier_b=multiplier_b,
        shift_b=shift_b, multiplier=multiplier_out, shift=shift_out, zp_out=zp_out, lo=lo, hi=hi, rescaled=1,
    )  # fmt: skip


def bind_add(a: Array, b: Array, *, out: Array, **scales: Unpack[SumScales]) -> Callable[[], None]:
    """`add` with everything resolved: call the result to run it on what `a` and `b` then hold."""
    return _bind_sum("add", a, b, out=out, **scales)


def bind_sub(a: Array, b: Array, *, out: Array, **scales: Unpack[SumScales]) -> Callable[[], None]:
    """`sub` with everything resolved: call the result to run it on what `a` and `b` then hold."""
    return _bind_sum("sub", a, b, out=out, **scales)


def add(
    a: Array, b: Array, *, out: Array | None = None, out_dtype: npt.DTypeLike | None = None, **scales: Unpack[SumScales]
) -> Array:
    """TOSA's ADD pattern: clamp(apply_scale(scaled a + scaled b, multiplier_out, shift_out) + zp_out, lo, hi).

    scaled a = apply_scale(a - zp_a, multiplier_a, shift_a), which with its sum must fit int32 (headroom is the caller's
    choice). `a` and `b`: signed integers of any shapes that broadcast; the result has the dtype of `out`, `out_dtype` or `a`.
    """
    y = result_array(out, np.broadcast_shapes(a.shape, b.shape), out_dtype, a.dtype)
    bind_add(a, b, out=y, **scales)()
    return y


def sub(
    a: Array, b: Array, *, out: Array | None = None, out_dtype: npt.DTypeLike | None = None, **scales: Unpack[SumScales]
) -> Array:
    """`add` with scaled b subtracted."""
    y = result_array(out, np.broadcast_shapes(a.shape, b.shape), out_dtype, a.dtype)
    bind_sub(a, b, out=y, **scales)()
    return y


def bind_mul(
    a: Array,
    b: Array,
    *,
    zp_a: int = 0,
    zp_b: int = 0,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array,
) -> Callable[[], None]:
    """`mul` with everything resolved: call the result to run it on what `a` and `b` then hold."""
    _integers(a, b, out)
    if multiplier is None or shift is None:
        return bind_elementwise("product", a, b, out, zp_a=zp_a, zp_b=zp_b)
    return bind_elementwise(
        "mul",
        a,
        b,
        out,
        zp_a=zp_a,
        zp_b=zp_b,
        multiplier=multiplier,
        shift=shift,
        zp_out=zp_out,
        lo=lo,
        hi=hi,
        rescaled=1,
    )


def mul(
    a: Array,
    b: Array,
    *,
    zp_a: int = 0,
    zp_b: int = 0,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """clamp(apply_scale((a - zp_a) * (b - zp_b), multiplier, shift) + zp_out, lo, hi); broadcasts.

    The product fits int32. `multiplier` None gives it raw, int32 by default; else the dtype of `out`, `out_dtype` or `a`.
    """
    shape = np.broadcast_shapes(a.shape, b.shape)
    y = result_array(out, shape, out_dtype, np.int32 if multiplier is None else a.dtype)
    bind_mul(a, b, zp_a=zp_a, zp_b=zp_b, multiplier=multiplier, shift=shift, zp_out=zp_out, lo=lo, hi=hi, out=y)()
    return y


def bind_rescale(
    x: Array,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    *,
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array,
) -> Callable[[], None]:
    """`rescale` with everything resolved: call the result to run it on what `x` and the vectors then hold."""
    _integers(x, out)
    factors, shifts = np.asarray(multiplier), np.asarray(shift)
    for name, vector in (("multiplier", factors), ("shift", shifts)):
        if vector.dtype.kind != "i" or vector.shape not in ((), (1,), x.shape[-1:]):
            raise ValueError(
                f"{name} must be an integer or a vector of the last axis, not {vector.dtype} {vector.shape}"
            )
    return bind_elementwise(
        "rescale", x, None, out, keep_last=max(factors.size, shifts.size) > 1, vectors=(factors, shifts),
        zp_a=zp_in, zp_out=zp_out, lo=lo, hi=hi,
    )  # fmt: skip


def rescale(
    x: Array,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    *,
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out: Array | None = None,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """clamp(apply_scale(x - zp_in, multiplier, shift) + zp_out, lo, hi), as `hbir.numerics.rescale`.

    `x`: signed integers of any shape; `multiplier` and `shift`: scalars, or vectors along the last axis. The result has the
    dtype of `out`, `out_dtype` or `x`.
    """
    y = result_array(out, x.shape, out_dtype, x.dtype)
    bind_rescale(x, multiplier, shift, zp_in=zp_in, zp_out=zp_out, lo=lo, hi=hi, out=y)()
    return y


def maximum(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """Larger of two integers of one scale; broadcasts."""
    return np.maximum(a, b, out=out)


def minimum(a: Array, b: Array, *, out: Array | None = None) -> Array:
    """Smaller of two integers of one scale; broadcasts."""
    return np.minimum(a, b, out=out)


def bind_maximum(a: Array, b: Array, *, out: Array) -> Callable[[], object]:
    """`maximum` with everything resolved."""
    return partial(np.maximum, a, b, out)


def bind_minimum(a: Array, b: Array, *, out: Array) -> Callable[[], object]:
    """`minimum` with everything resolved."""
    return partial(np.minimum, a, b, out)


def arithmetic_right_shift(x: Array, shift: npt.ArrayLike, *, round: bool, out: Array | None = None) -> Array:
    """TOSA 1.0 ARITHMETIC_RIGHT_SHIFT: x >> shift; `round` adds the last bit shifted out. Keeps the dtype of `x`."""
    amount = np.asarray(shift, np.int64)
    wide = x.astype(np.int64)
    shifted = wide >> amount
    if round:
        shifted = shifted + np.where(amount > 0, (wide >> np.maximum(amount - 1, 0)) & 1, 0)
    y = result_array(out, shifted.shape, None, x.dtype)
    y[...] = shifted
    return y


def clz(x: Array, *, out: Array | None = None) -> Array:
    """Leading zero bits of the 32-bit pattern of int32 `x` (TOSA 1.0 CLZ): 32 for 0, 0 for negative numbers."""
    y = result_array(out, x.shape, None, np.int32)
    # The exponent of a float64 is the exact bit length of a positive 32-bit integer.
    y[...] = np.where(x < 0, 0, 32 - np.frexp(np.maximum(x, 0).astype(np.float64))[1])
    return y
