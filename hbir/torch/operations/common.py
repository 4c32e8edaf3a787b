"""What the entries of operations share: shapes, functions of one value, and errors at the user's line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard, cast

import torch
import torch.nn.functional

from hbir.dialects.hbir import FunctionOp
from hbir.errors import TrainingError
from hbir.frontends.onnx.values import Value, value_shape
from hbir.torch.tracing.scopes import current, source_line

__all__ = [
    "F",
    "LINALG",
    "NN",
    "SPECIAL",
    "axes_of",
    "check_float32",
    "function",
    "in_region",
    "is_static",
    "known_number",
    "per_axis",
    "region_error",
    "reshaped",
    "shape",
    "transposed",
]

# PyTorch's own functions have types that are known in part.
F: Any = torch.nn.functional
"""`torch.nn.functional`."""
LINALG: Any = torch.linalg
"""`torch.linalg`."""
NN: Any = vars(torch)["_C"]._nn
"""Functions behind `torch.nn.functional` that models call directly."""
SPECIAL: Any = torch.special
"""`torch.special`."""

shape = value_shape
"""The extents of a value during export."""


def region_error(number: int, what: str, *, why: str = "", lever: str = "") -> TrainingError:
    """An error at the operation that runs, to be raised by a composite; it names the layer and the user's line."""
    scope = current()
    place = [f"layer '{scope.path}'"] if scope is not None and scope.path else []
    return TrainingError(number, what, where=", ".join([*place, source_line()]), why=why, lever=lever)


def in_region(value: object) -> bool:
    """Whether a value is a tensor of the quantised region; constants and parameters are not."""
    return isinstance(value, torch.Tensor) and hasattr(value, "made")


def is_static(value: object) -> TypeGuard[torch.Tensor]:
    """Whether a value is a tensor whose numbers do not depend on the region."""
    return isinstance(value, torch.Tensor) and not in_region(value)


def known_number(value: object) -> float | None:
    """The number that a scalar or a constant of one element is, or None."""
    if isinstance(value, bool | int | float):
        return float(value)
    return float(value.item()) if is_static(value) and value.numel() == 1 else None


def per_axis(value: Any, count: int) -> list[int]:
    """An option that is one integer for all axes or one for each."""
    items: list[int] = list(map(int, cast("Sequence[Any]", value))) if isinstance(value, Sequence) else [int(value)]
    return items * count if len(items) == 1 else items


def axes_of(dim: Any, rank: int) -> list[int]:
    """The axes that `dim` names, from 0 to rank - 1 in rising order; all for None and for none."""
    listed = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    return sorted(int(axis) % max(rank, 1) for axis in listed) or list(range(rank))


def check_float32(e: Any, dtype: Any) -> None:
    """Raise HB0920 for an operation that is asked for another dtype."""
    if dtype not in (None, torch.float32):
        raise e.no_form(
            f"the result is asked for in {dtype}", why="the region computes on grids", lever="leave dtype out"
        )


def function(e: Any, x: Value, name: str, *parameters: float) -> Value:
    """A named function of `hbir.numerics` of every element."""
    return e.build.emit(FunctionOp, (x,), {"function": name, "parameters": parameters or None}, e.location)


def reshaped(e: Any, x: Value, extents: Sequence[int]) -> Value:
    """`x` under another shape."""
    return e.onnx("Reshape", x, torch.tensor([int(extent) for extent in extents], dtype=torch.int64), allowzero=1)


def transposed(e: Any, x: Value, order: Sequence[int]) -> Value:
    """`x` with its axes in another order."""
    return e.onnx("Transpose", x, perm=[int(axis) for axis in order])
