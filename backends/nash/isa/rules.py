"""What the shapes, types and parameters of an instruction owe each other: one function per family of opcodes.

A rule gets the operands that are present, by name, and the parameters, by name; it raises RuleError with a sentence
that says what does not fit. The verifier adds the instruction's number and the layer's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from backends.nash.isa.records import DTYPES, View
from hbir.kernels.packing import packed_size

__all__ = [
    "Operands",
    "Params",
    "Rule",
    "RuleError",
    "argmax",
    "binary",
    "conv",
    "host_call",
    "matmul",
    "moved",
    "nothing",
    "pool",
    "quantize",
    "reduction",
    "rescale",
    "resize_bilinear",
    "resize_nearest",
    "same_type",
    "softmax",
    "table",
]

Operands: TypeAlias = Mapping[str, View]
"""An instruction's views by the names of its operands."""
Params: TypeAlias = Mapping[str, int]
"""An instruction's parameters by name."""
Rule: TypeAlias = Callable[[Operands, Params], None]
"""What checks the operands and parameters of an opcode; it raises RuleError."""


class RuleError(ValueError):
    """Operands or parameters that do not fit each other."""


def _need(holds: bool, text: str) -> None:
    if not holds:
        raise RuleError(text)


def _same_shape(v: Operands, *names: str) -> None:
    first = v[names[0]].shape
    for name in names:
        _need(v[name].shape == first, f"'{name}' has shape {v[name].shape}, '{names[0]}' has {first}")


def _same_dtype(v: Operands, *names: str) -> None:
    first = v[names[0]].dtype
    for name in names:
        _need(v[name].dtype == first, f"'{name}' holds {v[name].dtype}, '{names[0]}' holds {first}")


def _clamped(v: Operands, p: Params) -> None:
    """`low` and `high` lie in the result's type. Wide results may be clamped to int32 only: parameters are 32 bits."""
    info = np.iinfo(DTYPES[v["out"].dtype])
    _need(
        max(info.min, -(1 << 31)) <= p["low"] <= p["high"] <= min(info.max, (1 << 31) - 1),
        f"clamp {p['low']}..{p['high']} is not a range of {v['out'].dtype}",
    )


def _zero_point(p: Params, key: str, view: View) -> None:
    info = np.iinfo(DTYPES[view.dtype])
    _need(info.min <= p[key] <= info.max, f"{key} = {p[key]} is not a value of {view.dtype}")


def _scaled(p: Params, *suffixes: str) -> None:
    for suffix in suffixes:
        _need(2 <= p[f"shift{suffix}"] <= 62, f"shift{suffix} = {p[f'shift{suffix}']} is not between 2 and 62")


def _extent(size: int, kernel: int, stride: int, before: int, after: int, dilation: int = 1) -> int:
    return (size + before + after - dilation * (kernel - 1) - 1) // stride + 1


def _rank(v: Operands, rank: int, *names: str) -> None:
    for name in names:
        _need(len(v[name].shape) == rank, f"'{name}' has {len(v[name].shape)} axes, not {rank}")


def nothing(v: Operands, p: Params) -> None:
    """No rule."""


def moved(v: Operands, p: Params) -> None:
    """A copy keeps shape and type."""
    _same_shape(v, "src", "dst")
    _same_dtype(v, "src", "dst")


def same_type(v: Operands, p: Params) -> None:
    """Operands and result agree in shape and type; low and high lie in it."""
    _same_shape(v, *v)
    _same_dtype(v, *v)
    _clamped(v, p)


