"""A graph that a test builds operation by operation, while hypothesis decides the details."""

from __future__ import annotations

from hypothesis import strategies as st

from hbir.ir.constants import ConstantStore
from hbir.testing.graphs import Graph

__all__ = ["graphs"]


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """An empty graph, whose choices are drawn as the test makes them."""
    return Graph(draw, draw(st.builds(ConstantStore)))
