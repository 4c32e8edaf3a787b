"""Batch normalisation, layer normalisation and softmax of the float graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Tensor, integer, not_quantized, number, shape_of

__all__ = ["BatchNormOp", "SoftmaxOp"]


@irdl_op_definition
class BatchNormOp(HbOperation):
    """Inference batch norm over the last axis: `(x - mean) * scale / sqrt(variance + epsilon) + bias`."""

    name = "hbir.batch_norm"

    input = operand_def(TensorType)
    scale = operand_def(TensorType)
    bias = operand_def(TensorType)
    mean = operand_def(TensorType)
    variance = operand_def(TensorType)
    epsilon = number()
    """Added to the variance."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *parameters: Tensor, epsilon: float) -> Tensor:
        not_quantized(x)
        if any(shape_of(p) != shape_of(x)[-1:] for p in parameters):
            raise VerifyException(f"batch norm parameters do not match {shape_of(x)[-1:]} channels")
        return x

    @staticmethod
    def evaluate(x: Array, scale: Array, bias: Array, mean: Array, variance: Array, *, epsilon: float) -> Array:
        factor = scale / np.sqrt(variance + x.dtype.type(epsilon))
        return x * factor + (bias - mean * factor)


@irdl_op_definition
class SoftmaxOp(HbOperation):
    """`exp(x - max) / sum(exp(x - max))` along `axis`."""

    name = "hbir.softmax"

    input = operand_def(TensorType)
    axis = integer()
    """The axis, counted from 0."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, axis: int) -> Tensor:
        not_quantized(x)
        if not 0 <= axis < len(shape_of(x)):
            raise VerifyException(f"axis {axis} does not fit rank {len(shape_of(x))}")
        return x

    @staticmethod
    def evaluate(x: Array, *, axis: int, **_: Any) -> Array:
        e = np.exp(x - x.max(axis=axis, keepdims=True))
        return e / e.sum(axis=axis, keepdims=True)
