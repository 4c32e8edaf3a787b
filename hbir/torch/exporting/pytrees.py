"""The pytrees of a model's inputs and outputs as text: what an exported module remembers, and what is read of it again.

Namedtuples are written as the module and the name of their class. The class is that of this process, looked for when the form
is asked for; nothing is imported, for a file may name any module.
"""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast
from weakref import WeakValueDictionary

from torch.utils import _pytree as pytree

from hbir.errors import TrainingError

__all__ = ["CONSTANTS", "Form", "read", "unknown", "written"]

CONSTANTS = (type(None), bool, int, float, str)
"""Leaves that text holds: among outputs they come back as they were."""


@dataclass(frozen=True)
class Form:
    """A pytree, and those of its leaves that are constants, in order."""

    spec: pytree.TreeSpec
    constants: tuple[Any, ...] = ()


_classes: WeakValueDictionary[str, type] = WeakValueDictionary()
"""Classes of namedtuples that this process has exported, by name: a class within a function cannot be imported."""


def written(spec: pytree.TreeSpec, constants: Sequence[Any] = ()) -> str:
    """A form as text: PyTorch's own where that says everything; of what has none the text that `unknown` makes."""
    names: dict[str, list[Any]] = {}
    for number, node in enumerate(_nodes(spec)):
        if (kind := _namedtuple(node)) is not None:
            name = f"{kind.__module__}:{kind.__qualname__}"
            _classes[name] = kind
            names[str(number)] = [name, *cast(Any, kind)._fields]
    plain = _changed(spec, dict.fromkeys(map(int, names), tuple))
    try:
        tree = pytree.treespec_dumps(plain)
    except (NotImplementedError, TypeError) as error:
        # A class that was registered without a name, or has contents that are no text.
        return unknown(f"PyTorch's pytrees do not write it down: {error}")
    if not names and not constants:
        return tree
    return json.dumps({"tree": tree, "classes": names, "constants": list(constants)})


def unknown(reason: str) -> str:
    """The text of a form that a module cannot know."""
    return json.dumps({"unknown": reason})


def read(text: str) -> Form | str:
    """The form that `written` was given, or the reason that `unknown` was.

    Raises TrainingError HB0926 for a namedtuple whose class has not been imported, or has other fields now.
    """
    if text.startswith("["):
        return Form(pytree.treespec_loads(text))
    found = json.loads(text)
    if "unknown" in found:
        return str(found["unknown"])
    kinds: dict[int, type] = {int(number): _class(*entry) for number, entry in found["classes"].items()}
    return Form(_changed(pytree.treespec_loads(found["tree"]), kinds), tuple(found["constants"]))


def _nodes(spec: pytree.TreeSpec) -> Iterator[pytree.TreeSpec]:
    """The nodes of a tree, each before what it holds."""
    yield spec
    for child in spec.children():
        yield from _nodes(child)


def _namedtuple(node: pytree.TreeSpec) -> type | None:
    kind = node.context
    return kind if not node.is_leaf() and isinstance(kind, type) and pytree.is_namedtuple_class(kind) else None


def _changed(spec: pytree.TreeSpec, kinds: dict[int, type]) -> pytree.TreeSpec:
    """A tree with tuples of another class at the nodes of these numbers; `tuple` itself is one."""
    numbers = iter(range(spec.num_nodes))

    def walk(node: pytree.TreeSpec) -> pytree.TreeSpec:
        kind = kinds.get(next(numbers))
        if node.is_leaf():
            return node
        children = [walk(child) for child in node.children()]
        if kind is None:
            return pytree.TreeSpec(node.type, node.context, children)
        return pytree.TreeSpec(tuple, None, children) if kind is tuple else pytree.TreeSpec(namedtuple, kind, children)

    return walk(spec)


def _class(name: str, *fields: str) -> type:
    """The class of a namedtuple: the one that was exported in this process, or the one that its module has."""
    kind = _classes.get(name)
    if kind is not None and cast(Any, kind)._fields == fields:
        return kind
    module, _, path = name.partition(":")
    # Not imported here: what a file names may be any module.
    found: Any = sys.modules.get(module)
    if found is None:
        raise _no_class(name, f"{module} has not been imported")
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and pytree.is_namedtuple_class(found)):
        raise _no_class(name, f"{module} has no namedtuple '{path}'")
    if cast(Any, found)._fields != fields:
        now = ", ".join(cast(Any, found)._fields)
        raise _no_class(name, f"its fields are {now} now, and were {', '.join(fields)}")
    return found


def _no_class(name: str, why: str) -> TrainingError:
    return TrainingError(
        26,
        f"the model's inputs or outputs hold the namedtuple {name.replace(':', '.')}, which is not to be had here",
        why=why,
        lever="define the class at the top of a module, and import that first; or feed the module's arguments by name, and take"
        " its results in their order",
    )
