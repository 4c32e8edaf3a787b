"""PyTorch's `FloatFunctional` as a module that runs: its operations stand in it, and not in the module around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.ao.nn.quantized import FloatFunctional

from hbir.torch.tracing.scopes import PATH, Scope, state

__all__ = ["ScopedFunctional"]

_METHODS = ("add", "add_relu", "add_scalar", "cat", "matmul", "mul", "mul_scalar")


class ScopedFunctional(FloatFunctional):
    """A `FloatFunctional` whose operations bear its name."""


def _scoped(name: str) -> Callable[..., Any]:
    method = getattr(FloatFunctional, name)

    def run(self: ScopedFunctional, *args: Any, **kwargs: Any) -> Any:
        if PATH not in self.__dict__:
            return method(self, *args, **kwargs)
        state.scopes.append(Scope(self.__dict__[PATH], self))
        depth = len(state.scopes)
        try:
            return method(self, *args, **kwargs)
        finally:
            del state.scopes[depth - 1 :]

    run.__name__, run.__doc__ = name, method.__doc__ or f"`{name}` of the operands."
    return run


for _name in _METHODS:
    setattr(ScopedFunctional, _name, _scoped(_name))
