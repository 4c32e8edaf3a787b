"""Grids finer than their accumulator: coarsened as far as every march has a multiplier, and no further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper, parser

from hbir import export
from hbir.dialects.qat import FakeQuantOp
from hbir.errors import PassError
from hbir.march import load_march
from hbir.module import Module
from hbir.numerics import quantize_multiplier
from passes import Pipeline, calibrate, convert
from passes.coarsen_grids import accumulator_step

from_array: Callable[[Any, str], Any] = numpy_helper.from_array
TWICE_NORMALISED = """
<ir_version: 8, opset_import: ["" : 17]> net (float[1,64,32] x) => (float[1,64,32] y) {
  a = MatMul(x, w)  t = LayerNormalization(a, g, b)  u = LayerNormalization(t, g, b)  v = MatMul(u, w)  y = Add(v, t)
}"""


def _twice_normalised() -> tuple[Module, dict[str, Any]]:
    rng = np.random.default_rng(0)
    model = parser.parse_model(TWICE_NORMALISED)
    for name, value in (("w", rng.standard_normal((32, 32)) / 6), ("g", np.ones(32)), ("b", np.zeros(32))):
        model.graph.initializer.append(from_array(value.astype(np.float32), name))
    return export(model), {"x": rng.standard_normal((1, 64, 32)).astype(np.float32)}


@pytest.mark.parametrize("bits", [8, 16])
def test_a_mean_that_is_float_noise_has_a_multiplier(bits: int) -> None:
    module, feed = _twice_normalised()
    wanted = module[0].feed(feed)["y"]
    got = convert(calibrate(module, [feed], activation_bits=bits, weight_bits=bits), "nash-e")[0].feed(feed)["y"]
    assert np.abs(got - wanted).max() < (0.2 if bits == 8 else 0.01)


TWO_STEPS = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x8x8x4xf32>, tensor<1x8x8x4xf32>) -> tensor<RESULTxf32>}> ({
  ^bb0(%x: tensor<1x8x8x4xf32>, %y: tensor<1x8x8x4xf32>):
    %a = "qat.fake_quant"(%x) <{grid = !quant.uniform<iAA:f32, STEP_A>}> : (tensor<1x8x8x4xf32>) -> tensor<1x8x8x4xf32>
    %b = "qat.fake_quant"(%y) <{grid = !quant.uniform<iBB:f32, STEP_B>}> : (tensor<1x8x8x4xf32>) -> tensor<1x8x8x4xf32>
    %c = OPERATION -> tensor<RESULTxf32> loc("thin")
    %d = "qat.fake_quant"(%c) <{grid = !quant.uniform<iCC:f32, STEP_C>}> : (tensor<RESULTxf32>) -> tensor<RESULTxf32>
    "func.return"(%d) : (tensor<RESULTxf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
ONE, TWO = "(tensor<1x8x8x4xf32>)", "(tensor<1x8x8x4xf32>, tensor<1x8x8x4xf32>)"
OPERATIONS = {
    "add": (f'"hbir.add"(%a, %b) : {TWO}', "1x8x8x4"),
    "sub": (f'"hbir.sub"(%a, %b) : {TWO}', "1x8x8x4"),
    "mul": (f'"hbir.mul"(%a, %b) : {TWO}', "1x8x8x4"),
    "minimum": (f'"hbir.minimum"(%a, %b) : {TWO}', "1x8x8x4"),
    "clip": (f'"hbir.clip"(%a) <{{max = 0.1 : f64}}> : {ONE}', "1x8x8x4"),
    "sum": (f'"hbir.reduce"(%a) <{{axes = array<i64: 3>, keep = true, kind = "sum"}}> : {ONE}', "1x8x8x1"),
    "mean": (f'"hbir.reduce"(%a) <{{axes = array<i64: 1, 2>, keep = true, kind = "mean"}}> : {ONE}', "1x1x1x4"),
}
STEPS = st.floats(-40, 10).map(lambda exponent: float(np.float32(2.0**exponent)))
BITS = st.sampled_from((8, 16))


def _two_steps(name: str, steps: tuple[float, ...], bits: tuple[int, ...]) -> Module:
    """Operands on grids of the first two steps, a result on the third."""
    operation, shape = OPERATIONS[name]
    text = TWO_STEPS.replace("OPERATION", operation).replace("RESULT", shape)
    for letter, step, width in zip("ABC", steps, bits, strict=True):
        text = text.replace(f"STEP_{letter}", f"{step:.16e}").replace(f"i{letter * 2}", f"i{width}")
    return Module.parse(text)


@given(st.sampled_from(sorted(OPERATIONS)), st.tuples(STEPS, STEPS, STEPS), st.tuples(BITS, BITS, BITS))
def test_every_pair_of_grids_has_a_multiplier(name: str, steps: tuple[float, ...], bits: tuple[int, ...]) -> None:
    module = _two_steps(name, steps, bits)
    coarse = Pipeline("coarsen-grids").run(module)
    before, after = ([op for op in m[0].operations if isinstance(op, FakeQuantOp)][-1] for m in (module, coarse))
    owner: Any = after.input.owner
    finest = accumulator_step(owner) / 2.0 ** (bits[2] - 4)
    assert after.grid.scale == pytest.approx(max(before.grid.scale, finest), rel=1e-6)
    march = load_march("nash-e")
    quantize_multiplier(accumulator_step(owner) / after.grid.scale, march.multiplier_bits)
    options = f"{{multiplier-bits={march.multiplier_bits} high-multiplier-bits={march.high_multiplier_bits}}}"
    Pipeline(f"quantize{options}").run(coarse)


def test_a_refused_factor_names_the_layer_and_a_scale_that_fits() -> None:
    with pytest.raises(PassError, match="HB0331 at layer 'thin': rescale factor") as refusal:
        Pipeline("quantize").run(_two_steps("mean", (1.0, 1.0, 1e-7), (8, 8, 8)))
    factor = float(refusal.value.lever.split("scale that is ")[1].split()[0])
    assert factor > 1
    Pipeline("quantize").run(_two_steps("mean", (1.0, 1.0, factor * 1e-7), (8, 8, 8)))


DEAD = """
<ir_version: 8, opset_import: ["" : 17]> net (float[1,4,8,8] x) => (float[1,4,6,6] y) {
  t = Conv(x, w, b)  y = Relu(t)
}"""


@pytest.mark.parametrize("widths", [(8, 8), (16, 8), (16, 16)])
@pytest.mark.parametrize("live", [1.0, 0.0])
def test_dead_channels_beside_ordinary_biases(widths: tuple[int, int], live: float) -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((4, 4, 3, 3)) * live
    weight[1], weight[2] = weight[1] * 1e-20, 0
    model = parser.parse_model(DEAD)
    bias = np.array([1.0, 2.0, 0.5, 0.0])
    for name, value in (("w", weight), ("b", bias)):
        model.graph.initializer.append(from_array(value.astype(np.float32), name))
    module, feed = export(model), {"x": rng.standard_normal((1, 4, 8, 8)).astype(np.float32)}
    fake = calibrate(module, [feed], activation_bits=widths[0], weight_bits=widths[1], observer="max")
    got = convert(fake, "nash-e")[0].feed(feed)["y"]
    step = np.abs(module[0].feed(feed)["y"]).max() / (127 if widths[0] == 8 else 1000)
    assert np.abs(got[0, 1] - 2.0).max() <= step
    assert np.abs(got[0, 2] - 0.5).max() <= step
