"""Float operations that stayed on the host. Bit equality needs the interpreter's own arithmetic: there is no second opinion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch

from hbir.dialects.base import Array, HbOperation
from hbir.torch.integers.values import held, released

__all__ = ["on_host"]


def on_host(
    op: HbOperation, constants: Sequence[Array | None], device: torch.device
) -> Callable[..., tuple[torch.Tensor, ...]]:
    """The operation by its own `evaluator` on numpy arrays: its operands as tensors -> its results as tensors.

    A sum of floats has the last bit that its order gives it, and a function the one of its library: another implementation
    would differ there without either being wrong.
    """
    evaluate = op.evaluator(constants)
    results = [result.type for result in op.results]

    def run(*operands: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        found: Any = evaluate(*(None if value is None else released(value) for value in operands))
        several = cast(tuple[Array, ...], found) if isinstance(found, tuple) else (np.asarray(found),)
        return tuple(held(array, type_, device) for array, type_ in zip(several, results, strict=True))

    return run
