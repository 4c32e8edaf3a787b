"""Where large values cancel, their rounding is allowed, and little else is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from xdsl.dialects.builtin import f32

from hbir.dialects import hbir as f
from hbir.dialects.base import Array
from hbir.errors import PassError
from hbir.module import Module
from hbir.testing import Seeded
from hbir.testing.graphs import SeededGraph
from passes import Pass, Pipeline, Promise
from passes.common.rewriting import insert_before, replace
from passes.debugging.bisect import bisect
from passes.debugging.conditioning import rounding

Y = np.array([0.3, -1.7, 0.011, 1.0], np.float32)


@dataclass(frozen=True)
class Cancel(Pass):
    """`(x + y) - x` is `y`, times `by`."""

    name: ClassVar[str] = "cancel"
    promise: ClassVar[Promise] = Promise.LAYOUT

    by: float = 1.0

    def run(self, module: Module) -> None:
        total, difference = module[0].operations
        factor = insert_before(difference, f.constant(np.array(self.by, np.float32), module.constants, f32)).output
        replace(difference, [insert_before(difference, f.MulOp.make(total.operands[1], factor), [difference]).output])


def cancelling(large: float) -> tuple[Module, dict[str, Array]]:
    graph = SeededGraph(Seeded(0))
    x, y = (graph.input((4,), f32) for _ in range(2))
    graph.add(f.SubOp.make(graph.add(f.AddOp.make(x, y)), x))
    return graph.finish(), {"in_0": np.full(4, large, np.float32), "in_1": Y}


def test_the_rounding_of_values_that_cancel_is_no_fault() -> None:
    module, feed = cancelling(1e4)
    assert np.abs(module[0].feed(feed)["out_0"] - Y).max() > 1e-4 * Y.max()
    assert Pipeline([Cancel()], verify="exec", feeds=[feed]).run(module)
    assert bisect(module, [Cancel()], [feed]).fault is None


@pytest.mark.parametrize(("large", "by"), [(1e4, 2.0), (1.0, 1.001), (1e4, float("inf"))])
def test_what_is_beyond_rounding_is_one(large: float, by: float) -> None:
    module, feed = cancelling(large)
    with pytest.raises(PassError, match="HB0305"):
        Pipeline([Cancel(by)], verify="exec", feeds=[feed]).run(module)
    assert bisect(module, [Cancel(by)], [feed]).fault is not None


def test_it_grows_with_what_cancels_and_leaves_the_inputs_alone() -> None:
    sizes = []
    for large in (1.0, 1e3, 1e6):
        module, feed = cancelling(large)
        sizes.append(rounding(module[0], feed)["out_0"])
        assert (feed["in_1"] == Y).all()
    assert 1e-6 < sizes[0] < 1e-4 and sizes[1] / sizes[0] > 100 and sizes[2] / sizes[1] > 100
