"""Locations carry the user's layer names through every rewrite."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from xdsl.dialects.builtin import (
    UNKNOWN_LOC,
    CallSiteLoc,
    FileLineColLoc,
    FusedLoc,
    LocationAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
)
from xdsl.ir import Attribute, Operation

__all__ = ["fuse_locations", "layer_name", "location_names", "name_location"]


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
    return tuple(dict.fromkeys(_names(operation.location)))


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
