"""Float arithmetic of which exactness can be proven: no gradients, no narrower formats, no algorithms that divide.

Sums of products of integers are exact in any order while every partial sum is representable. That is lost where a library
rounds operands (TF32, bfloat16, autocast) or multiplies transformed operands (Winograd, FFT).
"""

from __future__ import annotations

import platform
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any, cast

import torch

__all__ = ["exact_arithmetic", "has_direct_convolution"]

_backends: Any = torch.backends


def _switches(device: torch.device) -> list[Any]:
    """Whatever chooses the format of float32 products on a device."""
    if device.type == "cuda":
        return [_backends.cuda.matmul]
    return [_backends.mkldnn.matmul, _backends.mkldnn.conv]


@contextmanager
def exact_arithmetic(device: torch.device) -> Generator[None]:
    """Within it, float32 products and sums on `device` are IEEE's. The user's settings come back afterwards."""
    switches = _switches(device)
    before = [cast(str, switch.fp32_precision) for switch in switches]
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(torch.autocast(device.type, enabled=False))
        # NNPACK takes convolutions of large batches by Winograd's algorithm.
        stack.enter_context(_backends.nnpack.flags(enabled=False))
        try:
            for switch in switches:
                switch.fp32_precision = "ieee"
            yield
        finally:
            for switch, precision in zip(switches, before, strict=True):
                switch.fp32_precision = precision


def has_direct_convolution(device: torch.device) -> bool:
    """Whether float32 `conv2d` there sums products as they stand: oneDNN on x86, of which PyTorch asks the direct algorithm.

    On other machines oneDNN passes convolutions on to libraries that choose for themselves, as cuDNN does.
    """
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return device.type == "cpu" and x86 and bool(_backends.mkldnn.is_available())
