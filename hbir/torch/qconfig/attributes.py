"""The older way to say what is quantised how: attributes `qconfig` of modules, which hold for all below them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch

from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.observers import Observer
from hbir.torch.qconfig.choices import Choice
from hbir.torch.qconfig.plan import Plan
from hbir.torch.qconfig.qconfig import QConfig, as_qconfig
from hbir.torch.qconfig.setters import by_name
from hbir.torch.tracing.calls import Key
from hbir.torch.tracing.places import Place

__all__ = ["QconfigAttributes"]


class QconfigAttributes:
    """The rule that attributes `qconfig` in a model make.

    One holds for its module and all below it that have none. None means: not quantised. In a stub, which always has the
    attribute, None means nothing. Attributes stand before all other rules: what a user wrote to a module counts most.
    Raises TrainingError HB0941 for an attribute that is no QConfig.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self.names: dict[str, QConfig | None] = {}
        for path, module in cast("Iterable[tuple[str, Any]]", cast(Any, model).named_modules()):
            if isinstance(module, (FakeQuantize, Observer)) or "qconfig" not in module.__dict__:
                continue
            given: Any = module.__dict__["qconfig"]
            if given is not None:
                self.names[path] = as_qconfig(given, f"layer '{path}'")
            elif not _is_stub(module):
                self.names[path] = None

    def __bool__(self) -> bool:
        return bool(self.names)

    def choose(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> Mapping[Key, Choice]:
        """Choices for the places in modules that have the attribute, or are below one that has."""
        return by_name(Plan(places, chosen), self.names, "the attribute qconfig of")


def _is_stub(module: torch.nn.Module) -> bool:
    return type(module).__name__ in ("QuantStub", "DeQuantStub")
