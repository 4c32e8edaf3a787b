"""Quotients are products with reciprocals, on floats up to rounding and in the binary without the host."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings

from hbir.dialects.hbir import DivOp
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, modules, operations
from passes import Pipeline
from tests.passes.on_units import assert_on_units


@settings(max_examples=60)
@given(operations(DivOp))
def test_a_quotient_of_floats_is_a_product(module: Module) -> None:
    changed = Pipeline("replace-divisions", verify="exec").run(module)
    assert not any(isinstance(op, DivOp) for op in changed[0].operations)
    # The reciprocal and the product are rounded once each, the quotient once: three times 2^-24 of a value.
    assert_same_semantics(module, changed, tolerance=2.0**-22)
    assert_round_trips(changed)


@settings(max_examples=25)
@given(modules(("hbir",), 6))
def test_networks_keep_their_values(module: Module) -> None:
    changed = Pipeline("replace-divisions", verify="exec").run(module)
    # Later operations may enlarge a rounding; by how much, the promise of the float pipeline says.
    assert_same_semantics(module, changed, tolerance=1e-4)


@pytest.mark.parametrize(
    ("body", "steps"),
    [
        ("d = Div (a, three)", 4),
        ("d = Div (a, column)", 4),
        ("s = ReduceSum <keepdims = 1> (r, axis) t = Add (s, one) d = Div (a, t)", 12),
        ("n = ReduceL2 <axes = [-1], keepdims = 1> (a) m = Clip (n, tiny) d = Div (a, m)", 12),
    ],
)
def test_divisions_run_on_units(body: str, steps: float) -> None:
    rng = np.random.default_rng(2)
    constants = {
        "three": np.array(3.7, np.float32),
        "column": rng.uniform(0.5, 2, 8).astype(np.float32),
        "one": np.array([1.0], np.float32),
        "axis": np.array([-1], np.int64),
        "tiny": np.array(1e-12, np.float32),
    }
    constants = {name: value for name, value in constants.items() if name in body}
    constants |= {name: rng.uniform(-0.5, 0.5, (8, 8)).astype(np.float32) for name in ("w", "v")}
    relu = "r = Relu (a) " if "(r," in body else ""
    nodes = f"a = MatMul (x, w) {relu}{body} y = MatMul (d, v)"
    module = assert_on_units(nodes, "(float[1,6,8] x) => (float[1,6,8] y)", constants, steps=steps)
    assert not any(op.name == "hbir.div" for op in module[0].operations)
