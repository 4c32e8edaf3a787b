"""The table of converters, filled by a decorator: operator and domain to functions, each valid from its opset on.

Packages that bring a dialect (see `hbir.dialects`) register converters of their own domain where they define its operations.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hbir.dialects import all_dialects

if TYPE_CHECKING:
    from hbir.frontends.onnx.node import Node
    from hbir.frontends.onnx.values import Value

__all__ = ["CONTRIB", "Converter", "converter_for", "converts", "known_domains", "supported_operators", "versions_of"]

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""

Converter: TypeAlias = "Callable[[Node], Value | tuple[Value, ...]]"
"""Takes a node with its operands, returns its results; raises ImportModelError."""

ConverterT = TypeVar("ConverterT", bound=Callable[..., Any])

_FAMILIES = (
    "activations",
    "convolution",
    "einsum",
    "elementwise",
    "indexing",
    "movement",
    "normalization",
    "pooling",
    "quantization",
    "reductions",
    "resize",
    "shapes",
)
_VERSION = re.compile(r"_v(\d+)$")
_TABLE: dict[tuple[str, str], list[tuple[int, Converter]]] = {}


def converts(*operators: str, domain: str = "") -> Callable[[ConverterT], ConverterT]:
    """Register a converter for operators. Its name ends in `_vN`: it holds from opset N to the next one registered."""

    def register(function: ConverterT) -> ConverterT:
        found = _VERSION.search(function.__name__)
        if found is None:
            raise ValueError(f"the name of converter {function.__name__} does not end in _vN")
        for operator in operators:
            versions = _TABLE.setdefault((domain, operator), [])
            versions.append((int(found[1]), function))
            versions.sort(key=lambda entry: entry[0])
        return function

    return register


@cache
def _loaded() -> dict[tuple[str, str], list[tuple[int, Converter]]]:
    for family in _FAMILIES:
        import_module(f"hbir.frontends.onnx.{family}")
    all_dialects()
    return _TABLE


@cache
def known_domains() -> frozenset[str]:
    """The domains that have converters; "" is ONNX's own."""
    return frozenset(domain for domain, _ in _loaded())


def versions_of(operator: str, domain: str) -> list[int]:
    """The opsets from which converters of an operator hold; empty for an unknown one."""
    return [version for version, _ in _loaded().get((domain, operator), [])]


def converter_for(operator: str, domain: str, opset: int) -> Converter | None:
    """The converter with the greatest version not above `opset`, or None."""
    versions = _loaded().get((domain, operator), [])
    index = bisect_right([version for version, _ in versions], opset)
    return versions[index - 1][1] if index else None


def supported_operators() -> dict[str, list[int]]:
    """Every operator that can be imported, as "domain::name" or a plain ONNX name, with its converters' opsets."""
    table = _loaded()
    return {
        f"{domain}::{operator}" if domain else operator: versions_of(operator, domain)
        for domain, operator in sorted(table)
    }
