"""Shape arithmetic and constants: computed while the model is read, never part of the program."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from xdsl.dialects.builtin import Float32Type, IntegerType, i32, i64
from xdsl.ir import SSAValue

from hbir.dialects.base import Array, tensor_type
from hbir.dialects.hbir import AddOp, CastOp, MulOp
from hbir.frontends.onnx.builder import MAX_STATIC_ELEMENTS
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.tensors import DataType, type_name
from hbir.frontends.onnx.values import Static, Value, value_shape

__all__: list[str] = []

_KNOWN_ONLY: dict[str, Callable[..., Any]] = {
    "And": np.logical_and,
    "Equal": np.equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Not": np.logical_not,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}
_FLOATS = (DataType.FLOAT, DataType.DOUBLE, DataType.FLOAT16, DataType.BFLOAT16)
_COMPUTED_INTEGERS = {DataType.INT32: i32, DataType.INT64: i64}


def _check_count(node: Node, shape: tuple[int, ...]) -> None:
    if min(shape, default=0) < 0 or math.prod(shape) > MAX_STATIC_ELEMENTS:
        raise node.refuse(
            Refusal.TOO_LARGE_TENSOR,
            f"shape {list(shape)} is not one to compute",
            why="it is negative or too large",
            lever="check the model",
        )
    node.room(*shape)


@converts("Shape")
def shape_v1(node: Node) -> Value:
    """The shape of the operand."""
    return node.known(node.shape(0), np.int64)


@converts("Shape")
def shape_v15(node: Node) -> Value:
    """A range of the shape; bounds are clamped."""
    shape = node.shape(0)
    return node.known(shape[slice(node.integer("start", 0), node.integer("end", len(shape)))], np.int64)


@converts("Size")
def size_v1(node: Node) -> Value:
    """The number of elements of the operand."""
    return node.known(math.prod(node.shape(0)), np.int64)


@converts("Constant")
def constant_v1(node: Node) -> Value:
    """`value`, or from opset 12 a number or a list of numbers."""
    tensor = node.opt_tensor("value")
    if tensor is not None:
        return node.known(tensor)
    number, numbers, integers = (
        node.opt_number("value_float"),
        node.opt_numbers("value_floats"),
        node.opt_integers("value_ints"),
    )
    if number is not None or numbers is not None:
        return node.known(number if numbers is None else numbers, np.float32)
    if integers is not None:
        return node.known(integers, np.int64)
    marker = node.integer("value_int", -1), node.integer("value_int", 0)
    if marker[0] == marker[1]:
        return node.known(marker[0], np.int64)
    raise node.refuse(
        Refusal.ATTRIBUTE,
        "the constant has no numbers",
        why="strings and sparse tensors are not supported",
        lever="use a tensor",
    )


@converts("ConstantOfShape")
def constant_of_shape_v9(node: Node) -> Value:
    """A tensor of one value, zero by default."""
    shape, value = tuple(node.integers(0, "shape")), node.opt_tensor("value")
    _check_count(node, shape)
    if value is not None and value.size != 1:
        raise node.refuse(
            Refusal.ATTRIBUTE, f"attribute value has {value.size} elements, not one", lever="check the model"
        )
    return node.known(
        np.zeros(shape, np.float32) if value is None else np.full(shape, value.reshape(-1)[0], value.dtype)
    )


@converts("Range")
def range_v11(node: Node) -> Value:
    """`start + i * delta` up to `limit`."""
    start, limit, delta = (
        node.array(index, role).reshape(-1) for index, role in enumerate(("start", "limit", "delta"))
    )
    if not start.size == limit.size == delta.size == 1:
        raise node.refuse(Refusal.SHAPE, "start, limit and delta are not all scalars", lever="check the model")
    if delta[0] == 0 or not all(np.isfinite(item[0]) for item in (start, limit, delta)):
        raise node.refuse(
            Refusal.SHAPE, f"a range from {start[0]} to {limit[0]} by {delta[0]} has no end", lever="check the model"
        )
    count = max(math.ceil((float(limit[0]) - float(start[0])) / float(delta[0])), 0)
    _check_count(node, (count,))
    return node.known(np.arange(count).astype(start.dtype) * delta + start, start.dtype)


@converts(*_KNOWN_ONLY)
def logic_v7(node: Node) -> Value:
    """Comparisons and logic of known tensors."""
    operands = [node.array(index, "an operand of a comparison") for index in range(1 if node.operator == "Not" else 2)]
    _check_count(node, np.broadcast_shapes(*(operand.shape for operand in operands)))
    return node.known(_KNOWN_ONLY[node.operator](*operands))


@converts("Where")
def where_v9(node: Node) -> Value:
    """A choice by a known mask: of known tensors at once, of computed ones as products with ones and zeros."""
    condition, a, b = node.array(0, "condition").astype(bool), node.operand(1), node.operand(2)
    shape = np.broadcast_shapes(condition.shape, value_shape(a), value_shape(b))
    _check_count(node, shape)
    if isinstance(a, Static) and isinstance(b, Static):
        return node.known(np.where(condition, a.array, b.array), a.array.dtype)
    chosen = _masked(node, node.real(1), condition)
    other = _masked(node, node.real(2), ~condition)
    if isinstance(other, Static) and value_shape(chosen) == shape and not other.array.any():
        return chosen
    return node.emit(AddOp, chosen, other)


def _masked(node: Node, x: Value, mask: Array) -> Value:
    """`x` where the mask is set, zero elsewhere, whatever `x` holds there."""
    if isinstance(x, Static):
        return node.known(np.where(mask, x.array, 0), x.array.dtype)
    return node.emit(MulOp, x, node.known(mask, np.float32))


@converts("Mod")
def mod_v10(node: Node) -> Value:
    """Remainder of known tensors: with the divisor's sign, or with the dividend's when `fmod` is set."""
    a, b = node.array(0, "dividend"), node.array(1, "divisor")
    _check_count(node, np.broadcast_shapes(a.shape, b.shape))
    if b.dtype.kind in "iu" and not b.all():
        raise node.refuse(Refusal.SHAPE, "integer division by zero", lever="check the model's shape arithmetic")
    return node.known(np.fmod(a, b) if node.integer("fmod", 0) else np.mod(a, b))


@converts("NonZero")
def non_zero_v9(node: Node) -> Value:
    """Indices of the nonzero elements of a known tensor, one row for each axis."""
    return node.known(np.atleast_2d(np.array(np.nonzero(np.atleast_1d(node.array(0, "operand"))), np.int64)))


@converts("CumSum")
def cum_sum_v11(node: Node) -> Value:
    """Running sums of a known tensor."""
    x = node.array(0, "operand")
    axis = node.axis(int(node.scalar(1, "axis")), x.ndim)
    exclusive, backwards = node.integer("exclusive", 0), node.integer("reverse", 0)
    turned: Array = np.flip(x, axis) if backwards else x
    total = np.cumsum(turned, axis, dtype=x.dtype)
    total = total - turned if exclusive else total
    return node.known(np.ascontiguousarray(np.flip(total, axis) if backwards else total))


@converts("Cast")
def cast_v6(node: Node) -> Value:
    """Known tensors change their dtype. Computed floats are float32 whatever float type the model names; computed
    integers become float32 or another width."""
    node.ignore("saturate", "round_mode")
    to, x = node.integer("to", 0), node.operand(0)
    supported = to in {int(member) for member in DataType} - {DataType.STRING, DataType.INT4, DataType.UINT4}
    if not supported:
        raise node.unsupported("to", type_name(to), "it is no numeric type that import knows", "cast to float32")
    if isinstance(x, Static):
        with np.errstate(all="ignore"):
            return Static(x.array.astype(DataType(to).dtype), x.name)
    if not isinstance(x, SSAValue):
        raise node.refuse(Refusal.INTEGER_DATA, "quantised integers are cast", lever="use DequantizeLinear")
    element = tensor_type(x.type).element_type
    if isinstance(element, Float32Type) and to in _FLOATS:
        return x
    if isinstance(element, IntegerType) and to in _FLOATS:
        return node.emit(CastOp, x, to="f32")
    if isinstance(element, IntegerType) and to in _COMPUTED_INTEGERS:
        return (
            x
            if element == _COMPUTED_INTEGERS[DataType(to)]
            else node.emit(CastOp, x, to=str(_COMPUTED_INTEGERS[DataType(to)]))
        )
    raise node.unsupported(
        "to", type_name(to), f"the operand holds {element} of the network's data", "keep data in float32"
    )
