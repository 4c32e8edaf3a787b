"""Strategies for numbers: tensors with the values that break things, and grids that a network could have.

What is drawn is decided by whole numbers alone (`Choices`), so that the same code serves hypothesis, which shrinks them, and
a plain seed, which is many times faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hbir.dialects.base import Array
from hbir.dialects.quant import UniformQuantizedType
from hbir.testing.checked import (
    checked_choices,
    checked_dtype,
    checked_flag,
    checked_scales,
    checked_shape,
    checked_size,
)

__all__ = ["SCALES", "Choices", "Drawn", "chosen_grid", "chosen_shape", "filled", "quant_params", "shapes", "tensors"]

T = TypeVar("T")

SCALES = (1.0, 0.5, 0.1, 0.05, 0.0078125, 0.0039215689, 0.02352941, 3.0, 1e-3, 1e-5, 2.0**10, 2.0**-30)
"""Powers of two, decimal fractions that float32 rounds, 1/255, 6/255, the small ones of weights, and two extremes."""

_LONG = (7, 8, 11, 13, 16, 17, 31, 33, 64)
"""Extents that no power of two divides, and those around the widths of the units."""
_SMALL = 6


class Choices(Protocol):
    """Whatever decides how an example looks."""

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options; examples shrink towards the first."""
        ...

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included; examples shrink towards `low`."""
        ...


class Drawn:
    """Choices that hypothesis makes and shrinks."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def choose(self, options: Iterable[T]) -> T:
        """One of a few options."""
        return self.draw(st.sampled_from(tuple(options)))

    def integer(self, low: int, high: int) -> int:
        """An integer between two bounds, both included."""
        return self.draw(st.integers(low, high))


def chosen_shape(choices: Choices, rank: int, largest: int | None = None) -> tuple[int, ...]:
    """A shape of one rank: extents up to `largest`; else mostly up to 6, at times a long axis, equal ones, a map."""
    if largest is not None or not rank:
        return tuple(choices.integer(1, largest or 1) for _ in range(rank))
    kind = choices.integer(0, 19)
    if kind == 19 and rank == 4:
        return 1, choices.choose(_LONG), choices.choose(_LONG), choices.choose((3, 16, 20, 33))
    if kind == 18:
        return (choices.integer(1, 4),) * rank
    small = [choices.integer(1, _SMALL) for _ in range(rank)]
    if 1 <= kind <= rank:
        small[kind - 1] = choices.choose(_LONG)
    return tuple(small)


@st.composite
def shapes(draw: st.DrawFn, rank: int, largest: int | None = None) -> tuple[int, ...]:
    """Shapes of one rank: see `chosen_shape`. One, odd and prime extents are common, large ones rare."""
    return chosen_shape(Drawn(draw), rank, largest)


def filled(shape: Sequence[int], dtype: npt.DTypeLike, seed: int, reach: float = 1.0) -> Array:
    """A deterministic array: normal floats of size `reach`, integers over the whole range, and special values.

    Half of the arrays have some zeros of both signs, halves (which round either way) and values far out, or the limits of an
    integer type; one in sixteen lies wholly at one end, which saturates whatever adds it up.
    """
    rng = np.random.default_rng(seed)
    kind: np.dtype[Any] = np.dtype(dtype)
    array: Array
    special: Array
    if kind == np.bool_:
        return np.array(rng.integers(0, 2, shape), np.bool_)
    if np.issubdtype(kind, np.floating):
        array = np.array(rng.standard_normal(tuple(shape)) * reach, kind)
        special = (np.array([-4.0, 4.0, 0.0, -0.0, 0.5, -0.5, 1.5, 3.0]) * reach).astype(kind)
    else:
        limits = np.iinfo(kind.name)
        array = np.array(rng.integers(limits.min, limits.max, tuple(shape), kind, endpoint=True))
        special = np.array([limits.min, limits.max, 0, 1, max(-1, limits.min)], kind)
    flat = array.reshape(-1)
    if flat.size and rng.integers(2):
        where = rng.integers(0, flat.size, max(1, flat.size // 8))
        flat[where] = rng.choice(special, where.size)
        if not rng.integers(8):
            flat[:] = special[rng.integers(2)]
    return array


def tensors(
    shape: Sequence[int] | st.SearchStrategy[tuple[int, ...]] | None = None,
    dtype: npt.DTypeLike = np.float32,
    reach: float = 1.0,
    *,
    finite: bool = True,
) -> st.SearchStrategy[Array]:
    """Arrays of a shape (default: any of rank 0 to 4) and dtype; see `filled` for what is in them.

    Without `finite`, floats may also be infinite or no number::

        @given(tensors((1, 8, 8, 3), np.int8))
        def test_my_kernel(x): ...

    Raises IrError HB0245 for arguments that do not fit.
    """
    if shape is None:
        shape = st.integers(0, 4).flatmap(shapes)
    known = shape if isinstance(shape, st.SearchStrategy) else checked_shape(shape)
    return _tensors(known, checked_dtype(dtype), checked_size("reach", reach), checked_flag("finite", finite))


@st.composite
def _tensors(
    draw: st.DrawFn,
    shape: tuple[int, ...] | st.SearchStrategy[tuple[int, ...]],
    dtype: np.dtype[Any],
    reach: float,
    finite: bool,
) -> Array:
    chosen = checked_shape(draw(shape)) if isinstance(shape, st.SearchStrategy) else shape
    array = filled(chosen, dtype, draw(st.integers(0, 2**32 - 1)), reach)
    if not finite and array.size and np.issubdtype(array.dtype, np.floating):
        for value in draw(st.lists(st.sampled_from((np.inf, -np.inf, np.nan)), max_size=3)):
            array.reshape(-1)[draw(st.integers(0, array.size - 1))] = value
    return array


def chosen_grid(
    choices: Choices, bits: Sequence[int] = (8, 16), *, symmetric: bool = False, scales: Sequence[float] = SCALES
) -> UniformQuantizedType:
    """A per-tensor grid; see `quant_params`."""
    width = choices.choose(bits)
    scale = choices.choose(scales)
    zero = 0 if symmetric or width != 8 else choices.choose((0, 0, 0, -128, 127, 3, -70))
    return UniformQuantizedType.get(width, scale, zero)


def quant_params(
    bits: Sequence[int] = (8, 16), *, symmetric: bool = False, scales: Sequence[float] = SCALES
) -> st.SearchStrategy[UniformQuantizedType]:
    """Per-tensor grids. int16 grids are symmetric, as TOSA demands; int8 grids may have any zero point::

        @given(quant_params((8,), symmetric=True))
        def test_my_observer(grid): assert grid.zero_point == 0

    Raises IrError HB0245 for arguments that do not fit.
    """
    widths = checked_choices("bits", bits, (8, 16))
    return _grids(widths, checked_flag("symmetric", symmetric), checked_scales(scales))


@st.composite
def _grids(draw: st.DrawFn, bits: Sequence[int], symmetric: bool, scales: Sequence[float]) -> UniformQuantizedType:
    return chosen_grid(Drawn(draw), bits, symmetric=symmetric, scales=scales)
