"""Functions of one value: clips, and what becomes a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import F, function, known_number, region_error
from hbir.torch.operations.registry import Kind, composite, operation, spellings

__all__: list[str] = []

_TABLES = {
    "abs": ("abs", "absolute"),
    "ceil": ("ceil",),
    "cos": ("cos",),
    "erf": ("erf",),
    "exp": ("exp",),
    "floor": ("floor",),
    "hardswish": ("hardswish",),
    "log": ("log",),
    "mish": ("mish",),
    "neg": ("neg", "negative"),
    "reciprocal": ("reciprocal",),
    "rsqrt": ("rsqrt",),
    "sigmoid": ("sigmoid",),
    "sign": ("sign", "sgn"),
    "silu": ("silu",),
    "sin": ("sin",),
    "softsign": ("softsign",),
    "sqrt": ("sqrt",),
    "square": ("square",),
    "tanh": ("tanh",),
}
"""Functions of `hbir.numerics` without parameters, and their names in PyTorch."""


def _table(name: str) -> Callable[..., Value]:
    def emit(e: Any, input: Value, inplace: bool = False) -> Value:
        return function(e, input, name)

    emit.__name__ = name
    emit.__doc__ = f"`{name}` of every element."
    return emit


for _name, _spelled in _TABLES.items():
    operation(Kind.COMPUTE, *spellings(*_spelled))(_table(_name))


@operation(Kind.COMPUTE, *spellings("relu"))
def relu(e: Any, input: Value, inplace: bool = False) -> Value:
    """`max(x, 0)`."""
    return e.onnx("Relu", input)


@operation(Kind.COMPUTE, F.relu6)
def relu6(e: Any, input: Value, inplace: bool = False) -> Value:
    """`min(max(x, 0), 6)`."""
    return e.onnx("Clip", input, 0.0, 6.0)


@operation(Kind.COMPUTE, F.hardtanh, F.hardtanh_)
def hardtanh(e: Any, input: Value, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Value:
    """`min(max(x, min_val), max_val)`; ReLU6 comes as this."""
    return e.onnx("Clip", input, float(min_val), float(max_val))


def _bound(e: Any, value: Any) -> float | None:
    number = known_number(value)
    if number is None and value is not None:
        raise e.no_form("a clamp by a tensor has no form", lever="give numbers, or use maximum and minimum")
    return number


@operation(Kind.COMPUTE, *spellings("clamp", "clip"))
def clamp(e: Any, input: Value, min: Any = None, max: Any = None) -> Value:
    """`min(max(x, min), max)` with numbers for bounds."""
    return e.onnx("Clip", input, _bound(e, min), _bound(e, max))


@operation(Kind.COMPUTE, *spellings("clamp_min"))
def clamp_min(e: Any, input: Value, min: Any) -> Value:
    """`max(x, min)`."""
    return e.onnx("Clip", input, _bound(e, min))


@operation(Kind.COMPUTE, *spellings("clamp_max"))
def clamp_max(e: Any, input: Value, max: Any) -> Value:
    """`min(x, max)`."""
    return e.onnx("Clip", input, None, _bound(e, max))


@operation(Kind.COMPUTE, *spellings("leaky_relu"))
def leaky_relu(e: Any, input: Value, negative_slope: float = 0.01, inplace: bool = False) -> Value:
    """`x`, or `negative_slope * x` below zero."""
    return function(e, input, "leaky_relu", float(negative_slope))


@operation(Kind.COMPUTE, torch.Tensor.prelu)
def prelu(e: Any, input: Value, weight: Any) -> Value:
    """Leaky relu with one trained slope."""
    slope = known_number(weight)
    if slope is None:
        raise e.no_form("prelu with several slopes is not one operation", lever="call torch.nn.functional.prelu")
    return function(e, input, "leaky_relu", slope)


@composite(F.prelu)
def prelu_of_channels(input: Any, weight: Any) -> Any:
    """One slope is one table; slopes of channels are `relu(x) - slope * relu(-x)`, as each table holds one slope."""
    if weight.numel() == 1:
        return input.prelu(weight)
    slopes = weight.reshape([-1, *[1] * (input.dim() - 2)])
    return torch.add(torch.relu(input), torch.mul(torch.clamp(input, max=0.0), slopes))


@operation(Kind.COMPUTE, *spellings("elu"))
def elu(
    e: Any, input: Value, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0, inplace: bool = False
) -> Value:
    """`x`, or `alpha * (exp(x) - 1)` below zero."""
    if scale != 1 or input_scale != 1:
        raise e.no_form("elu with a scale is not one operation", lever="multiply by it")
    return function(e, input, "elu", float(alpha))


@operation(Kind.COMPUTE, *spellings("celu"))
def celu(e: Any, input: Value, alpha: float = 1.0, inplace: bool = False) -> Value:
    """Elu for an alpha of 1."""
    if alpha != 1:
        raise e.no_form(f"celu with alpha={alpha} is no table", lever="use elu, or alpha=1")
    return function(e, input, "elu", 1.0)


@operation(Kind.COMPUTE, F.hardsigmoid)
def hardsigmoid(e: Any, input: Value, inplace: bool = False) -> Value:
    """`clip(x / 6 + 1 / 2, 0, 1)`."""
    return function(e, input, "hardsigmoid", 1 / 6, 0.5)


@operation(Kind.COMPUTE, F.gelu)
def gelu(e: Any, input: Value, approximate: str = "none") -> Value:
    """Exact gelu, or its tanh approximation: one table either way."""
    return function(e, input, "gelu" if approximate == "none" else "gelu_tanh")


@operation(Kind.COMPUTE, F.softplus)
def softplus(e: Any, input: Value, beta: float = 1.0, threshold: float = 20.0) -> Value:
    """`log(1 + exp(x))`; above the threshold it is x to 2e-9."""
    if beta != 1 or threshold < 16:
        what = f"softplus with beta={beta} and threshold={threshold} is no table"
        raise e.no_form(what, lever="write softplus(beta * x) / beta, with a threshold of 16 or more")
    return function(e, input, "softplus")


@operation(Kind.COMPUTE, torch.round, torch.Tensor.round, torch.Tensor.round_)
def round_(e: Any, input: Value, *, decimals: int = 0) -> Value:
    """To the nearest integer, half to even."""
    if decimals:
        raise e.no_form(f"rounding to {decimals} decimals has no form", lever="multiply, round and divide")
    return function(e, input, "round")


# Composites: each part is a table or a product with a grid of its own.


@composite(*spellings("selu"))
def selu(input: Any, inplace: bool = False) -> Any:
    """Elu times a constant (Klambauer et al. 2017)."""
    return F.elu(input, 1.6732632423543772) * 1.0507009873554805


@composite(F.logsigmoid)
def logsigmoid(input: Any) -> Any:
    """`-softplus(-x)`."""
    return -F.softplus(-input)


@composite(F.tanhshrink)
def tanhshrink(input: Any) -> Any:
    """`x - tanh(x)`."""
    return input - torch.tanh(input)


@composite(F.glu)
def glu(input: Any, dim: int = -1) -> Any:
    """One half times the sigmoid of the other."""
    first, second = torch.chunk(input, 2, dim)
    return first * torch.sigmoid(second)


@composite(*spellings("expm1"))
def expm1(input: Any) -> Any:
    """`exp(x) - 1`: on a grid, small results are rounded either way."""
    return torch.exp(input) - 1.0


@composite(*spellings("log1p"))
def log1p(input: Any) -> Any:
    """`log(x + 1)`."""
    return torch.log(input + 1.0)


@composite(*spellings("log2"))
def log2(input: Any) -> Any:
    """A logarithm times a constant."""
    return torch.log(input) * 1.4426950408889634


@composite(*spellings("log10"))
def log10(input: Any) -> Any:
    """A logarithm times a constant."""
    return torch.log(input) * 0.4342944819032518


@composite(*spellings("exp2"))
def exp2(input: Any) -> Any:
    """`exp(x * log(2))`."""
    return torch.exp(input * 0.6931471805599453)


@composite(F.threshold, F.threshold_, torch.threshold)
def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """Relu for two zeros."""
    if threshold != 0 or value != 0:
        raise region_error(
            53, f"threshold({threshold}, {value}) has no form", why="it jumps", lever="use relu or clamp"
        )
    return torch.relu(input)
