"""Convolutions by every kind of product, and what must not reach them: other algorithms, other formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import IntegerType, i32

from hbir.dialects import quantized as q
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from hbir.testing import Seeded, example_feeds
from hbir.testing.graphs import SeededGraph
from hbir.torch.integers import Evaluator, products
from tests.hbir.torch.integers.test_evaluator import assert_agrees

GEOMETRIES = {
    "pointwise": ((2, 9, 10, 12), (7, 1, 1, 12), (2, 1), (0, 0, 0, 0), (1, 1), 1),
    "dense": ((2, 9, 10, 12), (7, 3, 3, 12), (1, 1), (1, 1, 1, 1), (1, 1), 1),
    "uneven": ((2, 9, 10, 12), (7, 3, 2, 12), (2, 3), (2, 0, 0, 1), (2, 1), 1),
    "depthwise": ((2, 9, 10, 12), (24, 3, 3, 1), (2, 2), (0, 1, 1, 1), (1, 1), 12),
    "groups": ((2, 9, 10, 12), (8, 2, 3, 3), (1, 2), (1, 0, 0, 1), (1, 2), 4),
    "large": ((1, 70, 70, 32), (32, 3, 3, 1), (1, 1), (1, 1, 1, 1), (1, 1), 32),
    "one channel": ((64, 5, 4, 1), (2, 1, 3, 1), (1, 2), (0, 0, 0, 0), (1, 1), 1),
}
PRECISIONS = [(8, 8), (16, 8), (16, 16)]


def convolution(geometry: str, bits: tuple[int, int], zero_point: int = 3, value: int | None = None) -> Module:
    """A convolution with random weights, or with weights of one value, and accumulators that fill the result's range."""
    x_shape, w_shape, stride, pad, dilation, groups = GEOMETRIES[geometry]
    rng, graph = np.random.default_rng(0), SeededGraph(Seeded(0))
    dtype, half = (np.int8, 127) if bits[1] == 8 else (np.int16, 32767)
    codes = rng.integers(-half, half + 1, w_shape) if value is None else np.full(w_shape, value)
    weight = graph.constant(codes.astype(dtype), UniformQuantizedType.get(bits[1], 0.01, narrow=True))
    wide = IntegerType(48) if bits[0] == 16 else i32
    bias = graph.constant(rng.integers(-9999, 9999, w_shape[0]), wide)
    x = graph.input(x_shape, UniformQuantizedType.get(bits[0], 0.5, zero_point))
    terms = np.sqrt(np.prod(w_shape[1:])) * 2.0 ** (sum(bits) - 9)
    scale = float(np.float32(0.5 * 0.01 * terms))
    ratio = 0.5 * float(np.float32(0.01)) / scale
    shift = int(np.floor(15 - np.log2(ratio)))
    options: Any = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups, "low": -128, "high": 127}
    options |= dict.fromkeys(
        ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
    )
    multiplier = np.array([round(ratio * 2.0**shift) | 1], np.int32)
    grid = UniformQuantizedType.get(8, scale)
    made = q.Conv2dOp.make(
        x, weight, bias, None, multiplier=multiplier, shift=np.array([shift], np.int8), grid=grid, **options
    )
    graph.add(made)
    return graph.finish()


@pytest.mark.parametrize("bits", PRECISIONS, ids=str)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_every_geometry(geometry: str, bits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    module = convolution(geometry, bits)
    feed = example_feeds(module[0])
    assert len(np.unique(next(iter(module[0].feed(feed).values())))) > 50, "the test sees nothing"
    assert_agrees(module)
    # As on a device whose convolutions are not to be trusted.
    monkeypatch.setattr(products, "has_direct_convolution", lambda _: False)
    assert_agrees(module)


@pytest.mark.parametrize("bits", PRECISIONS, ids=str)
@pytest.mark.parametrize("zero_point", [-128, 0, 127])
def test_sums_of_the_largest_products(bits: tuple[int, int], zero_point: int) -> None:
    # All weights at the end of their range: float32 would not hold these sums of int16.
    largest = 127 if bits[1] == 8 else 32767
    for value in (largest, -largest, largest - 1):
        assert_agrees(convolution("dense", bits, zero_point, value))


def test_onednn_is_asked_for_the_direct_algorithm(capfd: pytest.CaptureFixture[str]) -> None:
    mkldnn: Any = torch.backends.mkldnn
    module = convolution("large", (8, 8))
    run = Evaluator(module[0]).start()
    run.enter(0, torch.zeros(GEOMETRIES["large"][0], dtype=torch.int8))
    with mkldnn.verbose(mkldnn.VERBOSE_ON):
        run.leave(0)
    lines = [line for line in capfd.readouterr().out.splitlines() if ",convolution," in line]
    assert lines
    assert all("alg:convolution_direct" in line for line in lines), lines


@pytest.mark.parametrize("geometry", ["pointwise", "dense"])
def test_settings_of_the_user_change_nothing(geometry: str) -> None:
    module = convolution(geometry, (8, 8))
    mkldnn: Any = torch.backends.mkldnn
    before = mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision
    try:
        mkldnn.matmul.fp32_precision = mkldnn.conv.fp32_precision = "bf16"
        torch.set_default_dtype(torch.float64)
        with torch.autocast("cpu", torch.bfloat16):
            assert_agrees(module)
        assert (mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision) == ("bf16", "bf16"), "they come back"
    finally:
        mkldnn.matmul.fp32_precision, mkldnn.conv.fp32_precision = before
        torch.set_default_dtype(torch.float32)


def test_results_do_not_depend_on_blocks_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    module = convolution("large", (8, 8))
    threads = torch.get_num_threads()
    try:
        for elements, count in ((1, 1), (1000, 2), (1 << 30, 2)):
            monkeypatch.setattr("hbir.torch.integers.blocks._ELEMENTS", elements)
            torch.set_num_threads(count)
            assert_agrees(module)
    finally:
        torch.set_num_threads(threads)
