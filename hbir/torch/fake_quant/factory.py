"""Factories of fake quants and observers: a class and some of its arguments, as `with_args` makes them in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Factory"]


@dataclass(frozen=True)
class Factory:
    """Calls `function` with `keywords`, and with what the call adds to them."""

    function: Callable[..., Any]
    keywords: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __call__(self, **more: Any) -> Any:
        """A new one."""
        return self.function(**{**self.keywords, **more})

    def with_args(self, **more: Any) -> Factory:
        """The factory with further arguments, or others."""
        return Factory(self.function, {**self.keywords, **more})

    def __repr__(self) -> str:
        given = ", ".join(f"{key}={getattr(value, '__name__', value)}" for key, value in self.keywords.items())
        return f"{getattr(self.function, '__name__', self.function)}({given})"
