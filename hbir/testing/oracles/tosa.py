"""Arm's TOSA reference model as an oracle: functions from numpy arrays to numpy arrays, named and parametrised like
`hbir.kernels` (plain OHWI weights instead of packed ones), so that a test is `assert (kernel(x, ...) ==
tosa.kernel(x, ...)).all()`. Results that a TOSA graph cannot give (an operand out of its type, an int48 rescale with
a 32-bit multiplier) raise instead of guessing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.errors import SimulationError
from hbir.testing.oracles.tosa_graph import NAMES, Graph, Tensor
from hbir.testing.oracles.tosa_moves import concat, pad, reshape, reverse, slice_, tile, transpose
from hbir.testing.oracles.tosa_softmax import softmax
from hbir.testing.oracles.tosa_windows import accumulators, trimmed

__all__ = [
    "Graph",
    "Tensor",
    "add",
    "argmax",
    "arithmetic_right_shift",
    "avg_pool2d",
    "clz",
    "concat",
    "conv2d",
    "matmul",
    "max_pool2d",
    "maximum",
    "minimum",
    "mul",
    "pad",
    "reduce_max",
    "reduce_min",
    "reduce_sum",
    "rescale",
    "reshape",
    "resize",
    "reverse",
    "slice_",
    "softmax",
    "sub",
    "table_int8",
    "table_int16",
    "tile",
    "transpose",
    "transpose_conv2d",
]

Array = npt.NDArray[Any]
Ints = Sequence[int]


def _finish(graph: Graph, x: Tensor, lo: int, hi: int) -> Array:
    """CLAMP when the bounds are inside the type, then run."""
    info = np.iinfo({"INT8": np.int8, "INT16": np.int16}.get(x.dtype, np.int32))
    if lo > info.min or hi < info.max:
        x = graph.clamp(x, max(lo, int(info.min)), min(hi, int(info.max)))
    return graph.run(x)[0]


def _rescaled(
    graph: Graph, x: Tensor, multiplier: npt.ArrayLike, shift: npt.ArrayLike, zp_in: int, zp_out: int, out: str
) -> Tensor:
    """RESCALE; an INT48 value with a multiplier of more than 15 bits first becomes INT32 (callers see to it that it
    fits)."""
    if x.dtype == "INT48" and int(np.max(multiplier)) >= 1 << 15:
        x = graph.rescale(x, 1 << 14, 14, 0, 0, "INT32")
    return graph.rescale(x, multiplier, shift, zp_in, zp_out, out)


def _out_name(out_dtype: npt.DTypeLike | None, x: Array) -> str:
    return NAMES[np.dtype(x.dtype if out_dtype is None else out_dtype)]


def _refuse_wide(bound: int, multiplier: npt.ArrayLike, what: str) -> None:
    if int(np.max(multiplier)) >= 1 << 15 and bound >= 1 << 31:
        raise SimulationError(
            91,
            f"TOSA cannot rescale this {what} with a multiplier of more than 15 bits",
            why=f"its accumulator may reach {bound}, and RESCALE of int48 has 16-bit multipliers",
            lever="test with fewer or smaller terms",
        )


def rescale(
    x: Array,
    multiplier: npt.ArrayLike,
    shift: npt.ArrayLike,
    *,
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike = np.int8,
) -> Array:
    """RESCALE (SINGLE_ROUND; scale16 for int64 input, which is int48), then CLAMP."""
    graph = Graph()
    out = NAMES[np.dtype(out_dtype)]
    return _finish(graph, graph.rescale(graph.input(x), multiplier, shift, zp_in, zp_out, out), lo, hi)


def _accumulator(graph: Graph, x: Tensor, weight: Array, bias: Array, **window: Any) -> Tensor:
    """The accumulator of all groups. CONCAT knows no INT48: such parts are joined as INT32, exact below 2^31."""
    parts = accumulators(graph, x, weight, bias, **window)
    if len(parts) == 1:
        return parts[0]
    narrow = [part if part.dtype == "INT32" else graph.rescale(part, 1 << 14, 14, 0, 0, "INT32") for part in parts]
    return graph.concat(narrow, 3)


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    multiplier: npt.ArrayLike | None,
    shift: npt.ArrayLike | None,
    *,
    stride: Ints = (1, 1),
    pad: Ints = (0, 0, 0, 0),
    dilation: Ints = (1, 1),
    groups: int = 1,
    zp_in: int = 0,
    zp_weight: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    residual: Array | None = None,
    residual_multiplier: int = 0,
    residual_shift: int = 2,
    residual_zp: int = 0,
    out_multiplier: int = 1,
    out_shift: int = 2,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """CONV2D, DEPTHWISE_CONV2D (one input channel a group) or slices and CONCAT (other groups), then RESCALE and
    CLAMP.

    x [N, H, W, C] int8 or int16, weight OHWI [O, kh, kw, C / groups] int8, bias [O]; pad (top, left, bottom, right).
    The zero point `zp_in` belongs to x and to its padding. `multiplier` None gives the accumulator, int32 or int64.
    With a `residual` (int8 or int16 [N, OH, OW, O]) TOSA's ADD pattern: accumulator and residual are rescaled to
    int32, added, and rescaled by `out_multiplier` / 2^`out_shift`. An int16 input with multipliers of more than 15
    bits, or with general groups, needs an accumulator that provably fits int32 (`SimulationError` HB0791), because
    RESCALE of int48 is narrower in TOSA.
    """
    graph = Graph()
    image, pad = trimmed(graph, graph.input(x), weight.shape[1:3], stride, pad, dilation, zp_in)
    terms = np.zeros(weight.shape[0], np.int64) if bias is None else np.asarray(bias, np.int64)
    if x.dtype == np.int16:
        bound = int((np.abs(weight.astype(np.int64)).sum(axis=(1, 2, 3)) * 32768 + np.abs(terms)).max())
        through_int32 = (groups > 1 and weight.shape[3] > 1) or (residual is not None)
        factors: npt.ArrayLike = 0 if multiplier is None else multiplier
        _refuse_wide(bound, 1 << 15 if through_int32 else factors, "convolution")
    accumulator = _accumulator(
        graph,
        image,
        weight,
        terms,
        stride=stride,
        pad=pad,
        dilation=dilation,
        groups=groups,
        zp_in=zp_in,
        zp_weight=zp_weight,
    )
    if multiplier is None or shift is None:
        result = graph.run(accumulator)[0]
        return result.astype(np.int32 if x.dtype == np.int8 else np.int64)
    out = _out_name(out_dtype, x)
    if residual is None:
        return _finish(graph, _rescaled(graph, accumulator, multiplier, shift, 0, zp_out, out), lo, hi)
    main = _rescaled(graph, accumulator, multiplier, shift, 0, 0, "INT32")
    side = graph.rescale(graph.input(residual), residual_multiplier, residual_shift, residual_zp, 0, "INT32")
    joined = graph.binary("ADD", main, side)
    return _finish(graph, graph.rescale(joined, out_multiplier, out_shift, 0, zp_out, out), lo, hi)


def transpose_conv2d(
    x: Array,
    weight: Array,
    bias: Array | None,
    multiplier: npt.ArrayLike | None,
    shift: npt.ArrayLike | None,
    *,
    stride: Ints = (1, 1),
    out_pad: Ints = (0, 0, 0, 0),
    zp_in: int = 0,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """TRANSPOSE_CONV2D: weight OHWI; output height (H - 1) stride + kh + top + bottom, out_pad (top, left, bottom,
    right) <= 0 crops."""
    graph = Graph()
    terms = np.zeros(weight.shape[0], np.int64) if bias is None else np.asarray(bias, np.int64)
    top, left, bottom, right = out_pad
    kind = "INT32" if x.dtype == np.int8 else "INT48"
    accumulator = graph.transpose_conv2d(
        graph.input(x),
        graph.const(weight, NAMES[weight.dtype]),
        graph.const(terms, kind),
        out_pad=(top, bottom, left, right),
        stride=stride,
        zp=zp_in,
    )
    if multiplier is None or shift is None:
        return graph.run(accumulator)[0]
    return _finish(graph, _rescaled(graph, accumulator, multiplier, shift, 0, zp_out, _out_name(out_dtype, x)), lo, hi)


def matmul(
    a: Array,
    b: Array,
    *,
    zp_a: int = 0,
    zp_b: int = 0,
    multiplier: npt.ArrayLike | None = None,
    shift: npt.ArrayLike | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """MATMUL of (..., M, K) and (..., K, N), numpy's broadcasting of the leading axes, then RESCALE and CLAMP unless
    `multiplier` is None."""
    graph = Graph()
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    flat_a = np.broadcast_to(a, (*batch, *a.shape[-2:])).reshape(-1, *a.shape[-2:])
    flat_b = np.broadcast_to(b, (*batch, *b.shape[-2:])).reshape(-1, *b.shape[-2:])
    shape = (*batch, a.shape[-2], b.shape[-1])
    product = graph.matmul(graph.input(flat_a), graph.input(flat_b), zp_a=zp_a, zp_b=zp_b)
    if multiplier is None or shift is None:
        return graph.run(product)[0].reshape(shape)
    if a.dtype == np.int16:
        _refuse_wide(
            int((np.abs(a.astype(np.int64)).max() * np.abs(b.astype(np.int64)).max()) * a.shape[-1]),
            multiplier,
            "product",
        )
    return _finish(
        graph, _rescaled(graph, product, multiplier, shift, 0, zp_out, _out_name(out_dtype, a)), lo, hi
    ).reshape(shape)


def max_pool2d(x: Array, kernel: Ints, *, stride: Ints, pad: Ints) -> Array:
    """MAX_POOL2D; pad (top, left, bottom, right)."""
    graph = Graph()
    image, pad = trimmed(graph, graph.input(x), kernel, stride, pad)
    return graph.run(graph.max_pool2d(image, kernel=kernel, stride=stride, pad=pad))[0]


def avg_pool2d(
    x: Array, kernel: Ints, *, stride: Ints, pad: Ints, zp_in: int = 0, zp_out: int = 0, lo: int = -128, hi: int = 127
) -> Array:
    """AVG_POOL2D, padding not counted, then CLAMP."""
    graph = Graph()
    image, pad = trimmed(graph, graph.input(x), kernel, stride, pad)
    pooled = graph.avg_pool2d(image, kernel=kernel, stride=stride, pad=pad, zp_in=zp_in, zp_out=zp_out)
    return _finish(graph, pooled, lo, hi)


def _aligned(graph: Graph, a: Array, b: Array) -> tuple[Tensor, Tensor]:
    """Both as inputs of equal rank (leading axes of size 1), as TOSA's broadcasting wants them."""
    rank = max(a.ndim, b.ndim, 1)
    return tuple(graph.input(each.reshape((1,) * (rank - each.ndim) + each.shape)) for each in (a, b))  # pyright: ignore[reportReturnType]


