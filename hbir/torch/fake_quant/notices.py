"""Warnings of training: each has a code, and says what to change; a model gives each once."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from hbir.errors import TrainingError
from hbir.torch.tracing.scopes import current, source_line, state, user_line

__all__ = ["TrainingWarning", "warn_once", "where"]

_GIVEN = "_hbir_warned"


class TrainingWarning(UserWarning):
    """What goes wrong in a model without stopping it. `code` is that of a row in the table of error codes."""

    def __init__(self, error: TrainingError | str) -> None:
        # A text where a warning is made again in another process, which knows its text alone.
        super().__init__(str(error))
        self.code, self.lever = ("", "") if isinstance(error, str) else (error.code, error.lever)


def where() -> str:
    """The layer and the line of user code that are running."""
    scope, line = current(), source_line()
    return ", ".join(
        part for part in (f"layer '{scope.path}'" if scope is not None and scope.path else "", line) if part
    )


def warn_once(error: TrainingError, owner: torch.nn.Module) -> None:
    """Warn, unless the model that runs (without one: `owner`) warned of that code before; see `forget`."""
    root = state.scopes[0].module if state.scopes else owner
    given: set[str] = root.__dict__.setdefault(_GIVEN, set())
    if error.code not in given:
        given.add(error.code)
        file, line = user_line()
        # A registry of its own: Python shows a text once for each line, and this is once for each model.
        warnings.warn_explicit(TrainingWarning(error), None, file or __file__, line, registry={})


def forget(model: torch.nn.Module) -> None:
    """What was warned of may happen again, and is then warned of again."""
    for module in model.modules():
        given: Any = module.__dict__.get(_GIVEN)
        if given:
            given.clear()
