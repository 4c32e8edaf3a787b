"""StarReLU, an activation of Acme's networks: an operation, its meaning, and its reader for ONNX files."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.ir import Dialect
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure

from hbir.dialects.base import Array, HbOperation, Tensor, not_quantized, number
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Value

__all__ = ["Acme", "StarReluOp"]


@irdl_op_definition
class StarReluOp(HbOperation):
    """`scale * max(x, 0)² + bias`, element by element."""

    name = "acme.star_relu"

    input = operand_def(TensorType)
    scale = number()
    bias = number()
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, scale: float, bias: float) -> Tensor:
        del scale, bias
        not_quantized(x)
        return x

    @staticmethod
    def evaluate(x: Array, *, scale: float, bias: float) -> Array:
        positive = np.maximum(x, np.float32(0))
        return positive * positive * np.float32(scale) + np.float32(bias)


Acme = Dialect("acme", [StarReluOp])


@converts("StarRelu", domain="com.acme")
def star_relu_v1(node: Node) -> Value:
    """The operator of the domain `com.acme`, from its first version on."""
    return node.emit(StarReluOp, node.real(0), scale=node.number("scale", 1.0), bias=node.number("bias", 0.0))
