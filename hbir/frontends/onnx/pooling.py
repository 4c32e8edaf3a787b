"""Pooling over windows and over whole images."""

from __future__ import annotations

from hbir.dialects.hbir import AvgPoolOp, MaxPoolOp, ReduceOp
from hbir.frontends.onnx.convolution import Window, from_nhwc, read_spatial, read_window, to_nhwc
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Value, value_shape

__all__: list[str] = []


def _pool_window(node: Node, x: Value) -> Window:
    extents = value_shape(x)[2:]
    if node.opt_integers("kernel_shape") is None:
        raise node.refuse(
            Refusal.ATTRIBUTE, "attribute kernel_shape is missing", lever="check the model with onnx.checker"
        )
    window = read_window(node, extents, read_spatial(node, "kernel_shape", len(extents), 1))
    if window.dilation != (1, 1):
        raise node.unsupported(
            "dilations", list(window.dilation), "pooling windows are not dilated", "use dilations of 1"
        )
    return window


def _max_pool(node: Node, ceil: bool) -> Value:
    x = node.operand(0)
    rank = node.rank(0, (3, 4))
    node.expect("storage_order", 0)
    if node.used(1):
        raise node.refuse(
            Refusal.OPERANDS, "the indices of MaxPool are not supported", lever="export without unpooling"
        )
    window = _pool_window(node, x)
    y = node.emit(MaxPoolOp, to_nhwc(node, x), kernel=window.kernel, stride=window.stride, pad=window.pad, ceil=ceil)
    return from_nhwc(node, y, rank)


@converts("MaxPool")
def max_pool_v1(node: Node) -> Value:
    """Maximum of each window; padding is never chosen."""
    return _max_pool(node, ceil=False)


@converts("MaxPool")
def max_pool_v10(node: Node) -> Value:
    """With `ceil_mode`."""
    return _max_pool(node, ceil=bool(node.integer("ceil_mode", 0)))


def _average_pool(node: Node, ceil: bool) -> Value:
    x = node.real(0)
    rank = node.rank(0, (3, 4))
    window = _pool_window(node, x)
    count_pad = bool(node.integer("count_include_pad", 0))
    y = node.emit(
        AvgPoolOp,
        to_nhwc(node, x),
        kernel=window.kernel,
        stride=window.stride,
        pad=window.pad,
        ceil=ceil,
        count_pad=count_pad,
    )
    return from_nhwc(node, y, rank)


@converts("AveragePool")
def average_pool_v7(node: Node) -> Value:
    """Mean of each window."""
    return _average_pool(node, ceil=False)


@converts("AveragePool")
def average_pool_v10(node: Node) -> Value:
    """With `ceil_mode`."""
    return _average_pool(node, ceil=bool(node.integer("ceil_mode", 0)))


@converts("GlobalAveragePool", "GlobalMaxPool")
def global_pool_v1(node: Node) -> Value:
    """Mean or maximum over all spatial axes, which stay as extents of 1."""
    kind = "mean" if node.operator == "GlobalAveragePool" else "max"
    rank = node.rank(0, range(2, 6))
    x = node.real(0)
    if rank not in (3, 4):
        return node.emit(ReduceOp, x, kind=kind, axes=tuple(range(2, rank)), keep=True)
    return from_nhwc(node, node.emit(ReduceOp, to_nhwc(node, x), kind=kind, axes=(1, 2), keep=True), rank)
