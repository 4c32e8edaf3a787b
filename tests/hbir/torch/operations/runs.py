"""Runs PyTorch's functions between stubs, and the module that is exported of them, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from hbir.torch.exporting.build import build_module
from hbir.torch.preparing.trace import live, trace
from hbir.torch.stubs import DeQuantStub, QuantStub
from hbir.torch.tracing.calls import Call
from hbir.torch.tracing.scopes import install

EPSILON = 2.0**-24
"""Half a step of float32 at 1: what one rounding is off at most, relative."""


def exact(*shape: int, seed: int = 0) -> torch.Tensor:
    """Multiples of 1/4096 of which one reaches 32767/4096: constants that lie on the sixteen-bit grid they are held to."""
    drawn = torch.randint(-8192, 8193, shape, generator=torch.Generator().manual_seed(seed)).float()
    drawn.view(-1)[0] = 32767.0
    return drawn / 4096


class Between(nn.Module):
    """A function, or modules, between stubs."""

    def __init__(self, function: Callable[..., Any], inputs: int) -> None:
        super().__init__()
        self.body = function if isinstance(function, nn.Module) else None
        self.function = function
        self.quants = nn.ModuleList(QuantStub() for _ in range(inputs))
        self.dequants = nn.ModuleList(DeQuantStub() for _ in range(8))

    def forward(self, *inputs: torch.Tensor) -> list[torch.Tensor]:
        found = self.function(*(quant(x) for quant, x in zip(self.quants, inputs, strict=True)))
        flat = [each for each in _flat(found) if isinstance(each, torch.Tensor)]
        floats = iter(self.dequants)
        return [next(floats)(each) if each.is_floating_point() else each for each in flat]


def _flat(value: Any) -> list[Any]:
    if not isinstance(value, (tuple, list)):
        return [value]
    parts: list[Any] = list(cast("list[Any]", value))
    return [leaf for each in parts for leaf in _flat(each)]


class Run:
    """What a function gave in PyTorch and as a module, and the calls that were traced."""

    def __init__(self, function: Callable[..., Any], inputs: Sequence[torch.Tensor]) -> None:
        model = Between(function, len(inputs)).eval()
        with torch.no_grad():
            self.expected = [each.numpy() for each in model(*(x.clone() for x in inputs))]
        install(model)
        self.calls: list[Call] = live(trace(model, tuple(x.clone() for x in inputs)).calls)
        names = [f"x{number}" for number in range(len(inputs))], [f"y{number}" for number in range(len(self.expected))]
        self.module = build_module("forward", self.calls, *names)
        feeds: dict[str, Any] = {
            name: np.ascontiguousarray(cast(Any, x).numpy()) for name, x in zip(names[0], inputs, strict=True)
        }
        result = self.module[0].feed(feeds)
        found = iter([np.asarray(result[name]) for name in names[1]])
        leaving = [call for call in self.calls if call.kind in ("dequant", "argmax")]
        by_kind = [(call.kind == "argmax", next(found)) for call in leaving]
        # Integers leave where they are computed, floats at their stubs: each kind in the order of the model.
        kinds = {plain: iter([y for each, y in by_kind if each is plain]) for plain in (True, False)}
        self.got = [next(kinds[y.dtype.kind == "i"]) for y in self.expected]

    @property
    def kinds(self) -> list[str]:
        """The operations that ran."""
        return [call.kind for call in self.calls if call.kind not in ("quant", "dequant")]
