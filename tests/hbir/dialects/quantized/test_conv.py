"""Products with a float result: `sum * scale`, rounded once, whatever the width of the sum; and what the verifier refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from xdsl.dialects.builtin import f32
from xdsl.utils.exceptions import VerifyException

from hbir.dialects import quantized as q
from hbir.dialects.hbir import ConstantOp
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.module import Module
from hbir.testing import Seeded, assert_round_trips, assert_same_semantics, example_feeds, operations
from hbir.testing.checks import through_tosa_opt
from hbir.testing.graphs import SeededGraph
from hbir.testing.oracles import assert_agrees_with_tosa
from tests.float_results import accumulators, float_twin, with_float_results

PRODUCTS = (q.Conv2dOp, q.MatmulOp)


def _floats(module: Module) -> q.Conv2dOp | q.MatmulOp:
    found = [op for op in module[0].operations if isinstance(op, PRODUCTS) and op.float_type is not None]
    return found[-1]


@pytest.mark.parametrize("kind", PRODUCTS, ids=lambda kind: kind.name)
def test_the_result_is_the_sum_times_its_scale_rounded_once(kind: type[q.Conv2dOp] | type[q.MatmulOp]) -> None:
    @settings(max_examples=60, suppress_health_check=[HealthCheck.filter_too_much])
    @given(operations(kind))
    def check(module: Module) -> None:
        made = with_float_results(module)
        op, feed = _floats(made), example_feeds(made[0], 1)
        names = {argument.value: argument.name for argument in made[0].flatten_inputs}
        others = [None if value not in names else feed[names[value]] for value in op.operands[:2]]
        assume(others[0] is not None)
        assert others[0] is not None
        sums = accumulators(op, made, others[0], others[1])
        # Sums stay below 2^47 and scales have 24 bits: the product in float64 is rounded at most once before float32.
        wanted = (sums.astype(np.float64) * op.grid.scale_array.astype(np.float64)).astype(np.float32)
        got = made[0].feed(feed)[made[0].flatten_outputs[-1].name]
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, wanted, strict=True)

    check()


@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much])
@given(operations(q.Conv2dOp))
def test_a_float_result_is_the_dequantised_accumulator(module: Module) -> None:
    """With `_integer_conv` a network has other operations for its outputs, and the same numbers."""
    conv = next(op for op in module[0].operations if isinstance(op, q.Conv2dOp))
    assume(quantized_element(conv.input.type).bits == 8)
    made = with_float_results(module)
    op = _floats(made)
    raw = q.Conv2dOp.make(*op.aligned_operands, **op.values | {"float_type": None})
    dequantized = q.DequantizeOp.make(raw.output, grid=raw.grid)
    for each in (raw, dequantized):
        made[0].op.body.block.insert_op_before(each, made[0].return_op)
    made[0].return_op.operands = [*made[0].return_op.operands, dequantized.output]
    made[0].update_type()
    *_, floats, integers = made[0].feed(example_feeds(made[0], 2)).values()
    np.testing.assert_array_equal(floats, integers, strict=True)


@pytest.mark.parametrize("kind", PRODUCTS, ids=lambda kind: kind.name)
def test_arms_reference_model_makes_the_same_sums(kind: type[q.Conv2dOp] | type[q.MatmulOp]) -> None:
    """Of int8 operands; sums of 48 bits are no output of that model."""

    @settings(max_examples=12, suppress_health_check=[HealthCheck.filter_too_much])
    @given(operations(kind))
    def check(module: Module) -> None:
        made = with_float_results(module)
        assume(all(quantized_element(value.type).bits == 8 for value in _floats(made).operands[:2]))
        assert_agrees_with_tosa(made, example_feeds(made[0], 1))

    check()


def test_weights_that_are_computed() -> None:
    """Without a constant weight nothing is packed beforehand: the numbers are the same."""
    graph = SeededGraph(Seeded(0))
    grid, element = UniformQuantizedType.get(8, 0.5, 3), UniformQuantizedType.get(8, [0.25, 0.75], axis=0, narrow=True)
    x = graph.input((1, 3, 4, 2), grid)
    geometry = {"stride": (1, 1), "pad": (1, 0, 0, 1), "dilation": (1, 1), "groups": 1}
    names = ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
    sums = UniformQuantizedType.get(32, [0.125, 0.375], axis=3)
    low, high = sums.limits
    values: dict[str, Any] = {**geometry, **dict.fromkeys((*names, "multiplier", "shift")), "low": low, "high": high}
    numbers = np.arange(-12, 12, dtype=np.int8).reshape(2, 2, 3, 2)
    weights = (graph.constant(numbers, element), graph.input(numbers.shape, element))
    for weight in weights:
        graph.add(q.Conv2dOp.make(x, weight, None, None, **values, float_type=f32, grid=sums))
    module = graph.finish()
    feed = example_feeds(module[0], 3)
    feed[module[0].flatten_inputs[1].name] = numbers
    known, computed = module[0].feed(feed).values()
    np.testing.assert_array_equal(known, computed, strict=True)
    assert known.dtype == np.float32 and np.abs(known).max() > 1


@pytest.mark.parametrize("kind", PRODUCTS, ids=lambda kind: kind.name)
def test_float_results_survive_files_and_mlir(kind: type[q.Conv2dOp] | type[q.MatmulOp]) -> None:
    found: list[Module] = []

    @settings(max_examples=5)
    @given(operations(kind))
    def collect(module: Module) -> None:
        made = with_float_results(module)
        assert_round_trips(made)
        assert_same_semantics(made, made.clone())
        assert "float_type = f32" in str(made)
        found.append(made)

    collect()
    for module, text in zip(found, through_tosa_opt(found), strict=True):
        assert str(Module.parse(text, module.constants)) == str(module)


def _example(kind: type[q.Conv2dOp] | type[q.MatmulOp]) -> q.Conv2dOp | q.MatmulOp:
    found: list[Module] = []

    @settings(max_examples=20)
    @given(operations(kind))
    def collect(module: Module) -> None:
        found.append(module)

    collect()
    for module in found:
        op = next(op for op in module[0].operations if isinstance(op, kind))
        if op.multiplier is not None and not (isinstance(op, q.Conv2dOp) and op.residual is not None):
            assert not isinstance(op.lhs.owner if isinstance(op, q.MatmulOp) else op.input.owner, ConstantOp)
            return op
    raise AssertionError("no example was drawn")


@pytest.mark.parametrize("kind", PRODUCTS, ids=lambda kind: kind.name)
def test_what_contradicts_a_float_result_is_refused(kind: type[q.Conv2dOp] | type[q.MatmulOp]) -> None:
    op = _example(kind)
    twin = float_twin(op)
    values = twin.values
    wrong = UniformQuantizedType.get(32, twin.grid.scale_array * np.float32(1.5), axis=twin.grid.axis.data)
    refusals: list[tuple[dict[str, Any], str]] = [
        (values | {"low": 0}, "a float result is not clamped"),
        (values | {"high": 127}, "a float result is not clamped"),
        (values | {"grid": wrong}, "product of input and weight scale"),
        (op.values | {"float_type": f32}, "it has no multiplier"),
    ]
    if kind is q.MatmulOp:
        refusals.append((values | {"float_type": None}, "float_type says so"))
    for bad, words in refusals:
        with pytest.raises(VerifyException, match=words):
            kind.make(*op.aligned_operands, **bad)