def conv(v: Operands, p: Params) -> None:
    """NHWC convolution: result shape, packed weight size, one bias, multiplier and shift for each output channel.

    Partial sums are accumulators of earlier input channels, of the result's shape. A float result has a float multiplier and
    nothing else behind the sums.
    """
    x, out, weight = v["x"], v["out"], v["weight"]
    _rank(v, 4, "x", "out")
    n, height, width, cin = x.shape
    cout, groups = out.shape[3], p["groups"]
    _need(
        cin % groups == 0 and cout % groups == 0,
        f"{cin} input and {cout} output channels do not split into {groups} groups",
    )
    kernel = (p["kernel_h"], p["kernel_w"])
    rows = _extent(height, kernel[0], p["stride_h"], p["pad_top"], p["pad_bottom"], p["dilation_h"])
    columns = _extent(width, kernel[1], p["stride_w"], p["pad_left"], p["pad_right"], p["dilation_w"])
    _need(
        out.shape[:3] == (n, rows, columns), f"'out' has shape {out.shape}, the window gives {(n, rows, columns, cout)}"
    )
    _need(weight.bits == p["weight_bits"], f"'weight' holds {weight.dtype}, weight_bits is {p['weight_bits']}")
    elements = packed_size((cout, *kernel, cin // groups), groups=groups)
    _need(
        weight.shape == (elements,), f"'weight' has shape {weight.shape}, the packed layout takes {elements} elements"
    )
    accumulator = "i32" if x.dtype == "i8" else "i64"
    if "bias" in v:
        _need(v["bias"].dtype == accumulator, f"'bias' holds {v['bias'].dtype}, the accumulator is {accumulator}")
    for name in ("bias", "multiplier", "shift"):
        if name in v:
            _need(v[name].shape == (cout,), f"'{name}' has shape {v[name].shape}, there are {cout} output channels")
    if "partial" in v:
        _same_shape(v, "out", "partial")
        _need(
            v["partial"].dtype == accumulator, f"'partial' holds {v['partial'].dtype}, the accumulator is {accumulator}"
        )
    _zero_point(p, "pad_value", x)
    floats = "multiplier" in v and v["multiplier"].dtype == "f32"
    _need(floats == (out.dtype == "f32"), "a float result and a float 'multiplier' come together")
    if floats:
        _need("shift" not in v and "residual" not in v, "a float result takes neither 'shift' nor 'residual'")
        return
    _need(("multiplier" in v) == ("shift" in v), "'multiplier' and 'shift' come together")
    if "multiplier" not in v:
        _need(
            "residual" not in v and out.dtype in ("i32", "i64"), "a raw accumulator is i32 or i64 and takes no residual"
        )
        return
    _zero_point(p, "zp_out", out)
    _clamped(v, p)
    if "residual" in v:
        _same_shape(v, "out", "residual")
        _zero_point(p, "residual_zp", v["residual"])
        for key in ("residual_shift", "output_shift"):
            _need(2 <= p[key] <= 62, f"{key} = {p[key]} is not between 2 and 62")


def matmul(v: Operands, p: Params) -> None:
    """(…, M, K) by (…, K, N); batch axes broadcast."""
    a, b = list(v["a"].shape), list(v["b"].shape)
    _need(len(a) >= 2 and len(b) >= 2 and a[-1] == b[-2], f"shapes {a} and {b} do not multiply")
    try:
        batch = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError:
        raise RuleError(f"batch axes of {a} and {b} do not broadcast") from None
    out = v["out"].shape
    _need(out == (*batch, a[-2], b[-1]), f"'out' has shape {out}, the product has {(*batch, a[-2], b[-1])}")
    _same_dtype(v, "a", "b")
    _zero_point(p, "zp_a", v["a"])
    _zero_point(p, "zp_b", v["b"])
    floats = v["out"].dtype == "f32"
    _need(floats == (p["scale"] > 0), "a float result has a scale, an integer one has none")
    if floats:
        return
    _scaled(p, "")
    _zero_point(p, "zp_out", v["out"])
    _clamped(v, p)


def binary(v: Operands, p: Params) -> None:
    """Elementwise arithmetic of two operands that broadcast to the result."""
    try:
        shape = np.broadcast_shapes(v["a"].shape, v["b"].shape)
    except ValueError:
        raise RuleError(f"shapes {v['a'].shape} and {v['b'].shape} do not broadcast") from None
    _need(v["out"].shape == shape, f"'out' has shape {v['out'].shape}, the operands give {shape}")
    if "multiplier" not in p:
        _same_dtype(v, "a", "b", "out")
        return
    _zero_point(p, "zp_a", v["a"])
    _zero_point(p, "zp_b", v["b"])
    _scaled(p, *(("_a", "_b", "") if "shift_a" in p else ("",)))
    _zero_point(p, "zp_out", v["out"])
    _clamped(v, p)


def rescale(v: Operands, p: Params) -> None:
    """One scale, or one for each channel of the last axis."""
    _same_shape(v, "x", "out")
    _need(("multiplier" in v) == ("shift" in v), "'multiplier' and 'shift' come together")
    if "multiplier" in v:
        channels = v["x"].shape[-1:]
        for name in ("multiplier", "shift"):
            _need(v[name].shape == channels, f"'{name}' has shape {v[name].shape}, the last axis is {channels}")
    else:
        _scaled(p, "")
    _zero_point(p, "zp_in", v["x"])
    _zero_point(p, "zp_out", v["out"])
    _clamped(v, p)


def table(v: Operands, p: Params) -> None:
    """256 entries for int8, 513 and a rescale for int16."""
    _same_shape(v, "x", "out")
    if v["x"].dtype == "i8":
        _need(v["table"].shape == (256,), f"'table' has shape {v['table'].shape}, not (256,)")
        _same_dtype(v, "table", "out")
        return
    _need(v["table"].shape == (513,), f"'table' has shape {v['table'].shape}, not (513,)")
    _scaled(p, "")
    _clamped(v, p)


def segmented(v: Operands, p: Params) -> None:
    """As many starts and spacings as rows of 64 entries, between 1 and 64."""
    _same_shape(v, "x", "out")
    count = v["starts"].elements
    _need(
        v["starts"].shape == (count,) and 1 <= count <= 64,
        f"'starts' has shape {v['starts'].shape}; there are 1 to 64 segments",
    )
    _need(v["spacings"].shape == (count,), f"'spacings' has shape {v['spacings'].shape}, there are {count} segments")
    _need(v["entries"].shape == (count, 64), f"'entries' has shape {v['entries'].shape}, not ({count}, 64)")


def _axes(mask: int, rank: int) -> tuple[int, ...]:
    _need(0 < mask < 1 << rank, f"axes = {mask:#b} names an axis that {rank} axes do not have")
    return tuple(axis for axis in range(rank) if mask >> axis & 1)


def reduction(v: Operands, p: Params) -> None:
    """The reduced axes have extent 1 in the result."""
    x, axes = v["x"].shape, _axes(p["axes"], len(v["x"].shape))
    wanted = tuple(1 if axis in axes else n for axis, n in enumerate(x))
    _need(v["out"].shape == wanted, f"'out' has shape {v['out'].shape}, the reduction gives {wanted}")
    if "multiplier" in p:
        _scaled(p, "")
        _zero_point(p, "zp_in", v["x"])
        _zero_point(p, "zp_out", v["out"])
        _clamped(v, p)
    else:
        _same_dtype(v, "x", "out")


def softmax(v: Operands, p: Params) -> None:
    """Tables of 256 (int8) or 513 (int16) exponentials and 513 reciprocals."""
    _same_shape(v, "x", "out")
    _need(p["axis"] < len(v["x"].shape), f"axis {p['axis']} of {len(v['x'].shape)}")
    entries = 256 if v["x"].dtype == "i8" else 513
    _need(v["exp_table"].shape == (entries,), f"'exp_table' has shape {v['exp_table'].shape}, not ({entries},)")
    _need(
        v["reciprocal_table"].shape == (513,), f"'reciprocal_table' has shape {v['reciprocal_table'].shape}, not (513,)"
    )
    _scaled(p, "")
    _zero_point(p, "zp_out", v["out"])
    _clamped(v, p)


def pool(v: Operands, p: Params) -> None:
    """NHWC window; every window has at least one element of the input."""
    _rank(v, 4, "x", "out")
    _same_dtype(v, "x", "out")
    n, height, width, channels = v["x"].shape
    rows = _extent(height, p["kernel_h"], p["stride_h"], p["pad_top"], p["pad_bottom"])
    columns = _extent(width, p["kernel_w"], p["stride_w"], p["pad_left"], p["pad_right"])
    wanted = (n, rows, columns, channels)
    _need(v["out"].shape == wanted, f"'out' has shape {v['out'].shape}, the window gives {wanted}")
    _need(
        max(p["pad_top"], p["pad_bottom"]) < p["kernel_h"] and max(p["pad_left"], p["pad_right"]) < p["kernel_w"],
        "a pad as large as the window leaves windows without input",
    )
    if "low" in p:
        _zero_point(p, "zp_in", v["x"])
        _zero_point(p, "zp_out", v["out"])
        _clamped(v, p)


def resize_nearest(v: Operands, p: Params) -> None:
    """One source row and column for each row and column of the result."""
    _rank(v, 4, "x", "out")
    _same_dtype(v, "x", "out")
    x, out = v["x"].shape, v["out"].shape
    _need((x[0], x[3]) == (out[0], out[3]), f"'out' has shape {out}, batch and channels of 'x' are {x[0]} and {x[3]}")
    for name, extent in (("rows", out[1]), ("columns", out[2])):
        _need(v[name].shape == (extent,), f"'{name}' has shape {v[name].shape}, the result has {extent}")


def resize_bilinear(v: Operands, p: Params) -> None:
    """TOSA RESIZE: extents follow from scale, offset and border."""
    _rank(v, 4, "x", "out")
    n, height, width, channels = v["x"].shape
    rows = (height - 1) * p["scale_yn"] - p["offset_y"] + p["border_y"]
    columns = (width - 1) * p["scale_xn"] - p["offset_x"] + p["border_x"]
    _need(rows % p["scale_yd"] == 0 and columns % p["scale_xd"] == 0, "the border ends between two positions")
    wanted = (n, rows // p["scale_yd"] + 1, columns // p["scale_xd"] + 1, channels)
    _need(v["out"].shape == wanted, f"'out' has shape {v['out'].shape}, the scale gives {wanted}")
    _scaled(p, "")
    _zero_point(p, "zp_in", v["x"])
    _zero_point(p, "zp_out", v["out"])
    _clamped(v, p)


def quantize(v: Operands, p: Params) -> None:
    """Float to integer or back; scales per tensor, or (dequantize) one for each channel of the last axis."""
    _same_shape(v, "x", "out")
    if "low" in p:
        _zero_point(p, "zp", v["out"])
        _clamped(v, p)
    else:
        _zero_point(p, "zp", v["x"])
    if "scales" in v:
        _need(
            v["scales"].shape == v["x"].shape[-1:],
            f"'scales' has shape {v['scales'].shape}, the last axis is {v['x'].shape[-1:]}",
        )


def argmax(v: Operands, p: Params) -> None:
    """Index of the largest value along one axis, which the result does not have."""
    shape: Sequence[int] = v["x"].shape
    _need(p["axis"] < len(shape), f"axis {p['axis']} of {len(shape)}")
    wanted = (*shape[: p["axis"]], *shape[p["axis"] + 1 :])
    _need(v["out"].shape == wanted, f"'out' has shape {v['out'].shape}, not {wanted}")


def host_call(v: Operands, p: Params) -> None:
    """The first `inputs` operands are read, the others written, and none is left out in between."""
    names = [f"operand{i}" for i in range(len(v))]
    _need(list(v) == names, "operands are given without a gap")
    _need(0 <= p["inputs"] < len(v), f"{p['inputs']} of {len(v)} operands are inputs; at least one is an output")
