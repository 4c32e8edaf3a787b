"""Functions of one value: what the exported module gives is what PyTorch gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

NAMES = [
    "abs",
    "absolute",
    "ceil",
    "cos",
    "erf",
    "exp",
    "floor",
    "neg",
    "negative",
    "sigmoid",
    "sign",
    "sgn",
    "sin",
    "square",
    "tanh",
    "relu",
    "round",
    "expm1",
    "exp2",
]
POSITIVE = ["log", "sqrt", "rsqrt", "reciprocal", "log1p", "log2", "log10"]


@pytest.mark.parametrize("name", NAMES)
def test_functions_methods_and_in_place(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    method = getattr(torch.Tensor, name)
    first, second = same(getattr(torch, name), x), same(method, x)
    assert first.kinds == second.kinds
    if hasattr(torch.Tensor, f"{name}_"):
        assert same(lambda v: getattr(v * 1.0, f"{name}_")(), x).kinds == ["mul", *first.kinds]


@pytest.mark.parametrize("name", POSITIVE)
def test_functions_of_positive_numbers(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    # The reciprocal of 0.1 is 10 times as steep: one rounding counts as a hundred.
    same(getattr(torch, name), x.abs() + 0.1, terms=256)


MODULES = [
    *(nn.ReLU(), nn.ReLU(True), nn.ReLU6(), nn.ReLU6(True), nn.Hardtanh(), nn.Hardtanh(-2, 0.5), nn.LeakyReLU(0.1)),
    *(nn.LeakyReLU(0.1, True), nn.PReLU(), nn.ELU(), nn.ELU(0.5), nn.CELU(), nn.SiLU(), nn.SiLU(True), nn.Sigmoid()),
    *(nn.Tanh(), nn.Hardswish(), nn.Hardsigmoid(), nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Mish(), nn.Softsign()),
    *(nn.Threshold(0, 0), nn.Softmax(1), nn.Softmax(-1), nn.Softmax2d()),
]
COMPOSITES = [nn.SELU(), nn.LogSigmoid(), nn.Tanhshrink(), nn.GLU(1), nn.PReLU(4), nn.Softmin(1), nn.LogSoftmax(1)]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_modules_of_one_operation(module: nn.Module, same: Callable[..., Any], x: torch.Tensor) -> None:
    assert len(same(module, x).kinds) == 1


@pytest.mark.parametrize("module", COMPOSITES, ids=str)
def test_modules_of_several(module: nn.Module, same: Callable[..., Any], x: torch.Tensor) -> None:
    assert len(same(module, x).kinds) > 1


CLAMPS: dict[str, Callable[..., Any]] = {
    "both": lambda v: v.clamp(0, 1),
    "keyword": lambda v: torch.clamp(v, max=0.5),
    "clip": lambda v: v.clip(-1),
    "min": lambda v: v.clamp_min(0.2),
    "max": lambda v: torch.clamp_max(v, 0.2),
    "in place": lambda v: (v * 2).clamp_(-1, 1),
    "scalar tensor": lambda v: v.clamp(min=torch.tensor(0.1)),
    "relu6": F.relu6,
}


@pytest.mark.parametrize("name", CLAMPS)
def test_clamps(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    same(CLAMPS[name], x)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "softplus": (lambda v: F.softplus(v, beta=2), "HB0920"),
    "celu": (lambda v: F.celu(v, 0.5), "HB0920"),
    "clamp by tensor": (lambda v: v.clamp(min=torch.zeros(8)), "HB0920"),
    "threshold": (lambda v: F.threshold(v, 1.0, 0.0), "HB0953"),
    "no entry": (torch.lgamma, "HB0910"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_the_users_line(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    from hbir.errors import TrainingError

    function, code = REFUSED[name]
    with pytest.raises(TrainingError, match=rf"{code} at .*\.py:\d+.*Change: "):
        same(function, x)
