"""Where in the user's model a call stands: the modules that are running, and how many operations each has called so far.

Hooks of all modules keep the stack, one for each thread. The place of a call is the path of the innermost module and the number
of the call in it; a module that runs twice has the same places twice.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import torch

__all__ = [
    "KNOWN",
    "PATH",
    "PREPARED",
    "SITES",
    "Scope",
    "Site",
    "State",
    "current",
    "install",
    "replaced_module",
    "source_line",
    "state",
    "user_line",
]

SITES = "_hbir_sites"
"""The key under which a prepared module keeps its sites, by number."""
PATH = "_hbir_path"
"""The key under which a module of a prepared model keeps its path."""
PREPARED = "_hbir_prepared"
"""The key under which a prepared model keeps its march."""
KNOWN = "_hbir_known"
"""The key under which a prepared model keeps the paths of the modules that have sites."""


@dataclass
class Site:
    """What `prepare` decided for the call with one number in a module."""

    operation: str
    source: str
    name: str
    """The user's name for it."""
    fake_quant: str = ""
    """Name, below the module, of the fake quant of the result; empty for none."""
    weight_fake_quant: str = ""
    batch_norm: tuple[torch.nn.Module, ...] = ()
    """The batch norm that is folded into the weights. A tuple, so that it does not become a submodule."""
    folded: bool = False
    summed: bool = False
    inputs: tuple[tuple[int, str], ...] = ()
    """Numbers of operands that are held to grids of their own, and the names of their fake quants."""


@dataclass
class Scope:
    """A module that is running."""

    path: str
    module: torch.nn.Module
    count: int = 0
    """Calls so far."""


@dataclass
class State(threading.local):
    """What a thread knows."""

    scopes: list[Scope] = field(default_factory=list[Scope])
    calls: list[Any] | None = None
    """Where calls are recorded, or None."""
    exact: Any = None
    """What computes the values that leave the region in the state VALIDATION, or None."""
    root: torch.nn.Module | None = None
    """The prepared model that runs."""
    watch: Callable[[Any, Any, Any], None] | None = None
    """What is shown each call with its result, before it is held to its grid and behind that; for diagnosis."""


state = State()
"""That of this thread."""


def current() -> Scope | None:
    """The innermost module that runs, or None outside of any."""
    return state.scopes[-1] if state.scopes else None


def _enter(module: torch.nn.Module, *_: Any) -> None:
    state.scopes.append(Scope(module.__dict__[PATH], module))


def _leave(module: torch.nn.Module, *_: Any) -> None:
    # A module that raised in its pre-hook was never entered.
    while state.scopes:
        if state.scopes.pop().module is module:
            return


def install(model: torch.nn.Module) -> None:
    """Give all modules of a model their paths and hooks."""
    named = cast("Iterable[tuple[str, Any]]", model.named_modules())
    for path, module in named:
        if PATH not in module.__dict__:
            module.register_forward_pre_hook(_enter)
            module.register_forward_hook(_leave, always_call=True)
        module.__dict__[PATH] = path


_OURS, _TORCHS = __file__.rpartition("/tracing/")[0], torch.__file__.rpartition("/")[0]


def user_line() -> tuple[str, int]:
    """File and number of the innermost line that is neither this package's nor PyTorch's; ("", 0) without one."""
    frame = inspect.currentframe()
    while frame is not None:
        if not frame.f_code.co_filename.startswith((_OURS, _TORCHS)):
            return frame.f_code.co_filename, frame.f_lineno
        frame = frame.f_back
    return "", 0


def source_line() -> str:
    """That line as `file.py:12`."""
    name, number = user_line()
    return f"{name.rpartition('/')[2]}:{number}" if name else ""


def replaced_module(model: torch.nn.Module) -> str | None:
    """The path of a module that stood in a prepared model and is gone, or another one now; None as long as all are there."""
    for path in model.__dict__.get(KNOWN, ()):
        module: torch.nn.Module | None = model
        for name in path.split(".") if path else ():
            module = None if module is None else dict(module.named_children()).get(name)
        if module is None or SITES not in module.__dict__:
            return path
    return None
