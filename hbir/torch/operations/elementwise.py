"""Arithmetic of two operands, with numpy's broadcasting. Scalars, constants and parameters are operands, too."""

from __future__ import annotations

import math
from typing import Any

import torch

from hbir.errors import TrainingError
from hbir.frontends.onnx.values import Value
from hbir.torch.fake_quant.notices import warn_once
from hbir.torch.operations.common import function, in_region, is_static, known_number, region_error
from hbir.torch.operations.registry import Kind, composite, methods, operation, spellings

__all__: list[str] = []


MASKING = -1e3
"""Numbers of a constant tensor up to here are taken for a mask that hides what they are added to."""


def _addend(e: Any, other: Any) -> Value:
    """An operand of a sum. One grid holds the sum: next to a mask of -1e9 all other values are one step of it."""
    given = is_static(other) and other.is_floating_point() and other.numel() > 1
    if given and (least := float(other.detach().min())) <= MASKING:
        lever = "use -64 (masked_fill(mask, -64)): in front of a softmax it hides as well"
        if math.isinf(least):
            raise e.no_form("a mask of -inf is added to values", why="no grid reaches that far", lever=lever)
        what = f"a mask of {least:.4g} is added to values"
        why = "the grid of the sum reaches that far, and has one step for all values beside the mask"
        warn_once(TrainingError(56, what, where=e.where, why=why, lever=lever), e.call.module or torch.nn.Module())
    return e.real(other)


def _scaled(e: Any, other: Any, alpha: float) -> Value:
    """`alpha * other` of a constant."""
    if alpha == 1:
        return _addend(e, other)
    if isinstance(other, int | float | torch.Tensor):
        return _addend(e, other * alpha)
    raise e.no_form(
        f"a sum with alpha={alpha} has no form", why="the product needs a grid", lever="write x + alpha * y"
    )


@operation(Kind.COMPUTE, *spellings("add"), *methods("__add__", "__radd__", "__iadd__"))
def add(e: Any, input: Any, other: Any, *, alpha: float = 1) -> Value:
    """`input + other`."""
    return e.onnx("Add", _addend(e, input), _scaled(e, other, alpha))


@operation(Kind.COMPUTE, *spellings("sub", "subtract"), *methods("__sub__", "__isub__"))
def sub(e: Any, input: Any, other: Any, *, alpha: float = 1) -> Value:
    """`input - other`."""
    return e.onnx("Sub", e.real(input), _scaled(e, other, alpha))


@operation(Kind.COMPUTE, *spellings("rsub"), *methods("__rsub__"))
def rsub(e: Any, input: Any, other: Any, alpha: float = 1) -> Value:
    """`other - input`."""
    if alpha != 1:
        raise e.no_form(f"rsub with alpha={alpha} has no form", lever="write y - alpha * x")
    return e.onnx("Sub", e.real(other), e.real(input))


@operation(Kind.COMPUTE, *spellings("mul", "multiply"), *methods("__mul__", "__rmul__", "__imul__"))
def mul(e: Any, input: Any, other: Any) -> Value:
    """`input * other`."""
    return e.onnx("Mul", e.real(input), e.real(other))


@operation(Kind.COMPUTE, *spellings("maximum", "fmax"))
def maximum(e: Any, input: Any, other: Any) -> Value:
    """The larger of two."""
    return e.onnx("Max", e.real(input), e.real(other))


@operation(Kind.COMPUTE, *spellings("minimum", "fmin"))
def minimum(e: Any, input: Any, other: Any) -> Value:
    """The smaller of two."""
    return e.onnx("Min", e.real(input), e.real(other))


@composite(*spellings("div", "divide", "true_divide"), *methods("__truediv__", "__itruediv__"))
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """No unit divides: a product with the reciprocal, which is a table or, of a constant, a constant."""
    if rounding_mode is not None:
        raise region_error(
            53, f"division with rounding_mode='{rounding_mode}' has no form", lever="round behind a DeQuantStub"
        )
    if in_region(other):
        return torch.mul(input, torch.reciprocal(other))
    return torch.mul(input, 1 / other)


