"""What `torch.jit.trace` sees of a quantised region: one operator at each value that leaves, which knows the calls behind it.

A traced model is a graph of PyTorch's own operators, in which no grid is left. The number on the operator leads back to the
calls, as long as the process lives; `compile_model` and `check_model` take them from there, and so does the operator when the
traced model runs: it gives what the integers give, computed from what entered the region.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
from torch import library

from hbir.errors import TrainingError
from hbir.torch.tracing.calls import Call, enters_region, upstream

__all__ = ["Exact", "calls_of", "is_tracing", "marked"]

_torch: Any = torch

is_tracing: Callable[[], bool] = torch.jit.is_tracing  # pyright: ignore[reportPrivateImportUsage]
"""Whether `torch.jit.trace` runs."""

Exact = Callable[[Sequence[torch.Tensor]], torch.Tensor]
"""From what enters a region to one value that leaves it."""

_left: dict[int, tuple[Call, Exact | None]] = {}
_numbers: WeakKeyDictionary[torch.nn.Module, dict[object, int]] = WeakKeyDictionary()


class _Trace:
    """The trace that runs, and how often each stub has handed out a value in it."""

    running: Any = None
    counts: Counter[torch.nn.Module] = Counter()


@library.custom_op("hbir::leave", mutates_args=())
def _leave(x: torch.Tensor, entered: Sequence[torch.Tensor], number: int) -> torch.Tensor:
    exact = None if is_tracing() else _known(number)[1]
    return x.clone() if exact is None else exact(entered)


def _known(number: int) -> tuple[Call, Exact | None]:
    if number not in _left:
        what = "the traced model comes from another process"
        raise TrainingError(
            85, what, why="what its integers are is not part of it", lever="trace the model in this process"
        )
    return _left[number]


def marked(call: Call, value: torch.Tensor, exact: Exact | None) -> torch.Tensor:
    """The value that leaves at `call` while a model is traced, with the operator that says so; with `exact` a run of the traced
    model gives that.

    PyTorch traces a model twice, and wants to see the same graph: a number belongs to a stub, its how-many-eth value and the
    shapes. No other process has it.
    """
    running = _torch._C._get_tracing_state()
    if running is not _Trace.running:
        _Trace.running, _Trace.counts = running, Counter()
    stub = cast(torch.nn.Module, call.module)
    entering = [each for each in upstream([call]) if enters_region(each)]
    key = (_Trace.counts[stub], call.shapes, tuple(each.shapes for each in entering))
    _Trace.counts[stub] += 1
    number = _numbers.setdefault(stub, {}).setdefault(key, secrets.randbits(62))
    _left[number] = (call, exact)
    entered = [] if exact is None else [each.value for each in entering]
    return torch.ops.hbir.leave(value, entered, number)


def calls_of(traced: Any) -> list[Call]:
    """The calls at which values leave in a traced model, in order; none where it has no quantised region.

    Raises TrainingError HB0985 for a model that was traced in another process.
    """
    graph = traced.inlined_graph
    numbers: dict[str, int] = {}
    found: list[Call] = []
    for node in graph.nodes():
        if node.kind() == "prim::Constant" and node.outputsSize() == 1:
            value = node.output().toIValue()
            if isinstance(value, int):
                numbers[node.output().debugName()] = value
        if node.kind() == "hbir::leave":
            found.append(_known(numbers[list(node.inputs())[2].debugName()])[0])
    return found
