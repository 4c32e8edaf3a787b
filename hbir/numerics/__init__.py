"""The room where rounding is written down: integer rescales, multipliers from float scales, and float <-> integer."""

from __future__ import annotations

from hbir.numerics.rescale import (
    MAX_SHIFT,
    MIN_SHIFT,
    apply_scale,
    quantize_multiplier,
    reciprocal_scale,
    rescale,
    storage_dtype,
)
from hbir.numerics.rounding import dequantize, fake_quantize, quantize, quantized_range

__all__ = [
    "MAX_SHIFT",
    "MIN_SHIFT",
    "apply_scale",
    "dequantize",
    "fake_quantize",
    "quantize",
    "quantize_multiplier",
    "quantized_range",
    "reciprocal_scale",
    "rescale",
    "storage_dtype",
]
