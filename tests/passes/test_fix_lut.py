"""Tables: exact for int8, within the recorded error for int16, refused beyond the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir.dialects import quantized as q
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import PassError
from hbir.module import Module
from hbir.testing import quant_params
from passes import Pipeline


def _module(function: str, source: UniformQuantizedType, target: UniformQuantizedType) -> Module:
    codes = 1 << source.bits
    a, b = f"tensor<{codes}x{source}>", f"tensor<{codes}x{target}>"
    return Module.parse(
        f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "main", function_type = ({a}) -> {b}}}> ({{
  ^bb0(%x: {a}):
    %0 = "quantized.function"(%x) <{{function = "{function}", grid = {target}}}> : ({a}) -> {b} loc("act")
    "func.return"(%0) : ({b}) -> ()
  }}) : () -> ()
}}) : () -> ()
"""
    )


def _codes(grid: UniformQuantizedType) -> np.ndarray:
    half = 1 << (grid.bits - 1)
    return np.arange(-half, half).astype(np.int8 if grid.bits == 8 else np.int16)


@settings(max_examples=25)
@given(st.sampled_from(("sigmoid", "tanh", "hardswish", "gelu")), quant_params((8,)), quant_params((8,)))
def test_int8_is_exact(function: str, source: UniformQuantizedType, target: UniformQuantizedType) -> None:
    module = _module(function, source, target)
    fixed = Pipeline("fix-lut", verify="exec").run(module)
    assert [op.name for op in fixed[0].operations] == ["hbir.constant", "quantized.table"]
    codes = _codes(source)
    np.testing.assert_array_equal(fixed[0](codes)[0], module[0](codes)[0])
    assert all("act" in str(op.location) for op in fixed[0].operations)


@pytest.mark.parametrize(("function", "bits"), [("tanh", (16, 16)), ("silu", (16, 8)), ("sigmoid", (8, 16))])
def test_int16_is_within_the_error_that_it_states(function: str, bits: tuple[int, int]) -> None:
    source = UniformQuantizedType.get(bits[0], 8 / (1 << (bits[0] - 1)))
    target = UniformQuantizedType.get(bits[1], (1 if function != "silu" else 8) / (1 << (bits[1] - 1)))
    module = _module(function, source, target)
    fixed = Pipeline("fix-lut").run(module)
    codes = _codes(source)
    wanted, got = module[0](codes)[0].astype(int), fixed[0](codes)[0].astype(int)
    op = fixed[0].operations[-1]
    assert isinstance(op, q.InterpolateOp | q.SegmentedOp)
    error = int(np.abs(wanted - got).max())
    # A widened int8 input meets 256 of the 65,536 inputs that the stated error is about.
    assert error == op.values["worst_error"] if bits[0] == 16 else error <= op.values["worst_error"]
    assert error <= 4


@pytest.mark.parametrize("zero", [-128, 0])
def test_a_jump_gets_segments_whatever_the_result(zero: int) -> None:
    """1 / x of int16 to int8: straight lines between 513 entries would climb from the smallest code to the largest."""
    source, target = UniformQuantizedType.get(16, 2.0**-12), UniformQuantizedType.get(8, 2.0**-8, zero)
    module = _module("reciprocal", source, target)
    fixed = Pipeline("fix-lut").run(module)
    assert [op.name for op in fixed[0].operations][-2:] == ["quantized.segmented", "quantized.rescale"]
    codes = _codes(source)
    wanted, got = module[0](codes)[0].astype(int), fixed[0](codes)[0].astype(int)
    assert np.abs(wanted - got).max() <= 1
    assert all("act" in str(op.location) for op in fixed[0].operations)


def test_a_table_beyond_the_bound_is_refused() -> None:
    source, target = UniformQuantizedType.get(16, 2.0**-12), UniformQuantizedType.get(16, 2.0**-15)
    module = _module("tanh", source, target)
    with pytest.raises(PassError, match=r"HB0323 at layer 'act': no table of 'tanh' comes within 0 steps"):
        Pipeline("fix-lut{bound=0.0}").run(module)


@pytest.mark.parametrize("function", ["reciprocal", "rsqrt", "floor", "sigmoid"])
def test_int8_results_of_int16_inputs_follow_bends_that_513_entries_do_not(function: str) -> None:
    """Values between 0.9 and 4 on a grid that has negative codes as well: the reciprocal jumps at 0."""
    source = UniformQuantizedType.get(16, 4 / 32767)
    target = UniformQuantizedType.get(8, (4 if function == "floor" else 1.1) / 255, -128)
    module = _module(function, source, target)
    fixed = Pipeline("fix-lut", verify="exec").run(module)
    codes = _codes(source)
    wanted, got = module[0](codes)[0].astype(int), fixed[0](codes)[0].astype(int)
    assert np.abs(wanted - got).max() <= (64 if function == "floor" else 1)


def test_bounds_below_a_step_round_as_fake_quantisation_rounds_them() -> None:
    text = """
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = (tensor<5xf32>) -> (tensor<5xf32>, tensor<5xf32>)}> ({
  ^bb0(%x: tensor<5xf32>):
    %a = "qat.fake_quant"(%x) <{grid = !quant.uniform<i8:f32, 0.5:-3>}> : (tensor<5xf32>) -> tensor<5xf32>
    %b = "hbir.clip"(%a) <{min = 1.0e-12 : f64}> : (tensor<5xf32>) -> tensor<5xf32>
    %c = "qat.fake_quant"(%b) <{grid = !quant.uniform<i8:f32, 0.5:-3>}> : (tensor<5xf32>) -> tensor<5xf32>
    %d = "hbir.clip"(%a) <{max = -1.0e-12 : f64}> : (tensor<5xf32>) -> tensor<5xf32>
    %e = "qat.fake_quant"(%d) <{grid = !quant.uniform<i8:f32, 0.5:-3>}> : (tensor<5xf32>) -> tensor<5xf32>
    "func.return"(%c, %e) : (tensor<5xf32>, tensor<5xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""
    module, x = Module.parse(text), np.array([-2, -0.5, 0, 0.5, 2], np.float32)
    for wanted, got in zip(module[0](x), Pipeline("quantize").run(module)[0](x), strict=True):
        np.testing.assert_array_equal(got, wanted)
