"""Recurrent layers, unrolled: each step is a linear layer, tables and products, with grids of their own."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch

from hbir.torch.operations.common import F, region_error
from hbir.torch.operations.registry import composite
from hbir.torch.tracing.scopes import current

__all__: list[str] = []

Step = Callable[[Any, Any, Any, Any], tuple[Any, ...]]
"""From the input's gates, the state, and weight and bias of the state's gates to the next state."""


@contextlib.contextmanager
def _numbers(count: int) -> Generator[None]:
    """The operations inside take `count` numbers of their module, all of them or none: those of a constant state do not run.

    A layer may be called with a constant first and then with its own state: what follows has the same numbers in both calls.
    """
    scope = current()
    first = 0 if scope is None else scope.count
    yield
    if scope is not None:
        scope.count = first + count


def _starts_at_zero(state: Any) -> bool:
    """Whether a state is of zeros for good, as a layer begins with; a parameter is zero only until it is trained."""
    if type(state) is not torch.Tensor or state.requires_grad or isinstance(state._base, torch.nn.Parameter):
        return False
    return not bool(state.any())


def _state_gates(gates: Any, h: Any, weight: Any, bias: Any) -> Any:
    """The gates with the state's part; a state of zeros leaves its bias."""
    with _numbers(1):
        part = bias if _starts_at_zero(h) else F.linear(h, weight, bias)
    with _numbers(1):
        return gates if part is None else gates + part


def _lstm_step(gates: Any, state: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    h, c = state
    i, f, g, o = torch.chunk(_state_gates(gates, h, weight, bias), 4, -1)
    new = torch.sigmoid(i) * torch.tanh(g)
    with _numbers(3):
        c = new if _starts_at_zero(c) else torch.sigmoid(f) * c + new
    return torch.sigmoid(o) * torch.tanh(c), c


def _gru_step(gates: Any, state: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
    (h,) = state
    xr, xz, xn = torch.chunk(gates, 3, -1)
    # All three of the state: the new value takes its part behind the reset gate.
    with _numbers(2):
        hr, hz, hn = torch.chunk(F.linear(h, weight, bias), 3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    return (n + z * (h - n),)


def _rnn_step(activation: Callable[[Any], Any]) -> Step:
    def step(gates: Any, state: Any, weight: Any, bias: Any) -> tuple[Any, ...]:
        return (activation(_state_gates(gates, state[0], weight, bias)),)

    return step


def _unrolled(step: Step, x: Any, state: Sequence[Any], weights: Sequence[Any], backwards: bool) -> Any:
    """One layer in one direction over (length, batch, channels): the outputs in order, and the last state."""
    w_ih, w_hh, b_ih, b_hh = weights
    gates = F.linear(x, w_ih, b_ih)
    parts = list(torch.unbind(gates, 0))
    outputs: list[Any] = []
    now = tuple(state)
    for part in reversed(parts) if backwards else parts:
        now = step(part, now, w_hh, b_hh)
        outputs.append(now[0])
    return torch.stack(outputs[::-1] if backwards else outputs), now


def _at(states: Any, number: int) -> Any:
    with _numbers(1):
        return states[number]


def _layers(step: Step, parts: int, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """A stack of layers in PyTorch's flat form: the outputs, and the last states of all layers."""
    if len(args) != 9:
        lever = "give a padded tensor, and cut behind the DeQuantStub"
        raise region_error(53, "a packed sequence has no form", why="its lengths are data", lever=lever)
    x, hx, flat, bias, layers, dropout, training, both, batch_first = args
    states = list(hx) if parts == 2 else [hx]
    x = x.transpose(0, 1) if batch_first else x
    each = 4 if bias else 2
    ways = 2 if both else 1
    if len(flat) != each * layers * ways:
        raise region_error(53, "a recurrent layer with proj_size has no form", lever="put a linear layer behind it")
    last: list[tuple[Any, ...]] = []
    for layer in range(layers):
        results: list[Any] = []
        for way in range(ways):
            number = layer * ways + way
            weights = [*flat[number * each : (number + 1) * each], None, None][:4]
            outputs, state = _unrolled(step, x, [_at(part, number) for part in states], weights, way == 1)
            results.append(outputs)
            last.append(state)
        x = torch.cat(results, -1) if both else results[0]
        x = F.dropout(x, dropout, training) if dropout and layer < layers - 1 else x
    ends = [torch.stack([state[part] for state in last]) for part in range(parts)]
    return (x.transpose(0, 1) if batch_first else x, *ends)


@composite(torch.lstm)
def lstm(*args: Any) -> Any:
    """Unrolled over the steps of the sequence: no unit keeps a state."""
    return _layers(_lstm_step, 2, args)


@composite(torch.gru)
def gru(*args: Any) -> Any:
    """Unrolled over the steps of the sequence: no unit keeps a state."""
    return _layers(_gru_step, 1, args)


@composite(torch.rnn_tanh)
def rnn_tanh(*args: Any) -> Any:
    """Unrolled over the steps of the sequence: no unit keeps a state."""
    return _layers(_rnn_step(torch.tanh), 1, args)


@composite(torch.rnn_relu)
def rnn_relu(*args: Any) -> Any:
    """Unrolled over the steps of the sequence: no unit keeps a state."""
    return _layers(_rnn_step(torch.relu), 1, args)


@composite(torch.lstm_cell)
def lstm_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step: two linear layers, five tables, three products."""
    return _lstm_step(F.linear(input, w_ih, b_ih), tuple(hx), w_hh, b_hh)


@composite(torch.gru_cell)
def gru_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step: two linear layers, three tables, two products."""
    return _gru_step(F.linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@composite(torch.rnn_tanh_cell)
def rnn_tanh_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step: two linear layers and a table."""
    return _rnn_step(torch.tanh)(F.linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]


@composite(torch.rnn_relu_cell)
def rnn_relu_cell(input: Any, hx: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
    """One step: two linear layers and a relu."""
    return _rnn_step(torch.relu)(F.linear(input, w_ih, b_ih), (hx,), w_hh, b_hh)[0]
