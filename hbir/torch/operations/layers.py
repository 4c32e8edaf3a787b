"""Convolutions, linear layers, matrix products, batch norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch

from hbir.dialects.hbir import Conv2dOp, ConvTranspose2dOp, LinearOp, ReshapeOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.frontends.onnx.values import Static, Value
from hbir.torch.operations.common import (
    LINALG,
    F,
    in_region,
    is_static,
    per_axis,
    region_error,
    reshaped,
    shape,
    transposed,
)
from hbir.torch.operations.registry import Kind, composite, methods, operation, spellings

__all__: list[str] = []


def _pads(padding: Any, kernel: tuple[int, ...], dilation: list[int]) -> list[int]:
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [t // 2 for t in total] + [t - t // 2 for t in total]
    return ([0] * len(kernel) if padding == "valid" else per_axis(padding, len(kernel))) * 2


def _check_batch(e: Any, x: Value, weight: Value) -> None:
    if len(shape(x)) != len(shape(weight)):
        lever = "give the input a batch axis: x.unsqueeze(0)"
        raise e.no_form(f"a layer with a weight of {list(shape(weight))} reads {list(shape(x))}", lever=lever)


def _image(e: Any, x: Value) -> Value:
    """A sequence, or the weight of one, as an image of one row; a weight keeps its grid."""
    n, channels, length = shape(x)
    if isinstance(x, Static):
        return Static(x.array.reshape(n, channels, 1, length), x.name, x.grid)
    return reshaped(e, x, [n, channels, 1, length])


@operation(Kind.WEIGHTED, F.conv1d, F.conv2d)
def conv(
    e: Any,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """Convolution; weight (Cout, Cin / groups, ...)."""
    kernel = shape(weight)[2:]
    _check_batch(e, input, weight)
    apart = per_axis(dilation, len(kernel))
    pads = _pads(padding, kernel, apart)
    steps = per_axis(stride, len(kernel))
    if len(kernel) == 2:
        return e.onnx("Conv", input, weight, bias, strides=steps, dilations=apart, pads=pads, group=groups)
    named = {"strides": [1, *steps], "dilations": [1, *apart], "pads": [0, pads[0], 0, pads[1]]}
    return reshaped(e, e.onnx("Conv", _image(e, input), _image(e, weight), bias, group=groups, **named), e.shape)


@operation(Kind.WEIGHTED, F.conv_transpose1d, F.conv_transpose2d)
def conv_transpose(
    e: Any,
    input: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    """Transposed convolution; weight (Cin, Cout / groups, ...)."""
    axes = len(shape(weight)) - 2
    _check_batch(e, input, weight)
    if any(each != 1 for each in per_axis(dilation, axes)):
        raise e.no_form(f"a transposed convolution has dilation={dilation}", lever="use a dilation of 1")
    image, kernel = (input, weight) if axes == 2 else (_image(e, input), _image(e, weight))
    lead = [] if axes == 2 else [0]
    pads, extra = lead + per_axis(padding, axes), lead + per_axis(output_padding, axes)
    steps = [1] * len(lead) + per_axis(stride, axes)
    y = e.build.emit(
        ConvTranspose2dOp,
        (transposed(e, image, [0, 2, 3, 1]), _turned(e, kernel, groups), bias),
        {"stride": tuple(steps), "pad": (*pads, *pads), "output_pad": tuple(extra), "groups": groups},
        e.location,
    )
    return reshaped(e, transposed(e, y, [0, 3, 1, 2]), e.shape)


def _turned(e: Any, weight: Value, groups: int) -> Value:
    """(Cin, Cout / groups, KH, KW) as (Cout, KH, KW, Cin / groups), with the scales that all groups share for each."""
    if not isinstance(weight, Static):
        raise e.no_form("the weight of a layer is computed", lever="use a parameter as the weight")
    inputs, outputs, rows, columns = weight.array.shape
    split = weight.array.reshape(groups, inputs // groups, outputs, rows, columns)
    array = np.ascontiguousarray(split.transpose(0, 2, 3, 4, 1)).reshape(-1, rows, columns, inputs // groups)
    grid = weight.grid
    if grid is not None and grid.per_axis is not None:
        scales = grid.scale_array
        grid = UniformQuantizedType.get(grid.bits, np.tile(scales, groups), axis=0)
    return Static(array, weight.name, grid)


@operation(Kind.WEIGHTED, F.linear)
def linear(e: Any, input: Value, weight: Value, bias: Value | None = None) -> Value:
    """`input @ weight.T + bias`."""
    if len(shape(weight)) != 2:
        raise e.no_form(f"a linear layer has a weight of {list(shape(weight))}", lever="give it (outputs, inputs)")
    if not e.call.summed or not isinstance(weight, Static):
        return e.build.emit(LinearOp, (input, weight, bias), {"min": None, "max": None}, e.location)
    # A sum is computed along with a convolution: rows become the pixels of a picture one pixel wide.
    outputs, inputs = shape(weight)
    rows = math.prod(shape(input)[:-1])
    picture = e.build.emit(ReshapeOp, (input,), {"shape": (1, rows, 1, inputs)}, e.location)
    kernel = Static(weight.array.reshape(outputs, 1, 1, inputs), weight.name, weight.grid)
    geometry = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "min": None, "max": None}
    made = e.build.emit(Conv2dOp, (picture, kernel, bias, None), geometry, e.location)
    return reshaped(e, made, (*shape(input)[:-1], outputs))


@operation(Kind.COMPUTE, F.batch_norm)
def batch_norm(
    e: Any,
    input: Value,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Value:
    """Batch norm by its running statistics: what no layer takes into its weights is a depthwise convolution."""
    # In training mode all batch norms take the batch's; one that does so in evaluation, too, means it.
    of_batch = training and not (e.call.module is not None and e.call.module.training)
    if of_batch or running_mean is None or running_var is None:
        lever = "give it running statistics: track_running_stats=True, or training=False"
        raise e.no_form("a batch norm uses the statistics of each batch", why="no integers know them", lever=lever)
    if not all(each is None or is_static(each) for each in (running_mean, running_var, weight, bias)):
        lever = "leave weight and bias away, and multiply and add behind it"
        raise e.no_form("the statistics, weight or bias of a batch norm are computed", lever=lever)
    mean, variance = (each.detach().double().cpu().numpy() for each in (running_mean, running_var))
    factor = 1 / np.sqrt(variance + eps) * (1.0 if weight is None else weight.detach().double().cpu().numpy())
    moved = (0.0 if bias is None else bias.detach().double().cpu().numpy()) - mean * factor
    # A channel's one weight is the largest of its scale: it loses nothing.
    grid = UniformQuantizedType.get(8, np.maximum(np.abs(factor) / 127, 2.0**-100).astype(np.float32), axis=0)
    n, channels, *rest = shape(input)
    kernel = Static(e.build.allow(factor.astype(np.float32).reshape(-1, 1, 1, 1)), e.call.name, grid)
    extents = [n, channels, *rest] if len(rest) == 2 else [n, channels, 1, math.prod(rest)]
    return reshaped(e, e.onnx("Conv", reshaped(e, input, extents), kernel, moved, group=channels), e.shape)


@operation(Kind.COMPUTE, LINALG.matmul, *spellings("bmm"))
def matmul(e: Any, input: Value, other: Value) -> Value:
    """Product of matrices, leading axes broadcast."""
    return e.onnx("MatMul", e.real(input), e.real(other))


@composite(*spellings("matmul", "mm"), *methods("__matmul__", "__rmatmul__"))
def matrix_product(input: Any, other: Any, **named: Any) -> Any:
    """A product with a constant matrix is a linear layer, whose weight has a scale for each column."""
    other = named.pop("mat2", named.pop("tensor2", other)) if named else other
    if is_static(other) and other.dim() == 2:
        return F.linear(input, other.t())
    if is_static(other) and other.dim() == 1:
        return F.linear(input, other.unsqueeze(0)).squeeze(-1)
    return LINALG.matmul(input, other)


@composite(*spellings("addmm", "baddbmm"))
def matrix_product_and_sum(
    input: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1, **named: Any
) -> Any:
    """A matrix product and a sum; a linear layer where matrix and addend are constants."""
    if named:
        raise region_error(53, f"option {sorted(named)[0]} has no form", lever="leave it out")
    if is_static(batch2) and is_static(input) and input.dim() <= 1 and batch2.dim() == 2:
        return F.linear(batch1, alpha * batch2.t(), (beta * input).expand(batch2.shape[1]))
    product = matrix_product(batch1, batch2)
    product = product if alpha == 1 else product * alpha
    return product + (input if beta == 1 else input * beta)


@composite(*spellings("einsum"))
def einsum(equation: str, *operands: Any) -> Any:
    """A sum of products named by letters; its operands are held to grids, and so is the result."""
    one = len(operands) == 1 and isinstance(operands[0], (list, tuple))
    listed: list[Any] = list(cast("Sequence[Any]", operands[0] if one else operands))
    if len(listed) == 1:
        return _summed_up(equation, listed[0])
    if len(listed) == 2:
        return _product(equation, *listed)
    lever = "multiply two at a time"
    raise region_error(
        54, f"einsum '{equation}' has {len(listed)} operands", why="one or two are supported", lever=lever
    )


def _letters(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """The terms and the result of an equation, one letter for each axis. Letters stand for `...`."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [letter for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ" if letter not in equation]
    free = [rank - len(term.replace("...", "")) for term, rank in zip(terms, ranks, strict=True)]
    filled = [term.replace("...", "".join(spare[:count][::-1])) for term, count in zip(terms, free, strict=True)]
    dots = "".join(spare[: max(free)][::-1]) if "..." in left else ""
    every = "".join(filled)
    implied = dots + "".join(sorted(letter for letter in set(every) - set(dots) if every.count(letter) == 1))
    result = right.replace("...", dots) if arrow else implied
    bad = any(len(set(term)) != len(term) or len(term) != rank for term, rank in zip(filled, ranks, strict=True))
    if bad or not set(result) <= set(every):
        lever = "write it with matmul, permute and sum"
        raise region_error(54, f"einsum '{equation}' has no form", why="diagonals are not supported", lever=lever)
    return filled, result


