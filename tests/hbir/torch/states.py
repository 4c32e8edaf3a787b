"""A prepared model on its way through the states."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hbir.torch.quantization import FakeQuantState, set_fake_quantize

__all__ = ["calibrated", "validated"]


def calibrated(prepared: nn.Module, *args: Any) -> Any:
    """The model, calibrated on one call and still in the state CALIBRATION."""
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        prepared(*args)
    return prepared


def validated(prepared: nn.Module, *args: Any) -> Any:
    """The model, calibrated on one call and in the state VALIDATION."""
    calibrated(prepared, *args).eval()
    set_fake_quantize(prepared, FakeQuantState.VALIDATION)
    return prepared
