"""Operations that move values and never change one: they mean the same on floats, integers and quantised elements."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def, var_operand_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Run, Tensor, integer, integers, number, shape_of, string, tensor
from hbir.dialects.quant import UniformQuantizedType

__all__ = ["ConcatOp", "ExpandOp", "PadOp", "ReshapeOp", "ResizeNearestOp", "SliceOp", "TransposeOp"]


def _move_axis(x: Tensor, permutation: Sequence[int] | None) -> Attribute:
    """The element type after a transpose; per-axis scales move with their axis, and a reshape cannot carry them."""
    element = x.element_type
    if not isinstance(element, UniformQuantizedType) or element.per_axis is None:
        return element
    if permutation is None:
        raise VerifyException("a tensor with per-axis scales cannot change its shape")
    return element.along(list(permutation).index(element.per_axis))


class _ViewOp(HbOperation):
    """Base of the operations whose result is a view of the operand, laid out anew."""

    @staticmethod
    def view(*operands: Any, **attributes: Any) -> Array:
        """The view of the operand."""
        raise TypeError("this operation has no view")

    @classmethod
    def evaluate(cls, x: Array, **attributes: Any) -> Array:
        return np.array(cls.view(x, **attributes), order="C")

    @classmethod
    def bind(cls, x: Array, *, out: Array, **attributes: Any) -> Run:
        return partial(np.copyto, out, cls.view(x, **attributes))


@irdl_op_definition
class ReshapeOp(HbOperation):
    """The same values in row-major order under another shape."""

    name = "hbir.reshape"

    input = operand_def(TensorType)
    shape = integers()
    """Extents of the result."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, shape: Sequence[int]) -> Tensor:
        if min(shape, default=1) < 0 or int(np.prod(shape, dtype=np.int64)) != int(
            np.prod(shape_of(x), dtype=np.int64)
        ):
            raise VerifyException(f"{shape_of(x)} does not reshape to {tuple(shape)}")
        return tensor(shape, _move_axis(x, None))

    @staticmethod
    def evaluate(x: Array, *, shape: Sequence[int]) -> Array:
        return x.reshape(shape)


@irdl_op_definition
class TransposeOp(_ViewOp):
    """Axis i of the result is axis `permutation[i]` of the input, as numpy has it."""

    name = "hbir.transpose"

    input = operand_def(TensorType)
    permutation = integers()
    """For each axis of the result, the axis of the input."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, permutation: Sequence[int]) -> Tensor:
        shape = shape_of(x)
        if sorted(permutation) != list(range(len(shape))):
            raise VerifyException(f"{tuple(permutation)} does not permute {len(shape)} axes")
        return tensor([shape[axis] for axis in permutation], _move_axis(x, permutation))

    @staticmethod
    def view(x: Array, *, permutation: Sequence[int]) -> Array:
        return x.transpose(permutation)


@irdl_op_definition
class ConcatOp(HbOperation):
    """Operands one after another along `axis`; all have one element type."""

    name = "hbir.concat"

    inputs = var_operand_def(TensorType)
    axis = integer()
    """The axis, counted from 0."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(*xs: Tensor, axis: int) -> Tensor:
        if not xs:
            raise VerifyException("concat needs an operand")
        shapes = [list(shape_of(x)) for x in xs]
        if not 0 <= axis < len(shapes[0]) or any(len(s) != len(shapes[0]) for s in shapes):
            raise VerifyException(f"shapes {shapes} do not concatenate along axis {axis}")
        rests = {tuple(s[:axis] + s[axis + 1 :]) for s in shapes}
        if len(rests) != 1 or len({x.element_type for x in xs}) != 1:
            raise VerifyException(f"shapes {shapes} or element types do not concatenate along axis {axis}")
        total = sum(s[axis] for s in shapes)
        return tensor([*shapes[0][:axis], total, *shapes[0][axis + 1 :]], xs[0].element_type)

    @staticmethod
    def evaluate(*xs: Array, axis: int) -> Array:
        return np.concatenate(xs, axis)

    @staticmethod
    def bind(*xs: Array, axis: int, out: Array) -> Run:
        return partial(np.concatenate, xs, axis, out)


