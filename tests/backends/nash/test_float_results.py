"""Products whose result leaves the tensor engine as float32: the binary gives the interpreter's floats, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from backends.nash.compiler import CompileOptions, compile_model
from backends.nash.hbm import Model
from backends.nash.lower import lower
from backends.nash.lower.limits import engine_reason
from backends.nash.simulator import simulate
from backends.nash.simulator.functional import bind
from backends.nash.simulator.kernels import BINDERS
from backends.nash.variation import varied
from hbir.dialects import quantized as q
from hbir.dialects.hbir import Conv2dOp, LinearOp, MatmulOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import HbError, PassError
from hbir.kernels import conv2d, dequantize, pack_weight
from hbir.march import MARCHES, March, load_march
from hbir.module import Module
from hbir.testing import example_feeds, modules, operations, quant_params
from passes import calibrate, convert
from tests.backends.nash.small_networks import deep_network
from tests.compiled import assert_equal_outputs, compiled
from tests.float_results import output_and_input, with_float_results

MARCH = load_march("nash-h")


def _same(module: Module, model: Model, seed: int = 0) -> bool:
    feed = example_feeds(module[0], seed)
    expected = module[0].feed(feed)
    return all(
        np.ascontiguousarray(found[name]).tobytes() == np.ascontiguousarray(value).tobytes()
        for found in (bind(model).run(feed), bind(model, check=True).run(feed))
        for name, value in expected.items()
    )


def _engine(model: Model) -> list[str]:
    """The element types that the tensor engine hands out, partial sums left out."""
    return [d.operands["out"].dtype for d in model.program.decoded if d.opcode.unit == "TAE"]


@settings(max_examples=25)
@given(module=modules(("quantized",), 4), seed=st.integers(0, 999), memory=st.sampled_from((0, 8 << 10, 24 << 10)))
def test_any_module_any_plan(module: Module, seed: int, memory: int) -> None:
    made = with_float_results(module)
    march = replace(MARCH, l1m_bytes=memory) if memory else MARCH
    try:
        model = compile_model(made, march, CompileOptions(opt=0), stages=varied(seed))
    except HbError as error:
        assert error.code in ("HB0515", "HB0521", "HB0541")
        return
    products = sum(isinstance(op, q.Conv2dOp | q.MatmulOp) for op in module[0].operations)
    assert _engine(model).count("f32") >= products
    assert _same(made, model, seed)


@pytest.mark.parametrize("kind", [Conv2dOp, LinearOp, MatmulOp], ids=lambda kind: kind.name)
def test_what_is_output_and_input_on_every_march(kind: type[Conv2dOp] | type[LinearOp] | type[MatmulOp]) -> None:
    """Generated layers, their values read as floats and through a fake quant, from the float network to the binary."""
    grids = quant_params((8, 16), scales=(0.05, 0.3, 1.7))

    @settings(max_examples=15)
    @given(operations(kind), grids, st.sampled_from((8, 16)), st.sampled_from(MARCHES), st.integers(0, 99))
    def check(module: Module, grid: UniformQuantizedType, bits: int, march: str, seed: int) -> None:
        fake = calibrate(module, [example_feeds(module[0])], observer="max", activation_bits=bits)
        # A product with a constant matrix has become a linear layer.
        layers = [op for op in fake[0].operations if isinstance(op, kind | LinearOp)]
        assume(layers and any(isinstance(op, FakeQuantOp) for op in fake[0].operations))
        on_grid = FakeQuantOp.make(layers[0].results[0], grid=grid)
        fake[0].op.body.block.insert_op_before(on_grid, fake[0].return_op)
        fake[0].return_op.operands = [on_grid.output, layers[0].results[0]]
        fake[0].op.properties.pop("res_attrs", None)
        fake[0].update_type()
        try:
            integers = convert(fake, march, verify="exec")
        except PassError as error:
            assert error.code == "HB0321" and march == "bayes"  # sums of int16 that 32 bits do not hold
            return
        target = load_march(march)
        model = compile_model(integers, target, CompileOptions(opt=0), stages=varied(seed))
        assert _same(integers, model, seed)
        assert target.has_float_results or "f32" not in _engine(model)

    check()


@pytest.mark.parametrize("march", MARCHES)
@pytest.mark.parametrize("layer", ["conv", "linear", "wide linear"])
def test_units_do_all_of_it(layer: str, march: str) -> None:
    module = convert(output_and_input(layer), march)
    binary = compiled(module, opt=2)
    (model,) = binary.models
    units = {row["unit"] for row in model.placements}
    floats = load_march(march).has_float_results
    assert units == ({"TAE", "VPU"} if floats else {"TAE", "VPU", "VAE"})
    assert set(_engine(model)) == ({"f32"} if floats else {"i32"})
    assert_equal_outputs(module, binary, [example_feeds(module[0], seed) for seed in range(3)])
    assert_equal_outputs(module, binary, [example_feeds(module[0], 3)], check=True)


@pytest.mark.parametrize(("bits", "cores"), [(8, 1), (16, 1), (8, 3)])
def test_pieces_of_the_channels_accumulate_before_they_become_floats(bits: int, cores: int) -> None:
    module, feeds = deep_network(bits, "nash-h")
    made = with_float_results(module)
    march = replace(MARCH, l1m_bytes=96 << 10, l2m_bytes=0, l2m_bytes_per_second=0.0)
    binary = compiled(made, march, opt=1, core_num=cores)
    pieces = [d for d in binary.models[0].program.decoded if "partial" in d.operands]
    assert any(d.operands["out"].dtype == "f32" for d in pieces)
    assert_equal_outputs(made, binary, feeds, check=True)


@pytest.mark.parametrize("wide", [False, True])
def test_two_pieces_equal_the_whole(wide: bool) -> None:
    rng = np.random.default_rng(3)
    kind, sums = (np.int16, np.int64) if wide else (np.int8, np.int32)
    low, high = np.iinfo(kind).min, np.iinfo(kind).max
    x = rng.integers(low, high, (1, 5, 4, 8), kind, endpoint=True)
    weight = rng.integers(-127, 127, (6, 3, 3, 8), np.int8, endpoint=True)
    bias, scales = rng.integers(-(2**20), 2**20, 6).astype(sums), rng.uniform(1e-6, 1e-3, 6).astype(np.float32)
    params = {"kernel_h": 3, "kernel_w": 3, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "groups": 1}
    params |= {f"pad_{side}": 1 for side in ("top", "left", "bottom", "right")}
    params |= {"pad_value": 0, "zp_out": 0, "low": 0, "high": 0}
    partial, got, whole = np.empty((1, 5, 4, 6), sums), *(np.empty((1, 5, 4, 6), np.float32) for _ in range(2))
    first = {"x": x[..., :3], "weight": pack_weight(weight[..., :3]), "bias": bias, "out": partial}
    BINDERS["CONV"](first, params)()
    second = {"x": x[..., 3:], "weight": pack_weight(weight[..., 3:]), "multiplier": scales}
    BINDERS["CONV"]({**second, "partial": partial, "out": got}, params)()
    BINDERS["CONV"]({"x": x, "weight": pack_weight(weight), "bias": bias, "multiplier": scales, "out": whole}, params)()
    raw = conv2d(x, pack_weight(weight), bias, None, None, weight_shape=weight.shape, pad=(1, 1, 1, 1))
    for found in (got, whole):
        np.testing.assert_array_equal(found, dequantize(raw, scales, axis=3), strict=True)


def test_scales_are_read_when_the_instruction_runs() -> None:
    """Memory that a load fills later: also the single scale of a layer with one channel."""
    x, weight = np.full((1, 1, 1, 4), 3, np.int8), np.full((1, 1, 1, 4), 5, np.int8)
    scales, out = np.zeros(1, np.float32), np.empty((1, 1, 1, 1), np.float32)
    params = {"kernel_h": 1, "kernel_w": 1, "stride_h": 1, "stride_w": 1, "dilation_h": 1, "dilation_w": 1, "groups": 1}
    params |= dict.fromkeys([f"pad_{side}" for side in ("top", "left", "bottom", "right")], 0)
    params |= {"pad_value": 0, "zp_out": 0, "low": 0, "high": 0}
    step = BINDERS["CONV"]({"x": x, "weight": pack_weight(weight), "multiplier": scales, "out": out}, params)
    for scale in (0.5, 0.25):
        scales[:] = scale
        step()
        assert out.item() == 60 * scale


@pytest.mark.parametrize("march", ["nash-e", "bayes"])
def test_a_march_without_float_results_leaves_them_to_the_host(march: str) -> None:
    module = convert(output_and_input("linear"), "nash-h")
    module.march = march  # as of a file that says so: another march is refused before it comes to this
    binary = compiled(module, march, opt=1)
    rows = [row for row in binary.models[0].placements if row["unit"] == "HOST"]
    assert [row["op"] for row in rows] == ["quantized.conv2d"] * 2
    assert {row["reason"] for row in rows} == {f"the tensor engine of {march} gives int8, int16, int32, no float32"}
    assert_equal_outputs(module, binary, [example_feeds(module[0])], check=True)


def _reasons(module: Module, march: March) -> set[str]:
    return {node.reason for node in lower(module, march).nodes if node.unit == "HOST"}


def test_what_the_engine_of_bayes_does_not_take_is_left_to_the_host() -> None:
    bayes = load_march("bayes")
    module = convert(output_and_input("conv"), "bayes")
    assert _reasons(module, bayes) == set()
    assert _reasons(module, replace(bayes, max_kernel_elements=71)) == {
        "the tensor engine sums over at most 71 weights"
    }
    assert _reasons(module, replace(bayes, max_kernel_elements=72)) == set()
    assert _reasons(module, replace(bayes, conv_weight_types=("int16",))) == {
        "the tensor engine of bayes takes weights of int16, not of int8"
    }
    convs = [op for op in module[0].operations if isinstance(op, q.Conv2dOp)]
    for conv, stride in zip(convs, (1, 2), strict=True):
        values = conv.values | {"dilation": (2, 1), "pad": (2, 1, 2, 1), "stride": (stride, 1)}
        reason = engine_reason(q.Conv2dOp.make(*conv.aligned_operands, **values), bayes)
        assert reason == ("" if stride == 1 else "the tensor engine takes strides up to 1 where taps lie apart")


def test_int16_matrices_on_bayes() -> None:
    @settings(max_examples=10)
    @given(operations(q.MatmulOp))
    def check(module: Module) -> None:
        wide = any("int16" in str(argument.type.np_dtype) for argument in module[0].flatten_inputs)
        reasons = _reasons(module, load_march("bayes"))
        assert reasons == ({"the tensor engine of bayes takes matrices of int8, not of int16"} if wide else set())

    check()


@pytest.mark.parametrize("march", ["nash-p", "nash-h"])
def test_an_output_costs_no_dequantize(march: str) -> None:
    """The layers of a network whose last one is an output: without the vector unit's pass it takes fewer cycles."""
    module = output_and_input("conv")
    module[0].return_op.operands = module[0].return_op.operands[1:]
    module[0].op.properties.pop("res_attrs", None)
    module[0].update_type()
    cycles: dict[bool, int] = {}
    for integer_conv in (False, True):
        module.integer_conv = integer_conv
        binary = compiled(convert(module, march), opt=2)
        cycles[integer_conv] = simulate(binary.models[0]).cycles
    assert cycles[False] < cycles[True]
