"""Puts a mutant's code into the functions of a process that has imported everything: no second import, a mutant a moment.

A function keeps its identity and gets another code object, so that every name it was imported under means the mutant.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

__all__ = ["Patches"]

_CO_NEWLOCALS = 2  # of functions, lambdas and comprehensions; not of a module's or a class's body


def _outermost(code: CodeType) -> Iterator[CodeType]:
    """The code of functions and lambdas that stand in no other function, in the order of the source."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_flags & _CO_NEWLOCALS:
                yield constant
            else:
                yield from _outermost(constant)


class Patches:
    """Functions of `files` and caches of everything imported so far."""

    def __init__(self, files: Sequence[str]) -> None:
        paths = {str(Path(file).resolve()): file for file in files}
        self._old = {
            file: list(_outermost(compile(Path(path).read_text(encoding="utf-8"), path, "exec", dont_inherit=True)))
            for path, file in paths.items()
        }
        self._functions: dict[CodeType, list[FunctionType]] = {}
        for value in gc.get_objects():
            if type(value) is FunctionType and value.__code__.co_filename in paths:
                self._functions.setdefault(value.__code__, []).append(value)
        self._caches: list[Callable[[], Any]] = [
            value.cache_clear
            for name, module in list(sys.modules.items())
            if name.startswith(("hbir.", "backends."))
            for value in list(vars(module).values())
            if callable(getattr(value, "cache_clear", None))
        ]

    def clear_caches(self) -> None:
        """Forget results that were made before."""
        for clear in self._caches:
            clear()

    def apply(self, file: str, source: str) -> bool:
        """Give the functions of a file their code of `source`; False when that is not the whole difference."""
        path = str(Path(file).resolve())
        new = list(_outermost(compile(source, path, "exec", dont_inherit=True)))
        old = self._old[file]
        if len(new) != len(old):
            return False
        different = [(a, b) for a, b in zip(old, new, strict=True) if a != b]
        for before, after in different:
            functions = self._functions.get(before, [])
            if not functions or before.co_freevars != after.co_freevars:
                return False
            for function in functions:
                function.__code__ = after
        self.clear_caches()
        return bool(different)
