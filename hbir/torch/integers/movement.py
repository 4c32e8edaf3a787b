"""Operations that move values: they mean the same on codes, other integers and floats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hbir.dialects import hbir
from hbir.dialects.base import Array, shape_of
from hbir.torch.integers.registry import Prepared, binary, builds, unary
from hbir.torch.integers.values import is_float, numpy_dtype, torch_dtype

__all__: list[str] = []


@builds(hbir.ReshapeOp)
def reshape(op: hbir.ReshapeOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared:
    """Row-major order under another shape."""
    shape = shape_of(op.output.type)
    return unary(lambda x: x.reshape(shape))


@builds(hbir.TransposeOp)
def transpose(op: hbir.TransposeOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared:
    """Axis i of the result is axis `permutation[i]`."""
    permutation = tuple(op.values["permutation"])
    return unary(lambda x: x.permute(permutation).contiguous())


@builds(hbir.ConcatOp)
def concat(op: hbir.ConcatOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared:
    """One after another along `axis`."""
    axis = op.values["axis"]
    return Prepared(lambda *xs: torch.cat(xs, axis))


@builds(hbir.SliceOp)
def cut(op: hbir.SliceOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared:
    """`x[begin:end:step]`."""
    v = op.values
    bounds = [slice(b, e, s) for b, e, s in zip(v["begin"], v["end"], v["step"], strict=True)]
    return unary(lambda x: x[(*bounds, ...)])


@builds(hbir.PadOp)
def pad(op: hbir.PadOp, _c: Sequence[Array | None], device: torch.device) -> Prepared:
    """A constant, the edge, or the mirrored values around a tensor."""
    v, shape, inner = op.values, shape_of(op.output.type), shape_of(op.input.type)
    if v["mode"] == "constant":
        value = numpy_dtype(op.input.type).type(v["value"]).item()
        inside = (*(slice(b, b + n) for b, n in zip(v["before"], inner, strict=True)), ...)

        def constant(x: torch.Tensor) -> torch.Tensor:
            out = torch.full(shape, value, dtype=torch_dtype(op.output.type), device=device)
            out[inside] = x
            return out

        return Prepared(constant)
    # Where each result comes from, along each axis that grows.
    sources = {
        axis: torch.as_tensor(np.pad(np.arange(n), (b, a), mode=v["mode"]), device=device)
        for axis, (b, n, a) in enumerate(zip(v["before"], inner, v["after"], strict=True))
        if b or a
    }

    def copied(x: torch.Tensor) -> torch.Tensor:
        for axis, places in sources.items():
            x = x.index_select(axis, places)
        return x

    return Prepared(copied)


@builds(hbir.ExpandOp)
def expand(op: hbir.ExpandOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared:
    """Broadcast to `shape`."""
    shape = shape_of(op.output.type)
    return unary(lambda x: x.expand(shape))


@builds(hbir.ResizeNearestOp)
def resize_nearest(op: hbir.ResizeNearestOp, _c: Sequence[Array | None], device: torch.device) -> Prepared:
    """Rows and columns repeated as they are written down."""
    rows, columns = (torch.as_tensor(op.values[name], device=device) for name in ("rows", "columns"))
    return unary(lambda x: x.index_select(1, rows).index_select(2, columns))


@builds(hbir.MaximumOp, hbir.MinimumOp)
def choose(op: hbir.MaximumOp | hbir.MinimumOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared | None:
    """The larger, or the smaller, of two integers of one type."""
    if is_float(op.lhs.type):
        return None
    function = torch.maximum if isinstance(op, hbir.MaximumOp) else torch.minimum
    return binary(lambda a, b: function(a, b))


@builds(hbir.CastOp)
def cast(op: hbir.CastOp, _c: Sequence[Array | None], _d: torch.device) -> Prepared:
    """Integers as floats, rounded to nearest, or as other integers, which wrap."""
    dtype = torch_dtype(op.output.type)
    return unary(lambda x: x.to(dtype))
