"""Layers that bring their grids along are fused past a transpose or a reshape of one pixel, which no other pass takes away."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import f32

from hbir.dialects import hbir as f
from hbir.dialects.hbir import Conv2dOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from hbir.testing import Seeded, assert_same_semantics
from hbir.testing.graphs import SeededGraph
from passes import Pipeline, convert

GRID = UniformQuantizedType.get(8, 0.05)


def residual(channels: int, *, fake: bool = True) -> Module:
    """conv of an NCHW input, plus another NCHW input, relu, and the grid behind all of it."""
    graph = SeededGraph(Seeded(0))
    inputs = [graph.input((1, channels, 4, 6), f32) for _ in range(2)]
    held = [graph.add(FakeQuantOp.make(x, grid=GRID)) if fake else x for x in inputs]
    weight = graph.floats((channels, 1, 1, channels), 0.5)
    if fake:
        weight = graph.add(FakeQuantOp.make(weight, grid=UniformQuantizedType.get(8, 0.01)))
    nhwc = graph.add(f.TransposeOp.make(held[0], permutation=(0, 2, 3, 1)))
    geometry = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, "min": None, "max": None}
    y = graph.add(Conv2dOp.make(nhwc, weight, None, None, **geometry))
    y = graph.add(f.TransposeOp.make(y, permutation=(0, 3, 1, 2)))
    y = graph.add(f.ClipOp.make(graph.add(f.AddOp.make(y, held[1])), min=0.0, max=None))
    if fake:
        graph.add(FakeQuantOp.make(y, grid=GRID))
    return graph.finish()


@pytest.mark.parametrize("channels", [1, 3])
def test_sum_and_relu_join_the_layer_behind_a_move(channels: int) -> None:
    module = residual(channels)
    fused = Pipeline("canonicalize,cancel-transposes,fuse-conv-add-relu,dead-code", verify="exec").run(module)
    (layer,) = [op for op in fused[0].operations if isinstance(op, Conv2dOp)]
    assert layer.residual is not None and layer.values["min"] == 0
    assert isinstance(next(iter(layer.output.uses)).operation, FakeQuantOp), "the grid stands right behind the layer"
    assert_same_semantics(module, fused, tolerance=1e-6)
    integers = convert(module, "nash-e")
    assert not any(op.name in ("hbir.conv2d", "hbir.add", "hbir.clip") for op in integers[0].operations)


def test_a_float_model_is_left_as_it_is() -> None:
    fused = Pipeline("cancel-transposes,fuse-conv-add-relu,dead-code").run(residual(3, fake=False))
    (layer,) = [op for op in fused[0].operations if isinstance(op, Conv2dOp)]
    assert layer.residual is None
    feed = {name: np.ones((1, 3, 4, 6), np.float32) for name in ("in_0", "in_1")}
    assert fused[0].feed(feed)["out_0"].shape == (1, 3, 4, 6)
