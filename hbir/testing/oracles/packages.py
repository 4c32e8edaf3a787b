"""Packages that only oracles need: imported when they are asked for, with a word on how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["import_test_package"]

_TOSA_TOOLS = ("tosa_reference_model", "tosa_serializer", "generator", "schemavalidation")


def import_test_package(name: str) -> ModuleType:
    """Import a package that only tests need; `ImportError` says how to get it when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = "tosa-tools" if name.split(".")[0] in _TOSA_TOOLS else name
        message = f"'{name}' is not installed; this oracle needs the package {package}: pip install 'hbir[test]'"
        raise ImportError(message, name=name) from error
