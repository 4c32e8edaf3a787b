"""Which part of each tensor is worked on at a time, and where tensors live meanwhile: `tile(graph, march) -> TilePlan`."""

from backends.nash.tile.plan import NodePlan, TilePlan
from backends.nash.tile.regions import Part, input_part, output_part, tile_axis
from backends.nash.tile.residency import TileOptions, tile

__all__ = ["NodePlan", "Part", "TileOptions", "TilePlan", "input_part", "output_part", "tile", "tile_axis"]
