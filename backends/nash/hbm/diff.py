"""What differs between two `.hbm` files: sections, descriptions, layers, instructions, constants, and what the host runs."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from backends.nash.hbm import read
from backends.nash.hbm.container import unpack_sections
from backends.nash.hbm.graph import graph_to_json
from backends.nash.hbm.instruction_diff import InstructionDiff, diff_instructions, renamed_layers
from backends.nash.hbm.model import Cell, HostSegment, Model
from backends.nash.hbm.weight_diff import WeightChange, diff_weights
from hbir.errors import FileFormatError
from hbir.ir import Change, ConstantStore, Difference, ModuleDiff
from hbir.ir import diff as diff_host
from hbir.ir.apart import numbers_note
from hbir.module import Module

__all__ = ["HbmDiff", "HbmModelDiff", "SectionDiff", "diff_files", "diff_models"]


@dataclass(frozen=True)
class SectionDiff:
    """A section of the container on both sides: bytes and sha256 (hex), None where it is not."""

    name: str
    before_bytes: int | None
    after_bytes: int | None
    before_hash: str | None
    after_hash: str | None

    @property
    def same(self) -> bool:
        """Whether both files hold the same bytes."""
        return self.before_hash == self.after_hash


@dataclass(frozen=True)
class HbmModelDiff:
    """Two models of one name, or the single models of two files.

    `description` is the interface: name, march, options, memories, and every input and output. `layers` are the rows of the
    placement (where a layer runs, in how many tiles), `host` what the host CPU runs.
    """

    name: str
    description: tuple[Difference, ...]
    layers: tuple[Change, ...]
    instructions: InstructionDiff
    weights: tuple[WeightChange, ...]
    host: ModuleDiff


@dataclass(frozen=True)
class HbmDiff:
    """All that differs between two files; `removed` and `added` are models that only one of them holds."""

    sections: tuple[SectionDiff, ...]
    models: tuple[HbmModelDiff, ...]
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether any byte of any section differs."""
        return not all(section.same for section in self.sections)


def diff_files(before: str | Path, after: str | Path) -> HbmDiff:
    """What differs between two files. Raises what `read` raises, and what the host's functions raise when they are damaged."""
    sections = tuple(_sections(Path(before), Path(after)))
    ones, others = (list(read(path)) for path in (before, after))
    if len(ones) == len(others) == 1:
        return HbmDiff(sections, (diff_models(ones[0], others[0]),))
    named = {model.name: model for model in others}
    pairs = [(model, named[model.name]) for model in ones if model.name in named]
    known = {model.name for model, _ in pairs}
    removed, added = (tuple(model.name for model in side if model.name not in known) for side in (ones, others))
    return HbmDiff(sections, tuple(diff_models(one, other) for one, other in pairs), removed, added)


def diff_models(before: Model, after: Model) -> HbmModelDiff:
    """What differs between two models whose programs have passed the check of their records.

    A layer that has another name is told once, among the layers; its instructions and constants are compared as one layer's.
    """
    names = renamed_layers(before.program, after.program)
    program = replace(before.program, layers=tuple(names.get(name, name) for name in before.program.layers))
    return HbmModelDiff(
        after.name,
        tuple(_descriptions(before, after)),
        tuple(_layers(before.placements, after.placements, names)),
        diff_instructions(program, after.program),
        diff_weights(replace(before, program=program), after),
        _host(before.host, after.host),
    )


def _sections(before: Path, after: Path) -> Iterator[SectionDiff]:
    sides: list[dict[str, tuple[int, str]]] = []
    for path in (before, after):
        try:
            data = memoryview(path.read_bytes())
        except OSError as error:
            why = error.strerror or str(error)
            raise FileFormatError(28, f"{path} cannot be read", why=why, lever="check the path") from None
        sections = unpack_sections(data)
        sides.append({s.name: (len(s.data), hashlib.sha256(s.data).hexdigest()) for s in sections.values()})
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        one, other = sides[0].get(name, (None, None)), sides[1].get(name, (None, None))
        yield SectionDiff(name, one[0], other[0], one[1], other[1])


