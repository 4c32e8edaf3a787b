"""Reductions and norms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from tests.hbir.torch.operations.runs import exact

FORMS: dict[str, Callable[..., Any]] = {
    "mean": lambda v: v.mean((2, 3)),
    "mean keepdim": lambda v: torch.mean(v, 1, keepdim=True),
    "mean axis": lambda v: v.mean(axis=1, keepdims=True),
    "mean of all": lambda v: v.mean(),
    "sum": lambda v: v.sum(1),
    "sum of a list": lambda v: torch.sum(v, dim=[1, 2]),
    "amax": lambda v: v.amax(1),
    "amin": lambda v: torch.amin(v, (2, 3), True),
    "max of all": lambda v: v.max(),
    "max values": lambda v: v.max(1)[0],
    "max keyword": lambda v: v.max(dim=2, keepdim=True).values,
    "max and positions": lambda v: (lambda values, at: [values, at])(*v.max(1)),
    "min": lambda v: torch.min(v, dim=-1)[0],
    "argmax": lambda v: v.argmax(1),
    "argmax keepdim": lambda v: torch.argmax(v, dim=1, keepdim=True),
    "argmax of all": lambda v: v.argmax(),
    "argmin": lambda v: v.argmin(1),
    "var": lambda v: v.var(1),
    "var biased": lambda v: torch.var(v, dim=1, unbiased=False, keepdim=True),
    "var positional": lambda v: v.var((2, 3), False),
    "var of all": lambda v: v.var(),
    "std": lambda v: v.std(1, correction=0),
    "var_mean": lambda v: torch.var_mean(v, dim=1, keepdim=True),
    "logsumexp": lambda v: v.logsumexp(1),
    "norm": lambda v: v.norm(dim=1, keepdim=True),
    "norm 1": lambda v: v.norm(1, 1),
    "vector_norm": lambda v: torch.linalg.vector_norm(v, dim=-1, keepdim=True),
    "normalize": lambda v: F.normalize(v),
    "normalize last": lambda v: F.normalize(v, p=2, dim=-1),
    "cosine_similarity": lambda v: F.cosine_similarity(v, v.flip(1)),
    "softmax": lambda v: v.softmax(-1),
    "softmax keyword": lambda v: torch.softmax(v, dim=1, dtype=torch.float32),
    "log_softmax": lambda v: F.log_softmax(v, dim=1),
}
MODULES = [
    *(nn.LayerNorm(8), nn.LayerNorm((6, 8)), nn.LayerNorm(8, elementwise_affine=False), nn.LayerNorm(8, bias=False)),
    *(nn.RMSNorm(8), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), nn.InstanceNorm2d(4)),
    *(nn.InstanceNorm2d(4, track_running_stats=True), nn.LocalResponseNorm(3), nn.LocalResponseNorm(2)),
]


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    same(FORMS[name], x, terms=256)


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_norms(module: nn.Module, same: Callable[..., Any], x: torch.Tensor) -> None:
    for parameter in module.parameters():
        parameter.data = exact(*parameter.shape)
    # A reciprocal root of a small variance is steep: a rounding counts for some.
    assert len(same(module.eval(), x, terms=256).kinds) >= 1


def test_positions_that_nobody_reads_are_not_computed(same: Callable[..., Any], x: torch.Tensor) -> None:
    assert same(lambda v: torch.max(v, 1)[0], x).kinds == ["amax"]


def test_refused(same: Callable[..., Any], x: torch.Tensor) -> None:
    refused: list[tuple[Callable[..., Any], str]] = [
        (lambda v: v.mean(1, dtype=torch.float64).float(), "HB0920.*float64"),
        (lambda v: v.norm(3), "HB0953.*order 3"),
        (lambda v: F.normalize(v, p=1), "HB0953"),
        (lambda v: v.cumsum(1), "HB0910.*cumsum"),
    ]
    for function, text in refused:
        with pytest.raises(TrainingError, match=text):
            same(function, x)
