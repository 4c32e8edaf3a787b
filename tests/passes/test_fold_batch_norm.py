"""Batch norms go into the layer in front of them, seen through reshapes, into those behind them, or become a layer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects.base import shape_of
from hbir.dialects.hbir import BatchNormOp, Conv2dOp, ConvTranspose2dOp, LinearOp, ReshapeOp
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics
from hbir.testing.graphs import Graph
from passes import Pipeline
from passes.fold_batch_norm import EVEN
from tests.passes.drawing import graphs
from tests.passes.on_units import assert_on_units

GEOMETRY = {"stride": (1, 1), "dilation": (1, 1)}


def _norm(g: Graph, x: SSAValue, spread: float) -> SSAValue:
    """A batch norm whose factors differ by at most `spread`."""
    channels = shape_of(x.type)[-1]
    scale = np.linspace(1.0, spread, channels, dtype=np.float32)
    one = g.constant(np.ones(channels, np.float32), f32)
    return g.add(
        BatchNormOp.make(x, g.constant(scale, f32), g.floats((channels,)), g.floats((channels,)), one, epsilon=0.0)
    )


def _layer_of(g: Graph, x: SSAValue, pad: int) -> SSAValue:
    shape = shape_of(x.type)
    if len(shape) != 4:
        return g.add(LinearOp.make(x, g.floats((3, shape[-1])), g.floats((3,)), min=0.0, max=None))
    groups = g.choose((1, 2))
    weight = g.floats((4, 3, 3, shape[-1] // groups))
    values = {**GEOMETRY, "pad": (pad, 0, 0, pad), "groups": groups}
    return g.add(
        Conv2dOp.make(x, weight, g.floats((4,)) if g.integer(0, 1) else None, None, **values, min=None, max=None)
    )


def _folded(module: Module) -> list[str]:
    changed = Pipeline("fold-batch-norm", verify="exec").run(module)
    # Sums of 36 products below 10 at most, which may cancel to a hundredth, with each weight rounded once more.
    assert_same_semantics(module, changed, tolerance=1e-4)
    assert_round_trips(changed)
    return [op.name for op in changed[0].operations if op.name != "hbir.constant"]


@settings(max_examples=40)
@given(graphs(), st.sampled_from([(1, 5, 5, 4), (3, 4), (2, 3, 4)]))
def test_in_front_of_layers(g: Graph, shape: tuple[int, ...]) -> None:
    norm = _norm(g, g.input(shape, f32), EVEN)
    layers = g.integer(1, 2)
    for _ in range(layers):
        _layer_of(g, norm, 0)
    assert _folded(g.finish()) == ["hbir.conv2d" if len(shape) == 4 else "hbir.linear"] * layers


@pytest.mark.parametrize(("spread", "pad"), [(2 * EVEN, 0), (EVEN, 1)])
def test_uneven_factors_and_padding_need_a_layer_of_their_own(spread: float, pad: int) -> None:
    @settings(max_examples=5)
    @given(graphs())
    def check(g: Graph) -> None:
        _layer_of(g, _norm(g, g.input((1, 5, 5, 4), f32), spread), pad)
        assert _folded(g.finish()) == ["hbir.conv2d", "hbir.conv2d"]

    check()


@settings(max_examples=20)
@given(graphs(), st.sampled_from([(3, 4), (2, 3, 4), (1, 5, 2, 4)]))
def test_alone(g: Graph, shape: tuple[int, ...]) -> None:
    _norm(g, g.input(shape, f32), 9.0)
    reshape = ["hbir.reshape"] * (len(shape) != 4)
    assert _folded(g.finish()) == [*reshape, "hbir.conv2d", *reshape]


@settings(max_examples=30)
@given(graphs(), st.integers(0, 2))
def test_behind_layers(g: Graph, reshapes: int) -> None:
    x = g.input((2, 3, 4), f32)
    y = g.add(LinearOp.make(x, g.floats((5, 4)), g.floats((5,)) if g.integer(0, 1) else None, min=None, max=None))
    for shape in [(6, 5), (1, 6, 5)][:reshapes]:
        y = g.add(ReshapeOp.make(y, shape=shape))
    _norm(g, y, 9.0)
    assert _folded(g.finish()) == ["hbir.linear", *["hbir.reshape"] * reshapes]


def test_another_axis_behind_a_reshape_is_no_channel() -> None:
    @settings(max_examples=5)
    @given(graphs())
    def check(g: Graph) -> None:
        y = g.add(LinearOp.make(g.input((2, 3), f32), g.floats((4, 3)), None, min=None, max=None))
        _norm(g, g.add(ReshapeOp.make(y, shape=(4, 2))), 9.0)
        assert "hbir.conv2d" in _folded(g.finish())

    check()


def test_behind_a_transposed_convolution() -> None:
    @settings(max_examples=5)
    @given(graphs())
    def check(g: Graph) -> None:
        x = g.input((1, 3, 3, 2), f32)
        values = {"stride": (2, 2), "pad": (0, 0, 0, 0), "output_pad": (0, 0), "groups": 1}
        _norm(g, g.add(ConvTranspose2dOp.make(x, g.floats((3, 2, 2, 2)), None, **values)), 9.0)
        assert _folded(g.finish()) == ["hbir.conv_transpose2d"]

    check()


@pytest.mark.parametrize(
    "body",
    [
        "a = MatMul (x, w) b = BatchNormalization (a, s, o, m, n) r = Relu (b) y = MatMul (r, v)",
        "b = BatchNormalization (x, s, o, m, n) y = MatMul (b, w)",
        "a = MatMul (x, w) r = Relu (a) b = BatchNormalization (r, s, o, m, n) c = Relu (b) y = MatMul (c, v)",
    ],
)
def test_norms_of_vectors_run_on_units(body: str) -> None:
    rng = np.random.default_rng(2)
    constants = {name: rng.uniform(-0.5, 0.5, (8, 8)).astype(np.float32) for name in ("w", "v") if f" {name})" in body}
    constants |= {name: rng.uniform(0.5, 1.5, 8).astype(np.float32) for name in ("s", "o", "m", "n")}
    assert_on_units(body, "(float[4,8] x) => (float[4,8] y)", constants, steps=8)


def test_a_position_embedding_is_a_residual() -> None:
    rng = np.random.default_rng(2)
    constants = {
        "w": rng.uniform(-0.5, 0.5, (8, 3, 4, 4)).astype(np.float32),
        "p": rng.uniform(-2, 2, (1, 8, 4, 4)).astype(np.float32),
        "v": rng.uniform(-0.5, 0.5, (8, 8, 1, 1)).astype(np.float32),
    }
    body = "a = Conv <strides = [4,4]> (x, w) b = Add (a, p) y = Conv (b, v)"
    module = assert_on_units(body, "(float[1,3,16,16] x) => (float[1,8,4,4] y)", constants, steps=6)
    assert not any(op.name == "quantized.add" for op in module[0].operations)
