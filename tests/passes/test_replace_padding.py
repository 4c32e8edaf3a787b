"""Padding that no unit has becomes padding that units have, with onnxruntime's word on what average pooling counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hbir import export
from hbir.dialects.hbir import AvgPoolOp, PadOp
from hbir.errors import ImportModelError
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, operations
from passes import Pipeline
from tests.hbir.frontends.onnx.models import text_model
from tests.passes.on_units import assert_on_units

_ORT: Any = onnxruntime


@settings(max_examples=100)
@given(operations(AvgPoolOp))
def test_pools_need_neither_ceil_nor_counted_padding(module: Module) -> None:
    changed = Pipeline("replace-padding", verify="exec").run(module)
    for op in changed[0].operations:
        if isinstance(op, AvgPoolOp):
            assert not op.values["ceil"]
            assert not (op.values["count_pad"] and any(op.values["pad"]))
    # The same terms, zeros aside, in the same order, over the same count.
    assert_same_semantics(module, changed, tolerance=2.0**-22)
    assert_round_trips(changed)


@settings(max_examples=60)
@given(operations(PadOp))
def test_padding_is_a_gather_exactly(module: Module) -> None:
    changed = Pipeline("replace-padding", verify="exec").run(module)
    assert_same_semantics(module, changed)
    assert_round_trips(changed)
    assert str(Pipeline("replace-padding").run(changed)) == str(changed)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_average_pools_mean_what_onnxruntime_means(data: st.DataObject) -> None:
    kernel = [data.draw(st.integers(1, 4)) for _ in range(2)]
    stride = [data.draw(st.integers(1, 3)) for _ in range(2)]
    pads = [data.draw(st.integers(0, kernel[axis] - 1)) for axis in (0, 1, 0, 1)]
    ceil, count = data.draw(st.integers(0, 1)), data.draw(st.integers(0, 1))
    size = [data.draw(st.integers(kernel[axis], 9)) for axis in (0, 1)]
    body = (
        f"y = AveragePool <kernel_shape = {kernel}, strides = {stride}, pads = {pads}, ceil_mode = {ceil},"
        f" count_include_pad = {count}> (x)"
    )
    model = text_model(body, f"(float[1,2,{size[0]},{size[1]}] x) => (float[1,2,h,w] y)")
    try:
        module = Pipeline("replace-padding").run(export(model))
    except ImportModelError:
        assume(False)
        raise
    session = _ORT.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(sum(pads)).standard_normal((1, 2, *size)).astype(np.float32)
    (wanted,) = session.run(None, {"x": x})
    found = module[0].feed({"x": x})["y"]
    assert found.shape == wanted.shape
    # At most 16 terms in another order.
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2.0**-20 * np.abs(x).max())


@pytest.mark.parametrize(
    ("pool", "extents"),
    [
        ("kernel_shape = [3,3], pads = [1,1,1,1], count_include_pad = 1", (12, 10)),
        ("kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2], count_include_pad = 1", (6, 5)),
        ("kernel_shape = [2,2], strides = [2,2], ceil_mode = 1", (6, 5)),
        ("kernel_shape = [3,3], strides = [2,2], ceil_mode = 1", (6, 5)),
    ],
)
def test_average_pools_run_on_units(pool: str, extents: tuple[int, int]) -> None:
    rng = np.random.default_rng(2)
    constants = {name: rng.uniform(-0.5, 0.5, (8, 8, 1, 1)).astype(np.float32) for name in ("w", "v")}
    height, width = extents
    module = assert_on_units(
        f"a = Conv (x, w) b = AveragePool <{pool}> (a) y = Conv (b, v)",
        f"(float[1,8,12,10] x) => (float[1,8,{height},{width}] y)",
        constants,
        steps=16,  # a mean of nine keeps the grid of its operand, and is a third as large
    )
    assert any(op.name == "quantized.avg_pool" for op in module[0].operations)


@pytest.mark.parametrize("mode", ["reflect", "edge"])
def test_padding_runs_on_units(mode: str) -> None:
    rng = np.random.default_rng(2)
    constants: dict[str, Any] = {name: rng.uniform(-0.5, 0.5, (8, 8, 3, 3)).astype(np.float32) for name in ("w", "v")}
    constants["pads"] = np.array([0, 0, 1, 2, 0, 0, 1, 0], np.int64)
    assert_on_units(
        f'a = Conv (x, w) b = Pad <mode = "{mode}"> (a, pads) y = Conv (b, v)',
        "(float[1,8,12,10] x) => (float[1,8,10,8] y)",
        constants,
        steps=6,
    )
