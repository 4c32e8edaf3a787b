"""Sums, products, rescales and clamps of integers, and the two ends of a region: quantize and dequantize."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hbir.dialects import quantized as q
from hbir.dialects.base import Array, shape_of
from hbir.dialects.quant import quantized_element
from hbir.torch.integers.blocks import in_blocks
from hbir.torch.integers.registry import Prepared, builds, unary
from hbir.torch.integers.rescaling import Requantise, rescaling
from hbir.torch.integers.values import centred, largest, torch_dtype

__all__ = ["requantise"]

_NARROW = 16
"""Codes of up to so many bits, centred, are exact in float32."""


def requantise(op: Any, bound: int, device: torch.device) -> Requantise:
    """The last step of most operations: by `multiplier` and `shift` to `grid`, between `low` and `high`."""
    v = op.values
    return Requantise(
        v["multiplier"], v["shift"], bound, device, zero_point=v["grid"].zero_point, low=v["low"], high=v["high"]
    )


def _blocks(op: Any, function: Callable[..., None]) -> Prepared:
    shape, dtype = shape_of(op.output.type), torch_dtype(op.output.type)
    return Prepared(lambda *operands: in_blocks(function, shape, dtype, *operands))


@builds(q.AddOp, q.SubOp)
def add(op: q.AddOp | q.SubOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """Both operands rescaled to `common_scale`, their sum or difference rescaled to `grid`."""
    v, a, b = op.values, quantized_element(op.lhs.type), quantized_element(op.rhs.type)
    left, x_reach = rescaling(v["lhs_multiplier"], v["lhs_shift"], largest(a), device)
    right, y_reach = rescaling(v["rhs_multiplier"], v["rhs_shift"], largest(b), device)
    last, sign = requantise(op, x_reach + y_reach, device), 1 if isinstance(op, q.AddOp) else -1
    f64 = torch.float64

    def run(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
        last(out, torch.add(left(centred(x, a, f64)), right(centred(y, b, f64)), alpha=sign))

    return _blocks(op, run)


@builds(q.MulOp)
def mul(op: q.MulOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """The product of the centred values, rescaled: at most 34 bits, for codes of up to 16."""
    a, b = quantized_element(op.lhs.type), quantized_element(op.rhs.type)
    last, f64 = requantise(op, largest(a) * largest(b), device), torch.float64

    def run(out: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> None:
        last(out, centred(x, a, f64) * centred(y, b, f64))

    return _blocks(op, run)


@builds(q.RescaleOp)
def rescale(op: q.RescaleOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """One grid to another; multipliers may run along the last axis."""
    v, element, grid = op.values, quantized_element(op.input.type), op.values["grid"]
    low, high = grid.limits
    last = Requantise(
        v["multiplier"], v["shift"], largest(element), device, zero_point=grid.zero_point, low=low, high=high
    )

    def run(out: torch.Tensor, x: torch.Tensor) -> None:
        last(out, centred(x, element, torch.float64))

    return _blocks(op, run)


@builds(q.ClampOp)
def clamp(op: q.ClampOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """Codes held between two bounds."""
    del device
    low, high = op.values["low"], op.values["high"]
    return unary(lambda x: x.clamp(low, high))


@builds(q.QuantizeOp)
def quantize(op: q.QuantizeOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """`clamp(rint(x / scale) + zp)`: one float32 division, half to even; NaN becomes the smallest code."""
    grid = op.values["grid"]
    zero, (low, high) = grid.zero_point, grid.limits
    # Bounds of int32 need float64; steps are rounded before.
    dtype = torch.float32 if grid.bits <= _NARROW else torch.float64
    # A tensor on the device: by a number of the host, CUDA multiplies with its reciprocal.
    scale = torch.tensor(grid.scale, dtype=torch.float32, device=device)

    def run(out: torch.Tensor, x: torch.Tensor) -> None:
        steps = (x / scale).round_().to(dtype).nan_to_num_(nan=low - zero, posinf=high - zero, neginf=low - zero)
        out.copy_(steps.clamp_(low - zero, high - zero).add_(zero))

    return _blocks(op, run)


@builds(q.DequantizeOp)
def dequantize(op: q.DequantizeOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """`(q - zp) * scale`, rounded once to float32; scales may run along the last axis."""
    grid = op.values["grid"]
    # A narrow code times a float32 is rounded once in float32; an accumulator is first multiplied in float64, as the
    # definition has it.
    dtype = torch.float32 if grid.bits <= _NARROW else torch.float64
    scales = torch.as_tensor(grid.scale_array.copy(), device=device).to(dtype)
    scale = scales.reshape(()) if grid.per_axis is None else scales

    def run(out: torch.Tensor, x: torch.Tensor) -> None:
        out.copy_(centred(x, grid, dtype).mul_(scale))

    return _blocks(op, run)
