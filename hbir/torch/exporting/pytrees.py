"""The pytrees of a model's inputs and outputs as text: what an exported module remembers, and what is read of it again.

Namedtuples are written as the module and the name of their class. The class is that of this process, looked for when the form
is asked for; nothing is imported, for a file may name any module.
"""

from __future__ import annotations

import json
import sys
from collections import OrderedDict, defaultdict, namedtuple
from collections.abc import Iterator, Sequence
from contextlib import suppress
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
    """A form as text: PyTorch's own where that says everything; of what has none the text that `unknown` makes.

    None has, too, what could not be read again, as a default factory that is a lambda.
    """
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
    text = json.dumps({"tree": tree, "classes": names, "constants": list(constants)}) if names or constants else tree
    try:
        found = read(text)
    except TrainingError as error:
        return unknown(f"it could not be read again: {error.what}, {error.why}")
    return unknown(f"it could not be read again: {found}") if isinstance(found, str) else text


def unknown(reason: str) -> str:
    """The text of a form that a module cannot know."""
    return json.dumps({"unknown": reason})


def read(text: str) -> Form | str:
    """The form that `written` was given, or the reason that `unknown` was, or that the text is damaged.

    Raises TrainingError HB0926 for a class, a namedtuple's or another one that the form names, whose module has not been
    imported, or which has other fields now.
    """
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        return _damaged(error)
    match found:
        case [_, _]:
            return _form(text, {}, [])
        case {"unknown": str(reason)}:
            return reason
        case {"tree": str(tree), "classes": dict(), "constants": list()}:
            return _form(tree, found["classes"], found["constants"])
        case _:
            return _damaged("it is no form")


def _damaged(why: object) -> str:
    return f"the text that the module has of it is damaged: {why}"


def _form(tree: str, classes: dict[str, Any], constants: list[Any]) -> Form | str:
    """The form of a tree that is PyTorch's text, with the classes of namedtuples by the numbers of their nodes."""
    if not all(isinstance(each, CONSTANTS) for each in constants):
        return _damaged("a constant is no number and no text")
    kinds: dict[int, type] = {}
    for number, entry in classes.items():
        match entry:
            case [str(name), *fields] if (
                number.isdecimal() and len(number) < 10 and all(isinstance(each, str) for each in fields)
            ):
                kinds[int(number)] = _class(name, *fields)
            case _:
                return _damaged(f"the class of node {number} has no name")
    try:
        for module in _modules(json.loads(tree)):
            if sys.modules.get(module) is None:
                raise _no_class(f"a class of {module}", f"{module} has not been imported")
        spec = pytree.treespec_loads(tree)
        for number, node in enumerate(_nodes(spec)):
            if not _sound(node, kinds.get(number)):
                return _damaged(f"node {number} is no {node.type.__name__} of {node.num_children} values")
    except _ESCAPING as error:
        return _damaged(f"{type(error).__name__}: {error}")
    return Form(_changed(spec, kinds), tuple(constants))


def _sound(node: pytree.TreeSpec, kind: type | None) -> bool:
    """Whether a node can be built: one name for each value, and a class where a default comes from."""
    if kind is not None:
        return node.type is tuple and len(cast(Any, kind)._fields) == node.num_children
    if node.type is defaultdict:
        factory, names = node.context
        return isinstance(factory, type) and len(set(names)) == node.num_children
    return node.type not in (dict, OrderedDict) or len(set(node.context)) == node.num_children


_ESCAPING = (AssertionError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError, ValueError)
"""What PyTorch's reader of trees lets out over damaged text, and what its contexts raise where they are no names."""


def _modules(value: Any) -> Iterator[str]:
    """The modules that PyTorch's reader would import for a tree: of enumerations among keys, and of default factories."""
    match value:
        case list():
            for each in cast(list[Any], value):
                yield from _modules(each)
        case dict():
            for key, each in cast(dict[str, Any], value).items():
                if key == "fqn" and isinstance(each, str):
                    yield each.partition(":")[0]
                elif key == "default_factory_module" and isinstance(each, str):
                    yield each
                elif key == "context" and isinstance(each, str):
                    yield from _modules(_context(each))
                else:
                    yield from _modules(each)
        case _:
            return


def _context(text: str) -> list[Any]:
    """The objects in the context of a node, those in front of a mistake too: PyTorch's reader has imported what they name when
    it meets that. What is no JSON at all is the affair of the class that wrote it."""
    found: list[Any] = []

    def seen(value: dict[str, Any]) -> dict[str, Any]:
        found.append(value)
        return value

    with suppress(ValueError):
        json.loads(text, object_hook=seen)
    return found


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
    what = f"the namedtuple {module}.{path}"
    # Not imported here: what a file names may be any module.
    found: Any = sys.modules.get(module)
    if found is None:
        raise _no_class(what, f"{module} has not been imported")
    for part in path.split("."):
        found = getattr(found, part, None)
    if not (isinstance(found, type) and pytree.is_namedtuple_class(found)):
        raise _no_class(what, f"{module} has no namedtuple '{path}'")
    if cast(Any, found)._fields != fields:
        now = ", ".join(cast(Any, found)._fields)
        raise _no_class(what, f"its fields are {now} now, and were {', '.join(fields)}")
    return found


def _no_class(what: str, why: str) -> TrainingError:
    return TrainingError(
        26,
        f"the model's inputs or outputs hold {what}, which is not to be had here",
        why=why,
        lever="define the class at the top of a module, and import that first; or feed the module's arguments by name, and take"
        " its results in their order",
    )
