"""What `torch.jit.trace` sees of a quantised region: one operator at each value that leaves, which knows the calls behind it.

A traced model is a graph of PyTorch's own operators, in which no grid is left. The number on the operator leads back to the
calls, as long as the process lives; `compile_model` and `check_model` take them from there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import library

from hbir.torch.tracing.calls import Call

__all__ = ["calls_of", "is_tracing", "marked"]

is_tracing: Callable[[], bool] = torch.jit.is_tracing  # pyright: ignore[reportPrivateImportUsage]
"""Whether `torch.jit.trace` runs."""

_left: list[Call] = []
_NUMBER = "_hbir_number"


@library.custom_op("hbir::leave", mutates_args=())
def _leave(x: torch.Tensor, number: int) -> torch.Tensor:
    del number
    return x.clone()


def marked(call: Call, value: torch.Tensor) -> torch.Tensor:
    """The value that leaves at `call`, with the operator that says so. A stub has one number: PyTorch traces a model twice, and
    wants to see the same graph."""
    own = {} if call.module is None else call.module.__dict__
    number = own.setdefault(_NUMBER, len(_left))
    _left[number : number + 1] = [call]
    return torch.ops.hbir.leave(value, number)


def calls_of(traced: Any) -> list[Call]:
    """The calls at which values leave in a traced model, in order; none where it has no quantised region."""
    graph = traced.inlined_graph
    numbers: dict[str, int] = {}
    found: list[Call] = []
    for node in graph.nodes():
        if node.kind() == "prim::Constant" and node.outputsSize() == 1:
            value = node.output().toIValue()
            if isinstance(value, int):
                numbers[node.output().debugName()] = value
        if node.kind() == "hbir::leave":
            found.append(_left[numbers[list(node.inputs())[1].debugName()]])
    return found
