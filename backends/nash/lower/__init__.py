"""From quantised operations to work for units: `lower(module) -> UnitGraph`."""

from backends.nash.lower.graph import Node, Storage, TensorView, UnitGraph
from backends.nash.lower.lowering import lower

__all__ = ["Node", "Storage", "TensorView", "UnitGraph", "lower"]
