"""Folds batch norm, and any scale or bias per channel, into the convolution or linear layer in front of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import Operation, SSAValue

from hbir.dialects.base import Array, shape_of
from hbir.dialects.hbir import AddOp, BatchNormOp, Conv2dOp, LinearOp, MulOp, SubOp, constant
from hbir.module import Module
from passes.manager import Pass, Promise
from passes.rewriting import blocks, constant_of, erase_dead, insert_before, only_user, replace

__all__ = ["FoldBatchNorm"]

Layer: TypeAlias = Conv2dOp | LinearOp


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


def _fold(layer: Layer, op: Operation, factor: Array, offset: Array, module: Module) -> Layer | None:
    values = layer.values
    if (
        values["min"] is not None
        or values["max"] is not None
        or (isinstance(layer, Conv2dOp) and layer.residual is not None)
    ):
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
    if isinstance(layer, Conv2dOp):
        return insert_before(op, Conv2dOp.make(layer.input, new_weight, new_bias, None, **values), [layer, op])
    return insert_before(op, LinearOp.make(layer.input, new_weight, new_bias, **values), [layer, op])


def _as_depthwise(op: BatchNormOp, factor: Array, offset: Array, module: Module) -> SSAValue | None:
    """A batch norm that no layer can take becomes a 1 x 1 depthwise convolution."""
    shape = shape_of(op.input.type)
    if len(shape) != 4:
        return None
    weight = insert_before(op, constant(factor.reshape(-1, 1, 1, 1), module.constants, f32), [op]).output
    bias = insert_before(op, constant(offset, module.constants, f32), [op]).output
    conv = Conv2dOp.make(
        op.input,
        weight,
        bias,
        None,
        stride=(1, 1),
        pad=(0, 0, 0, 0),
        dilation=(1, 1),
        groups=shape[3],
        min=None,
        max=None,
    )
    return insert_before(op, conv, [op]).output


@dataclass(frozen=True)
class FoldBatchNorm(Pass):
    """`w' = w * factor`, `b' = b * factor + offset`, in float64; a batch norm left alone becomes a depthwise convolution."""

    name: ClassVar[str] = "fold-batch-norm"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                affine = _affine(op, module)
                if affine is None:
                    continue
                value, factor, offset = affine
                layer = value.owner
                if isinstance(layer, Conv2dOp | LinearOp) and only_user(value) is op:
                    folded = _fold(layer, op, factor, offset, module)
                    if folded is not None:
                        replace(op, [folded.output])
                        continue
                if isinstance(op, BatchNormOp):
                    alone = _as_depthwise(op, factor, offset, module)
                    if alone is not None:
                        replace(op, [alone])
            erase_dead(block)
