"""Normalisations and softmax."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hbir.dialects.hbir import (
    AddOp,
    BatchNormOp,
    ClipOp,
    FunctionOp,
    LinearOp,
    MulOp,
    ReduceOp,
    ReshapeOp,
    SoftmaxOp,
    SubOp,
    TransposeOp,
)
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value, value_shape

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
def batch_normalization_v14(node: Node) -> Value | tuple[Value, ...]:
    """With `training_mode`, which must be off unless the operand is known (a standardised weight)."""
    if isinstance(node.operand(0), Static) and node.integer("training_mode", 0):
        return _known_batch_norm(node)
    node.expect("training_mode", 0, "export the model in inference mode (.eval())")
    return _batch_norm(node)


def _known_batch_norm(node: Node) -> tuple[Value, ...]:
    """Normalisation of a known tensor by its own statistics, with the moved running mean and variance."""
    x, scale, bias, mean, variance = (node.array(index, "operand") for index in range(5))
    epsilon, momentum = node.number("epsilon", 1e-5), node.number("momentum", 0.9)
    axes, channel = (0, *range(2, x.ndim)), (1, -1, *[1] * (x.ndim - 2))
    wide = x.astype(np.float64)
    own_mean, own_variance = wide.mean(axes), wide.var(axes)
    y = (wide - own_mean.reshape(channel)) / np.sqrt(own_variance + epsilon).reshape(channel)
    y = y * scale.reshape(channel) + bias.reshape(channel)
    moved = (momentum * old + (1 - momentum) * new for old, new in ((mean, own_mean), (variance, own_variance)))
    return node.known(y, x.dtype), *(node.known(value, x.dtype) for value in moved)


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


@converts("GroupNormalization")
def group_normalization_v18(node: Node) -> Value:
    """Statistics per image and group of channels; one scale and bias for each group."""
    return _group_norm(node, per_group=True)


@converts("GroupNormalization")
def group_normalization_v21(node: Node) -> Value:
    """With one scale and bias for each channel."""
    node.expect("stash_type", 1)
    return _group_norm(node, per_group=False)


def _group_norm(node: Node, *, per_group: bool) -> Value:
    x, groups = node.real(0), node.integer("num_groups", 0)
    rank = node.rank(0, range(3, 6))
    shape = value_shape(x)
    if groups < 1 or shape[1] % groups:
        raise node.refuse(
            Refusal.ATTRIBUTE, f"{shape[1]} channels do not make {groups} groups", lever="check the model"
        )
    rows = node.emit(ReshapeOp, x, shape=(shape[0], groups, math.prod(shape[1:]) // groups))
    y = _standardised(node, rows, (2,), node.number("epsilon", 1e-5))
    parameters = [node.real(index) for index in (1, 2)]
    if per_group:
        scale, bias = (node.emit(ReshapeOp, value, shape=(groups, 1)) for value in parameters)
        return node.emit(ReshapeOp, node.emit(AddOp, node.emit(MulOp, y, scale), bias), shape=shape)
    scale, bias = (node.emit(ReshapeOp, value, shape=(shape[1], *[1] * (rank - 2))) for value in parameters)
    return node.emit(AddOp, node.emit(MulOp, node.emit(ReshapeOp, y, shape=shape), scale), bias)


@converts("RMSNormalization")
def rms_normalization_v23(node: Node) -> Value:
    """`x / sqrt(mean(x * x) + epsilon) * scale` over the axes from `axis` to the last."""
    x = node.real(0)
    rank = len(value_shape(x))
    axes = tuple(range(node.axis(node.integer("axis", -1), rank), rank))
    node.expect("stash_type", 1)
    square = node.emit(FunctionOp, x, function="square", parameters=None)
    mean = node.emit(ReduceOp, square, kind="mean", axes=axes, keep=True)
    shifted = node.emit(AddOp, mean, node.number_like(node.number("epsilon", 1e-5), mean))
    y = node.emit(MulOp, x, node.emit(FunctionOp, shifted, function="rsqrt", parameters=None))
    return node.emit(MulOp, y, node.real(1))


_TINY = 2.0**-100
"""Stands for the norm of a vector of zeros: its reciprocal is finite, and times zero it is zero."""


@converts("LpNormalization")
def lp_normalization_v1(node: Node) -> Value:
    """Vectors along `axis` divided by their norm; zeros stay zeros."""
    x, p = node.real(0), node.integer("p", 2)
    if p not in (1, 2):
        raise node.unsupported("p", p, "supported: 1, 2")
    axis = node.axis(node.integer("axis", -1), len(value_shape(x)))
    powers = node.emit(FunctionOp, x, function="abs" if p == 1 else "square", parameters=None)
    total = node.emit(ReduceOp, powers, kind="sum", axes=(axis,), keep=True)
    safe = node.emit(ClipOp, total, min=_TINY, max=None)
    return node.emit(
        MulOp, x, node.emit(FunctionOp, safe, function="reciprocal" if p == 1 else "rsqrt", parameters=None)
    )


@converts("LRN")
def lrn_v1(node: Node) -> Value:
    """`x / (bias + alpha / size * sum of squares of neighbouring channels) ** beta`.

    The sum is a product with a band matrix of `alpha / size`, a linear layer over channels.
    """
    x, size = node.real(0), node.integer("size", 0)
    rank = node.rank(0, range(3, 5))
    channels = value_shape(x)[1]
    if size < 1:
        raise node.refuse(Refusal.ATTRIBUTE, f"attribute size={size} is below 1", lever="check the model")
    alpha, beta, bias = node.number("alpha", 1e-4), node.number("beta", 0.75), node.number("bias", 1.0)
    node.room(channels, channels)
    distance = np.arange(channels) - np.arange(channels)[:, None]
    band = (distance >= -((size - 1) // 2)) & (distance <= size // 2)
    last = node.emit(TransposeOp, x, permutation=_channels_last(rank))
    total = node.emit(
        LinearOp,
        node.emit(FunctionOp, last, function="square", parameters=None),
        node.known(band * (alpha / size), np.float32),
        node.known(np.full(channels, bias), np.float32),
        min=None,
        max=None,
    )
    y = node.emit(MulOp, last, node.emit(FunctionOp, total, function="pow", parameters=(-beta,)))
    return node.emit(TransposeOp, y, permutation=_channels_first(rank))


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
