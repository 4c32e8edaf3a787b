"""Folds batch norm, and any scale or bias per channel, into the convolution or linear layer in front of it or behind it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import ClassVar, TypeAlias

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import Array, shape_of
from hbir.dialects.hbir import (
    AddOp,
    BatchNormOp,
    Conv2dOp,
    ConvTranspose2dOp,
    LinearOp,
    MulOp,
    ReshapeOp,
    SubOp,
    constant,
)
from hbir.module import Module
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, only_user, replace, users
from passes.manager import Pass, Promise

__all__ = ["FoldBatchNorm"]

Layer: TypeAlias = Conv2dOp | ConvTranspose2dOp | LinearOp

EVEN = 4.0
"""Largest ratio between the factors of a batch norm that goes into the layers behind it: their weights are as fine as the
largest of an output channel allows, and factors further apart would leave too little of the smaller ones."""


def _per_channel(array: Array, shape: tuple[int, ...]) -> Array | None:
    """`array` as one value for each channel of the last axis, or None when it varies along another axis."""
    try:
        full = np.broadcast_shapes(array.shape, shape)
    except ValueError:
        return None
    if not shape or full != shape or any(n != 1 for n in array.shape[:-1]):
        return None
    return np.broadcast_to(array.reshape(-1), (shape[-1],)).astype(np.float64)


def _affine(op: Operation, module: Module) -> tuple[SSAValue, Array, Array] | None:
    """The operation as `input * factor + offset` per channel (float64), or None when it is not that."""
    if isinstance(op, BatchNormOp):
        found = [constant_of(v, module.constants) for v in (op.scale, op.bias, op.mean, op.variance)]
        if any(array is None for array in found):
            return None
        scale, bias, mean, variance = (np.asarray(array, np.float64) for array in found)
        factor = scale / np.sqrt(variance + op.values["epsilon"])
        return op.input, factor, bias - mean * factor
    if not isinstance(op, AddOp | MulOp | SubOp):
        return None
    pairs = [(op.lhs, op.rhs)] if isinstance(op, SubOp) else [(op.lhs, op.rhs), (op.rhs, op.lhs)]
    for value, other in pairs:
        array = constant_of(other, module.constants)
        if array is None or value.type != op.output.type:
            continue
        channel = _per_channel(array, shape_of(value.type))
        if channel is None:
            continue
        if isinstance(op, MulOp):
            return value, channel, np.zeros_like(channel)
        return value, np.ones_like(channel), -channel if isinstance(op, SubOp) else channel
    return None


def _behind(value: SSAValue) -> tuple[SSAValue, list[ReshapeOp]]:
    """What a value is but for reshapes that keep the last axis and that nobody else reads, and these, last first."""
    between: list[ReshapeOp] = []
    while isinstance(value.owner, ReshapeOp) and only_user(value) is not None:
        reshape = value.owner
        if shape_of(reshape.input.type)[-1:] != shape_of(value.type)[-1:]:
            break
        between.append(reshape)
        value = reshape.input
    return value, between


def _fold(layer: Layer, op: Operation, factor: Array, offset: Array, module: Module) -> SSAValue | None:
    """The layer with factor and offset taken in."""
    values = layer.values
    clamped = not isinstance(layer, ConvTranspose2dOp) and (values["min"] is not None or values["max"] is not None)
    if clamped or (isinstance(layer, Conv2dOp) and layer.residual is not None):
        return None
    weight, bias = constant_of(layer.weight, module.constants), None
    if layer.bias is not None:
        bias = constant_of(layer.bias, module.constants)
    if (weight is None and not (factor == 1).all()) or (layer.bias is not None and bias is None):
        return None
    new_weight = layer.weight
    if weight is not None and not (factor == 1).all():
        scaled = weight.astype(np.float64) * factor.reshape(-1, *[1] * (weight.ndim - 1))
        new_weight = insert_before(op, constant(scaled, module.constants, f32), [layer]).output
    total = offset if bias is None else bias.astype(np.float64) * factor + offset
    new_bias = insert_before(op, constant(total, module.constants, f32), [layer]).output
    return insert_before(op, _layer(layer, layer.input, new_weight, new_bias), [layer, op]).output


def _layer(layer: Layer, x: SSAValue, weight: SSAValue, bias: SSAValue | None) -> Layer:
    """The layer with other operands."""
    match layer:
        case Conv2dOp():
            return Conv2dOp.make(x, weight, bias, layer.residual, **layer.values)
        case ConvTranspose2dOp():
            return ConvTranspose2dOp.make(x, weight, bias, **layer.values)
        case LinearOp():
            return LinearOp.make(x, weight, bias, **layer.values)


def _fold_back(op: Operation, value: SSAValue, factor: Array, offset: Array, module: Module) -> SSAValue | None:
    """`op` taken into the layer that makes `value`, seen through reshapes; None without such a layer."""
    made, between = _behind(value)
    layer = made.owner
    if not isinstance(layer, Conv2dOp | ConvTranspose2dOp | LinearOp) or only_user(made) is None:
        return None
    if only_user(value) is not op:
        return None
    result = _fold(layer, op, factor, offset, module)
    for reshape in reversed(between) if result is not None else ():
        result = insert_before(op, ReshapeOp.make(result, shape=reshape.values["shape"]), [reshape]).output
    return result


def _takes(layer: Operation, value: SSAValue, offset: Array, module: Module) -> bool:
    """Whether a layer that reads `value` can take in a factor and an offset per channel: padding must not need the offset."""
    if not isinstance(layer, Conv2dOp | LinearOp) or layer.input is not value or list(layer.operands).count(value) > 1:
        return False
    if isinstance(layer, Conv2dOp) and any(layer.values["pad"]) and offset.any():
        return False
    known = constant_of(layer.weight, module.constants) is not None
    return known and (layer.bias is None or constant_of(layer.bias, module.constants) is not None)


def _fold_forward(op: BatchNormOp, factor: Array, offset: Array, module: Module) -> bool:
    """Take a batch norm into all the layers that read it, `W (f x + o) + b = (W f) x + (W o + b)`; whether they can."""
    sizes, layers = np.abs(factor), users(op.output)
    if not layers or sizes.max(initial=0) > EVEN * sizes.min(initial=np.inf):
        return False
    if not all(_takes(layer, op.output, offset, module) for layer in layers):
        return False
    for layer in layers:
        if isinstance(layer, Conv2dOp | LinearOp):
            replace(layer, [_scaled_input(layer, op, factor, offset, module)])
    return True


def _scaled_input(
    layer: Conv2dOp | LinearOp, op: BatchNormOp, factor: Array, offset: Array, module: Module
) -> SSAValue:
    """A layer of what `op` reads that gives what `layer` gives of its result."""
    weight = np.asarray(constant_of(layer.weight, module.constants), np.float64)
    groups = layer.values["groups"] if isinstance(layer, Conv2dOp) else 1
    # Output channel i reads the input channels of its group.
    group = np.repeat(np.arange(groups), weight.shape[0] // groups)
    shape = (weight.shape[0], *[1] * (weight.ndim - 2), weight.shape[-1])
    scaled = weight * factor.reshape(groups, -1)[group].reshape(shape)
    total = (weight * offset.reshape(groups, -1)[group].reshape(shape)).sum(axis=tuple(range(1, weight.ndim)))
    bias = None if layer.bias is None else constant_of(layer.bias, module.constants)
    total = total if bias is None else total + bias
    new_weight = insert_before(layer, constant(scaled, module.constants, f32), [layer]).output
    new_bias = insert_before(layer, constant(total, module.constants, f32), [layer]).output
    return insert_before(layer, _layer(layer, op.input, new_weight, new_bias), [op, layer]).output


def _as_depthwise(op: BatchNormOp, factor: Array, offset: Array, module: Module) -> SSAValue:
    """A batch norm that no layer can take becomes a 1 x 1 depthwise convolution, over rows where it has no image."""
    x, shape = op.input, shape_of(op.input.type)
    image = shape if len(shape) == 4 else (1, 1, prod(shape[:-1]), shape[-1])
    if image != shape:
        x = insert_before(op, ReshapeOp.make(x, shape=image), [op]).output
    weight = insert_before(op, constant(factor.reshape(-1, 1, 1, 1), module.constants, f32), [op]).output
    bias = insert_before(op, constant(offset, module.constants, f32), [op]).output
    geometry = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": shape[-1]}
    y = insert_before(op, Conv2dOp.make(x, weight, bias, None, **geometry, min=None, max=None), [op]).output
    return y if image == shape else insert_before(op, ReshapeOp.make(y, shape=shape), [op]).output


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """`w' = w * factor`, `b' = b * factor + offset`, in float64, for the layer in front of a batch norm, or of a product or
    sum with a constant per channel; reshapes that keep the channels may stand in between. A batch norm without such a layer
    goes into all the layers behind it, where none pads and its factors are nearly even; one that is left alone becomes a
    depthwise convolution."""

    name: ClassVar[str] = "fold-batch-norm"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            # Layers behind a batch norm are replaced before their turn comes.
            for op in list(block.ops):
                affine = None if op.parent_block() is None else _affine(op, module)
                if affine is None:
                    continue
                folded = _fold_back(op, *affine, module)
                if folded is not None:
                    replace(op, [folded])
                elif isinstance(op, BatchNormOp) and not _fold_forward(op, *affine[1:], module):
                    replace(op, [_as_depthwise(op, *affine[1:], module)])
            erase_dead(block)
