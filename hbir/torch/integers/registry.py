"""Operation class -> how it is prepared. What is missing here runs on the host, by its own meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from hbir.dialects.base import Array, HbOperation

__all__ = ["BUILDERS", "Builder", "Call", "Prepared", "binary", "builds", "unary"]

Call: TypeAlias = Callable[..., torch.Tensor]
"""A prepared operation: its aligned operands (None where absent) -> its result.

It changes no operand. Its result may be a view of one."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call, and the operands whose constant values it holds already: it is given None for them."""

    call: Call
    absorbed: tuple[int, ...] = ()


def unary(call: Callable[[torch.Tensor], torch.Tensor]) -> Prepared:
    """An operation of one operand."""
    return Prepared(call)


def binary(call: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Prepared:
    """An operation of two operands."""
    return Prepared(call)


Builder: TypeAlias = Callable[[Any, Sequence[Array | None], torch.device], "Prepared | None"]
"""(operation, the values of its aligned operands where they are constants, device) -> the operation ready to run, or None
where it works on floats and is left to the host."""

BUILDERS: dict[type[HbOperation], Builder] = {}
"""One builder for each operation that has integers."""


def builds(*kinds: type[HbOperation]) -> Callable[[Builder], Builder]:
    """Register a builder for operation classes."""

    def register(builder: Builder) -> Builder:
        for kind in kinds:
            BUILDERS[kind] = builder
        return builder

    return register
