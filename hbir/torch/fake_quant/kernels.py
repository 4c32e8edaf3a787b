"""The arithmetic of fake quantisation on tensors, with the gradients of training.

`held` is `clamp(rint(x / scale), limits) * scale` in float32: the division is one, as the integers' definition has it, not a
product with the reciprocal, which differs at ties. On a CPU four vectorised steps in place cost an eighth of PyTorch's kernel.
"""

from __future__ import annotations

from typing import Any, cast

import torch

__all__ = ["bounded", "held", "held_learning"]

_torch: Any = torch

Limits = tuple[int, int]


def _spread(scale: torch.Tensor, axis: int | None, dims: int) -> torch.Tensor:
    """The scale in a shape that fits tensors of that many dimensions."""
    if axis is None:
        return scale
    shape = [1] * dims
    shape[axis] = -1
    return scale.reshape(shape)


def _rounded(x: torch.Tensor, scale: torch.Tensor, limits: Limits) -> torch.Tensor:
    return torch.div(x, scale).round_().clamp_(*limits).mul_(scale)


class _Held(torch.autograd.Function):
    """Values on the grid; the gradient is that of the identity inside the range, and 0 outside."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, limits: Limits) -> torch.Tensor:
        # The scale of a step may be overwritten before the step's gradients are computed: activations of a module that
        # runs twice. So its value is kept, not the buffer.
        ctx.save_for_backward(x)
        ctx.scale, ctx.limits = float(scale) if scale.numel() == 1 else scale.clone(), limits
        return _rounded(x, scale, limits)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,), (gradient,) = ctx.saved_tensors, gradients
        low, high = ctx.limits[0] - 0.5, ctx.limits[1] + 0.5
        # One pass: the gradient of a clamp to the range.
        if isinstance(ctx.scale, float):
            return torch.ops.aten.hardtanh_backward(gradient, x, low * ctx.scale, high * ctx.scale), None, None
        return torch.ops.aten.hardtanh_backward(gradient, torch.div(x, ctx.scale), low, high), None, None


class _Bounded(torch.autograd.Function):
    """The value; gradients that are no numbers become 0."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        del ctx
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        del ctx
        return torch.nan_to_num(gradients[0], nan=0.0, posinf=0.0, neginf=0.0)


def bounded(x: Any) -> Any:
    """What a function with points of infinite slope is given, so that a value on such a point stays where it is in training;
    anything but a tensor with a gradient comes back as it is."""
    if isinstance(x, torch.Tensor) and x.requires_grad:
        return cast(Any, _Bounded).apply(x)
    return x


def held(x: torch.Tensor, scale: torch.Tensor, axis: int | None, limits: Limits) -> torch.Tensor:
    """A float tensor on the grid of float32 `scale`, one or one for each slice along `axis`; same shape and dtype.

    Gradients go straight through where `x` is inside the range, and stop outside. None goes to `scale`.
    """
    if x.dtype != torch.float32:
        return held(x.float(), scale, axis, limits).to(x.dtype)
    scale = _spread(scale.detach(), axis, x.dim())
    if torch.is_grad_enabled() and x.requires_grad and not _torch.jit.is_tracing():
        return cast(torch.Tensor, cast(Any, _Held).apply(x, scale, limits))
    return _rounded(x, scale, limits)


def held_learning(x: torch.Tensor, scale: torch.Tensor, axis: int | None, limits: Limits) -> torch.Tensor:
    """`held`, with a gradient for `scale` also (learned step size, arXiv:1902.08153), by PyTorch's kernels.

    The gradient of the scale is divided by `sqrt(n * largest)`, with n the number of values that share a scale.
    """
    if x.dtype != torch.float32:
        return held_learning(x.float(), scale, axis, limits).to(x.dtype)
    factor = (x.numel() / max(scale.numel(), 1) * limits[1]) ** -0.5 if x.numel() else 1.0
    zeros = torch.zeros_like(scale.detach())
    if axis is None:
        return _torch._fake_quantize_learnable_per_tensor_affine(x, scale, zeros, *limits, factor)
    return _torch._fake_quantize_learnable_per_channel_affine(x, scale, zeros, axis, *limits, factor)
