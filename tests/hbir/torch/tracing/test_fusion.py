"""Which batch norms are fused: those that compute with what their module holds. All others are operations of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.preparing.trace import trace
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, prepare, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
from hbir.torch.tracing.fusion import fused_groups
from hbir.torch.tracing.scopes import install
from passes import convert

X = (2, 3, 6, 6)


@pytest.fixture(autouse=True)
def march() -> None:
    set_march(March.NASH_E)
    torch.manual_seed(3)


def drawn(norm: Any) -> Any:
    """A batch norm whose channels differ much, so that a wrong grid is seen."""
    with torch.no_grad():
        norm.running_mean.normal_()
        norm.running_var.copy_(torch.tensor([0.01, 1.0, 9.0, 100.0]))
        if norm.weight is not None:
            norm.weight.normal_()
            norm.bias.normal_()
    return norm


class Base(nn.Module):
    """A convolution with a norm of its own behind it."""

    def __init__(self, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), drawn(nn.BatchNorm2d(4)) if norm is None else norm

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.normed(self.conv(self.quant(x))))


class OtherStatistics(nn.BatchNorm2d):
    """A batch norm that has running statistics, and computes with others."""

    def __init__(self) -> None:
        super().__init__(4)
        self.register_buffer("t_mean", torch.randn(4))
        self.register_buffer("t_var", torch.tensor([4.0, 0.02, 70.0, 1.0]))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        found = cast(Any, self)
        return F.batch_norm(input, found.t_mean, found.t_var, self.weight, self.bias, False, eps=self.eps)


class OtherEpsilon(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=0.5)


class OtherWeight(nn.BatchNorm2d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.batch_norm(input, self.running_mean, self.running_var, self.weight * 3, self.bias, eps=self.eps)


class FromTheParent(Base):
    def normed(self, x: torch.Tensor) -> torch.Tensor:
        bn = self.norm
        return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias)


class InnerName(Base):
    """`torch.batch_norm` has its parameters in another order."""

    def normed(self, x: torch.Tensor) -> torch.Tensor:
        bn = self.norm
        return torch.batch_norm(x, bn.weight, bn.bias, bn.running_mean, bn.running_var, False, 0.1, bn.eps, False)


class ConvBn(nn.Module):
    """A user's block: its weight is the convolution's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3, 3) * 0.3)
        self.gamma, self.beta = nn.Parameter(torch.randn(4)), nn.Parameter(torch.randn(4))
        self.register_buffer("running_mean", torch.randn(4))
        self.register_buffer("running_var", torch.tensor([0.01, 1.0, 9.0, 100.0]))
        self.eps = 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = cast(Any, self)
        y = F.conv2d(x, self.weight, None, 1, 1)
        return F.batch_norm(y, found.running_mean, found.running_var, self.gamma, self.beta, False, 0.1, self.eps)


class Block(Base):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = cast(Any, ConvBn()), nn.Identity()


FUSED: dict[str, Callable[[], nn.Module]] = {
    "batch norm": Base,
    "without weight": lambda: Base(drawn(nn.BatchNorm2d(4, affine=False))),
    "sync": lambda: Base(drawn(nn.SyncBatchNorm(4))),
    "another epsilon": lambda: Base(drawn(nn.BatchNorm2d(4, eps=0.25))),
}
ALONE: dict[str, Callable[[], nn.Module]] = {
    "other statistics": lambda: Base(drawn(OtherStatistics())),
    "other epsilon": lambda: Base(drawn(OtherEpsilon(4))),
    "other weight": lambda: Base(drawn(OtherWeight(4))),
    "from the parent": FromTheParent,
    "inner name": InnerName,
    "a block of the user": Block,
    "instance norm": lambda: Base(drawn(nn.InstanceNorm2d(4, affine=True, track_running_stats=True))),
}


@pytest.mark.parametrize("name", [*FUSED, *ALONE])
def test_batch_norms(name: str) -> None:
    model = {**FUSED, **ALONE}[name]().eval()
    prepared = prepare(model, torch.randn(X))
    x = torch.randn(X)
    with torch.no_grad():
        expected = model(x)
        set_fake_quantize(prepared.eval(), FakeQuantState.CALIBRATION)
        prepared(x)
        set_fake_quantize(prepared, FakeQuantState.VALIDATION)
        got = prepared(x)
    (integers,) = convert(export(prepared, x), March.NASH_E)[0](x.numpy())
    assert (got.numpy() == integers).all()
    # Weights and values in steps of 1/127 of their largest: a wrong grid for a channel is off by a multiple of its values.
    for channel in range(4):
        assert (got - expected)[:, channel].abs().max() < 0.05 * expected.abs().max()
    install(model)
    groups = fused_groups(trace(model, (x,)).calls)
    assert [group.batch_norm is not None for group in groups] == ([True] if name in FUSED else [])


def test_training_of_a_batch_norm_of_its_own() -> None:
    prepared = prepare(Block().eval(), torch.randn(X))
    set_fake_quantize(prepared.train(), FakeQuantState.QAT)
    prepared(torch.randn(X)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in cast(Any, prepared).conv.parameters())


@pytest.mark.parametrize("training", [False, True])
def test_statistics_of_the_batch(training: bool) -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    with pytest.raises(TrainingError, match="HB0920 at layer 'norm'.*test_fusion.py.*statistics of each batch.*Change"):
        prepare(Base(norm).train(training), torch.randn(X))


def test_statistics_of_the_batch_in_evaluation() -> None:
    class Always(Base):
        def normed(self, x: torch.Tensor) -> torch.Tensor:
            return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, training=True)

    with pytest.raises(TrainingError, match="HB0920.*statistics of each batch"):
        prepare(Always().eval(), torch.randn(X))


def test_a_weight_that_is_computed() -> None:
    class Computed(Base):
        def normed(self, x: torch.Tensor) -> torch.Tensor:
            return F.batch_norm(x, self.norm.running_mean, self.norm.running_var, x.mean((0, 2, 3)))

    with pytest.raises(TrainingError, match="HB0920.*are computed"):
        prepare(Computed().eval(), torch.randn(X))
