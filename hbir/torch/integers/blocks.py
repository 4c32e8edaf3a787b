"""Long chains of elementwise steps, block by block: what one step writes is still in the cache when the next one reads it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

__all__ = ["block_elements", "in_blocks"]

_ELEMENTS = 1 << 15
"""Elements of a block for each thread: their float64 values fill a quarter of a megabyte."""


def block_elements(device: torch.device) -> int:
    """How many elements are worked on at a time; on other devices than CPUs as many as there are."""
    return _ELEMENTS * torch.get_num_threads() if device.type == "cpu" else 1 << 62


def in_blocks(
    function: Callable[..., None], shape: Sequence[int], dtype: torch.dtype, *operands: torch.Tensor
) -> torch.Tensor:
    """A new tensor filled by `function(out, *operands)` from runs of rows, which are the last axis.

    Operands of the result's shape are cut with it; `function` may broadcast along the last axis, or, where the operands have
    other shapes, however it likes: then there is one block.
    """
    out = torch.empty(tuple(shape), dtype=dtype, device=operands[0].device)
    limit = block_elements(out.device)
    if out.numel() <= 2 * limit or out.ndim < 2 or any(x.shape != out.shape for x in operands):
        function(out, *operands)
        return out
    width = out.shape[-1]
    target, rows = out.view(-1, width), [x.reshape(-1, width) for x in operands]
    step = max(1, limit // width)
    for begin in range(0, len(target), step):
        part = slice(begin, begin + step)
        function(target[part], *(x[part] for x in rows))
    return out
