"""What PyTorch functions mean to the quantised region: one entry for each operation, found by any of its spellings.

An entry is the function that says the operation in operators of ONNX, whose meaning the ONNX front end knows; its parameters
are the operation's in normal form, so that positional and named arguments, functions and methods look the same. A composite
entry runs other operations in place of the function instead: its numbers are those of its parts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
import torch.nn.functional

__all__ = ["Kind", "Operation", "composite", "lookup", "methods", "operation", "operations", "properties", "spellings"]


class Kind(Enum):
    """How the result of an operation is quantised."""

    COMPUTE = "on a grid of its own"
    WEIGHTED = "on a grid of its own; the second operand is a weight"
    KEEP = "on the grid of its operand: it only moves or selects values"
    SAME = "the operand itself"
    PLAIN = "not at all: integers or booleans come out"
    COMPOSITE = "as its parts are"


@dataclass(frozen=True)
class Operation:
    """An operation of PyTorch."""

    name: str
    kind: Kind
    function: Callable[..., Any]
    """What says it in operators of ONNX; of a composite, what runs in its place."""
    spellings: tuple[Callable[..., Any], ...]


_BY_SPELLING: dict[object, Operation] = {}
_BY_NAME: dict[str, Operation] = {}


def _register(kind: Kind, spellings: tuple[Callable[..., Any], ...]) -> Callable[[Callable[..., Any]], Any]:
    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        # Some methods are one function under two names.
        entry = Operation(function.__name__.rstrip("_"), kind, function, tuple(dict.fromkeys(spellings)))
        if entry.name in _BY_NAME:
            raise ValueError(f"operation {entry.name} is registered twice")
        _BY_NAME[entry.name] = entry
        for spelling in entry.spellings:
            if spelling in _BY_SPELLING:
                raise ValueError(f"{spelling} is {_BY_SPELLING[spelling].name} already")
            _BY_SPELLING[spelling] = entry
        return function

    return add


def operation(kind: Kind, *spellings: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Register the function below, `(emitter, ...parameters) -> value(s)`, for the spellings."""
    return _register(kind, spellings)


def composite(*spellings: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Register the function below, which calls other operations, to run in place of the spellings."""
    return _register(Kind.COMPOSITE, spellings)


def lookup(function: object) -> Operation | None:
    """The operation that a PyTorch function spells, or None."""
    return _BY_SPELLING.get(function)


def operations() -> dict[str, Operation]:
    """All operations by name."""
    return dict(sorted(_BY_NAME.items()))


def methods(*names: str) -> tuple[Callable[..., Any], ...]:
    """Methods of a tensor by name."""
    return tuple(getattr(torch.Tensor, name) for name in names)


def properties(*names: str) -> tuple[Callable[..., Any], ...]:
    """Properties of a tensor by name, such as `T`: what reads them."""
    return tuple(getattr(torch.Tensor, name).__get__ for name in names)


def spellings(*names: str) -> tuple[Callable[..., Any], ...]:
    """Everything that PyTorch calls by these names: in `torch.nn.functional`, in `torch`, as methods; and in place."""
    found: list[Callable[..., Any]] = []
    for name in names:
        for room in (torch.nn.functional, torch, torch.Tensor):
            for each in (getattr(room, name, None), getattr(room, f"{name}_", None)):
                if callable(each) and each not in found:
                    found.append(each)
    return tuple(found)
