"""The rules of a preparation: attributes of modules first, then what the user gave, then the default for what is left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from hbir.torch.qconfig.attributes import QconfigAttributes
from hbir.torch.qconfig.choices import Choice, QconfigRule
from hbir.torch.qconfig.qconfig import get_qconfig
from hbir.torch.qconfig.setters import QconfigSetter
from hbir.torch.tracing.calls import Key
from hbir.torch.tracing.places import Place

__all__ = ["DefaultRule", "rules_for"]


class DefaultRule:
    """Eight bits everywhere, with the scales of the smallest mean square error, and accumulators for what only leaves.

    It fills what no rule before has chosen, and serves calibration and training alike.
    """

    def choose(self, places: Sequence[Place], chosen: Mapping[Key, Choice]) -> Mapping[Key, Choice]:
        """A choice for each place that has none."""
        return QconfigSetter(get_qconfig(), name="the default").choose(places, chosen)


def rules_for(model: torch.nn.Module, given: Sequence[QconfigRule]) -> list[QconfigRule]:
    """All rules of a preparation, the most important first."""
    attributes = QconfigAttributes(model)
    return [*([attributes] if attributes else []), *given, DefaultRule()]
