"""Which bytes of the memories hold something: one flag for each byte, asked and set through strided views."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from backends.nash.isa.records import View

__all__ = ["MemorySizes", "WrittenBytes", "byte_box"]


class MemorySizes(Protocol):
    """Sizes in bytes; the first `constants` bytes of DDR hold the constants."""

    @property
    def constants(self) -> int: ...
    def size_of(self, space: str) -> int: ...


@lru_cache(maxsize=1 << 16)
def byte_box(view: View) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Extents and strides of the view's bytes: outermost first, adjacent axes merged, repeats left out, a dense run
    last."""
    run = view.itemsize
    outer: list[tuple[int, int]] = []
    for stride, extent in sorted((s, n) for n, s in zip(view.shape, view.strides, strict=True) if n > 1 and s):
        if not outer and stride == run:
            run *= extent
        elif outer and stride == outer[-1][0] * outer[-1][1]:
            outer[-1] = (outer[-1][0], outer[-1][1] * extent)
        else:
            outer.append((stride, extent))
    outer.reverse()
    return (*(extent for _, extent in outer), run), (*(stride for stride, _ in outer), 1)


class WrittenBytes:
    """Flags for every byte of DDR behind the constants, of L2M and of each L1M. Memories start unwritten."""

    def __init__(self, sizes: MemorySizes) -> None:
        self._sizes = sizes
        self._flags: dict[tuple[str, int], npt.NDArray[np.bool_]] = {}

    def _box(self, view: View) -> npt.NDArray[np.bool_]:
        key = (view.space, view.core)
        start = self._sizes.constants if view.space == "DDR" else 0
        flags = self._flags.get(key)
        if flags is None:
            flags = self._flags[key] = np.zeros(self._sizes.size_of(view.space) - start, np.bool_)
        shape, strides = byte_box(view)
        return as_strided(flags[view.address - start :], shape, strides)

    def write(self, view: View) -> None:
        """Mark every byte of a view that lies behind the constants."""
        self._box(view)[...] = True

    def all(self, view: View) -> bool:
        """Whether every byte was written. A view that is half in the constants counts as not written."""
        if view.space == "DDR" and view.address < self._sizes.constants:
            return view.end <= self._sizes.constants
        return bool(self._box(view).all())