def _summed(x: Any, term: str, kept: str) -> tuple[Any, str]:
    dropped = [at for at, letter in enumerate(term) if letter not in kept]
    return (x.sum(dropped) if dropped else x), "".join(letter for letter in term if letter in kept)


def _ordered(x: Any, term: str, wanted: str) -> Any:
    return x if term == wanted else x.permute([term.index(letter) for letter in wanted])


def _summed_up(equation: str, x: Any) -> Any:
    (term,), result = _letters(equation, [x.dim()])
    return _ordered(*_summed(x, term, result), result)


def _product(equation: str, a: Any, b: Any) -> Any:
    """Two operands as matrices: shared letters of the result are batches, the other shared ones are summed."""
    (left, right), result = _letters(equation, [a.dim(), b.dim()])
    if in_region(b) and not in_region(a):
        a, b, left, right = b, a, right, left  # a constant stands on the right: a linear layer
    a, left = _summed(a, left, right + result)
    b, right = _summed(b, right, left + result)
    extents = dict(zip(left + right, (*a.shape, *b.shape), strict=True))
    batch = "".join(letter for letter in left if letter in right and letter in result)
    inner = "".join(letter for letter in left if letter in right and letter not in result)
    rows, columns = ("".join(letter for letter in term if letter not in batch + inner) for term in (left, right))

    def count(letters: str) -> int:
        return torch.Size([extents[letter] for letter in letters]).numel()

    a, b = _ordered(a, left, batch + rows + inner), _ordered(b, right, batch + inner + columns)
    front = [count(batch)] if batch else []
    if inner:
        a = a.reshape([*front, count(rows), count(inner)])
        c = matrix_product(a, b.reshape([*front, count(inner), count(columns)]))
    else:
        c = a.reshape([*front, count(rows), 1]) * b.reshape([*front, 1, count(columns)])
    made = batch + rows + columns
    return _ordered(c.reshape([extents[letter] for letter in made]), made, result)
