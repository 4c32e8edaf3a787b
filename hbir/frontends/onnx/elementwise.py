"""Arithmetic of two and more operands, with numpy's broadcasting."""

from __future__ import annotations

from functools import reduce

import numpy as np

from hbir.dialects.base import HbOperation
from hbir.dialects.hbir import AddOp, DivOp, FunctionOp, MaximumOp, MinimumOp, MulOp, PowOp, SubOp
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value

__all__: list[str] = []

_BINARY: dict[str, type[HbOperation]] = {"Add": AddOp, "Sub": SubOp, "Mul": MulOp, "Div": DivOp}
_VARIADIC: dict[str, type[HbOperation]] = {"Sum": AddOp, "Mean": AddOp, "Max": MaximumOp, "Min": MinimumOp}


@converts("Add", "Sub", "Mul", "Div")
def arithmetic_v7(node: Node) -> Value:
    """`lhs op rhs`."""
    lhs, rhs = node.real(0), node.real(1)
    if node.operator == "Div" and isinstance(rhs, Static) and rhs.array.dtype.kind in "iu" and not rhs.array.all():
        raise node.refuse(Refusal.SHAPE, "integer division by zero", lever="check the model's shape arithmetic")
    return node.emit(_BINARY[node.operator], lhs, rhs)


@converts("Pow")
def pow_v7(node: Node) -> Value:
    """`base ** exponent`; a known scalar exponent makes it a function of one value."""
    base, exponent = node.real(0), node.real(1)
    if (
        isinstance(base, Static)
        or not isinstance(exponent, Static)
        or exponent.array.size != 1
        or exponent.array.ndim > 1
    ):
        return node.emit(PowOp, base, exponent)
    power = float(exponent.array.reshape(-1)[0])
    named = {1.0: "identity", 2.0: "square", 0.5: "sqrt", -1.0: "reciprocal", -0.5: "rsqrt"}.get(power)
    if named == "identity":
        return base
    return node.emit(FunctionOp, base, function=named or "pow", parameters=None if named else (power,))


@converts("Sum", "Mean", "Max", "Min")
def variadic_v8(node: Node) -> Value:
    """Sum, mean, maximum or minimum of any number of operands, from left to right."""
    values = [node.real(index) for index in range(len(node.operands()))]
    total = reduce(lambda a, b: node.emit(_VARIADIC[node.operator], a, b), values)
    if node.operator != "Mean" or len(values) == 1:
        return total
    return node.emit(DivOp, total, node.known(len(values), np.float32))
