"""Who did it: after each pass of a pipeline, the operations that it made or changed are tagged with its name, each time anew.

A new operation carries on the tags of those of its kind and layer that the pass removed, so that a rewritten convolution
still tells who folded its batch norm. Passes know nothing of this.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xdsl.dialects.builtin import LocationAttr
from xdsl.ir import Attribute, Operation, SSAValue

from hbir.ir.locations import location_names, location_passes, names_in, tag_location
from hbir.module import Module
from passes.common.rewriting import blocks

__all__ = ["changes_tagged"]


@dataclass(frozen=True, slots=True)
class _State:
    """What an operation was before a pass."""

    attributes: tuple[tuple[str, Attribute], ...]
    results: tuple[Attribute, ...]
    operands: tuple[SSAValue, ...]
    location: LocationAttr


@contextmanager
def changes_tagged(module: Module, name: str) -> Generator[None]:
    """Tag what changes inside the `with` with the pass `name`; nothing is tagged when it fails."""
    before = {op: _state(op) for op in _operations(module)}
    yield
    now = list(_operations(module))
    history = _removed(before, set(now))
    for op in now:
        was = before.get(op)
        if was is None:
            earlier = dict.fromkeys(tag for layer in location_names(op) for tag in history.get((_kind(op), layer), ()))
            op.location = tag_location(op.location, (*earlier, name))
        elif _changed(op, was, before):
            op.location = tag_location(op.location, (*location_passes(was.location), name))
        elif op.location is not was.location:
            op.location = was.location  # the same names; a rewrite may have lost the tags


def _operations(module: Module) -> Iterator[Operation]:
    return (op for _, block in blocks(module) for op in block.ops)


def _kind(op: Operation) -> str:
    """``conv2d``, for the float operation and for the integer one."""
    return op.name.rsplit(".", 1)[-1]


def _attributes(op: Operation) -> tuple[tuple[str, Attribute], ...]:
    return (*op.attributes.items(), *op.properties.items())


def _state(op: Operation) -> _State:
    return _State(_attributes(op), tuple(op.result_types), tuple(op.operands), op.location)


def _removed(before: dict[Operation, _State], alive: set[Operation]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The passes behind what is gone, by kind and layer."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for op, was in before.items():
        if op not in alive and (tags := location_passes(was.location)):
            for layer in names_in(was.location):
                key = (_kind(op), layer)
                found[key] = tuple(dict.fromkeys((*found.get(key, ()), *tags)))
    return found


def _changed(op: Operation, was: _State, before: dict[Operation, _State]) -> bool:
    """Whether anything of an operation is new, where the same operand made anew is not."""
    if _attributes(op) != was.attributes or tuple(op.result_types) != was.results:
        return True
    if op.location is not was.location and location_names(op) != names_in(was.location):
        return True
    operands = tuple(op.operands)
    if len(operands) != len(was.operands):
        return True
    return any(
        _source(new, {}) != _source(old, before)
        for new, old in zip(operands, was.operands, strict=True)
        if new is not old
    )


def _source(value: SSAValue, before: dict[Operation, _State]) -> object:
    """Kind and layer of what makes a value; the argument itself for an argument."""
    owner = value.owner
    if not isinstance(owner, Operation):
        return value
    return _kind(owner), names_in(before[owner].location if owner in before else owner.location)
