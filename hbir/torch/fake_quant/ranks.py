"""What the processes of a distributed training do together: after a step all have seen the same values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
import torch.distributed

from passes.common.observers import Histogram

dist: Any = torch.distributed

__all__ = ["histogram_of_all", "range_of_all"]


def _alone() -> bool:
    return not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)


def range_of_all(low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The smallest and largest values of all processes. NaN becomes infinite, so that all processes find it."""
    if _alone():
        return low, high
    both = torch.stack([-low, high])
    both = torch.where(both.isnan(), torch.inf, both)
    dist.all_reduce(both, op=dist.ReduceOp.MAX)
    return -both[0], both[1]


def histogram_of_all(histogram: Histogram, device: torch.device) -> Histogram:
    """The histogram of the values of all processes."""
    if _alone():
        return histogram
    ends = torch.tensor([-histogram.low, histogram.high, histogram.reach], dtype=torch.float64, device=device)
    dist.all_reduce(ends, op=dist.ReduceOp.MAX)
    low, high, reach = (float(end) for end in ends)
    total = Histogram(reach=reach)
    total.merge(histogram)
    counts = torch.tensor(total.counts.tolist(), dtype=torch.int64, device=device)
    dist.all_reduce(counts)
    return Histogram(np.asarray(cast(Any, counts.cpu()).numpy(), np.int64), reach, -low, high)
