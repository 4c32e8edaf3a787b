"""Transposed convolutions of every geometry are convolutions, depth to space and a slice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects.base import shape_of
from hbir.dialects.hbir import ClipOp, Conv2dOp, ConvTranspose2dOp
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, operations
from hbir.testing.graphs import Graph
from passes import Pipeline
from tests.passes.drawing import graphs
from tests.passes.on_units import assert_on_units


@st.composite
def _transposed(draw: st.DrawFn, full: bool = False) -> Module:
    """One transposed convolution and perhaps a relu; `full` crops nothing, so that every result reads inputs."""
    g = Graph(draw)
    groups, channels = g.integer(1, 3), g.integer(1, 2)
    kernel, stride = ([g.integer(1, 5) for _ in range(2)] for _ in range(2))
    x = g.input((g.integer(1, 2), g.integer(1, 5), g.integer(1, 5), groups * channels), f32)
    cout = groups * g.integer(1, 2)
    weight = g.floats((cout, *kernel, channels))
    bias: SSAValue | None = g.floats((cout,)) if g.integer(0, 1) else None
    pad = [0, 0, 0, 0] if full else [g.integer(0, 3) for _ in range(4)]
    extra = [0, 0] if full else [g.integer(0, 3) for _ in range(2)]
    extents = (shape_of(x.type)[1], shape_of(x.type)[2])
    for axis in range(2):
        whole = (extents[axis] - 1) * stride[axis] + kernel[axis]
        assume(whole - pad[axis] - pad[axis + 2] + extra[axis] > 0)
    y = g.add(ConvTranspose2dOp.make(x, weight, bias, stride=stride, pad=pad, output_pad=extra, groups=groups))
    if g.integer(0, 1):
        g.add(ClipOp.make(y, min=0.0, max=1.0))
    return g.finish()


def _count(module: Module, kind: type[ConvTranspose2dOp | Conv2dOp]) -> int:
    return sum(isinstance(op, kind) for op in module[0].operations)


@settings(max_examples=100)
@given(_transposed())
def test_the_values_stay(module: Module) -> None:
    changed = Pipeline("expand-conv-transpose", verify="exec").run(module)
    # Up to 2 * 25 products of values below 1, summed in another order, beside a largest result that may be one product.
    assert_same_semantics(module, changed, tolerance=1e-4)
    assert_round_trips(changed)
    assert _count(changed, ConvTranspose2dOp) + _count(changed, Conv2dOp) == 1


@settings(max_examples=60)
@given(_transposed(full=True))
def test_none_is_left_where_results_read_inputs(module: Module) -> None:
    assert _count(Pipeline("expand-conv-transpose").run(module), ConvTranspose2dOp) == 0


@settings(max_examples=40)
@given(operations(ConvTranspose2dOp))
def test_generated_ones(module: Module) -> None:
    assert_same_semantics(module, Pipeline("expand-conv-transpose", verify="exec").run(module), tolerance=1e-4)


@pytest.mark.parametrize("extent", [2, 3, 4])
def test_a_kernel_of_its_stride_costs_no_product_too_many(extent: int) -> None:
    @settings(max_examples=1)
    @given(graphs())
    def check(g: Graph) -> None:
        x = g.input((1, 4, 4, 3), f32)
        geometry = {"stride": (extent, extent), "pad": (0, 0, 0, 0), "output_pad": (0, 0), "groups": 1}
        g.add(ConvTranspose2dOp.make(x, g.floats((2, extent, extent, 3)), None, **geometry))
        (conv,) = (
            op for op in Pipeline("expand-conv-transpose").run(g.finish())[0].operations if isinstance(op, Conv2dOp)
        )
        assert shape_of(conv.weight.type) == (extent * extent * 2, 1, 1, 3)

    check()


@pytest.mark.parametrize(
    ("attributes", "weight", "extents"),
    [
        ("strides = [2,2]", (8, 8, 2, 2), (12, 16)),
        ("strides = [2,2], pads = [1,1,1,1]", (8, 8, 4, 4), (12, 16)),
        ("strides = [2,2], pads = [1,1,1,1], output_padding = [1,1]", (8, 8, 3, 3), (12, 16)),
        ("strides = [2,2], pads = [1,1,1,1], group = 8", (8, 1, 4, 4), (12, 16)),
        ("strides = [3,1], pads = [0,1,0,1], group = 2", (8, 4, 3, 3), (18, 8)),
        ("pads = [1,1,1,1]", (8, 8, 3, 3), (6, 8)),
    ],
)
def test_transposed_convolutions_run_on_units(
    attributes: str, weight: tuple[int, ...], extents: tuple[int, int]
) -> None:
    rng = np.random.default_rng(2)
    constants = {name: rng.uniform(-0.5, 0.5, (8, 8, 1, 1)).astype(np.float32) for name in ("w", "v")}
    constants |= {"up": rng.uniform(-0.5, 0.5, weight).astype(np.float32)}
    constants |= {name: rng.uniform(0.5, 1.5, 8).astype(np.float32) for name in ("s", "b", "m", "n")}
    height, width = extents
    module = assert_on_units(
        f"a = Conv (x, w) t = ConvTranspose <{attributes}> (a, up) u = BatchNormalization (t, s, b, m, n)"
        " r = Relu (u) y = Conv (r, v)",
        f"(float[1,8,6,8] x) => (float[1,8,{height},{width}] y)",
        constants,
        steps=8,
    )
    # The norm and the relu are part of the one convolution that it has become.
    assert sum(op.name == "quantized.conv2d" for op in module[0].operations) == 3
    assert not any(op.name in ("quantized.clamp", "hbir.clip") for op in module[0].operations)


def test_as_the_last_layer() -> None:
    rng = np.random.default_rng(2)
    constants = {"w": rng.uniform(-0.5, 0.5, (8, 8, 1, 1)).astype(np.float32)}
    constants |= {"up": rng.uniform(-0.5, 0.5, (8, 3, 2, 2)).astype(np.float32)}
    body = "a = Conv (x, w) y = ConvTranspose <strides = [2,2]> (a, up)"
    assert_on_units(body, "(float[1,8,6,8] x) => (float[1,3,12,16] y)", constants, steps=4)