def _descriptions(before: Model, after: Model) -> Iterator[Difference]:
    ones, others = (dict(_facts("", json.loads(graph_to_json(model)))) for model in (before, after))
    yield from _different(ones, others)


def _facts(where: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The leaves of a description by their path; inputs and outputs by their names, lists of numbers whole."""
    if isinstance(value, dict):
        items = list(cast(dict[str, Any], value).items())
    elif where in ("inputs", "outputs"):
        items = [(f"'{item['name']}'", item) for item in value]
    else:
        yield where, value
        return
    for key, item in items:
        yield from _facts(f"{where} {key}".strip(), item)


def _different(ones: Mapping[str, Any], others: Mapping[str, Any]) -> Iterator[Difference]:
    for key in dict.fromkeys([*ones, *others]):
        a, b = (_text(side[key]) if key in side else "none" for side in (ones, others))
        if a != b:
            yield Difference(key, a, b, _note(ones.get(key), others.get(key)))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _note(a: Any, b: Any) -> str:
    """How far two lists of numbers lie apart."""
    lists = [cast(list[Any], each) for each in (a, b) if isinstance(each, list)]
    if len(lists) < 2 or not all(lists) or not all(type(item) in (int, float) for each in lists for item in each):
        return ""
    one, other = (np.array(each, object) for each in lists)
    return numbers_note(one, other)


def _layers(
    ones: Sequence[Mapping[str, Cell]], others: Sequence[Mapping[str, Cell]], names: Mapping[str, str]
) -> Iterator[Change]:
    """Rows of the placement, paired by layer and operation, then by layer alone; `names` are the new ones of layers."""

    def key(row: Mapping[str, Cell], parts: Sequence[str]) -> tuple[Cell, ...]:
        return tuple(row.get(part) for part in parts)

    renamed = [{**row, "layer": names.get(str(row["layer"]), row["layer"])} if "layer" in row else row for row in ones]
    partner: dict[int, int] = {}
    taken: set[int] = set()
    for keys in (("layer", "op"), ("layer",)):
        waiting: dict[tuple[Cell, ...], list[int]] = defaultdict(list)
        for at in range(len(others) - 1, -1, -1):
            if at not in taken:
                waiting[key(others[at], keys)].append(at)
        for at, row in enumerate(renamed):
            if at not in partner and (found := waiting.get(key(row, keys))):
                partner[at] = found.pop()
                taken.add(partner[at])
    for at, row in enumerate(ones):
        other = others[partner[at]] if at in partner else None
        if other is None:
            yield Change("", str(row.get("layer", "")), str(row.get("op", "")), None)
            continue
        differences = tuple(_different(row, other))
        if differences:
            yield Change("", str(other.get("layer", "")), str(row.get("op", "")), str(other.get("op", "")), differences)
    for at, row in enumerate(others):
        if at not in taken:
            yield Change("", str(row.get("layer", "")), None, str(row.get("op", "")))
    placed = {ones[at].get("layer") for at in partner}
    for old, new in names.items():
        if old not in placed:
            yield Change("", new, "layer", "layer", (Difference("layer", old, new),))


def _host(before: HostSegment | None, after: HostSegment | None) -> ModuleDiff:
    if before == after:
        return ModuleDiff((), 0)
    return diff_host(_module(before), _module(after))


def _module(host: HostSegment | None) -> Module:
    """The host's functions; an empty module for none. Raises FileFormatError HB0629 for a constant without its hash."""
    if host is None:
        return Module(ModuleOp([]), ConstantStore())
    store = ConstantStore()
    for digest, data in host.constants.items():
        if hashlib.sha256(data).hexdigest() != digest:
            what = f"host constant {digest[:12]}… does not have its hash"
            raise FileFormatError(29, what, lever="compile the model again")
        store.add(digest, data)
    return Module.parse(host.text, store, source="host section")
