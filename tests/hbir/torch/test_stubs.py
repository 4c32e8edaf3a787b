"""The borders of the region: what enters twice, never, or as a constant; and models that go over their children."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import backends
from hbir.dialects.quantized import Conv2dOp
from hbir.errors import TrainingError
from hbir.module import Module
from hbir.torch import March, set_march
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, hbdk4, prepare, set_fake_quantize
from passes import convert
from tests.hbir.torch import states

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(4))


@pytest.fixture(autouse=True)
def march() -> None:
    set_march(March.NASH_M)


class Net(nn.Module):
    def __init__(self, body: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.quant, self.again = QuantStub(), QuantStub()
        self.dequant, self.other = DeQuantStub(), DeQuantStub()
        self.conv, self.head = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.bias = nn.Parameter(torch.randn(1, 3, 1, 1))
        self.register_buffer("memory", torch.ones(1, 3, 1, 1))
        self.body = body

    def forward(self, x: torch.Tensor) -> Any:
        return self.body(self, x)


def validated(model: nn.Module, *inputs: torch.Tensor) -> nn.Module:
    return states.validated(prepare(model.eval(), inputs), *inputs)


def exact(prepared: nn.Module, folder: Path, *inputs: torch.Tensor) -> Module:
    """The integers, which agree with PyTorch and with the simulator."""
    integers = convert(hbdk4.export(prepared, inputs), March.NASH_M)
    expected = prepared(*inputs).detach()
    feeds = [x.numpy() for x in inputs]
    binary = backends.compile(integers, folder / "m.hbm", March.NASH_M, opt=0)
    assert torch.equal(torch.from_numpy(integers[0](*feeds)[0]), expected)
    assert torch.equal(torch.from_numpy(binary[0](*feeds)[0]), expected)
    return integers


def test_a_value_that_never_left_enters_again_by_a_rescale(tmp_path: Path) -> None:
    with_one = Net(lambda m, x: m.dequant(m.head(m.again(F.relu(m.conv(m.quant(x)))))))
    integers = exact(validated(with_one, X), tmp_path, X)
    assert len(integers[0].flatten_inputs) == 1
    assert sum(isinstance(op, Conv2dOp) for op in integers[0].operations) == 2


def test_a_branch_that_never_entered_is_told() -> None:
    def body(m: Any, x: torch.Tensor) -> Any:
        return m.dequant(m.conv(m.quant(x))), m.other(m.head(x))

    with pytest.warns(TrainingWarning, match="HB0917 at layer 'other', test_stubs.py:.*QuantStub"):
        prepare(Net(body).eval(), X)
    nothing = Net(lambda m, x: (m.conv(m.quant(x)), m.dequant(m.head(x)))[1]).eval()
    with pytest.raises(TrainingError, match="HB0930.*nothing leaves"), pytest.warns(TrainingWarning, match="HB0917"):
        prepare(nothing, X)


def test_a_value_that_left_may_leave_again() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        prepare(Net(lambda m, x: m.other(m.dequant(m.conv(m.quant(x))))).eval(), X)


@pytest.mark.parametrize("made", [lambda p: p, lambda p: p.expand(1, 3, 8, 8).contiguous()])
def test_a_stub_on_a_parameter_makes_a_constant(made: Callable[[Any], Any], tmp_path: Path) -> None:
    prepared = validated(Net(lambda m, x: m.dequant(F.relu(m.conv(m.quant(x)) + m.again(made(m.bias))))), X)
    assert len(exact(prepared, tmp_path, X)[0].flatten_inputs) == 1
    set_fake_quantize(prepared.train(), FakeQuantState.QAT)
    prepared(X).sum().backward()
    assert float(prepared.get_parameter("bias").grad.abs().sum()) > 0


def test_a_stub_on_a_buffer_makes_an_input() -> None:
    prepared = validated(Net(lambda m, x: m.dequant(m.conv(m.quant(x)) + m.again(m.memory))), X)
    assert len(hbdk4.export(prepared, X)[0].flatten_inputs) == 2


class EachChild(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            x = x + F.relu(module(x))
        return x


class EachOfList(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = x + F.relu(module(x))
        return x


class Pooled(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-2:]
        for module in self:
            x = module(x)
        return F.interpolate(F.relu(x), size=size, mode="nearest")


class OfDict(nn.ModuleDict):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([F.relu(module(x)) for _, module in self.items()], 1)[:, ::2]


@pytest.mark.parametrize(
    "inner",
    [
        EachChild,
        lambda: EachOfList([EachChild(), nn.Conv2d(3, 3, 1)]),
        lambda: Pooled(nn.AvgPool2d(2), nn.Conv2d(3, 3, 1)),
        lambda: OfDict({"a": nn.Conv2d(3, 3, 1), "b": EachOfList([nn.Conv2d(3, 3, 1)])}),
    ],
)
def test_modules_that_run_their_children_run_no_others(inner: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = Net(lambda m, x: m.dequant(m.inner(m.quant(x))))
    model.inner = inner()
    prepared = validated(model, X)
    exact(prepared, tmp_path, X)
    set_fake_quantize(prepared.train(), FakeQuantState.QAT)
    prepared(X).sum().backward()
    again = prepare(model.eval(), X)
    again.load_state_dict(prepared.state_dict())


def test_steep_functions_train_at_zero() -> None:
    def body(m: Any, x: torch.Tensor) -> Any:
        y = F.relu(m.conv(m.quant(x)))
        return m.dequant(torch.sqrt(y + 1e-6) + (y + 1e-4) ** 0.5 + y.norm(dim=1, keepdim=True))

    prepared = states.calibrated(prepare(Net(body).eval(), X), X)
    set_fake_quantize(prepared.train(), FakeQuantState.QAT)
    loss = prepared(X).square().mean()
    loss.backward()
    gradient = prepared.get_submodule("conv").get_parameter("weight").grad
    assert gradient is not None and bool(gradient.isfinite().all()) and float(gradient.abs().sum()) > 0
