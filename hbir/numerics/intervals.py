"""Bounds on integers: what an accumulator can reach with the actual weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["accumulator_bounds"]


def accumulator_bounds(
    weight: npt.NDArray[Any], bias: npt.NDArray[Any] | None, low: int, high: int, zero_point: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Smallest and largest `bias[c] + sum((x - zp) * w[c])` over all inputs in [low, high], per output channel (int64).

    Every partial sum lies between the bounds of the products summed with the bias, whatever the order, because 0 is
    inside [low - zp, high - zp] and padding contributes 0: `smallest` sums only negative terms, `largest` only positive ones.
    """
    flat = weight.reshape(weight.shape[0], -1)
    positive = np.maximum(flat, 0).sum(axis=1, dtype=np.int64)
    negative = np.minimum(flat, 0).sum(axis=1, dtype=np.int64)
    below, above = min(low - zero_point, 0), max(high - zero_point, 0)
    offset = np.zeros(flat.shape[0], np.int64) if bias is None else bias.astype(np.int64)
    return offset + positive * below + negative * above, offset + positive * above + negative * below
