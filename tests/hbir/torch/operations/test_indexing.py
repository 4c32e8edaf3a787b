"""Indexing in every static form; what depends on data is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hbir.errors import TrainingError

MASK = torch.arange(2 * 4 * 6 * 8).reshape(2, 4, 6, 8) % 3 == 0
FORMS: dict[str, Callable[..., Any]] = {
    "number": lambda v: v[0],
    "second number": lambda v: v[:, 1],
    "slice": lambda v: v[:, 1:3],
    "ellipsis": lambda v: v[..., -1],
    "new axis": lambda v: v[:, None],
    "steps": lambda v: v[:, :, ::2, 1:-1:3],
    "beyond": lambda v: v[:, -10:10, 5:100],
    "last": lambda v: v[-1:],
    "list": lambda v: v[:, [0, 2]],
    "tensor": lambda v: v[:, torch.tensor([3, 1])],
    "array": lambda v: v[:, np.array([1, 0])],
    "matrix of positions": lambda v: v[:, torch.tensor([[0, 1], [2, 3]])],
    "scalar tensor": lambda v: v[:, torch.tensor(2)],
    "numbers": lambda v: v[0, :, 2],
    "new axis and number": lambda v: v[:, :, None, 1],
    "number and list": lambda v: v[0, ..., [1, 2]],
    "mask of an axis": lambda v: v[:, torch.tensor([True, False, True, True])],
    "mask": lambda v: v[MASK],
    "two tensors": lambda v: v[torch.tensor([0, 1]), torch.tensor([2, 3])],
    "two lists": lambda v: v[:, [0, 1], [2, 3]],
    "one element": lambda v: v[0, 0, 0, 0][None],
    "select": lambda v: v.select(1, -1),
    "narrow": lambda v: v.narrow(1, 1, 2),
    "narrow from the end": lambda v: torch.narrow(v, 1, -2, 2),
    "index_select": lambda v: v.index_select(1, torch.tensor([0, 2, 1])),
    "gather": lambda v: v.gather(1, torch.full((2, 1, 6, 8), 2)),
    "take_along_dim": lambda v: torch.take_along_dim(v, torch.arange(4).reshape(1, 4, 1, 1).flip(1), 1),
    "diagonal": lambda v: torch.diagonal(v, 0, 2, 3),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    run = same(FORMS[name], x)
    assert (run.got[0] == run.expected[0]).all()


def _write(v: Any) -> Any:
    y = v * 1
    y[:, 0] = 0
    return y


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "write": (_write, "HB0951"),
    "item": (lambda v: v * v.sum().item(), "HB0952"),
    "float": (lambda v: v * float(v.sum()), "HB0952"),
    "condition": (lambda v: v if v.sum() else -v, "HB0952"),
    "list": (lambda v: v[0, 0, 0].tolist(), "HB0952"),
    "position": (lambda v: v.flatten()[v.flatten().argmax()], "HB0911"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    function, code = REFUSED[name]
    with pytest.raises(TrainingError, match=rf"{code} at .*test_indexing\.py:\d+"):
        same(function, x)
