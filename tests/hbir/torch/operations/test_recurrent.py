"""Recurrent layers, unrolled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "both ways": {"bidirectional": True},
    "two layers": {"num_layers": 2},
    "batch first without bias": {"batch_first": True, "bias": False},
    "all": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("name", OPTIONS)
def test_layers(kind: type[nn.Module], name: str, same: Callable[..., Any]) -> None:
    # Each step adds its roundings to those of the steps before.
    same(kind(8, 5, **OPTIONS[name]), torch.randn(4, 3, 8), terms=256)


def test_states_and_cells(same: Callable[..., Any]) -> None:
    lstm, cell, gru = nn.LSTM(8, 5), nn.LSTMCell(8, 5), nn.GRUCell(8, 5)
    same(lambda v, h, c: lstm(v, (h, c)), torch.randn(4, 3, 8), torch.randn(1, 3, 5), torch.randn(1, 3, 5))
    same(lstm, torch.randn(4, 8))
    same(nn.RNN(8, 5, nonlinearity="relu"), torch.randn(4, 3, 8))
    same(lambda v, h, c: cell(v, (h, c)), torch.randn(3, 8), torch.randn(3, 5), torch.randn(3, 5))
    same(cell, torch.randn(3, 8))
    same(gru, torch.randn(3, 8), torch.randn(3, 5))
    same(nn.RNNCell(8, 5), torch.randn(3, 8))


def test_refused(same: Callable[..., Any]) -> None:
    with pytest.raises(TrainingError, match="HB0953.*proj_size"):
        same(nn.LSTM(8, 5, proj_size=2), torch.randn(4, 3, 8))