@irdl_op_definition
class SliceOp(_ViewOp):
    """`input[begin:end:step]` along every axis, with begin and end inside the tensor and step at least 1."""

    name = "hbir.slice"

    input = operand_def(TensorType)
    begin = integers()
    """First index along each axis."""
    end = integers()
    """Index behind the last along each axis."""
    step = integers()
    """Distance of neighbouring indices along each axis, at least 1."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, begin: Sequence[int], end: Sequence[int], step: Sequence[int]) -> Tensor:
        shape = shape_of(x)
        if not len(begin) == len(end) == len(step) == len(shape):
            raise VerifyException(f"slice bounds do not match rank {len(shape)}")
        if any(not (0 <= b <= e <= n and s >= 1) for b, e, s, n in zip(begin, end, step, shape, strict=True)):
            raise VerifyException(f"slice {tuple(begin)}:{tuple(end)}:{tuple(step)} leaves shape {shape}")
        return tensor([-(-(e - b) // s) for b, e, s in zip(begin, end, step, strict=True)], x.element_type)

    @staticmethod
    def view(x: Array, *, begin: Sequence[int], end: Sequence[int], step: Sequence[int]) -> Array:
        # The ellipsis keeps a tensor without axes an array.
        return x[(*(slice(b, e, s) for b, e, s in zip(begin, end, step, strict=True)), ...)]


@irdl_op_definition
class PadOp(HbOperation):
    """Values before and after each axis.

    `mode` is `constant` (with `value`, in the unit of the stored elements), `edge` or `reflect`.
    """

    name = "hbir.pad"

    input = operand_def(TensorType)
    before = integers()
    """Number of values before each axis."""
    after = integers()
    """Number of values behind each axis."""
    mode = string()
    """`constant`, `edge` or `reflect`."""
    value = number()
    """What `constant` pads with, in the unit of the stored elements."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, before: Sequence[int], after: Sequence[int], mode: str, value: float) -> Tensor:
        shape = shape_of(x)
        if not len(before) == len(after) == len(shape) or min((*before, *after), default=0) < 0:
            raise VerifyException(f"pads {tuple(before)} and {tuple(after)} do not fit rank {len(shape)}")
        if mode not in ("constant", "edge", "reflect"):
            raise VerifyException(f"pad mode '{mode}' is not constant, edge or reflect")
        return tensor([b + n + a for b, n, a in zip(before, shape, after, strict=True)], x.element_type)

    @staticmethod
    def evaluate(x: Array, *, before: Sequence[int], after: Sequence[int], mode: str, value: float) -> Array:
        widths = list(zip(before, after, strict=True))
        if not widths:
            return x  # numpy pads no scalars
        if mode == "constant":
            return np.pad(x, widths, constant_values=x.dtype.type(value))
        return np.pad(x, widths, mode="edge" if mode == "edge" else "reflect")

    @staticmethod
    def bind(x: Array, *, before: Sequence[int], after: Sequence[int], mode: str, value: float, out: Array) -> Run:
        def run() -> None:
            if mode == "constant":
                out.fill(x.dtype.type(value))
                np.copyto(inside, x)
            else:
                out[...] = PadOp.evaluate(x, before=before, after=after, mode=mode, value=value)

        inside = out[(*(slice(b, b + n) for b, n in zip(before, x.shape, strict=True)), ...)]
        return run


@irdl_op_definition
class ExpandOp(_ViewOp):
    """Broadcast to `shape` by numpy's rules."""

    name = "hbir.expand"

    input = operand_def(TensorType)
    shape = integers()
    """Extents of the result."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, shape: Sequence[int]) -> Tensor:
        try:
            if np.broadcast_shapes(shape_of(x), tuple(shape)) != tuple(shape):
                raise ValueError
        except ValueError:
            raise VerifyException(f"{shape_of(x)} does not broadcast to {tuple(shape)}") from None
        return tensor(shape, x.element_type)

    @staticmethod
    def view(x: Array, *, shape: Sequence[int]) -> Array:
        return np.broadcast_to(x, shape)


@irdl_op_definition
class ResizeNearestOp(HbOperation):
    """NHWC resize that repeats values. Row y of the result is row `rows[y]` of the input, columns likewise.

    The source indices are written down, so that every coordinate convention of a front end means the same thing here.
    """

    name = "hbir.resize_nearest"

    input = operand_def(TensorType)
    rows = integers()
    """For each row of the result, the row of the input."""
    columns = integers()
    """For each column of the result, the column of the input."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, rows: Sequence[int], columns: Sequence[int]) -> Tensor:
        n, h, w, c = shape_of(x)
        if not rows or not columns or not (min(rows) >= 0 and max(rows) < h and min(columns) >= 0 and max(columns) < w):
            raise VerifyException(f"resize indices leave an input of {h} x {w}")
        return tensor((n, len(rows), len(columns), c), x.element_type)

    @staticmethod
    def evaluate(x: Array, *, rows: Sequence[int], columns: Sequence[int]) -> Array:
        return x[:, np.asarray(rows)][:, :, np.asarray(columns)]

    @staticmethod
    def bind(x: Array, *, rows: Sequence[int], columns: Sequence[int], out: Array) -> Run:
        def run() -> None:
            out[...] = x[grid]

        grid = (slice(None), np.asarray(rows)[:, None], np.asarray(columns))
        return run
