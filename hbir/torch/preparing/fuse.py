"""Fusing modules by hand, as the older interface asks for: what is fused is marked, and the modules stay where they are."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.ao.nn.quantized import FloatFunctional

from hbir.errors import TrainingError
from hbir.torch.tracing.fusion import MARKED

__all__ = ["fuse_known_modules", "fuse_modules"]

_LAYERS = (
    *(torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d, torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d),
    torch.nn.Linear,
)
_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)
_ACTIVATIONS = (torch.nn.ReLU, torch.nn.ReLU6)
_ORDER: tuple[tuple[type[torch.nn.Module], ...], ...] = (_NORMS, (FloatFunctional,), _ACTIVATIONS)


def fuse_known_modules(mod_list: Sequence[torch.nn.Module], *_: Any, **__: Any) -> list[torch.nn.Module]:
    """What `torch.quantization.fuse_modules` takes as `fuser_func`: a layer with its batch norm, sum, and activation.

    The layer comes first, then any of the others in this order. Raises TrainingError HB0980 for another sequence.
    """
    modules = list(mod_list)
    rest = modules[1:]
    for kinds in _ORDER:
        if rest and isinstance(rest[0], kinds):
            rest = rest[1:]
    if not modules or not isinstance(modules[0], _LAYERS) or rest:
        names = ", ".join(type(module).__name__ for module in modules)
        raise TrainingError(
            80,
            f"[{names}] cannot be fused",
            why="a convolution, transposed convolution or linear layer takes a batch norm, a sum and a relu, in this order",
            lever="fuse a part of them; the sum is a FloatFunctional",
        )
    modules[0].__dict__[MARKED] = tuple(modules[1:])
    return modules


def fuse_modules(
    model: torch.nn.Module,
    modules_to_fuse: Sequence[str] | Sequence[Sequence[str]],
    inplace: bool = False,
    fuser_func: Callable[..., Any] = fuse_known_modules,
) -> torch.nn.Module:
    """Fuse the modules of a list of names, or of several lists; on a copy unless `inplace`.

    Raises TrainingError HB0980 for a sequence that cannot be fused, HB0981 for a name that the model does not have.
    """
    work = model if inplace else copy.deepcopy(model)
    several = [modules_to_fuse] if modules_to_fuse and isinstance(modules_to_fuse[0], str) else modules_to_fuse
    for names in several:
        found: list[torch.nn.Module] = []
        for name in names:
            try:
                found.append(work.get_submodule(str(name)))
            except AttributeError as error:
                raise TrainingError(
                    81, f"there is no module '{name}'", why=str(error), lever="check the name"
                ) from None
        fuser_func(found)
    return work
