"""Locations carry the user's layer names through every rewrite, and the passes that made or changed an operation.

A layer is MLIR's ``loc("conv1")``, several are ``loc(fused["conv1", "relu1"])``. Passes are the metadata of a fused location,
as MLIR has it: ``loc(fused<"quantize">["conv1"])``, or a list of strings, the first pass first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    ArrayAttr,
    CallSiteLoc,
    FileLineColLoc,
    FusedLoc,
    LocationAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
)
from xdsl.ir import Attribute, Operation

__all__ = [
    "fuse_locations",
    "layer_name",
    "location_names",
    "location_passes",
    "name_location",
    "names_in",
    "tag_location",
]


def name_location(name: str) -> LocationAttr:
    """``loc("conv1")``: one layer of the user's network."""
    return NameLoc(StringAttr(name), NoneAttr())


def _names(location: Attribute) -> Iterator[str]:
    match location:
        case NameLoc():
            yield location.desc.data
        case FusedLoc():
            for part in location.locations:  # pyright: ignore[reportGeneralTypeIssues, reportUnknownVariableType]
                yield from _names(part)  # pyright: ignore[reportUnknownArgumentType]
        case CallSiteLoc():
            yield from _names(location.callee)
        case FileLineColLoc():
            yield f"{location.filename.data}:{location.line.data}"
        case _:
            return


def location_names(operation: Operation) -> tuple[str, ...]:
    """The user's layer names behind an operation, each once, in order."""
    return names_in(operation.location)


def names_in(location: Attribute) -> tuple[str, ...]:
    """The user's layer names in a location, each once, in order."""
    return tuple(dict.fromkeys(_names(location)))


def layer_name(operation: Operation) -> str:
    """The layer that a report shows for an operation: the names it came from, or its kind when it has none."""
    return "+".join(location_names(operation)) or operation.name


def fuse_locations(locations: Iterable[LocationAttr]) -> LocationAttr:
    """One location for an operation made from several: their names, each once."""
    names = dict.fromkeys(name for location in locations for name in _names(location))
    parts = [name_location(name) for name in names]
    if not parts:
        return UNKNOWN_LOC
    return parts[0] if len(parts) == 1 else FusedLoc(tuple(parts), NoneAttr())


def location_passes(location: Attribute) -> tuple[str, ...]:
    """The passes that a location is tagged with, the first pass first; empty for what no pipeline has touched."""
    if not isinstance(location, FusedLoc):
        return ()
    metadata = location.metadata
    tags = cast(ArrayAttr[Attribute], metadata).data if isinstance(metadata, ArrayAttr) else (metadata,)
    return tuple(tag.data for tag in tags if isinstance(tag, StringAttr))


def tag_location(location: LocationAttr, passes: Sequence[str]) -> LocationAttr:
    """`location` with exactly these passes; with none of them, as it is without a tag."""
    parts: Sequence[Attribute] = (location,)
    if isinstance(location, FusedLoc) and (isinstance(location.metadata, NoneAttr) or location_passes(location)):
        parts = cast(ArrayAttr[Attribute], location.locations).data
    if not passes:
        return cast(LocationAttr, parts[0]) if len(parts) == 1 else FusedLoc(tuple(parts), NoneAttr())
    tags = [StringAttr(name) for name in passes]
    return FusedLoc(tuple(parts), tags[0] if len(tags) == 1 else ArrayAttr(tags))
