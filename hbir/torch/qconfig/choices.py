"""What a rule decides for a place of a model, the protocol of rules, and why a layer got what it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.tracing.calls import Key
from hbir.torch.tracing.places import Place

__all__ = ["Choice", "QconfigRule", "explain"]


@dataclass(frozen=True)
class Choice:
    """The fake quants of one place, new ones, and why they are what they are."""

    activation: FakeQuantize | None = None
    """What holds the result; None where it is not rounded (fused with what follows, or handed out as an accumulator)."""
    weight: FakeQuantize | None = None
    inputs: Mapping[int, FakeQuantize] = field(default_factory=dict[int, FakeQuantize])
    """What holds an operand, by its number, before the operation reads it; most are held where they are made."""
    reasons: tuple[str, ...] = ()
    """The rules that had a say, the last word last; `explain` shows them."""
    quantized: bool = True
    """Whether it is computed in integers; not so where a qconfig is None."""


class QconfigRule(Protocol):
    """What `prepare` takes as `qconfig_setter`, alone or in a tuple, the most important first."""

    def choose(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> Mapping[Key, Choice]:
        """The choices for the places it knows something about.

        `chosen` are those that rules before it made: a rule leaves them as they are, so that the first in a tuple has the last
        word on a place, and a default at the end fills what is left.
        """
        ...


def explain(choices: Mapping[Key, Choice], layer: str) -> str:
    """Which quantisation the places of a layer (a module's path, or the name of a place) got, and which rules said so.

    Raises TrainingError HB0942 when nothing of that name is quantised.
    """
    lines: list[str] = []
    for (path, number), choice in choices.items():
        if path == layer or path.startswith(f"{layer}.") or layer in ("", f"{path}:{number}"):
            lines.append(f"{path or '(model)'}, call {number}: {_outcome(choice)}")
            lines += [f"    {reason}" for reason in choice.reasons]
    if not lines:
        known = ", ".join(sorted({path or f":{number}" for path, number in choices})[:20])
        raise TrainingError(42, f"no layer '{layer}' is quantised", lever=f"choose one of {known}")
    return "\n".join(lines)


def _outcome(choice: Choice) -> str:
    if not choice.quantized:
        return "not quantised"
    parts = [f"input {number} {_shown(fake)}" for number, fake in choice.inputs.items()]
    if choice.weight is not None:
        parts.append(f"weight {_shown(choice.weight)}")
    parts.append("output not rounded" if choice.activation is None else f"output {_shown(choice.activation)}")
    return ", ".join(parts)


def _shown(fake: FakeQuantize) -> str:
    if fake.fixed:
        return f"{fake.dtype} with the fixed scale {float(fake.scale):.6g}"
    how = f"{fake.dtype} by {type(fake.activation_post_process).__name__}"
    return how + (", frozen in training" if fake.frozen else ", learned in training" if fake.learned else "")
