"""Modules that are called several times."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.ao.nn.quantized import FloatFunctional

from hbir.errors import TrainingError
from hbir.torch.preparing.shared import check_shared
from hbir.torch.preparing.trace import trace
from hbir.torch.quantization import DeQuantStub, QuantStub
from hbir.torch.stubs import adopt
from hbir.torch.tracing.scopes import install


class Head(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor, up: bool = False, late: bool = False) -> torch.Tensor:
        if up:
            x = F.interpolate(x, scale_factor=2.0)
        x = torch.relu(self.conv(x))
        return F.avg_pool2d(x, 2) if late else x


class Twice(nn.Module):
    """Calls its part twice, with other options."""

    def __init__(self, part: nn.Module, first: Any, second: Any) -> None:
        super().__init__()
        self.quant, self.dequant, self.part, self.options = QuantStub(), DeQuantStub(), part, (first, second)

    def forward(self, x: torch.Tensor) -> Any:
        x = self.quant(x)
        return [self.dequant(self.part(x, **options)) for options in self.options]


class Weighted(nn.Module):
    def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, weight * 1.0)


def checked(model: nn.Module) -> None:
    adopt(model)
    install(model)
    check_shared(trace(model.eval(), (torch.randn(2, 4, 6, 6),)).calls)


def test_other_operations() -> None:
    with pytest.raises(TrainingError) as caught:
        checked(Twice(Head(), {"up": True}, {}))
    error, lines = caught.value, [Head.forward.__code__.co_firstlineno + offset for offset in (2, 3)]
    assert error.code == "HB0939" and "module 'part'" in error.what and "two modules" in error.lever
    for kind, line in zip(("upsample_nearest", "relu"), lines, strict=True):
        assert f"{kind} (test_shared.py:{line})" in error.what
    assert f"test_shared.py:{lines[1]}" in error.where


def test_an_operation_more_at_the_end() -> None:
    checked(Twice(Head(), {}, {"late": True}))
    checked(Twice(Head(), {"late": True}, {}))
    checked(Twice(Head(), {}, {}))


def test_one_functional_for_two_operations() -> None:
    class Sums(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.ff = QuantStub(), DeQuantStub(), FloatFunctional()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.quant(x)
            return self.dequant(self.ff.mul(self.ff.add(x, x), x))

    with pytest.raises(TrainingError, match=r"HB0939 .*module 'ff'.*add \(.*mul \("):
        checked(Sums())


def test_weights() -> None:
    one, other = torch.randn(4, 4, 1, 1), torch.randn(4, 4, 1, 1)
    checked(Twice(Weighted(), {"weight": one}, {"weight": one.clone()}))
    for second in (other, torch.randn(2, 4, 1, 1)):
        with pytest.raises(TrainingError, match="HB0939.*'part'.*different weights"):
            checked(Twice(Weighted(), {"weight": one}, {"weight": second}))


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_a_cell_from_zeros_and_from_its_state(kind: type[nn.Module]) -> None:
    class Steps(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.cell = QuantStub(), DeQuantStub(), cast(Any, kind)(6, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.quant(x)[0, 0]
            state = self.cell(x, self.cell(x))
            return self.dequant(state[0] if isinstance(state, tuple) else state)

    checked(Steps())
