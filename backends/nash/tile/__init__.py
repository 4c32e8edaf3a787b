"""Which part of each tensor is worked on at a time, and where tensors live meanwhile: `tile(graph, march) -> TilePlan`."""

from backends.nash.tile.costs import node_cycles
from backends.nash.tile.plan import Group, NodePlan, TilePlan
from backends.nash.tile.regions import Part, input_part, output_part, tile_axis
from backends.nash.tile.residency import TileOptions, tile

__all__ = [
    "Group",
    "NodePlan",
    "Part",
    "TileOptions",
    "TilePlan",
    "input_part",
    "node_cycles",
    "output_part",
    "tile",
    "tile_axis",
]
