"""Functions of one value: activations, roots, exponentials and clips."""

from __future__ import annotations

import math

import numpy as np

from hbir.dialects.hbir import AddOp, ClipOp, FunctionOp, MulOp
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import CONTRIB, converts
from hbir.frontends.onnx.values import Static, Value, value_shape

__all__: list[str] = []

_FUNCTIONS = {
    "Abs": "abs",
    "Ceil": "ceil",
    "Cos": "cos",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "HardSwish": "hardswish",
    "Log": "log",
    "Mish": "mish",
    "Neg": "neg",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sigmoid": "sigmoid",
    "Sign": "sign",
    "Sin": "sin",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sqrt": "sqrt",
    "Tanh": "tanh",
}
_INTEGER_FUNCTIONS = {"Abs": np.abs, "Neg": np.negative, "Sign": np.sign}


def function(node: Node, x: Value, name: str, *parameters: float) -> Value:
    """The named function of `hbir.numerics` applied to every element of `x`."""
    return node.emit(FunctionOp, x, function=name, parameters=parameters or None)


def _named(node: Node) -> Value:
    x = node.operand(0)
    if isinstance(x, Static) and x.array.dtype.kind == "i":
        if node.operator not in _INTEGER_FUNCTIONS:
            raise node.refuse(
                Refusal.ELEMENT_TYPE, "the operand holds integers", lever="cast to float before this node"
            )
        return node.known(_INTEGER_FUNCTIONS[node.operator](x.array))
    return function(node, node.real(0), _FUNCTIONS[node.operator])


@converts("Abs", "Ceil", "Exp", "Floor", "Log", "Neg", "Reciprocal", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Tanh")
def function_v6(node: Node) -> Value:
    """Functions that every supported opset has."""
    return _named(node)


@converts("Cos", "Sin")
def function_v7(node: Node) -> Value:
    """Functions of opset 7."""
    return _named(node)


@converts("Erf", "Sign")
def function_v9(node: Node) -> Value:
    """Functions of opset 9."""
    return _named(node)


@converts("Round")
def function_v11(node: Node) -> Value:
    """Round: half to even."""
    return _named(node)


@converts("HardSwish")
def function_v14(node: Node) -> Value:
    """HardSwish: `x * clip(x / 6 + 1/2, 0, 1)`."""
    return _named(node)


@converts("Mish")
def function_v18(node: Node) -> Value:
    """Mish: `x * tanh(softplus(x))`."""
    return _named(node)


@converts("Relu")
def relu_v6(node: Node) -> Value:
    """`max(x, 0)`."""
    return node.emit(ClipOp, node.real(0), min=0.0, max=None)


@converts("LeakyRelu")
def leaky_relu_v6(node: Node) -> Value:
    """`x`, or `alpha * x` below zero."""
    return function(node, node.real(0), "leaky_relu", node.number("alpha", 0.01))


@converts("PRelu")
def prelu_v7(node: Node) -> Value:
    """LeakyRelu with a trained slope: one for all, or one for each channel as `max(x, 0) + slope * min(x, 0)`."""
    x, slope = node.real(0), node.real(1)
    if isinstance(slope, Static) and slope.array.size and np.all(slope.array == slope.array.flat[0]):
        alpha = float(slope.array.flat[0])
        if math.isfinite(alpha) and len(value_shape(slope)) <= len(value_shape(x)):
            return function(node, x, "leaky_relu", alpha)
    negative = node.emit(MulOp, slope, node.emit(ClipOp, x, min=None, max=0.0))
    return node.emit(AddOp, node.emit(ClipOp, x, min=0.0, max=None), negative)


@converts("Elu")
def elu_v6(node: Node) -> Value:
    """`x`, or `alpha * (exp(x) - 1)` below zero."""
    return function(node, node.real(0), "elu", node.number("alpha", 1.0))


@converts("Selu")
def selu_v6(node: Node) -> Value:
    """`gamma * elu(x, alpha)`; the defaults are the constants of Klambauer et al. 2017, as float32."""
    alpha, gamma = node.number("alpha", 1.67326319217681884765625), node.number("gamma", 1.05070102214813232421875)
    x = node.real(0)
    return node.emit(MulOp, function(node, x, "elu", alpha), node.number_like(gamma, x))


@converts("HardSigmoid")
def hard_sigmoid_v6(node: Node) -> Value:
    """`clip(alpha * x + beta, 0, 1)`."""
    return function(node, node.real(0), "hardsigmoid", node.number("alpha", 0.2), node.number("beta", 0.5))


@converts("Gelu")
def gelu_v20(node: Node) -> Value:
    """Exact Gelu, or its tanh approximation."""
    approximate = node.choice("approximate", "none", ("none", "tanh"))
    return function(node, node.real(0), "gelu" if approximate == "none" else "gelu_tanh")


@converts("Gelu", domain=CONTRIB)
def contrib_gelu_v1(node: Node) -> Value:
    """onnxruntime's exact Gelu."""
    return function(node, node.real(0), "gelu")


@converts("Swish")
def swish_v24(node: Node) -> Value:
    """`x * sigmoid(alpha * x)`."""
    x, alpha = node.real(0), node.number("alpha", 1.0)
    if alpha == 1.0:
        return function(node, x, "silu")
    return node.emit(MulOp, x, function(node, node.emit(MulOp, x, node.number_like(alpha, x)), "sigmoid"))


def _clip(node: Node, low: float | None, high: float | None) -> Value:
    if (low is not None and math.isnan(low)) or (high is not None and math.isnan(high)):
        raise node.refuse(Refusal.NOT_FINITE, "a clip bound is NaN", lever="give a number, or leave the bound out")
    low = None if low is None or (math.isinf(low) and low < 0) else low
    high = None if high is None or (math.isinf(high) and high > 0) else high
    if low is not None and high is not None:
        low = min(low, high)  # bounds the wrong way round mean the upper one everywhere
    x = node.real(0)
    return x if low is None and high is None else node.emit(ClipOp, x, min=low, max=high)


@converts("Clip")
def clip_v6(node: Node) -> Value:
    """`min` and `max` as attributes; their defaults are the ends of float32 and mean no bound."""
    low, high = node.opt_number("min"), node.opt_number("max")
    end = float(np.finfo(np.float32).max)
    return _clip(node, None if low == -end else low, None if high == end else high)


@converts("Clip")
def clip_v11(node: Node) -> Value:
    """`min` and `max` as operands, which must be known."""
    low = node.scalar(1, "min") if node.has(1) else None
    return _clip(node, low, node.scalar(2, "max") if node.has(2) else None)
