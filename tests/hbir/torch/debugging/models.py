"""Small models for the tools, calibrated, some with a planted defect."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hbir.torch.fake_quant.fake_quantize import FakeQuantState, set_fake_quantize
from hbir.torch.march import set_march
from hbir.torch.preparing.prepare import PrepareMethod, prepare
from hbir.torch.stubs import DeQuantStub, QuantStub


class Chain(nn.Module):
    """Convolutions, a batch norm, a sum; every value has a name."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv1, self.bn, self.act = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()
        self.conv2, self.act2 = nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        self.head = nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.bn(self.conv1(self.quant(x))))
        return self.dequant(self.head(self.act2(self.conv2(x))))


class Fragile(nn.Module):
    """Fusions that cannot be, and a module that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem, self.act, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(4)
        self.fork, self.late = nn.Conv2d(4, 4, 1), nn.ReLU()
        self.twice, self.unused = nn.Conv2d(4, 4, 1), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.act(self.stem(self.quant(x))))
        y = self.fork(x)
        x = self.late(y) + torch.sigmoid(y)
        return self.dequant(self.twice(self.twice(x)))


def images(count: int = 2, seed: int = 1) -> torch.Tensor:
    """A batch of noise, 3 x 6 x 6."""
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def calibrated(model: nn.Module, rules: Any = None, data: Any = None, **options: Any) -> nn.Module:
    """The prepared model, calibrated on `data` (default: images), in the state VALIDATION."""
    set_march("nash-e")
    given = images() if data is None else data
    prepared = prepare(model.eval(), given, rules, options.get("method", PrepareMethod.JIT_STRIP))
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        prepared(*given) if isinstance(given, tuple) else prepared(given)
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.VALIDATION)
    return prepared


def chain() -> Chain:
    """A chain with the same weights each time."""
    torch.manual_seed(0)
    return Chain().eval()


def wide_chain() -> Chain:
    """A chain whose second convolution has one channel a thousand times as large as the others, which the head ignores."""
    model = chain()
    with torch.no_grad():
        model.conv2.weight[3] *= 1000
        model.head.weight[:, 3] = 0
    return model
