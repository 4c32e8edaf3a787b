"""YAML of a configuration file as plain values. The text is not trusted: what it holds when all aliases are written out has a
bound, and so has the length of a number; a key that is there twice is refused, because one of its values would be lost."""

from __future__ import annotations

from typing import Any, cast

import yaml
from yaml.constructor import ConstructorError
from yaml.scanner import ScannerError

__all__ = ["LONGEST", "NotYamlError", "load_yaml"]

LONGEST = 1 << 18
"""Characters of a text."""

_LARGEST = 4_000
"""Values that a text holds, each alias counted as all that it stands for."""

_TEXT = 64
"""Characters of a text that count as one value."""

_DEEPEST = 32
"""Brackets inside brackets: the scanner takes time for each of them at every token."""

_DIGITS = 40
"""Characters of a number: numbers with colons between sixties take quadratic time."""

# What PyYAML raises, beside its own errors, over tags that do not fit their values, such as `!!int ''`.
_ESCAPING = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class NotYamlError(Exception):
    """A text is not YAML, or more than a configuration holds; the message is one line."""


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._sizes: dict[int, int] = {}

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:  # noqa: N803 - PyYAML's name
        scanner = cast(Any, self)
        if scanner.flow_level >= _DEEPEST:
            raise ScannerError(None, None, f"more than {_DEEPEST} brackets inside each other", scanner.get_mark())
        cast(Any, super()).fetch_flow_collection_start(TokenClass)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> Any:
        alias = bool(cast(Any, self).check_event(yaml.AliasEvent))
        node = cast(Any, super()).compose_node(parent, index)
        if alias and id(node) not in self._sizes:
            raise ConstructorError(None, None, "a value holds itself", node.start_mark)
        if not alias:
            self._sizes[id(node)] = self._size(node)
        if max(self._sizes[id(node)], len(self._sizes)) > _LARGEST:
            raise ConstructorError(None, None, f"more than {_LARGEST} values", node.start_mark)
        return node

    def _size(self, node: Any) -> int:
        match node:
            case yaml.SequenceNode():
                inner = cast(list[Any], node.value)
            case yaml.MappingNode():
                inner = [each for pair in cast(list[tuple[Any, Any]], node.value) for each in pair]
            case _:
                return 1 + len(node.value) // _TEXT
        return 1 + sum(self._sizes[id(each)] for each in inner)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = {"<<"}
        keys = (key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.value != "<<")
        for key in keys:
            if key in seen:
                raise ConstructorError(None, None, f"the key '{key}' is there twice", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _number(loader: Any, node: yaml.ScalarNode) -> int | float:
    if len(node.value) > _DIGITS:
        raise ConstructorError(None, None, f"a number of {len(node.value)} characters", node.start_mark)
    return loader.construct_yaml_int(node) if node.tag.endswith(":int") else loader.construct_yaml_float(node)


for tag in ("int", "float"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{tag}", _number)


def load_yaml(text: str) -> Any:
    """What a YAML text holds. Raises NotYamlError."""
    if len(text) > LONGEST:
        raise NotYamlError(f"it has {len(text)} characters, a configuration at most {LONGEST}")
    try:
        return yaml.load(text, _Loader)
    except (yaml.YAMLError, *_ESCAPING) as error:
        raise NotYamlError(" ".join(str(error).split()) or type(error).__name__) from None
