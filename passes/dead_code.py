"""Removes operations whose results nobody reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from hbir.module import Module
from passes.common.rewriting import blocks, erase_dead
from passes.manager import Pass, Promise

__all__ = ["DeadCode"]


@dataclass(frozen=True)
class DeadCode(Pass):
    """Erase pure operations without users; every operation of the project is pure."""

    name: ClassVar[str] = "dead-code"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            erase_dead(block)