def _scaled_sum(
    op: str,
    a: Array,
    b: Array,
    *,
    zp_a: int = 0,
    zp_b: int = 0,
    multiplier_a: int,
    shift_a: int,
    multiplier_b: int,
    shift_b: int,
    multiplier_out: int,
    shift_out: int,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    graph = Graph()
    left, right = _aligned(graph, a, b)
    first = graph.rescale(left, multiplier_a, shift_a, zp_a, 0, "INT32")
    second = graph.rescale(right, multiplier_b, shift_b, zp_b, 0, "INT32")
    joined = graph.binary(op, first, second)
    return _finish(graph, graph.rescale(joined, multiplier_out, shift_out, 0, zp_out, _out_name(out_dtype, a)), lo, hi)


def add(a: Array, b: Array, **scales: Any) -> Array:
    """RESCALE both operands to int32, ADD, RESCALE, CLAMP; keywords as in `hbir.kernels.add`."""
    return _scaled_sum("ADD", a, b, **scales)


def sub(a: Array, b: Array, **scales: Any) -> Array:
    """Like `add` with SUB."""
    return _scaled_sum("SUB", a, b, **scales)


def mul(
    a: Array,
    b: Array,
    *,
    zp_a: int = 0,
    zp_b: int = 0,
    multiplier: int | None,
    shift: int | None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """Zero points off (RESCALE by one), MUL to int32, RESCALE, CLAMP; `multiplier` None gives the int32 product."""
    graph = Graph()
    left, right = _aligned(graph, a, b)
    one = (1 << 30, 30)
    factors = graph.rescale(left, *one, zp_a, 0, "INT32"), graph.rescale(right, *one, zp_b, 0, "INT32")
    product = graph.binary("MUL", *factors)
    if multiplier is None or shift is None:
        return graph.run(product)[0]
    return _finish(graph, graph.rescale(product, multiplier, shift, 0, zp_out, _out_name(out_dtype, a)), lo, hi)


def _extreme(op: str, a: Array, b: Array) -> Array:
    graph = Graph()
    left, right = _aligned(graph, a.astype(np.int32), b.astype(np.int32))
    return graph.run(graph.binary(op, left, right))[0].astype(a.dtype)


def maximum(a: Array, b: Array) -> Array:
    """MAXIMUM, through int32, the only integer type that TOSA gives it."""
    return _extreme("MAXIMUM", a, b)


def minimum(a: Array, b: Array) -> Array:
    """MINIMUM, through int32."""
    return _extreme("MINIMUM", a, b)


def arithmetic_right_shift(x: Array, shift: Array, *, round: bool) -> Array:
    """ARITHMETIC_RIGHT_SHIFT of int8, int16 or int32 by amounts of the same type."""
    graph = Graph()
    value, amount = _aligned(graph, x, np.asarray(shift, x.dtype))
    return graph.run(graph.right_shift(value, amount, rounding=round))[0]


def clz(x: Array) -> Array:
    """CLZ of int32."""
    graph = Graph()
    return graph.run(graph.clz(graph.input(x)))[0]


def _reduced(op: str, x: Array, axes: Ints, keepdims: bool, zp_in: int = 0) -> tuple[Graph, Tensor, tuple[int, ...]]:
    graph = Graph()
    value = graph.input(x)
    if op == "REDUCE_SUM":
        value = graph.rescale(value, 1 << 30, 30, zp_in, 0, "INT32") if x.dtype != np.int32 else value
    positive = sorted(axis % x.ndim for axis in axes)
    for axis in positive:
        value = graph.reduce(op, value, axis)
    shape = value.shape if keepdims else tuple(size for axis, size in enumerate(value.shape) if axis not in positive)
    return graph, value, shape


def reduce_sum(
    x: Array,
    axes: Ints,
    *,
    keepdims: bool = True,
    zp_in: int = 0,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """Zero point off (RESCALE by one), REDUCE_SUM over each axis in int32, RESCALE, CLAMP; `multiplier` None gives
    the int32 sum."""
    graph, value, shape = _reduced("REDUCE_SUM", x, axes, keepdims, zp_in)
    if multiplier is None or shift is None:
        return graph.run(value)[0].reshape(shape)
    return _finish(graph, graph.rescale(value, multiplier, shift, 0, zp_out, _out_name(out_dtype, x)), lo, hi).reshape(
        shape
    )


def reduce_max(x: Array, axes: Ints, *, keepdims: bool = True) -> Array:
    """REDUCE_MAX over each axis."""
    graph, value, shape = _reduced("REDUCE_MAX", x, axes, keepdims)
    return graph.run(value)[0].reshape(shape)


def reduce_min(x: Array, axes: Ints, *, keepdims: bool = True) -> Array:
    """REDUCE_MIN over each axis."""
    graph, value, shape = _reduced("REDUCE_MIN", x, axes, keepdims)
    return graph.run(value)[0].reshape(shape)


def argmax(x: Array, axis: int, *, keepdims: bool = False) -> Array:
    """ARGMAX, the first of equal maxima, int32."""
    graph = Graph()
    found = graph.run(graph.argmax(graph.input(x), axis % x.ndim))[0]
    return np.expand_dims(found, axis) if keepdims else found


def table_int8(x: Array, table: Array) -> Array:
    """TABLE of 256 int8 entries; 256 int16 entries go through GATHER, which TABLE does not have for int8 inputs."""
    graph = Graph()
    if table.dtype == np.int8:
        return graph.run(graph.table(graph.input(x), table))[0]
    values = graph.const(table.astype(np.int64).reshape(1, 256, 1), "INT16")
    indices = graph.input((x.astype(np.int32) + 128).reshape(1, -1))
    return graph.run(graph.gather(values, indices))[0].reshape(x.shape)


def table_int16(
    x: Array,
    table: Array,
    *,
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -32768,
    hi: int = 32767,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """TABLE of 513 entries: int32 with 7 fractional bits, or rescaled and clamped when `multiplier` is given.

    TOSA leaves the result open where neighbouring entries differ by more than int16 holds; that raises here."""
    graph = Graph()
    value = graph.table(graph.input(x), table)
    if multiplier is None or shift is None:
        return graph.run(value)[0]
    return _finish(graph, graph.rescale(value, multiplier, shift, 0, zp_out, _out_name(out_dtype, x)), lo, hi)


def resize(
    x: Array,
    *,
    mode: str = "nearest",
    scale: Ints,
    offset: Ints = (0, 0),
    border: Ints = (0, 0),
    multiplier: int | None = None,
    shift: int | None = None,
    zp_out: int = 0,
    lo: int = -128,
    hi: int = 127,
    out_dtype: npt.DTypeLike | None = None,
) -> Array:
    """RESIZE "nearest" or "bilinear"; scale (y_n, y_d, x_n, x_d); raw results as in TOSA when `multiplier` is None."""
    graph = Graph()
    value = graph.resize(graph.input(x), scale=scale, offset=offset, border=border, mode=mode.upper())
    if multiplier is None or shift is None:
        return graph.run(value)[0]
    return _finish(graph, _rescaled(graph, value, multiplier, shift, 0, zp_out, _out_name(out_dtype, x)), lo, hi)
