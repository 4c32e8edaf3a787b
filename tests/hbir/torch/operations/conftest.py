"""Fixtures of the tests of operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.hbir.torch.operations.runs import EPSILON, Run


@pytest.fixture
def x() -> torch.Tensor:
    """A batch of two images with four channels."""
    return torch.randn(2, 4, 6, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def same() -> Callable[..., Run]:
    """`same(function, *inputs, terms=64)`: run both, compare, and return the run.

    Both compute in float32 with at most `terms` roundings on the way to each element, each relative to a value that is at most
    `reach` times as large as the largest result or 1.
    """

    def compare(function: Callable[..., Any], *inputs: torch.Tensor, terms: int = 64, reach: float = 4.0) -> Run:
        run = Run(function, inputs)
        assert len(run.got) == len(run.expected) > 0
        for got, expected in zip(run.got, run.expected, strict=True):
            assert got.shape == expected.shape
            if expected.dtype.kind == "i":
                assert (got == expected).all()
                continue
            bound = terms * EPSILON * reach * max(1.0, float(np.abs(expected).max(initial=0)))
            assert float(np.abs(got - expected).max(initial=0)) <= bound
        return run

    return compare
