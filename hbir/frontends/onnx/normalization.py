"""Normalisations and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hbir.dialects.hbir import AddOp, BatchNormOp, FunctionOp, MulOp, ReduceOp, ReshapeOp, SoftmaxOp, SubOp, TransposeOp
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Value, value_shape

__all__: list[str] = []


def _channels_last(rank: int) -> tuple[int, ...]:
    return (0, *range(2, rank), 1)


def _channels_first(rank: int) -> tuple[int, ...]:
    return (0, rank - 1, *range(1, rank - 1))


def _batch_norm(node: Node) -> Value:
    x, parameters = node.real(0), [node.real(index) for index in range(1, 5)]
    rank = node.rank(0, range(2, 6))
    if any(node.used(index) for index in range(1, len(node.outputs))):
        raise node.refuse(
            Refusal.OPERANDS,
            "batch statistics are a result of training",
            lever="export the model in inference mode (.eval())",
        )
    node.ignore("momentum")
    epsilon = node.number("epsilon", 1e-5)
    if rank == 2:
        return node.emit(BatchNormOp, x, *parameters, epsilon=epsilon)
    y = node.emit(
        BatchNormOp, node.emit(TransposeOp, x, permutation=_channels_last(rank)), *parameters, epsilon=epsilon
    )
    return node.emit(TransposeOp, y, permutation=_channels_first(rank))


@converts("BatchNormalization")
def batch_normalization_v7(node: Node) -> Value:
    """Statistics per channel (`spatial` of 1)."""
    node.expect("spatial", 1)
    return _batch_norm(node)


@converts("BatchNormalization")
def batch_normalization_v9(node: Node) -> Value:
    """Without `spatial`."""
    return _batch_norm(node)


@converts("BatchNormalization")
def batch_normalization_v14(node: Node) -> Value:
    """With `training_mode`, which must be off."""
    node.expect("training_mode", 0, "export the model in inference mode (.eval())")
    return _batch_norm(node)


def _standardised(node: Node, x: Value, axes: Sequence[int], epsilon: float) -> Value:
    """`(x - mean) / sqrt(variance + epsilon)` over `axes`."""
    centred = node.emit(SubOp, x, node.emit(ReduceOp, x, kind="mean", axes=axes, keep=True))
    square = node.emit(FunctionOp, centred, function="square", parameters=None)
    variance = node.emit(ReduceOp, square, kind="mean", axes=axes, keep=True)
    shifted = node.emit(AddOp, variance, node.number_like(epsilon, variance))
    return node.emit(MulOp, centred, node.emit(FunctionOp, shifted, function="rsqrt", parameters=None))


@converts("InstanceNormalization")
def instance_normalization_v6(node: Node) -> Value:
    """Statistics per image and channel."""
    rank = node.rank(0, range(3, 6))
    epsilon = node.number("epsilon", 1e-5)
    y = _standardised(node, node.real(0), tuple(range(2, rank)), epsilon)
    channel = (value_shape(y)[1], *[1] * (rank - 2))
    scale, bias = (node.emit(ReshapeOp, node.real(index), shape=channel) for index in (1, 2))
    return node.emit(AddOp, node.emit(MulOp, y, scale), bias)


@converts("LayerNormalization")
def layer_normalization_v17(node: Node) -> Value:
    """Statistics over the axes from `axis` to the last."""
    x = node.real(0)
    rank = len(value_shape(x))
    first = node.axis(node.integer("axis", -1), rank)
    node.expect("stash_type", 1)
    if node.used(1) or node.used(2):
        raise node.refuse(
            Refusal.OPERANDS, "mean and deviation are results for training", lever="export in inference mode (.eval())"
        )
    y = node.emit(MulOp, _standardised(node, x, tuple(range(first, rank)), node.number("epsilon", 1e-5)), node.real(1))
    return node.emit(AddOp, y, node.real(2)) if node.has(2) else y


def _along(node: Node, axis: int, *, old: bool, log: bool) -> Value:
    x = node.real(0)
    shape = value_shape(x)
    # Axis equal to the rank is legal before opset 13 and means rows of one element.
    at = axis + len(shape) if axis < 0 else axis
    if not 0 <= at < len(shape) + old:
        raise node.refuse(
            Refusal.ATTRIBUTE, f"axis {axis} does not fit rank {len(shape)}", lever="check the model's axes"
        )
    if not old or (math.prod(shape[at + 1 :]) == 1 and at < len(shape)):
        return _softmax(node, x, at, log=log)
    rows = node.emit(ReshapeOp, x, shape=(math.prod(shape[:at]), math.prod(shape[at:])))
    return node.emit(ReshapeOp, _softmax(node, rows, 1, log=log), shape=shape)


def _softmax(node: Node, x: Value, axis: int, *, log: bool) -> Value:
    if not log:
        return node.emit(SoftmaxOp, x, axis=axis)
    shifted = node.emit(SubOp, x, node.emit(ReduceOp, x, kind="max", axes=(axis,), keep=True))
    exponential = node.emit(FunctionOp, shifted, function="exp", parameters=None)
    total = node.emit(ReduceOp, exponential, kind="sum", axes=(axis,), keep=True)
    return node.emit(SubOp, shifted, node.emit(FunctionOp, total, function="log", parameters=None))


@converts("Softmax", "LogSoftmax")
def softmax_v1(node: Node) -> Value:
    """Before opset 13: over all axes from `axis` to the last, taken as one."""
    return _along(node, node.integer("axis", 1), old=True, log=node.operator == "LogSoftmax")


@converts("Softmax", "LogSoftmax")
def softmax_v13(node: Node) -> Value:
    """Along one axis."""
    return _along(node, node.integer("axis", -1), old=False, log=node.operator == "LogSoftmax")
