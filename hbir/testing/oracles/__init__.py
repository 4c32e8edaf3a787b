"""Judges from outside the project: programs that compute the same operations independently, so that tests can compare
with `==`. `tosa` runs Arm's TOSA reference model, `tosa_cases` its generated conformance cases. They need the extra
`test`."""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["import_test_package"]


def import_test_package(name: str) -> ModuleType:
    """Import a package that only tests need; `ImportError` says how to get it when it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = f"'{name}' is not installed; this oracle needs the package tosa-tools: pip install 'hbir[test]'"
        raise ImportError(message, name=name) from error
