"""What hands its operand on, and constants that take only shape and place from a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from hbir.torch.operations.common import region_error
from hbir.torch.operations.registry import Kind, composite, methods, operation, properties, spellings

__all__: list[str] = []


@operation(
    Kind.SAME,
    *spellings("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"),
)
def dropout(e: Any, input: Any, *_: Any, **named: Any) -> Any:
    """The operand; while the model trains, some of its values are zero."""
    return input


@operation(
    Kind.SAME,
    *(torch.clone, torch.detach, torch.detach_, torch.positive),
    *methods("contiguous", "clone", "detach", "detach_", "float", "cpu", "cuda", "positive", "__pos__"),
    *properties("data"),
)
def identity(e: Any, input: Any, *_: Any, **named: Any) -> Any:
    """The operand in another place."""
    return input


@composite(*methods("to", "type", "type_as"))
def moved(input: Any, *args: Any, **named: Any) -> Any:
    """The operand on another device; another dtype is refused."""
    for each in (*args, *named.values()):
        dtype = each.dtype if isinstance(each, torch.Tensor) else each
        if isinstance(dtype, torch.dtype) and dtype is not torch.float32:
            lever = "leave the dtype alone between the stubs"
            raise region_error(
                53, f"a tensor of the region is cast to {dtype}", why="the region computes on grids", lever=lever
            )
    places = [each.device if isinstance(each, torch.Tensor) else each for each in (*args, *named.values())]
    device = next((torch.device(each) for each in places if isinstance(each, str | torch.device | int)), input.device)
    return input.float() if device == input.device else input.cpu() if device.type == "cpu" else input.cuda(device)


def _constants(name: str, made: Any) -> None:
    def constant(input: Any, *args: Any, **named: Any) -> torch.Tensor:
        named = {"dtype": torch.float32, "device": input.device, **named}
        named.pop("memory_format", None)
        return made(input, args, named)

    constant.__name__ = name
    constant.__doc__ = "A constant: only its shape and place come from the tensor."
    found = [getattr(room, name) for room in (torch, torch.Tensor) if hasattr(room, name)]
    composite(*found)(constant)


def _extents(args: tuple[Any, ...]) -> Any:
    return args[0] if len(args) == 1 and not isinstance(args[0], int) else args


_MADE: dict[str, Callable[[Any, Any, Any], torch.Tensor]] = {
    "empty_like": lambda x, args, named: torch.empty(x.shape, **named),
    "rand_like": lambda x, args, named: torch.rand(x.shape, **named),
    "randn_like": lambda x, args, named: torch.randn(x.shape, **named),
    "zeros_like": lambda x, args, named: torch.zeros(x.shape, **named),
    "ones_like": lambda x, args, named: torch.ones(x.shape, **named),
    "full_like": lambda x, args, named: torch.full(x.shape, *args, **named),
    "new_empty": lambda x, args, named: torch.empty(_extents(args), **named),
    "new_zeros": lambda x, args, named: torch.zeros(_extents(args), **named),
    "new_ones": lambda x, args, named: torch.ones(_extents(args), **named),
    "new_full": lambda x, args, named: torch.full(*args, **named),
    "new_tensor": lambda x, args, named: torch.tensor(*args, **named),
}

for _name, _made in _MADE.items():
    _constants(_name, _made)
