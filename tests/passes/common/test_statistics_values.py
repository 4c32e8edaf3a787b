"""Which values count as statistics, and that rows, norms and quotients survive eight-bit networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from hbir import export
from hbir.dialects.base import HbOperation
from hbir.dialects.hbir import LinearOp
from hbir.dialects.qat import FakeQuantOp
from hbir.ir.locations import layer_name
from hbir.module import Module
from passes import Pipeline, calibrate, convert
from passes.calibrate import FLOAT_PIPELINE
from passes.common.analysis import grid_sources
from passes.common.statistics_values import denominators, statistics_values

from_array: Callable[[Any, str], Any] = numpy_helper.from_array
Floats = npt.NDArray[np.float32]
HEADER = '<ir_version: 8, opset_import: ["" : 17]> net '
NORMALISED = (
    HEADER
    + """(float[1,17,64] x) => (float[1,17,64] y) {
  s = Add(x, x)  m = ReduceMean<axes=[-1]>(s)  d = Sub(s, m)  q = Mul(d, d)  v = ReduceMean<axes=[-1]>(q)
  r = Sqrt(v)  e = Add(r, eps)  n = Div(d, e)  y = MatMul(n, w)
}"""
)
GATED = (
    HEADER
    + """(float[1,64,8,8] x) => (float[1,64,8,8] y) {
  p = GlobalAveragePool(x)  c = Conv(p, f)  g = Sigmoid(c)  t = Mul(x, g)  y = Conv(t, f)
}"""
)
CLASS_TOKEN = (
    HEADER + """(float[1,17,64] x) => (float[1,17,64] y) { t = LayerNormalization(x, g, b)  y = MatMul(t, w) }"""
)
NORM = (
    HEADER
    + """(float[1,64,16] x) => (float[1,64,16] y) {
  n = ReduceL2<axes=[-1]>(x)  c = Clip(n, low)  d = Div(x, c)  y = Mul(d, half)
}"""
)
QUOTIENT = (
    HEADER
    + """(float[1,64,16] x, float[1,64,16] z) => (float[1,64,16] y) { a = Abs(z)  b = Add(a, eps)  y = Div(x, b) }"""
)


def _network(text: str, constants: dict[str, Any]) -> Module:
    model = parser.parse_model(text)
    for name, value in constants.items():
        model.graph.initializer.append(from_array(np.asarray(value, np.float32), name))
    return export(model)


def _weights(*shape: int) -> Floats:
    return (np.random.default_rng(1).standard_normal(shape) / 8).astype(np.float32)


def test_statistics_their_squares_and_what_they_normalise() -> None:
    block = _network(NORMALISED, {"eps": [1e-6], "w": _weights(64, 64)})[0].op.body.block
    found = statistics_values(block)
    kinds = sorted(value.owner.name.split(".")[1] for value in found if isinstance(value.owner, HbOperation))
    # Sum, mean, centred values, their square, its mean, the root, with epsilon; not the quotient that a layer reads.
    assert kinds == ["add", "add", "function", "mul", "reduce", "reduce", "sub"]
    assert denominators(block) <= found


def test_a_gate_out_of_convolutions_is_no_statistic() -> None:
    work = Pipeline(FLOAT_PIPELINE).run(_network(GATED, {"f": _weights(64, 64, 1, 1)}))
    assert statistics_values(work[0].op.body.block) == set()


def _bits(module: Module) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for op in module[0].operations:
        if isinstance(op, FakeQuantOp) and op.grid.per_axis is None:
            found.setdefault(layer_name(op), set()).add(op.grid.bits)
    return found


def test_layers_read_eight_bits_all_the_same() -> None:
    module = _network(CLASS_TOKEN, {"w": _weights(64, 64), "g": np.ones(64), "b": np.zeros(64)})
    feed = {"x": _weights(1, 17, 64)}
    fake = calibrate(module, [feed])
    (grid,) = [
        source.grid for op in fake[0].operations if isinstance(op, LinearOp) for source in grid_sources(op.input) or ()
    ]
    assert grid.bits == 8
    assert 16 in _bits(fake)["t"]
    convert(fake, "nash-e")


def test_a_row_with_a_small_deviation_keeps_its_size() -> None:
    rng = np.random.default_rng(0)
    module = _network(CLASS_TOKEN, {"w": _weights(64, 64), "g": np.ones(64), "b": np.zeros(64)})

    def sample() -> dict[str, Floats]:
        x = rng.standard_normal((1, 17, 64)).astype(np.float32)
        x[0, 0] *= 0.05
        return {"x": x}

    integers = convert(calibrate(module, [sample() for _ in range(4)]), "nash-e")
    feed = sample()
    wanted, got = (m[0].feed(feed)["y"][0, 0].astype(np.float64) for m in (module, integers))
    cosine = wanted @ got / np.linalg.norm(wanted) / np.linalg.norm(got)
    assert cosine > 0.999
    assert np.linalg.norm(got) == pytest.approx(np.linalg.norm(wanted), rel=0.03)


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.integers(0, 14), st.sampled_from((8, 16)))
def test_no_denominator_becomes_zero(seed: int, octaves: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    module = _network(NORM, {"low": 1e-12, "half": 0.5})

    def sample() -> dict[str, Floats]:
        scale = np.exp2(-rng.integers(0, octaves + 1, (1, 64, 1)))
        return {"x": (rng.standard_normal((1, 64, 16)) * scale).astype(np.float32)}

    integers = convert(calibrate(module, [sample(), sample()], activation_bits=bits), "nash-e")
    for feed in (sample(), {"x": np.zeros((1, 64, 16), np.float32)}):
        with np.errstate(all="raise"):
            got = integers[0].feed(feed)["y"]
        assert np.isfinite(got).all()


def test_a_small_norm_divides_by_what_it_is() -> None:
    rng = np.random.default_rng(2)
    module = _network(NORM, {"low": 1e-12, "half": 0.5})
    scale = np.exp2(-np.arange(64) % 5).reshape(1, 64, 1)
    feed = {"x": (rng.standard_normal((1, 64, 16)) * scale).astype(np.float32)}
    wanted, got = (m[0].feed(feed)["y"] for m in (module, convert(calibrate(module, [feed]), "nash-e")))
    assert np.abs(wanted - got).max() < 0.01


def test_a_wide_denominator_that_is_never_zero_stays_off_it() -> None:
    rng = np.random.default_rng(3)
    module = _network(QUOTIENT, {"eps": [1e-6]})
    feed = {name: rng.standard_normal((1, 64, 16)).astype(np.float32) for name in "xz"}
    fake = calibrate(module, [feed])
    integers = convert(fake, "nash-e")
    nothing = feed | {"z": np.zeros((1, 64, 16), np.float32)}
    for either in (fake, integers):
        for sample in (feed, nothing):
            assert np.isfinite(either[0].feed(sample)["y"]).all()
