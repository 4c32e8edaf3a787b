"""The part of the TOSA oracle that only moves values: CONCAT, PAD, RESHAPE, SLICE, TRANSPOSE, REVERSE and TILE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from hbir.testing.oracles.tosa_graph import Graph

__all__ = ["concat", "pad", "reshape", "reverse", "slice_", "tile", "transpose"]

Array = npt.NDArray[Any]
Ints = Sequence[int]


def concat(arrays: Sequence[Array], axis: int) -> Array:
    """CONCAT."""
    graph = Graph()
    return graph.run(graph.concat([graph.input(each) for each in arrays], axis))[0]


def pad(x: Array, padding: Sequence[tuple[int, int]], value: int = 0) -> Array:
    """PAD with (before, after) per axis."""
    graph = Graph()
    return graph.run(graph.pad(graph.input(x), padding, value))[0]


def reshape(x: Array, shape: Ints) -> Array:
    """RESHAPE."""
    graph = Graph()
    return graph.run(graph.reshape(graph.input(x), shape))[0]


def slice_(x: Array, start: Ints, size: Ints) -> Array:
    """SLICE."""
    graph = Graph()
    return graph.run(graph.slice(graph.input(x), start, size))[0]


def transpose(x: Array, permutation: Ints) -> Array:
    """TRANSPOSE."""
    graph = Graph()
    return graph.run(graph.transpose(graph.input(x), permutation))[0]


def reverse(x: Array, axis: int) -> Array:
    """REVERSE."""
    graph = Graph()
    return graph.run(graph.reverse(graph.input(x), axis))[0]


def tile(x: Array, multiples: Ints) -> Array:
    """TILE."""
    graph = Graph()
    return graph.run(graph.tile(graph.input(x), multiples))[0]