@composite(*methods("__rdiv__", "__rtruediv__"))
def rdiv(input: Any, other: Any) -> Any:
    """A reciprocal, and a product unless the dividend is 1."""
    one = known_number(other) == 1
    return torch.reciprocal(input) if one else torch.mul(torch.reciprocal(input), other)


@operation(Kind.COMPUTE, *spellings("pow"), *methods("__pow__"))
def pow_(e: Any, input: Any, exponent: Any) -> Value:
    """`input ** exponent` for one known exponent."""
    power = known_number(exponent)
    if power is None or isinstance(input, int | float | torch.Tensor):
        lever = "write exp(y * log(x)) with a constant x"
        raise e.no_form("a power whose exponent is not one known number has no form", lever=lever)
    named = {2.0: "square", 0.5: "sqrt", -1.0: "reciprocal", -0.5: "rsqrt"}.get(power)
    if power == 1.0:
        return function(e, input, "identity")
    return function(e, input, named) if named else function(e, input, "pow", power)


@composite(*methods("__rpow__"))
def rpow(input: Any, other: Any) -> Any:
    """`exp(x * log(base))` of a known positive base."""
    base = known_number(other)
    if base is None or base <= 0:
        raise region_error(53, f"a power of the base {other} has no form", lever="use a positive number as the base")
    return torch.exp(torch.mul(input, math.log(base)))


@composite(torch.where)
def where(condition: Any, input: Any = None, other: Any = None) -> Any:
    """A choice by a constant mask: products with ones and zeros, and their sum."""
    if not is_static(condition) or input is None or other is None:
        raise region_error(
            55,
            "where chooses by values of the region",
            why="only masks that are constants have a form",
            lever="use relu, clamp, maximum or minimum, or choose behind a DeQuantStub",
        )
    mask = condition.to(torch.float32)
    return _chosen(input, mask) + _chosen(other, 1 - mask)


def _chosen(value: Any, mask: torch.Tensor) -> Any:
    """`value` where the mask is one, zero elsewhere."""
    if in_region(value):
        return torch.mul(value, mask)
    given = torch.as_tensor(value, dtype=torch.float32, device=mask.device)
    chosen = torch.where(mask.bool(), given, 0.0)
    if not bool(chosen.isfinite().all()):
        raise region_error(
            55,
            "a mask puts infinity in place of values",
            why="no grid reaches that far",
            lever="use a moderate number such as -64: a softmax makes it zero as well",
        )
    return chosen


@composite(*methods("where"))
def where_method(input: Any, condition: Any, other: Any) -> Any:
    """`where` with the condition in the middle."""
    return where(condition, input, other)


@composite(*spellings("masked_fill"))
def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """`where` with the value in place of what the mask marks."""
    return where(mask, value, input)


@composite(*spellings("addcmul"))
def addcmul(input: Any, tensor1: Any, tensor2: Any, *, value: float = 1) -> Any:
    """A product and a sum."""
    product = torch.mul(tensor1, tensor2)
    return torch.add(input, product if value == 1 else product * value)


@composite(*spellings("lerp"))
def lerp(input: Any, end: Any, weight: Any) -> Any:
    """`input + weight * (end - input)`."""
    return torch.add(input, torch.mul(torch.sub(end, input), weight))


@composite(*spellings("tril"))
def tril(input: Any, diagonal: int = 0) -> Any:
    """The lower triangle: a product with ones and zeros."""
    return torch.mul(input, torch.ones(input.shape[-2:], device=input.device).tril(diagonal))


@composite(*spellings("triu"))
def triu(input: Any, diagonal: int = 0) -> Any:
    """The upper triangle: a product with ones and zeros."""
    return torch.mul(input, torch.ones(input.shape[-2:], device=input.device).triu(diagonal))
