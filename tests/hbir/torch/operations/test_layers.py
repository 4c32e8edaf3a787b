"""Layers, matrix products and einsum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from tests.hbir.torch.operations.runs import exact

MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 6, 8)),
    "same": (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (2, 4, 6, 8)),
    "groups": (nn.Conv2d(4, 8, (3, 2), groups=4, bias=False), (2, 4, 6, 8)),
    "reflect": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), (2, 4, 6, 8)),
    "replicate": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="replicate"), (2, 4, 6, 8)),
    "circular": (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), (2, 4, 6, 8)),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1, stride=2), (2, 4, 9)),
    "conv1d same": (nn.Conv1d(4, 6, 4, padding="same"), (2, 4, 9)),
    "transpose": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1), (2, 4, 3, 5)),
    "transpose groups": (nn.ConvTranspose2d(4, 6, 2, stride=(2, 1), groups=2), (2, 4, 3, 5)),
    "transpose1d": (nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1), (2, 4, 5)),
    "linear": (nn.Linear(8, 5), (2, 3, 8)),
    "linear of a vector": (nn.Linear(8, 5, bias=False), (8,)),
    "batch norm": (nn.BatchNorm2d(4), (2, 4, 6, 8)),
    "batch norm of rows": (nn.BatchNorm1d(8), (3, 8)),
    "batch norm of sequences": (nn.BatchNorm1d(8, affine=False), (3, 8, 5)),
}


@pytest.mark.parametrize("name", MODULES)
def test_layers(name: str, same: Callable[..., Any]) -> None:
    module, shape = MODULES[name]
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        assert module.running_mean is not None and module.running_var is not None
        module.running_mean.uniform_(-1, 1)
        module.running_var.uniform_(0.5, 2)
    same(module, torch.randn(shape))


def test_functions(same: Callable[..., Any], x: torch.Tensor) -> None:
    weight = torch.randn(5, 4, 1, 1)
    assert same(lambda v: torch.conv2d(v, weight), x).kinds == ["conv"]
    assert same(lambda v: F.conv2d(input=v, weight=weight, padding=(1, 0)), x).kinds == ["conv"]
    with pytest.raises(TrainingError, match="HB0920.*batch axis"):
        same(lambda v: F.conv2d(v[0], weight), x)


W = exact(8, 7)
PRODUCTS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], list[str]]] = {
    "@ constant": (lambda a: a @ W, ((2, 6, 8),), ["linear"]),
    "mm": (lambda a: torch.mm(a, W), ((6, 8),), ["linear"]),
    "vector @ constant": (lambda a: a @ W, ((8,),), ["linear"]),
    "@ vector": (lambda a: a @ W[:, 0], ((2, 6, 8),), ["linear", "reshape"]),
    "constant @": (lambda a: W.t() @ a, ((2, 8, 3),), ["matmul"]),
    "matmul": (lambda a, b: a @ b.transpose(-1, -2), ((2, 3, 6, 8), (2, 3, 6, 8)), ["transpose", "matmul"]),
    "broadcast": (lambda a, b: torch.matmul(a, b), ((2, 1, 6, 8), (4, 8, 3)), ["matmul"]),
    "bmm": (lambda a, b: a.bmm(b.mT), ((4, 6, 8), (4, 6, 8)), ["turn", "matmul"]),
    "addmm": (lambda a: torch.addmm(torch.ones(7), a, W), ((6, 8),), ["linear"]),
    "addmm scaled": (
        lambda c, a, b: torch.addmm(c, a, b, beta=0.5, alpha=2),
        ((6, 7), (6, 8), (8, 7)),
        ["matmul", "mul", "mul", "add"],
    ),
    "baddbmm": (lambda c, a, b: torch.baddbmm(c, a, b), ((2, 6, 7), (2, 6, 8), (2, 8, 7)), ["matmul", "add"]),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name: str, same: Callable[..., Any]) -> None:
    function, shapes, kinds = PRODUCTS[name]
    assert same(function, *map(torch.randn, shapes)).kinds == kinds


EQUATIONS = {
    "bchw,bdhw->bcd": ((2, 3, 4, 5), (2, 6, 4, 5)),
    "bqd,bkd->bqk": ((2, 3, 4), (2, 5, 4)),
    "bhqk,bkhd->bqhd": ((2, 3, 4, 5), (2, 5, 3, 6)),
    "nchw->nc": ((2, 3, 4, 5),),
    "...ij->...ji": ((2, 3, 4),),
    "bc,bc->bc": ((2, 3), (2, 3)),
    "bi,bj->bij": ((2, 3), (2, 4)),
    "ij,jk": ((2, 3), (3, 4)),
    "...c,dc->...d": ((2, 3, 4), (5, 4)),
    "abc,d->bd": ((2, 3, 4), (5,)),
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation: str, same: Callable[..., Any]) -> None:
    same(lambda *operands: torch.einsum(equation, *operands), *map(torch.randn, EQUATIONS[equation]))


def test_einsum_with_a_constant_is_a_linear_layer(same: Callable[..., Any]) -> None:
    assert "linear" in same(lambda v: torch.einsum("nctv,vw->nctw", v, W), torch.randn(2, 3, 4, 8)).kinds
    assert "linear" in same(lambda v: torch.einsum("vw,nctv->nctw", [W, v]), torch.randn(2, 3, 4, 8)).kinds
    for equation in ("ii->i", "ab,bc,cd->ad"):
        with pytest.raises(TrainingError, match="HB0954"):
            same(lambda v, e=equation: torch.einsum(e, *[v] * (e.count(",") + 1)), torch.randn(3, 3))
