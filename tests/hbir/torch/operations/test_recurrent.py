"""Recurrent layers, unrolled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, prepare, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
from passes import convert

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


class Steps(nn.Module):
    """A cell or a layer that runs twice on an input, from a first state to its own."""

    def __init__(self, cell: nn.Module, first: Any = None) -> None:
        super().__init__()
        self.quant, self.dequant, self.cell, self.first = QuantStub(), DeQuantStub(), cell, first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.quant(x)
        if isinstance(self.cell, nn.RNNBase):
            y, state = self.cell(x, self.first)
            return self.dequant(self.cell(y, state)[0])
        state = self.cell(x, self.cell(x, self.first))
        return self.dequant(state[0] if isinstance(state, tuple) else state)


ZEROS, STATE = torch.zeros(3, 5), torch.rand(3, 5) - 0.5


def learned() -> torch.Tensor:
    """An initial state that training will change."""
    return nn.Parameter(torch.zeros(3, 5))


STEPPED: dict[str, Callable[[], nn.Module]] = {
    **{kind.__name__: lambda kind=kind: Steps(kind(8, 5)) for kind in (nn.LSTMCell, nn.GRUCell, nn.RNNCell)},
    "LSTM without bias": lambda: Steps(nn.LSTMCell(8, 5, bias=False)),
    "RNN without bias": lambda: Steps(nn.RNNCell(8, 5, bias=False)),
    "LSTM from zeros": lambda: Steps(nn.LSTMCell(8, 5), (ZEROS, ZEROS)),
    "LSTM from a state": lambda: Steps(nn.LSTMCell(8, 5), (STATE, ZEROS)),
    "LSTM from a learned state": lambda: Steps(nn.LSTMCell(8, 5), (learned(), learned())),
    "GRU from a state": lambda: Steps(nn.GRUCell(8, 5), STATE),
    "RNN from a state": lambda: Steps(nn.RNNCell(8, 5), STATE),
    "LSTM layers": lambda: Steps(nn.LSTM(8, 8, num_layers=2)),
    "GRU layers": lambda: Steps(nn.GRU(8, 8, num_layers=2)),
    "RNN layer": lambda: Steps(nn.RNN(8, 8)),
}


@pytest.mark.parametrize("name", STEPPED)
def test_from_a_constant_state_to_a_computed_one(name: str) -> None:
    set_march(March.NASH_E)
    torch.manual_seed(0)
    model = STEPPED[name]().eval()
    x = torch.randn(*([2] if isinstance(model.cell, nn.RNNBase) else []), 3, 8)
    prepared = prepare(model, x)
    with torch.no_grad():
        expected = model(x)
        set_fake_quantize(prepared.eval(), FakeQuantState.CALIBRATION)
        prepared(x)
    set_fake_quantize(prepared.train(), FakeQuantState.QAT)
    prepared(x).square().mean().backward()
    set_fake_quantize(prepared.eval(), FakeQuantState.VALIDATION)
    with torch.no_grad():
        got = prepared(x)
    (integers,) = convert(export(prepared, x), March.NASH_E)[0](x.numpy())
    assert (got.numpy() == integers).all()
    # Results lie within 1, in steps of 1/127; roundings of gates, tables and products add up over at most eight steps.
    assert (got - expected).abs().max() < 0.08


def test_a_learned_state_that_begins_at_zero() -> None:
    set_march(March.NASH_E)

    class Learned(Steps):
        def __init__(self) -> None:
            super().__init__(nn.LSTMCell(8, 5))
            self.h = nn.Parameter(torch.zeros(1, 5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            h = self.h.expand(3, 5)
            return self.dequant(self.cell(self.quant(x), (h, h))[0])

    x = torch.randn(3, 8)
    prepared: Any = prepare(Learned().eval(), x)
    set_fake_quantize(prepared.train(), FakeQuantState.QAT)
    for _ in range(2):
        prepared(x).sum().backward()
        with torch.no_grad():
            prepared.h += prepared.h.grad
    assert bool(prepared.h.any())
    set_fake_quantize(prepared.eval(), FakeQuantState.VALIDATION)
    (integers,) = convert(export(prepared, x), March.NASH_E)[0](x.numpy())
    with torch.no_grad():
        assert (prepared(x).numpy() == integers).all()


def test_a_state_that_is_an_input_without_a_stub() -> None:
    set_march(March.NASH_E)

    class Given(Steps):
        def forward(self, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
            return self.dequant(self.cell(self.quant(x), h))

    with pytest.raises(TrainingError, match="HB0911"):
        prepare(Given(nn.RNNCell(8, 5)).eval(), (torch.randn(3, 8), torch.zeros(3, 5)))
