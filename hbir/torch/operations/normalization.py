"""Softmax, and the norms that are put together from means, squares and reciprocal roots.

No unit computes such a norm at once. Each part has a grid of its own, so that the parts show what is lost where; their squares
and reciprocals span wide ranges, for which sixteen bits are advisable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import SPECIAL, F, check_float32, shape
from hbir.torch.operations.registry import Kind, composite, operation, spellings

__all__: list[str] = []


def _implicit(dim: int | None, rank: int) -> int:
    """The axis that PyTorch takes when none is named."""
    return (0 if rank in (0, 1, 3) else 1) if dim is None else dim


@operation(Kind.COMPUTE, *spellings("softmax"), SPECIAL.softmax)
def softmax(e: Any, input: Value, dim: int | None = None, *rest: Any, dtype: Any = None, **_: Any) -> Value:
    """`exp(x) / sum(exp(x))` along an axis."""
    check_float32(e, next((each for each in rest if isinstance(each, torch.dtype)), dtype))
    return e.onnx("Softmax", input, axis=_implicit(dim, len(shape(input))))


@composite(*spellings("log_softmax"), SPECIAL.log_softmax)
def log_softmax(input: Any, dim: int | None = None, *_: Any, **named: Any) -> Any:
    """`x - max - log(sum(exp(x - max)))`."""
    axis = _implicit(dim, input.dim())
    shifted = input - torch.amax(input, axis, True)
    return shifted - torch.log(torch.sum(torch.exp(shifted), axis, True))


@composite(F.softmin)
def softmin(input: Any, dim: int | None = None, *_: Any, **named: Any) -> Any:
    """The softmax of the negative."""
    return torch.softmax(-input, _implicit(dim, input.dim()))


def _standardised(x: Any, axes: Sequence[int], eps: float) -> Any:
    """`(x - mean) / sqrt(variance + eps)`."""
    centred = x - torch.mean(x, list(axes), True)
    variance = torch.mean(torch.square(centred), list(axes), True)
    return centred * torch.rsqrt(variance + eps)


def _affine(x: Any, weight: Any, bias: Any, extents: Sequence[int] | None = None) -> Any:
    """`x * weight + bias` with both under a shape that broadcasts."""
    weight, bias = (None if p is None else p if extents is None else p.reshape(extents) for p in (weight, bias))
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


@composite(F.layer_norm, torch.layer_norm)
def layer_norm(
    input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    """Statistics over the last axes, then a product and a sum: mean, square and reciprocal root have grids of their own."""
    y = _standardised(input, range(-len(normalized_shape), 0), eps)
    return _affine(y, weight, bias)


@composite(F.rms_norm, torch.rms_norm)
def rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Any:
    """A product with the reciprocal root of the mean of squares over the last axes."""
    axes = list(range(-len(normalized_shape), 0))
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    y = input * torch.rsqrt(torch.mean(torch.square(input), axes, True) + eps)
    return _affine(y, weight, None)


@composite(F.group_norm, torch.group_norm)
def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Any:
    """Statistics of each image and group of channels: mean, square and reciprocal root have grids of their own."""
    count = math.prod(input.shape[1:]) // num_groups
    y = _standardised(input.reshape(input.shape[0], num_groups, count), [2], eps).reshape(input.shape)
    return _affine(y, weight, bias, [-1, *[1] * (input.dim() - 2)])


@composite(torch.batch_norm)
def native_batch_norm(
    input: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = True,
) -> Any:
    """The same under PyTorch's inner name, whose parameters have another order."""
    return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)


@composite(F.instance_norm)
def instance_norm(
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Statistics of each image and channel; with running statistics it is a batch norm."""
    if not use_input_stats:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    y = _standardised(input, range(2, input.dim()), eps)
    return _affine(y, weight, bias, [-1, *[1] * (input.dim() - 2)])


@composite(F.local_response_norm)
def local_response_norm(input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """The sum of squares of neighbouring channels is a linear layer over channels; its power is a table."""
    channels = input.shape[1]
    apart = torch.arange(channels, device=input.device) - torch.arange(channels, device=input.device)[:, None]
    band = ((apart >= -(size // 2)) & (apart <= (size - 1) // 2)).float() * (alpha / size)
    squares = torch.square(input).movedim(1, -1)
    total = F.linear(squares, band, torch.full((channels,), float(k), device=input.device)).movedim(-1, 1)
    return input * torch.pow(total, -beta)


@composite(F.cosine_similarity)
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """The sum of the products of two normalised tensors."""
    return torch.sum(F.normalize(x1, dim=dim, eps=eps) * F.normalize(x2, dim=dim, eps=eps), dim)
