"""A kept kernel is bound again when an operand moves, and only then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from hbir.kernels.reuse import reusing


def test_binds_when_an_operand_moves() -> None:
    bound: list[Any] = []

    def bind(a: Any, b: Any, *, out: Any) -> Callable[[], object]:
        bound.append(a)
        return partial(np.copyto, out, a) if b is None else partial(np.add, a, b, out)

    out = np.zeros((2, 2), np.int32)
    call = reusing(bind, out)
    a, b = np.arange(4, dtype=np.int32).reshape(2, 2), np.full((2, 2), 10, np.int32)
    assert call(a, b) is out and out.tolist() == [[10, 11], [12, 13]]
    a[0, 0] = 5
    assert call(a, b).tolist() == [[15, 11], [12, 13]]
    assert call(a.reshape(4).reshape(2, 2), b).tolist() == [[15, 11], [12, 13]]  # another view of the same place
    assert len(bound) == 1
    assert call(a.copy(), b).tolist() == [[15, 11], [12, 13]] and len(bound) == 2
    assert call(a, None).tolist() == [[5, 1], [2, 3]] and len(bound) == 3
    assert call(a.T, None).tolist() == [[5, 2], [1, 3]] and len(bound) == 4  # same place, read otherwise
    assert call(a, b).tolist() == [[15, 11], [12, 13]] and len(bound) == 5
