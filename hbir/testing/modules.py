"""Strategies for whole modules, valid by construction: one operation, or a graph of several."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from hbir.dialects.base import HbOperation
from hbir.module import Module
from hbir.testing.float_graphs import FLOAT_GENERATORS, IDIOMS, QAT_GENERATORS
from hbir.testing.graphs import Generator, Graph
from hbir.testing.quantized_graphs import QUANTIZED_GENERATORS

__all__ = ["GENERATORS", "modules", "operations"]

GENERATORS: dict[type[HbOperation], Generator] = {**FLOAT_GENERATORS, **QAT_GENERATORS, **QUANTIZED_GENERATORS}
"""Operation class -> what adds one to a graph. A test fails when a class of a dialect is missing here."""

_DIALECTS: dict[str, Sequence[Generator]] = {
    "hbir": (*FLOAT_GENERATORS.values(), *IDIOMS),
    "qat": tuple(QAT_GENERATORS.values()),
    "quantized": tuple(QUANTIZED_GENERATORS.values()),
}


@st.composite
def operations(draw: st.DrawFn, kind: type[HbOperation]) -> Module:
    """Modules around one operation of a class, with whatever constants and inputs it takes."""
    graph = Graph(draw)
    GENERATORS[kind](graph)
    return graph.finish()


@st.composite
def modules(draw: st.DrawFn, dialects: Sequence[str] = ("hbir",), max_ops: int = 6) -> Module:
    """Modules of one function with up to `max_ops` generated operations (constants, and parts of idioms, not counted).

    `dialects`: any of `hbir` (a float network, with the idioms of exporters), `qat`, `quantized`.
    """
    graph = Graph(draw)
    choices = [generator for name in dialects for generator in _DIALECTS[name]]
    for _ in range(draw(st.integers(1, max_ops))):
        draw(st.sampled_from(choices))(graph)
    return graph.finish()
