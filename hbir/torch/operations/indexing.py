"""Parts of a tensor by number: every form of `x[...]` whose indices do not depend on data, and the functions for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import region_error, reshaped, shape
from hbir.torch.operations.registry import Kind, composite, methods, operation, spellings

__all__: list[str] = []


def _sliced(e: Any, x: Value, bounds: list[tuple[int, int, int]]) -> Value:
    starts, ends, steps = ([bound[part] for bound in bounds] for part in range(3))
    return e.onnx("Slice", x, starts, ends, list(range(len(bounds))), steps) if bounds else x


def _check_index(e: Any, item: Any) -> None:
    known = item is None or item is Ellipsis or isinstance(item, int | slice | list | tuple | np.ndarray | torch.Tensor)
    cut = cast(Any, item)
    parts: tuple[Any, ...] = (cut.start, cut.stop, cut.step) if isinstance(item, slice) else ()
    if not known or any(part is not None and not isinstance(part, int) for part in parts):
        raise e.no_form(
            "an index depends on values of the region",
            why="shapes and positions are fixed when the model is compiled",
            lever="index with constants, or behind a DeQuantStub",
        )


@operation(Kind.KEEP, *methods("__getitem__"))
def getitem(e: Any, input: Value, index: Any) -> Value:
    """`x[index]`: numbers, slices, None, `...`, and constants of integers or booleans."""
    items: list[Any] = list(cast("tuple[Any, ...]", index)) if isinstance(index, tuple) else [index]
    for item in items:
        _check_index(e, item)
    arrays = [item for item in items if _is_array(item)]
    if len(arrays) > 1 or any(isinstance(item, bool) or _is_mask(item) for item in items):
        return _picked(e, input, lambda numbers: numbers[index])
    axes = len([item for item in items if item is not None and item is not Ellipsis])
    if not any(item is Ellipsis for item in items):
        items.append(Ellipsis)
    at = next(number for number, item in enumerate(items) if item is Ellipsis)
    items[at : at + 1] = [slice(None)] * (len(shape(input)) - axes)
    rest = [item for item in items if item is not None]
    bounds = [_bounds(item, extent) for item, extent in zip(rest, shape(input), strict=True)]
    x = _sliced(e, input, bounds)
    for axis, item in enumerate(rest):
        if _is_array(item):
            x = e.onnx("Gather", x, np.asarray(item, np.int64), axis=axis)
    return reshaped(e, x, e.shape)


def _is_array(item: Any) -> bool:
    return isinstance(item, list | tuple | np.ndarray | torch.Tensor)


def _is_mask(item: Any) -> bool:
    return _is_array(item) and np.asarray(item).dtype == np.bool_


def _bounds(item: Any, extent: int) -> tuple[int, int, int]:
    if isinstance(item, slice):
        begin, end, step = item.indices(extent)
        return begin, max(begin, end), step
    return (item % extent, item % extent + 1, 1) if isinstance(item, int) else (0, extent, 1)


def _picked(e: Any, x: Value, pick: Callable[[torch.Tensor], torch.Tensor]) -> Value:
    """Elements in any order, found by picking from a tensor of their numbers."""
    count = math.prod(shape(x))
    numbers = pick(torch.arange(count).reshape(shape(x))).reshape(-1)
    return reshaped(e, e.onnx("Gather", reshaped(e, x, [count]), numbers, axis=0), e.shape)


@operation(Kind.KEEP, *spellings("select"))
def select(e: Any, input: Value, dim: int, index: int) -> Value:
    """One slice along an axis, without it."""
    extent = shape(input)[dim]
    bounds = [(0, size, 1) for size in shape(input)]
    bounds[dim] = (index % extent, index % extent + 1, 1)
    return reshaped(e, _sliced(e, input, bounds), e.shape)


@operation(Kind.KEEP, *spellings("narrow"))
def narrow(e: Any, input: Value, dim: int, start: int, length: int) -> Value:
    """A range of slices along an axis."""
    bounds = [(0, size, 1) for size in shape(input)]
    start = int(start) % max(shape(input)[dim], 1)
    bounds[dim] = (start, start + length, 1)
    return _sliced(e, input, bounds)


def _known(e: Any, index: Any) -> torch.Tensor:
    if not isinstance(index, torch.Tensor):
        raise e.no_form(
            "an index depends on values of the region", lever="index with constants, or behind a DeQuantStub"
        )
    return index.detach().cpu()


@operation(Kind.KEEP, *spellings("index_select"))
def index_select(e: Any, input: Value, dim: int, index: Any) -> Value:
    """Slices at constant positions."""
    return e.onnx("Gather", input, _known(e, index), axis=dim)


@operation(Kind.KEEP, *spellings("gather"))
def gather(e: Any, input: Value, dim: int, index: Any, *, sparse_grad: bool = False) -> Value:
    """Elements at constant positions."""
    return _picked(e, input, lambda numbers: torch.gather(numbers, dim, _known(e, index)))


@operation(Kind.KEEP, *spellings("take_along_dim"))
def take_along_dim(e: Any, input: Value, indices: Any, dim: int | None = None) -> Value:
    """Elements at constant positions."""
    return _picked(e, input, lambda numbers: torch.take_along_dim(numbers, _known(e, indices), dim))


@operation(Kind.KEEP, torch.diagonal, *methods("diagonal"))
def diagonal(e: Any, input: Value, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Value:
    """The elements on a diagonal."""
    return _picked(e, input, lambda numbers: torch.diagonal(numbers, offset, dim1, dim2))


@composite(*methods("__setitem__"))
def setitem(input: Any, index: Any, value: Any) -> None:
    """Refused: who else reads the tensor cannot be told."""
    raise region_error(
        51,
        "values are written into a part of a tensor",
        why="a tensor of the region is what its operation gave",
        lever="put the parts together with torch.cat, or choose with torch.where and a constant mask",
    )


def _leaves_python(name: str) -> None:
    def refuse(input: Any, *_: Any, **named: Any) -> Any:
        raise region_error(
            52,
            f"a value of the region becomes a number of Python ('{name}')",
            why="what depends on it would be fixed when the model is prepared",
            lever="move it behind a DeQuantStub",
        )

    refuse.__name__ = f"to_python_{name.strip('_')}"
    refuse.__doc__ = "Refused: control flow and numbers that depend on data have no integer form."
    composite(*methods(name))(refuse)


for _name in ("item", "tolist", "numpy", "__bool__", "__float__", "__int__", "__index__", "__contains__", "__array__"):
    _leaves_python(_name)
