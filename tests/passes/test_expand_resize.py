"""A nearest resize behind the last layer is movement of floats, by any factors; none of them runs on the host."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from xdsl.dialects.builtin import f32

from hbir.dialects.hbir import ResizeNearestOp
from hbir.testing import assert_round_trips, assert_same_semantics
from hbir.testing.graphs import Graph
from passes import Pipeline
from tests.passes.drawing import graphs
from tests.passes.on_units import assert_on_units


@settings(max_examples=40)
@given(graphs())
def test_whole_factors_are_movement(g: Graph) -> None:
    size, factor = [g.integer(1, 4) for _ in range(2)], [g.integer(1, 4) for _ in range(2)]
    rows, columns = (np.repeat(np.arange(n), k).tolist() for n, k in zip(size, factor, strict=True))
    g.add(ResizeNearestOp.make(g.input((g.integer(1, 2), *size, g.integer(1, 3)), f32), rows=rows, columns=columns))
    module = g.finish()
    changed = Pipeline("expand-resize", verify="exec").run(module)
    assert_same_semantics(module, changed)
    assert_round_trips(changed)
    assert not any(isinstance(op, ResizeNearestOp) for op in changed[0].operations)


@pytest.mark.parametrize(("scales", "extents", "steps"), [("twice", (24, 20), 2), ("half_more", (18, 15), 2)])
def test_resizes_behind_the_last_layer_run_on_units(scales: str, extents: tuple[int, int], steps: float) -> None:
    rng = np.random.default_rng(2)
    factors = {"twice": [1, 1, 2, 2], "half_more": [1, 1, 1.5, 1.5]}[scales]
    constants = {"w": rng.uniform(-0.5, 0.5, (8, 8, 1, 1)).astype(np.float32), scales: np.array(factors, np.float32)}
    assert_on_units(
        f'a = Conv (x, w) y = Resize <mode = "nearest"> (a, , {scales})',
        f"(float[1,8,12,10] x) => (float[1,8,{extents[0]},{extents[1]}] y)",
        constants,
        steps=steps,
    )
