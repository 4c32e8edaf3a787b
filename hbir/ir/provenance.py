"""Which passes stand behind a difference: those whose names a pipeline has left in the locations, see `hbir.ir.locations`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from functools import cached_property
from typing import TypeAlias

from xdsl.ir import Attribute

from hbir.ir.locations import location_passes
from hbir.ir.matching import Partners

__all__ = ["Blame", "passes_between"]

Passes: TypeAlias = tuple[str, ...]


def passes_between(before: Attribute, after: Attribute) -> Passes:
    """The passes that the location `after` has met and `before` has not, in order, each as often as it came."""
    met = location_passes(after)
    if not met:
        return ()
    known = location_passes(before)
    common = 0
    while common < min(len(known), len(met)) and known[common] == met[common]:
        common += 1
    return met[common:]


class Blame:
    """The passes behind what only one of two blocks holds."""

    def __init__(self, pairs: Partners) -> None:
        self.pairs = pairs
        self._known: dict[tuple[str, ...], tuple[set[Passes], set[Passes], set[Passes]]] = {}

    def makers(self, b: int) -> Passes:
        """The passes that made an operation of the second block."""
        return location_passes(self.pairs.other.ops[b].location)

    def removers(self, a: int) -> Passes:
        """The passes behind an operation that is gone, which has no location any more.

        What was fused with it, and what read its results, was changed by the pass that removed it: the passes that all of
        these have met. Where there is no such, what was made for its layer tells, or else what is left of its layer.
        """
        fused, made, left = self._of_layers(self.pairs.one.names[a])
        heirs = _told(fused | self._readers[a]) or _told(made) or _told(left)
        common = [name for name in heirs[0] if all(name in each for each in heirs)] if heirs else []
        return tuple(dict.fromkeys(common or (name for each in heirs for name in each)))

    def _met(self, b: int) -> Passes:
        """The passes that an operation of the second block has met on the way."""
        a, location = self.pairs.back[b], self.pairs.other.ops[b].location
        return location_passes(location) if a < 0 else passes_between(self.pairs.one.ops[a].location, location)

    def _of_layers(self, names: tuple[str, ...]) -> tuple[set[Passes], set[Passes], set[Passes]]:
        """The passes that those have met which carry one of these layers now: what carries it since, what is new, the rest."""
        known = self._known.get(names)
        if known is None:
            known = self._known[names] = set[Passes](), set[Passes](), set[Passes]()
            for b in dict.fromkeys(b for name in names for b in self._carriers.get(name, ())):
                a = self.pairs.back[b]
                kind = 1 if a < 0 else 0 if set(self.pairs.one.names[a]).isdisjoint(names) else 2
                known[kind].add(self._met(b))
        return known

    @cached_property
    def _carriers(self) -> dict[str, list[int]]:
        """The operations of the second block by their layers."""
        found: dict[str, list[int]] = defaultdict(list)
        for b, names in enumerate(self.pairs.other.names):
            for name in names:
                found[name].append(b)
        return found

    @cached_property
    def _readers(self) -> dict[int, frozenset[Passes]]:
        """For what is gone, the passes that those have met which read its results, or those of readers that are gone too."""
        found: dict[int, frozenset[Passes]] = {}
        for a in range(len(self.pairs.forward) - 1, -1, -1):
            if self.pairs.forward[a] < 0:
                readers = {reader for _, reader, _ in self.pairs.one.readers[a]}
                partners = [self.pairs.forward[reader] for reader in readers]
                gone = [found.get(reader, frozenset()) for reader in readers if self.pairs.forward[reader] < 0]
                found[a] = frozenset().union({self._met(b) for b in partners if b >= 0}, *gone)
        return found


def _told(passes: Iterable[Passes]) -> list[Passes]:
    """What tells anything, in an order that does not depend on hashes."""
    return sorted({each for each in passes if each})
