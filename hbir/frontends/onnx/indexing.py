"""Operators that read and write single elements. They hold for known tensors: masks, anchors, positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from hbir.dialects.base import Array
from hbir.dialects.hbir import MulOp
from hbir.frontends.onnx.builder import MAX_STATIC_ELEMENTS
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value, extent_text, value_shape

__all__: list[str] = []

_REDUCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "max": np.maximum.at,
    "min": np.minimum.at,
}


def _checked(node: Node, indices: Array, extents: tuple[int, ...]) -> Array:
    """Indices without negative ones; the last axis of `indices` has one for each of `extents`. Raises HB0117."""
    limits = np.array(extents, np.int64)
    fits = indices.dtype.kind in "iu" and bool(((indices >= -limits) & (indices < limits)).all())
    if not fits:
        raise node.refuse(
            Refusal.SHAPE, f"an index lies outside a tensor of {extent_text(extents)}", lever="check the model"
        )
    return np.where(indices < 0, indices + limits, indices)


def _tuples(node: Node, indices: Array, extents: tuple[int, ...]) -> tuple[Array, ...]:
    """Index arrays for numpy from ONNX's index tuples in the last axis."""
    if not indices.ndim or not 1 <= indices.shape[-1] <= len(extents):
        raise node.refuse(
            Refusal.SHAPE,
            f"indices of {extent_text(indices.shape)} do not fit {extent_text(extents)}",
            lever="check the model",
        )
    depth = indices.shape[-1]
    return tuple(np.moveaxis(_checked(node, indices, extents[:depth]), -1, 0))


def _along(node: Node, indices: Array, shape: tuple[int, ...], axis: int) -> tuple[Array, ...]:
    """Index arrays that replace the coordinate of one axis and keep those of the others."""
    if indices.ndim != len(shape):
        raise node.refuse(
            Refusal.SHAPE,
            f"indices of {extent_text(indices.shape)} do not fit {extent_text(shape)}",
            lever="check the model",
        )
    wanted = _checked(node, indices[..., None], (shape[axis],))[..., 0]
    grid = np.indices(indices.shape, sparse=True)
    return tuple(wanted if at == axis else grid[at] for at in range(len(shape)))


def _written(node: Node, data: Array, where: tuple[Array, ...], updates: Array) -> Value:
    reduction = node.choice("reduction", "none", ("none", *_REDUCTIONS))
    result = data.copy()
    if reduction == "none":
        result[where] = updates
    else:
        _REDUCTIONS[reduction](result, where, updates)
    return node.known(result)


@converts("ScatterND")
def scatter_nd_v11(node: Node) -> Value:
    """A copy with slices replaced, added to, multiplied, or kept at the larger or smaller value."""
    data, indices, updates = (node.array(index, role) for index, role in enumerate(("data", "indices", "updates")))
    return _written(node, data, _tuples(node, indices, data.shape), updates)


@converts("ScatterElements")
def scatter_elements_v11(node: Node) -> Value:
    """The same for elements along one axis."""
    data, indices, updates = (node.array(index, role) for index, role in enumerate(("data", "indices", "updates")))
    axis = node.axis(node.integer("axis", 0), data.ndim)
    return _written(node, data, _along(node, indices, data.shape, axis), updates)


@converts("GatherElements")
def gather_elements_v11(node: Node) -> Value:
    """Elements along one axis."""
    data, indices = node.array(0, "data"), node.array(1, "indices")
    axis = node.axis(node.integer("axis", 0), data.ndim)
    return node.known(data[_along(node, indices, data.shape, axis)])


@converts("GatherND")
def gather_nd_v11(node: Node) -> Value:
    """Slices at index tuples; `batch_dims` axes go along."""
    data, indices = node.array(0, "data"), node.array(1, "indices")
    batch = node.integer("batch_dims", 0)
    if not 0 <= batch < min(data.ndim, indices.ndim) or data.shape[:batch] != indices.shape[:batch]:
        raise node.refuse(
            Refusal.SHAPE,
            f"indices of {extent_text(indices.shape)} do not fit {extent_text(data.shape)} with {batch} batch axes",
            lever="check the model",
        )
    found = _tuples(node, indices, data.shape[batch:])
    grid = np.indices(indices.shape[:batch], sparse=True)
    node.room(*indices.shape[:-1], *data.shape[batch + indices.shape[-1] :])
    leading = [axis.reshape(*axis.shape, *[1] * (indices.ndim - 1 - batch)) for axis in grid]
    return node.known(data[(*leading, *found)])


@converts("Trilu")
def trilu_v14(node: Node) -> Value:
    """The upper or lower triangle of matrices; of computed ones as a product with ones and zeros."""
    x = node.operand(0)
    shape = value_shape(x)
    offset = int(node.scalar(1, "k")) if node.has(1) else 0
    take = np.triu if node.integer("upper", 1) else np.tril
    if len(shape) < 2:
        raise node.refuse(Refusal.RANK, f"operand 0 has shape {extent_text(shape)}", lever="give it matrices")
    if isinstance(x, Static):
        return node.known(take(x.array, offset))
    node.room(*shape[-2:])
    return node.emit(MulOp, node.real(0), node.known(take(np.ones(shape[-2:], np.float32), offset)))


@converts("OneHot")
def one_hot_v9(node: Node) -> Value:
    """Two values: one where the new axis' position is the index, the other elsewhere."""
    indices, values = node.array(0, "indices"), node.array(2, "values")
    depth = int(node.scalar(1, "depth"))
    if values.shape != (2,) or depth < 1 or depth * max(indices.size, 1) > MAX_STATIC_ELEMENTS:
        raise node.refuse(
            Refusal.SHAPE, f"depth {depth} and {values.size} values do not fit together", lever="check the model"
        )
    node.room(depth, *indices.shape)
    axis = node.axis(node.integer("axis", -1), indices.ndim + 1)
    wanted = np.where(indices < 0, indices + depth, indices)
    hit = np.expand_dims(wanted, axis) == np.arange(depth).reshape(
        [-1 if at == axis else 1 for at in range(indices.ndim + 1)]
    )
    return node.known(np.where(hit, values[1], values[0]), values.dtype)
