"""Pooling over windows."""

from __future__ import annotations

from typing import Any

import torch

from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import F, per_axis, region_error, reshaped, shape
from hbir.torch.operations.registry import Kind, composite, operation

__all__: list[str] = []


def _batched(e: Any, x: Value, axes: int) -> Value:
    """With the batch axis that PyTorch lets one leave out."""
    return x if len(shape(x)) == axes + 2 else reshaped(e, x, [1, *shape(x)])


def _stride(stride: Any, kernel: list[int], axes: int) -> list[int]:
    """The stride; the kernel where none is given."""
    return kernel if stride is None or stride == [] or stride == () else per_axis(stride, axes)


def _grows(size: int, kernel: int, stride: int, pad: int) -> bool:
    """Whether rounding the number of windows up makes one more, which starts inside the input or its left padding."""
    down = (size + 2 * pad - kernel) // stride + 1
    return down * stride < size + pad and (size + 2 * pad - kernel) % stride != 0


def _max_pool(e: Any, x: Value, axes: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil: bool) -> Value:
    window = per_axis(kernel, axes)
    y = e.onnx(
        *("MaxPool", _batched(e, x, axes)),
        kernel_shape=window,
        strides=_stride(stride, window, axes),
        pads=per_axis(padding, axes) * 2,
        dilations=per_axis(dilation, axes),
        ceil_mode=int(ceil),
    )
    return reshaped(e, y, e.shape)


@operation(Kind.KEEP, F.max_pool1d, torch.max_pool1d)
def max_pool1d(
    e: Any,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """The largest value of each window of a sequence."""
    return _max_pool(e, input, 1, kernel_size, stride, padding, dilation, ceil_mode)


@operation(Kind.KEEP, F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    e: Any,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    """The largest value of each window of an image."""
    return _max_pool(e, input, 2, kernel_size, stride, padding, dilation, ceil_mode)


def _avg_pool(
    e: Any, x: Value, axes: int, kernel: Any, stride: Any, padding: Any, ceil: bool, count_include_pad: bool
) -> Value:
    x = _batched(e, x, axes)
    window, pads = per_axis(kernel, axes), per_axis(padding, axes)
    steps = _stride(stride, window, axes)
    ceil = ceil and any(map(_grows, shape(x)[2:], window, steps, pads))
    if count_include_pad and not ceil and any(pads):
        # Zeros around the image count as values of it.
        x, pads = e.onnx("Pad", x, [0, 0, *pads, 0, 0, *pads], 0.0), [0] * axes
    counted = int(count_include_pad and any(pads))
    named = {"strides": steps, "pads": pads * 2, "ceil_mode": int(ceil), "count_include_pad": counted}
    return reshaped(e, e.onnx("AveragePool", x, kernel_shape=window, **named), e.shape)


@operation(Kind.KEEP, F.avg_pool1d)
def avg_pool1d(
    e: Any,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Value:
    """The mean of each window of a sequence, on the grid of its operand."""
    return _avg_pool(e, input, 1, kernel_size, stride, padding, ceil_mode, count_include_pad)


@operation(Kind.KEEP, F.avg_pool2d)
def avg_pool2d(
    e: Any,
    input: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    """The mean of each window of an image, on the grid of its operand."""
    if divisor_override is not None:
        raise e.no_form("average pooling with a divisor of its own has no form", lever="multiply behind it")
    return _avg_pool(e, input, 2, kernel_size, stride, padding, ceil_mode, count_include_pad)


def _spans(size: int, out: int) -> list[tuple[int, int]]:
    """The window of each position of an adaptive pool."""
    return [(at * size // out, -(-(at + 1) * size // out)) for at in range(out)]


def _sizes(x: Any, output_size: Any, axes: int) -> list[tuple[int, int]]:
    """(input, output) extents of an adaptive pool."""
    wanted = [output_size] * axes if output_size is None or isinstance(output_size, int) else list(output_size)
    wanted = wanted * axes if len(wanted) == 1 else wanted
    return [(size, size if out is None else out) for size, out in zip(x.shape[-axes:], wanted, strict=True)]


def _adaptive_avg(x: Any, output_size: Any, axes: int) -> Any:
    sizes = _sizes(x, output_size, axes)
    if all(out == 1 for _, out in sizes):
        return torch.mean(x, list(range(-axes, 0)), True)
    if all(size % out == 0 for size, out in sizes):
        pool = F.avg_pool2d if axes == 2 else F.avg_pool1d
        return pool(x, [size // out for size, out in sizes])
    for dim, (size, out) in zip(range(-axes, 0), sizes, strict=True):
        parts = [torch.mean(x.narrow(dim, a, b - a), [dim], True) for a, b in _spans(size, out)]
        x = torch.cat(parts, dim) if size != out else x
    return x


@composite(F.adaptive_avg_pool1d, torch.adaptive_avg_pool1d)
def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """A mean, windows of one size, or means of windows of different sizes side by side."""
    return _adaptive_avg(input, output_size, 1)


@composite(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """A mean, windows of one size, or means of windows of different sizes side by side."""
    return _adaptive_avg(input, output_size, 2)


def _adaptive_max(x: Any, output_size: Any, axes: int, indices: bool) -> Any:
    if indices:
        raise region_error(53, "the indices of a pool have no form", lever="use return_indices=False")
    sizes = _sizes(x, output_size, axes)
    if all(out == 1 for _, out in sizes):
        return torch.amax(x, list(range(-axes, 0)), True)
    if all(size % out == 0 for size, out in sizes):
        pool = F.max_pool2d if axes == 2 else F.max_pool1d
        return pool(x, [size // out for size, out in sizes])
    for dim, (size, out) in zip(range(-axes, 0), sizes, strict=True):
        parts = [torch.amax(x.narrow(dim, a, b - a), [dim], True) for a, b in _spans(size, out)]
        x = torch.cat(parts, dim) if size != out else x
    return x


@composite(F.adaptive_max_pool1d)
def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """A maximum, windows of one size, or maxima of windows of different sizes side by side."""
    return _adaptive_max(input, output_size, 1, return_indices)


@composite(F.adaptive_max_pool2d)
def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """A maximum, windows of one size, or maxima of windows of different sizes side by side."""
    return _adaptive_max(input, output_size, 2, return_indices)
