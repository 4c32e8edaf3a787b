"""PyTorch's `FloatFunctional` as a module that runs: its operations stand in it, and not in the module around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.ao.nn.quantized import FloatFunctional

from hbir.torch.tracing.scopes import PATH, Scope, state

__all__ = ["ScopedFunctional"]


def _add_relu(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.relu(torch.add(x, y))


# Their results are held where every operation's are, not once more by the module's own fake quant.
_METHODS: dict[str, Callable[..., Any]] = {
    "add": torch.add,
    "add_relu": _add_relu,
    "add_scalar": torch.add,
    "cat": torch.cat,
    "matmul": torch.matmul,
    "mul": torch.mul,
    "mul_scalar": torch.mul,
}


class ScopedFunctional(FloatFunctional):
    """A `FloatFunctional` whose operations bear its name."""


def _scoped(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def run(self: ScopedFunctional, *args: Any, **kwargs: Any) -> Any:
        if PATH not in self.__dict__:
            return function(*args, **kwargs)
        state.scopes.append(Scope(self.__dict__[PATH], self))
        depth = len(state.scopes)
        try:
            return function(*args, **kwargs)
        finally:
            del state.scopes[depth - 1 :]

    run.__name__, run.__doc__ = name, f"`{name}` of the operands."
    return run


for _name, _function in _METHODS.items():
    setattr(ScopedFunctional, _name, _scoped(_name, _function))
