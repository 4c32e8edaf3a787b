"""Sums, means and extremes over axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import LINALG, F, axes_of, check_float32, in_region, region_error, reshaped, shape
from hbir.torch.operations.registry import Kind, composite, operation, spellings

__all__: list[str] = []


def _reduced(e: Any, operator: str, x: Value, dim: Any) -> Value:
    """Over the axes, which stay as extents of 1, and then the shape that PyTorch gave."""
    axes = axes_of(dim, len(shape(x)))
    return reshaped(e, e.onnx(operator, x, axes, keepdims=1), e.shape)


@operation(Kind.COMPUTE, *spellings("mean"))
def mean(
    e: Any, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None, **_: Any
) -> Value:
    """The mean over axes, all when none is named."""
    check_float32(e, dtype)
    return _reduced(e, "ReduceMean", input, axis if dim is None else dim)


@operation(Kind.COMPUTE, *spellings("sum"))
def sum_(
    e: Any, input: Value, dim: Any = None, keepdim: bool = False, *, dtype: Any = None, axis: Any = None, **_: Any
) -> Value:
    """The sum over axes, all when none is named."""
    check_float32(e, dtype)
    return _reduced(e, "ReduceSum", input, axis if dim is None else dim)


@operation(Kind.KEEP, *spellings("amax"))
def amax(e: Any, input: Value, dim: Any = (), keepdim: bool = False) -> Value:
    """The largest value over axes."""
    return _reduced(e, "ReduceMax", input, dim)


@operation(Kind.KEEP, *spellings("amin"))
def amin(e: Any, input: Value, dim: Any = (), keepdim: bool = False) -> Value:
    """The smallest value over axes."""
    return _reduced(e, "ReduceMin", input, dim)


@operation(Kind.PLAIN, *spellings("argmax"))
def argmax(e: Any, input: Value, dim: int | None = None, keepdim: bool = False) -> Value:
    """The position of the largest value, the first of equals; int64, outside the region."""
    x = input if dim is not None else reshaped(e, input, [math.prod(shape(input))])
    return reshaped(e, e.onnx("ArgMax", x, axis=dim or 0, keepdims=1), e.shape)


@composite(*spellings("argmin"))
def argmin(input: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The position of the largest negative."""
    return torch.argmax(torch.neg(input), dim, keepdim)


def _extreme(name: str, input: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
    other = args[0] if args else named.get("other")
    if isinstance(other, torch.Tensor):
        return torch.maximum(input, other) if name == "max" else torch.minimum(input, other)
    dim = args[0] if args else named.get("dim")
    keep = bool(args[1] if len(args) > 1 else named.get("keepdim", False))
    value = torch.amax if name == "max" else torch.amin
    if dim is None:
        return value(input)
    return _Extremes(
        value(input, dim, keep), lambda: (torch.argmax if name == "max" else torch.argmin)(input, dim, keep)
    )


class _Extremes:
    """Values and their positions; positions are computed when they are asked for, as most models leave them."""

    def __init__(self, values: Any, positions: Callable[[], Any]) -> None:
        self.values, self._positions = values, positions

    @cached_property
    def indices(self) -> Any:
        """The positions."""
        return self._positions()

    def __getitem__(self, number: int) -> Any:
        if number not in (-2, -1, 0, 1):
            raise IndexError(number)
        return self.indices if number % 2 else self.values

    def __len__(self) -> int:
        return 2


@composite(*spellings("max"))
def max_(input: Any, *args: Any, **named: Any) -> Any:
    """The largest value; with an axis its position as well; with another tensor the larger of two."""
    return _extreme("max", input, args, named)


@composite(*spellings("min"))
def min_(input: Any, *args: Any, **named: Any) -> Any:
    """The smallest value; with an axis its position as well; with another tensor the smaller of two."""
    return _extreme("min", input, args, named)


def _variance(x: Any, dim: Any, keepdim: bool, correction: float) -> Any:
    axes = axes_of(dim, x.dim())
    count = math.prod(x.shape[axis] for axis in axes)
    square = torch.square(x - torch.mean(x, axes, True))
    spread = torch.mean(square, axes, keepdim)
    return spread if not correction else spread * (count / (count - correction))


def _correction(args: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, bool, float]:
    """(axes, whether they stay, correction) of the spellings of var and std."""
    if args and isinstance(args[0], bool):
        args = (None, *args)
    if len(args) > 1 and isinstance(args[1], bool):
        named = {"unbiased": args[1], **dict(zip(("keepdim",), args[2:], strict=False)), **named}
    correction = named.get("correction")
    correction = float(named.get("unbiased", True)) if correction is None else correction
    return (args[0] if args else named.get("dim")), bool(named.get("keepdim", False)), correction


@composite(*spellings("var"))
def var(input: Any, *args: Any, **named: Any) -> Any:
    """The mean of the squares of what is left without the mean."""
    return _variance(input, *_correction(args, named))


@composite(*spellings("std"))
def std(input: Any, *args: Any, **named: Any) -> Any:
    """The root of the variance."""
    return torch.sqrt(_variance(input, *_correction(args, named)))


@composite(torch.var_mean)
def var_mean(input: Any, *args: Any, **named: Any) -> Any:
    """The variance and the mean."""
    dim, keepdim, correction = _correction(args, named)
    return _variance(input, dim, keepdim, correction), torch.mean(input, axes_of(dim, input.dim()), keepdim)


@composite(*spellings("logsumexp"))
def logsumexp(input: Any, dim: Any, keepdim: bool = False) -> Any:
    """`log(sum(exp(x)))` of differences from the largest value."""
    largest = torch.amax(input, dim, True)
    total = torch.log(torch.sum(torch.exp(input - largest), dim, True)) + largest
    return total if keepdim else total.squeeze(tuple(axes_of(dim, input.dim())))


@composite(*spellings("norm"), LINALG.norm, LINALG.vector_norm)
def norm(input: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, *, ord: Any = 2, **named: Any) -> Any:
    """The root of the sum of squares, or the sum of magnitudes."""
    order = ord if ord != 2 else p
    if named.get("dtype") is not None or order not in (1, 2, None, "fro"):
        raise region_error(53, f"a norm of order {order} has no form", lever="use 1 or 2")
    axes = axes_of(dim, input.dim())
    if order == 1:
        return torch.sum(torch.abs(input), axes, keepdim)
    return torch.sqrt(torch.sum(torch.square(input), axes, keepdim))


@composite(F.normalize)
def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """A product with the reciprocal of the norm, which is a table of the sum of squares."""
    if p != 2.0 or not in_region(input):
        raise region_error(53, f"normalisation by the norm of order {p} has no form", lever="use p=2")
    total = torch.sum(torch.square(input), [dim], True)
    # The smallest norm: its square is still a number of float32.
    return input * torch.rsqrt(torch.clamp(total, min=float(torch.tensor(eps).square().clamp(min=1e-30))))
