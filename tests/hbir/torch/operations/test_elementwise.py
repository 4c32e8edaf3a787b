"""Arithmetic of two operands in all its spellings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir.errors import TrainingError
from tests.hbir.torch.operations.runs import Run, exact

Y, P = exact(2, 4, 6, 8), exact(1, 4, 1, 1, seed=3)
MASK = Y > 0


def _in_place(v: Any) -> Any:
    y = v * 2.0
    y += v
    y -= 1
    y *= Y
    y /= 4
    y.add_(v).sub_(1.0).mul_(2.0).div_(8)
    return y


FORMS: dict[str, Callable[..., Any]] = {
    "x + y": lambda v: v + Y,
    "y + x": lambda v: Y + v,
    "x + parameter": lambda v: v + torch.nn.Parameter(P),
    "1 + x": lambda v: 1 + v,
    "add alpha": lambda v: torch.add(v, exact(8), alpha=2),
    "x - 1": lambda v: v - 1,
    "1 - x": lambda v: 1 - v,
    "y - x": lambda v: Y - v,
    "rsub": lambda v: torch.rsub(v, 2.0),
    "sub": lambda v: torch.sub(v, v * 2),
    "x * 2": lambda v: v * 2,
    "2 * x": lambda v: 2 * v,
    "x * parameter": lambda v: v * P,
    "x * x": lambda v: v * v,
    "x / 2": lambda v: v / 2,
    "x / 3": lambda v: torch.div(v, 3.0),
    "x ** 2": lambda v: v**2,
    "x ** 3": lambda v: v**3,
    "x ** 1": lambda v: v**1,
    "pow": lambda v: torch.pow(v, exponent=4),
    "2 ** x": lambda v: 2**v,
    "-x": lambda v: -v,
    "abs": lambda v: abs(v),
    "maximum": lambda v: torch.maximum(v, Y),
    "minimum": lambda v: torch.minimum(v, -v),
    "max of two": lambda v: torch.max(v, -v),
    "min of two": lambda v: v.min(-v),
    "where": lambda v: torch.where(MASK, v, -v),
    "where number": lambda v: torch.where(MASK, v, 0.0),
    "where method": lambda v: v.where(MASK, Y),
    "masked_fill": lambda v: v.masked_fill(MASK, -7.0),
    "addcmul": lambda v: torch.addcmul(v, v, v, value=0.5),
    "lerp": lambda v: torch.lerp(v, -v, 0.5),
    "tril": lambda v: v.tril(),
    "triu": lambda v: torch.triu(v, 1),
    "in place": _in_place,
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    same(FORMS[name], x)


POSITIVE: dict[str, Callable[..., Any]] = {
    "x / y": lambda a, b: a / b,
    "1 / x": lambda a, b: 1 / a + b,
    "3 / x": lambda a, b: 3 / a + b,
    "constant / x": lambda a, b: torch.ones(3) / a + b,
    "x ** -0.5": lambda a, b: a**-0.5 + b,
    "x ** -1": lambda a, b: a**-1 + b,
    "x ** 1.7": lambda a, b: a**1.7 + b,
}


@pytest.mark.parametrize("name", POSITIVE)
def test_positive_operands(name: str, same: Callable[..., Any]) -> None:
    a, b = torch.linspace(0.1, 2, 6).reshape(2, 3), torch.linspace(2, 0.2, 3)
    same(POSITIVE[name], a, b, terms=256)


def test_in_place_results_that_nobody_takes(same: Callable[..., Any], x: torch.Tensor) -> None:
    def bare(v: Any) -> Any:
        y = v * 2
        y.add_(1)
        torch.nn.functional.relu(y, inplace=True)
        y.masked_fill_(MASK, 0.5)
        return y

    assert same(bare, x).kinds == ["mul", "add", "relu", "mul", "add"]
    same(lambda v: (lambda y: torch.nn.functional.relu(y, inplace=True) + y)(v * 2), x)


def test_a_view_of_what_is_changed_in_place_is_refused(same: Callable[..., Any], x: torch.Tensor) -> None:
    def through_a_part(v: Any) -> Any:
        y = v * 1
        y[:, :2].add_(1)
        return y * 1

    def behind_a_view(v: Any) -> Any:
        y = v * 1
        z = y.view(2, -1)
        y.masked_fill_(MASK, 0.5)
        return z * 1

    for function in (through_a_part, behind_a_view):
        with pytest.raises(TrainingError, match=r"HB0913 at .*test_elementwise\.py:\d+"):
            same(function, x)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "alpha": (lambda v: torch.add(v, v, alpha=2), "HB0920"),
    "tensor exponent": (lambda v: v**Y, "HB0920"),
    "floor division": (lambda v: torch.div(v, 2, rounding_mode="floor"), "HB0953"),
    "negative base": (lambda v: (-2) ** v, "HB0953"),
    "mask of the region": (lambda v: torch.where(v > 0, v, -v), "HB0910"),
    "infinity": (lambda v: v.masked_fill(MASK, float("-inf")), "HB0955"),
    "out": (lambda v: torch.add(v, 1, out=v), "HB0951"),
    "comparison": (lambda v: v > 0, "HB0910"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    function, code = REFUSED[name]
    with pytest.raises(TrainingError, match=rf"{code} at .*test_elementwise\.py:\d+"):
        same(function, x)


STEPS: dict[str, Callable[..., Any]] = {
    "relu": torch.relu,
    "sum": lambda v: v + v.flip(-1),
    "constant": lambda v: v * exact(4, 1, 1, seed=5) * 0.125,
    "cat": lambda v: torch.cat([v, -v], 1)[:, ::2],
    "pool": lambda v: torch.nn.functional.max_pool2d(v, 3, 1, 1),
    "turn": lambda v: v.transpose(2, 3),
    "sigmoid": torch.sigmoid,
    "centre": lambda v: v - v.mean((2, 3), keepdim=True),
    "softmax": lambda v: v.softmax(1),
    "in place": lambda v: v.clone().mul(0.5).add_(v),
}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=8), st.integers(1, 3))
def test_chains(steps: list[str], batch: int) -> None:
    def chain(v: Any) -> Any:
        for step in steps:
            v = STEPS[step](v)
        return v

    run = Run(chain, [exact(batch, 4, 5, 5, seed=batch)])
    # Eight steps of at most 25 terms each; no value is above 8 * 3^8 of the first, and means halve what sums double.
    bound = 8 * 25 * 2.0**-24 * 8 * max(1.0, 2.0 ** len(steps))
    assert abs(run.got[0] - run.expected[0]).max() <= bound
