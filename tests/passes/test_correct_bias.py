"""Bias correction: against the mean error that running the layer finds, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from hbir.ir.constants import ConstantStore
from hbir.module import Module
from passes import Pipeline
from passes.common.rewriting import constant_of
from passes.correct_bias import MOST_SAMPLES, POSITIONS, CorrectBias, InputSamples, weighted_ops

Floats = npt.NDArray[np.float32]

CONV = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<1x5x6x4xf32>) -> tensor<1x5x6x4xf32>}> ({
  ^bb0(%x: tensor<1x5x6x4xf32>):
    %q = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.75:-100>}> : (tensor<1x5x6x4xf32>) -> tensor<1x5x6x4xf32>
    %w = "hbir.constant"() <{value = WEIGHT}> : () -> tensor<4x1x1xINPUTSxf32>
    %f = "qat.fake_quant"(%w) <{grid = !quant.uniform<i8<-127:127>:f32:0, {0.25, 0.5, 0.125, 0.5}>}>
      : (tensor<4x1x1xINPUTSxf32>) -> tensor<4x1x1xINPUTSxf32>
    %b = "hbir.constant"() <{value = BIAS}> : () -> tensor<4xf32>
    %y = "hbir.conv2d"(QUANT, %f, %b) <{operandSegmentSizes = array<i32: 1, 1, 1, 0>, stride = array<i64: 1, 1>,
      pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = GROUPS : i64}>
      : (tensor<1x5x6x4xf32>, tensor<4x1x1xINPUTSxf32>, tensor<4xf32>) -> tensor<1x5x6x4xf32>
    "func.return"(%y) : (tensor<1x5x6x4xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def _conv(groups: int, quantised: bool = True) -> tuple[Module, Floats]:
    weight = np.random.default_rng(1).standard_normal((4, 1, 1, 4 // groups)).astype(np.float32)
    store, text = ConstantStore(), CONV
    for name, array in (("WEIGHT", weight), ("BIAS", np.array([1, 2, 3, 4], np.float32))):
        blob = store.put(array)
        text = text.replace(name, f'#hbir.blob<"{blob.digest.data}", {blob.size.data}>')
    for name, word in (("INPUTS", str(4 // groups)), ("GROUPS", str(groups)), ("QUANT", "%q" if quantised else "%x")):
        text = text.replace(name, word)
    return Module.parse(text, store), weight


def _swished(count: int = 1) -> Floats:
    x = np.random.default_rng(2).standard_normal((count, 5, 6, 4)) * 3
    return (x / (1 + np.exp(-x))).astype(np.float32)


def _bias(module: Module) -> Floats:
    (op,) = weighted_ops(module[0].op.body.block)
    assert op.bias is not None
    found = constant_of(op.bias, module.constants)
    assert found is not None
    return found


def _samples(x: Floats) -> InputSamples:
    kept = InputSamples()
    for one in x:
        kept.add(one)
    return kept


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_the_mean_error_is_gone(groups: int) -> None:
    module, weight = _conv(groups)
    x = _swished()  # of thirty positions, all are kept
    inputs = x.reshape(-1, groups, 4 // groups)
    grouped = weight.reshape(groups, 4 // groups, 4 // groups)
    wanted = np.einsum("ngi,goi->ngo", inputs, grouped).reshape(-1, 4).mean(axis=0) + np.arange(1, 5)
    (name,) = (argument.name for argument in module[0].flatten_inputs)

    def mean(of: Module) -> Any:
        return next(iter(of[0].feed({name: x}).values())).reshape(-1, 4).mean(axis=0)

    corrected = Pipeline([CorrectBias({("main", 0): _samples(x)})]).run(module)
    assert np.abs(mean(module) - wanted).max() > 0.03
    # Sums of thirty positions in float32.
    np.testing.assert_allclose(mean(corrected), wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(_bias(module), [1, 2, 3, 4])


def test_what_is_left_alone() -> None:
    samples = {("main", 0): _samples(_swished())}
    for module, kept in (
        (_conv(1)[0], {}),
        (_conv(1)[0], {("main", 0): InputSamples()}),
        (_conv(1, False)[0], samples),
    ):
        np.testing.assert_array_equal(_bias(Pipeline([CorrectBias(kept)]).run(module)), [1, 2, 3, 4])


def test_positions_are_many_and_spread() -> None:
    rows, columns = np.meshgrid(np.arange(40), np.arange(160), indexing="ij")
    picture = np.stack([rows, columns], axis=-1)[None].astype(np.float32)
    kept, again = _samples(np.stack([picture] * 4)), _samples(np.stack([picture] * 4))
    assert kept.values.shape == (4 * POSITIONS, 2)
    np.testing.assert_array_equal(kept.values, again.values)
    assert len({tuple(row) for row in kept.values.tolist()}) > 3.5 * POSITIONS
    # Even: means of rows and columns within 3 % of the middle, every quarter of a row or column with its share.
    np.testing.assert_allclose(kept.values.mean(axis=0), [19.5, 79.5], rtol=0.03)
    for axis, size in enumerate((40, 160)):
        quarters = np.bincount((kept.values[:, axis] * 4 // size).astype(int), minlength=4)
        assert (abs(quarters - POSITIONS) <= POSITIONS // 4).all()


def test_memory_is_bounded() -> None:
    kept = InputSamples()
    for _ in range(2 * MOST_SAMPLES):
        kept.add(np.zeros((1, 30, 30, 2), np.float32))
    assert kept.values.shape == (MOST_SAMPLES * POSITIONS, 2)
    kept.add(np.zeros((0, 2), np.float32))
