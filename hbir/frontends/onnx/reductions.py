"""Reductions over axes, and the index of the largest."""

from __future__ import annotations

from collections.abc import Sequence

from hbir.dialects.hbir import AddOp, ArgmaxOp, FunctionOp, ReduceOp, ReshapeOp, SubOp
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value, value_shape

__all__: list[str] = []

_KINDS = {
    "ReduceL1": "sum",
    "ReduceL2": "sum",
    "ReduceLogSum": "sum",
    "ReduceLogSumExp": "sum",
    "ReduceMax": "max",
    "ReduceMean": "mean",
    "ReduceMin": "min",
    "ReduceProd": "prod",
    "ReduceSum": "sum",
    "ReduceSumSquare": "sum",
}
_BEFORE = {"ReduceL1": "abs", "ReduceL2": "square", "ReduceSumSquare": "square"}
_AFTER = {"ReduceL2": "sqrt", "ReduceLogSum": "log"}


def _prepared(node: Node, x: Value) -> Value:
    return node.emit(FunctionOp, x, function=_BEFORE[node.operator], parameters=None) if node.operator in _BEFORE else x


def _finished(node: Node, x: Value) -> Value:
    return node.emit(FunctionOp, x, function=_AFTER[node.operator], parameters=None) if node.operator in _AFTER else x


def _reduce(node: Node, axes: Sequence[int] | None) -> Value:
    x = node.real(0)
    rank = len(value_shape(x))
    keep = bool(node.integer("keepdims", 1))
    chosen = sorted(node.axes(range(rank) if axes is None else axes, rank))
    if node.operator == "ReduceLogSumExp":
        return _log_sum_exp(node, x, chosen, keep)
    x = _prepared(node, x)
    if chosen:
        x = node.emit(ReduceOp, x, kind=_KINDS[node.operator], axes=tuple(chosen), keep=keep)
    return _finished(node, x)


def _log_sum_exp(node: Node, x: Value, axes: Sequence[int], keep: bool) -> Value:
    """`log(sum(exp(x)))`, of differences from the largest value: no exponential overflows."""
    if not axes:
        return x
    largest = node.emit(ReduceOp, x, kind="max", axes=tuple(axes), keep=True)
    exponential = node.emit(FunctionOp, node.emit(SubOp, x, largest), function="exp", parameters=None)
    total = node.emit(ReduceOp, exponential, kind="sum", axes=tuple(axes), keep=True)
    y = node.emit(AddOp, largest, node.emit(FunctionOp, total, function="log", parameters=None))
    kept = tuple(extent for at, extent in enumerate(value_shape(x)) if at not in axes)
    return y if keep else node.emit(ReshapeOp, y, shape=kept)


def _axes_operand(node: Node) -> Value:
    none_means_none = bool(node.integer("noop_with_empty_axes", 0))
    axes = node.integers(1, "axes") if node.has(1) else []
    if not axes and none_means_none:
        node.ignore("keepdims")
        return _finished(node, _prepared(node, node.real(0)))
    return _reduce(node, axes or None)


@converts(*_KINDS)
def reduce_v1(node: Node) -> Value:
    """`axes` as an attribute; all axes when absent."""
    return _reduce(node, node.opt_integers("axes"))


@converts("ReduceSum")
def reduce_v13(node: Node) -> Value:
    """`axes` as an operand, for ReduceSum first."""
    return _axes_operand(node)


@converts(*(operator for operator in _KINDS if operator != "ReduceSum"))
def reduce_v18(node: Node) -> Value:
    """`axes` as an operand, for all reductions."""
    return _axes_operand(node)


@converts("ArgMax", "ArgMin")
def arg_v1(node: Node) -> Value:
    """Index of the largest or smallest value, the first of equals."""
    x = node.real(0)
    axis = node.axis(node.integer("axis", 0), len(value_shape(x)))
    keep = bool(node.integer("keepdims", 1))
    if node.operator == "ArgMin":
        x = node.emit(FunctionOp, x, function="neg", parameters=None)
    if isinstance(x, Static):
        return node.known(ArgmaxOp.evaluate(x.array, axis=axis, keep=keep))
    return node.emit(ArgmaxOp, x, axis=axis, keep=keep)


@converts("ArgMax", "ArgMin")
def arg_v12(node: Node) -> Value:
    """With `select_last_index`, which must be off."""
    node.expect("select_last_index", 0)
    return arg_v1(node)
