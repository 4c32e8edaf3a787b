"""One calibrated model for the tests that only read it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from tests.hbir.torch.debugging.models import Chain, calibrated, chain


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def pair() -> tuple[Chain, nn.Module]:
    """A float model, and the same calibrated."""
    model = chain()
    return model, calibrated(model)
