"""A kernel that is run many times on buffers that mostly stay where they are: bound once, bound again only when they move.

The interpreter runs one network on one input after another. With results in buffers of their own, the operands of the next
operation stand still, and what a call resolves (types, shapes, scratch memory) is resolved once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.kernels.common import address

__all__ = ["reusing"]

Array = npt.NDArray[Any]


def reusing(
    bind: Callable[..., Callable[[], object]], shape: Sequence[int], dtype: npt.DTypeLike
) -> Callable[..., Array]:
    """A function of the operands that `bind(*operands, out=buffer)` takes (None for absent ones).

    Its result is always the same buffer, which the next call overwrites: for one run at a time.
    """
    buffer: Array | None = None
    key: tuple[Any, ...] = ()
    step: Callable[[], object] | None = None

    def call(*operands: Array | None) -> Array:
        nonlocal buffer, key, step
        if buffer is None:
            buffer = np.empty(tuple(shape), dtype)
        here = tuple((address(x), x.strides) for x in operands if x is not None)
        if step is None or here != key:
            step, key = bind(*operands, out=buffer), here
        step()
        return buffer

    return call
