"""Strategies for numbers: tensors with the values that break things, and grids that a network could have."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from hbir.dialects.base import Array
from hbir.dialects.quant import UniformQuantizedType

__all__ = ["SCALES", "filled", "quant_params", "shapes", "tensors"]

SCALES = (1.0, 0.5, 0.1, 0.05, 0.0078125, 0.0039215689, 0.02352941, 3.0, 1e-3, 1e-5)
"""Powers of two, decimal fractions that float32 rounds, 1/255, 6/255, and the small ones of weights."""


def shapes(rank: int, largest: int = 6) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes of one rank with extents from 1 to `largest`."""
    return st.tuples(*[st.integers(1, largest)] * rank)


def filled(shape: Sequence[int], dtype: npt.DTypeLike, seed: int, reach: float = 1.0) -> Array:
    """A deterministic array: normal floats of size `reach`, integers over the whole range, and a few special values.

    Special are zero, for floats the halves (which round either way) and values far out, for integers the limits.
    """
    rng = np.random.default_rng(seed)
    kind: np.dtype[Any] = np.dtype(dtype)
    array: Array
    special: Array
    if kind == np.bool_:
        return rng.integers(0, 2, shape).astype(np.bool_)
    if np.issubdtype(kind, np.floating):
        array = (rng.standard_normal(tuple(shape)) * reach).astype(kind)
        special = (np.array([0.0, -0.0, 0.5, -0.5, 1.5, 3.0, -4.0]) * reach).astype(kind)
    else:
        limits = np.iinfo(kind.name)
        array = rng.integers(limits.min, limits.max, tuple(shape), kind, endpoint=True)
        special = np.array([limits.min, limits.max, 0, 1, max(-1, limits.min)], kind)
    flat = array.reshape(-1)
    if flat.size and rng.integers(2):
        where = rng.integers(0, flat.size, max(1, flat.size // 8))
        flat[where] = rng.choice(special, where.size)
    return array


@st.composite
def tensors(
    draw: st.DrawFn,
    shape: Sequence[int] | st.SearchStrategy[tuple[int, ...]] | None = None,
    dtype: npt.DTypeLike = np.float32,
    reach: float = 1.0,
) -> Array:
    """Arrays of a shape (default: any of rank 0 to 4) and dtype; see `filled` for what is in them."""
    if shape is None:
        shape = st.integers(0, 4).flatmap(shapes)
    chosen = draw(shape) if isinstance(shape, st.SearchStrategy) else tuple(shape)
    return filled(chosen, dtype, draw(st.integers(0, 2**32 - 1)), reach)


@st.composite
def quant_params(
    draw: st.DrawFn, bits: Sequence[int] = (8, 16), *, symmetric: bool = False, scales: Sequence[float] = SCALES
) -> UniformQuantizedType:
    """Per-tensor grids. int16 grids are symmetric, as TOSA demands; int8 grids may have any zero point."""
    width = draw(st.sampled_from(tuple(bits)))
    zero: Any = st.just(0) if symmetric or width != 8 else st.one_of(st.just(0), st.sampled_from((-128, 127, 3, -70)))
    return UniformQuantizedType.get(width, draw(st.sampled_from(tuple(scales))), draw(zero))
