"""What tests need and users may reuse: hypothesis strategies for tensors and modules, checks on modules, and oracles.

Modules are drawn valid, with the values that break things, and shrink to a few operations that are printed as text. A pass of
your own is fuzzed in five lines::

    @settings(deadline=None)
    @given(modules(("hbir", "quantized"), max_ops=8))
    def test_my_pass(module):
        assert_same_semantics(module, Pipeline([MyPass()], verify="structure").run(module))

`tensors` and `quant_params` draw arrays and grids, `operations(kind)` modules around one operation class, of which
`GENERATORS` lists all; `generate(Seeded(seed))` gives the same modules without hypothesis' engine, for long runs. Judges from
outside are in `hbir.testing.oracles`: `assert_agrees_with_tosa(module, feeds)` lets Arm's reference model compute the same
function of integers. Needs the packages of the extra `test`; nothing else in the project imports this room.
"""

from __future__ import annotations

from hbir.testing.checks import assert_round_trips, assert_same_semantics, example_feeds
from hbir.testing.graphs import Seeded
from hbir.testing.modules import GENERATORS, generate, modules, operations
from hbir.testing.oracles import assert_agrees_with_tosa, tosa_outputs
from hbir.testing.values import quant_params, tensors

__all__ = [
    "GENERATORS",
    "Seeded",
    "assert_agrees_with_tosa",
    "assert_round_trips",
    "assert_same_semantics",
    "example_feeds",
    "generate",
    "modules",
    "operations",
    "quant_params",
    "tensors",
    "tosa_outputs",
]
