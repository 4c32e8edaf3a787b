"""What ran in the quantised region: calls of operations, linked by the values that pass between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch

from hbir.torch.operations.registry import Kind, Operation

if TYPE_CHECKING:
    from hbir.torch.fake_quant.fake_quantize import FakeQuantize

__all__ = [
    "Call",
    "Key",
    "Ref",
    "enters_region",
    "is_layer",
    "leaves_region",
    "operands",
    "replaced",
    "upstream",
    "weight_of",
]

Key = tuple[str, int]
"""The path of a module, and the number of a call in it."""


@dataclass(frozen=True, eq=False)
class Ref:
    """A result of a call."""

    call: Call
    index: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents of the value."""
        return self.call.shapes[self.index]


@dataclass(eq=False)
class Call:
    """One call of an operation, or of a stub."""

    name: str
    """The user's name for it: a module's path, or that of the module it stands in and a number."""
    operation: Operation | str
    """The operation; `quant` and `dequant` of stubs."""
    arguments: tuple[Any, ...]
    """Values as `Ref`, constants and parameters as tensors, everything else as it was given."""
    keywords: dict[str, Any]
    source: str
    """`file.py:12`, the line of user code."""
    shapes: tuple[tuple[int, ...], ...] = ()
    fake_quant: FakeQuantize | None = None
    """What holds the result to its grid."""
    weight_fake_quant: FakeQuantize | None = None
    inputs: dict[int, FakeQuantize] = field(default_factory=lambda: dict[int, "FakeQuantize"]())
    """What holds operands, by their number among the values."""
    batch_norm: torch.nn.Module | None = None
    """The batch norm that is folded into the weights."""
    folded: bool = False
    """Of a batch norm: it is part of the call in front of it."""
    summed: bool = False
    """Of a layer: a sum behind it is computed along with it."""
    key: Key = ("", 0)
    module: torch.nn.Module | None = field(default=None, repr=False)
    value: torch.Tensor | None = field(default=None, repr=False)
    """Of a stub: the tensor that entered or left, where it is needed: while a model is traced, and in a part that validates."""

    @property
    def kind(self) -> str:
        """The operation's name."""
        return self.operation if isinstance(self.operation, str) else self.operation.name


def enters_region(call: Call) -> bool:
    """Whether a call brings in an input: that of a QuantStub which nothing in the region feeds."""
    return call.kind == "quant" and not call.arguments


def leaves_region(call: Call) -> bool:
    """Whether what a call gives is an output: that of a DeQuantStub, and integers, which need none."""
    return call.kind == "dequant" or (isinstance(call.operation, Operation) and call.operation.kind is Kind.PLAIN)


def is_layer(call: Call) -> bool:
    """Whether a call is a convolution or a linear layer."""
    return isinstance(call.operation, Operation) and call.operation.kind is Kind.WEIGHTED


def weight_of(call: Call) -> tuple[torch.Tensor, int] | None:
    """The constant weight of a layer, and the axis of it that has the output channels; None where the weight is computed."""
    weight = call.arguments[1] if len(call.arguments) > 1 else call.keywords.get("weight")
    if not isinstance(weight, torch.Tensor):
        return None
    return weight, 1 if call.kind.startswith("conv_transpose") else 0


def operands(value: Any) -> Iterator[Ref]:
    """The values among arguments, in order."""
    if isinstance(value, Ref):
        yield value
    else:
        for item in _parts(value):
            yield from operands(item)


def _parts(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return cast("dict[Any, Any]", value).values()
    if isinstance(value, slice):
        parts = cast(Any, value)
        return parts.start, parts.stop, parts.step
    return cast("Iterable[Any]", value) if isinstance(value, tuple | list) else ()


_FORMS = (tuple, list, dict, slice)


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """Arguments with `change` applied to each leaf; tuples, lists, dictionaries and slices keep their form."""
    if type(value) is tuple:  # nearly always, and for each call of a training step
        items = cast("tuple[Any, ...]", value)
        return tuple([replaced(item, change) if isinstance(item, _FORMS) else change(item) for item in items])
    if isinstance(value, dict):
        return {key: replaced(item, change) for key, item in cast("dict[Any, Any]", value).items()}
    if not isinstance(value, tuple | list | slice):
        return change(value)
    items = [replaced(item, change) for item in _parts(value)]
    if isinstance(value, slice):
        return slice(*items)
    if isinstance(value, list):
        return items
    kind = cast(Any, type(cast(Any, value)))
    return kind(*items) if hasattr(kind, "_fields") else tuple(items)


def upstream(outputs: Iterable[Call]) -> list[Call]:
    """The calls that outputs need, operands first; in the order of a depth-first walk."""
    found: dict[Call, None] = {}
    pending: list[tuple[Call, bool]] = [(call, False) for call in reversed(list(outputs))]
    while pending:
        call, done = pending.pop()
        if done:
            found.setdefault(call)
        elif call not in found:
            pending.append((call, True))
            needed = [ref.call for ref in operands((call.arguments, call.keywords))]
            pending += [(each, False) for each in reversed(needed) if each not in found]
    return list(found)
