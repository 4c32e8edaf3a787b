"""Whole functions against Arm's reference model with `==`: generated modules, movements of integers, real networks."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import assume, given, settings
from xdsl.dialects.builtin import i8, i32
from xdsl.ir import SSAValue
from xdsl.utils.exceptions import VerifyException

from hbir.dialects import hbir as f
from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError, SimulationError
from hbir.module import Module
from hbir.testing import (
    GENERATORS,
    Seeded,
    assert_agrees_with_tosa,
    example_feeds,
    generate,
    modules,
    tosa_outputs,
)
from hbir.testing.graphs import SeededGraph
from hbir.testing.oracles.tosa_arithmetic import QUANTIZED
from hbir.testing.oracles.tosa_movements import MOVEMENTS
from hbir.testing.values import SCALES
from tests.compiled import qdq_module
from tests.networks import calibration_feeds
from tests.quantized_networks import VARIANTS
from tests.reporting import Figures

T = TypeVar("T")


def _compared(made: Iterable[tuple[int, Module]]) -> tuple[int, Counter[str], Counter[str]]:
    """Modules that agree, the operations in them, and why the others were refused."""
    agreed, operations, refused = 0, Counter[str](), Counter[str]()
    for seed, module in made:
        try:
            assert_agrees_with_tosa(module, example_feeds(module[0], seed))
        except SimulationError as error:
            refused[error.code + " " + error.what.split(" has ")[0].split(" at ")[-1]] += 1
        else:
            agreed += 1
            operations.update(op.name for op in module[0].operations)
    return agreed, operations, refused


def test_generated_modules_agree(figures: Figures) -> None:
    count = 300
    agreed, operations, refused = _compared((seed, generate(Seeded(seed), ("quantized",), 5)) for seed in range(count))
    figures(f"modules through Arm's reference model: {agreed} of {count} equal; refused: {dict(refused)}")
    assert agreed >= 0.8 * count
    assert set(operations) >= {kind.name for kind in QUANTIZED} | {"hbir.constant"}
    # Sums that int32 does not hold, and a quantize of what a dequantize gave.
    assert set(refused) <= {"HB0790 quantized.conv2d", "HB0790 quantized.matmul", "HB0794 quantized.quantize"}


@settings(max_examples=60, deadline=None)
@given(modules(("quantized",), 4))
def test_drawn_modules_agree(module: Module) -> None:
    try:
        assert_agrees_with_tosa(module, example_feeds(module[0], 1))
    except SimulationError:
        assume(False)


class _Integers(SeededGraph):
    """A graph whose values are integers even where a generator asks for floats; int16 may have zero points."""

    def __init__(self, choices: Seeded) -> None:
        super().__init__(choices)
        self.element = self.grid()

    def choose(self, options: Iterable[T]) -> T:
        known: Any = tuple(options)  # what padding holds is a code
        return super().choose(
            [option for option in known if not isinstance(option, float) or option.is_integer()] or known
        )

    def grid(self, bits: Sequence[int] = (8, 16), scales: Sequence[float] = SCALES) -> UniformQuantizedType:
        grid = super().grid(bits, scales)
        zero = self.choose((0, -32768, 32767, 77)) if grid.bits == 16 else grid.zero_point
        return UniformQuantizedType.get(grid.bits, grid.scale, zero)

    def value(
        self,
        rank: int | None = 4,
        shape: Sequence[int] | None = None,
        other_than: SSAValue | None = None,
        **_: float,
    ) -> SSAValue:
        return self.quantized(rank, shape=shape, like=self.element)


def _moved(seed: int, kinds: Sequence[type[HbOperation]]) -> Module:
    graph = _Integers(Seeded(seed))
    for _ in range(4):
        try:
            GENERATORS[graph.choose(kinds)](graph)
        except VerifyException:  # a sum of codes, say: quantised values have none
            continue
    return graph.finish()


def test_movements_of_integers_and_zero_points_of_int16_agree(figures: Figures) -> None:
    count = 300
    kinds = (*(set(MOVEMENTS) - {f.AddOp, f.SubOp, f.CastOp}), *(set(QUANTIZED) - {q.QuantizeOp}))
    kinds = sorted(kinds, key=lambda kind: kind.name)
    agreed, operations, refused = _compared((seed, _moved(seed, kinds)) for seed in range(count))
    figures(f"movements and zero points of int16 through Arm's model: {agreed} of {count}; refused: {dict(refused)}")
    assert agreed >= 0.9 * count
    assert set(operations) == {kind.name for kind in kinds} | {"hbir.constant"}
    assert set(refused) <= {
        "HB0790 quantized.conv2d",
        "HB0790 quantized.matmul",
        "HB0794 hbir.reshape",  # to seven axes
        "HB0794 quantized.avg_pool",  # of int16 with a zero point
        "HB0794 quantized.mul",  # of 17-bit distances from zero points
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_quantised_network_agrees(variant: str) -> None:
    module = qdq_module("mnist", variant)
    for feed in calibration_feeds("mnist", 3):
        assert_agrees_with_tosa(module, feed)


def test_a_network_of_fifty_convolutions_agrees() -> None:
    module = qdq_module("mobilenetv2", "int8")
    assert_agrees_with_tosa(module[0], calibration_feeds("mobilenetv2", 1)[0])


def _built(build: Callable[[SeededGraph], Any]) -> Module:
    graph = SeededGraph(Seeded(0))
    build(graph)
    return graph.finish()


def _rescaled(g: SeededGraph, bits: tuple[int, int], zeros: tuple[int, int], m: int, s: int) -> SSAValue:
    source = UniformQuantizedType.get(bits[0], math.ldexp(m, -s), zeros[0])
    x, target = g.input((2, 3, 4), source), UniformQuantizedType.get(bits[1], 1.0, zeros[1])
    return g.add(q.RescaleOp.make(x, multiplier=np.array([m], np.int32), shift=np.array([s], np.int8), grid=target))


@pytest.mark.parametrize("bits", [(8, 8), (16, 8), (32, 8), (32, 16), (16, 16), (8, 16), (8, 32)])
@pytest.mark.parametrize(("m", "s"), [(1 << 30, 20), (20001, 3), ((1 << 30) + 1, 33), (16385, 40), (1 << 30, 9)])
def test_saturation_beyond_what_rescale_promises(bits: tuple[int, int], m: int, s: int) -> None:
    """Scaled values up to 2^52, which saturate, and inputs above 2^(shift - 1)."""
    zeros = (0 if bits[0] == 32 else -77, 0 if bits[1] == 32 else 31)
    module = _built(partial(_rescaled, bits=bits, zeros=zeros, m=m, s=s))
    for seed in range(3):
        assert_agrees_with_tosa(module, example_feeds(module[0], seed))


def test_a_value_beyond_int32_is_located() -> None:
    def build(g: SeededGraph) -> None:
        x = g.input((1, 4), UniformQuantizedType.get(32, 1.0))
        x = g.add(q.ClampOp.make(x, low=-(1 << 31), high=(1 << 31) - 1))
        grid = UniformQuantizedType.get(32, 0.25)
        four = {"multiplier": np.array([1 << 14], np.int32), "shift": np.array([12], np.int8)}
        x = g.add(q.RescaleOp.make(x, **four, grid=grid))
        g.add(q.ClampOp.make(x, low=0, high=9))

    module = _built(build)
    small = {"in_0": np.array([[-5, 1, 2, 1 << 28]], np.int32)}
    assert tosa_outputs(module, small)["out_0"].tolist() == [[0, 4, 8, 9]]
    with pytest.raises(SimulationError, match=r"HB0790 at layer 'rescale_1': .*UNPREDICTABLE at quantized.rescale"):
        tosa_outputs(module, {"in_0": np.array([[1, 1, 1, 1 << 30]], np.int32)})


def test_int32_arithmetic_and_casts() -> None:
    def build(g: SeededGraph) -> None:
        a, b = g.input((2, 3), i32), g.input((3,), i32)
        total = g.add(f.SubOp.make(g.add(f.AddOp.make(a, b)), b))
        g.add(f.CastOp.make(total, to="i8"))
        g.add(f.CastOp.make(g.add(f.MaximumOp.make(total, a)), to="i64"))
        g.add(f.CastOp.make(g.input((3,), i8), to="f32"))

    module = _built(build)
    feeds = {"in_0": np.array([[1, -70000, 3], [4, 5, 6]], np.int32), "in_1": np.array([7, -300, 9], np.int32)}
    assert_agrees_with_tosa(module, {**feeds, "in_2": np.array([-128, 0, 5], np.int8)})


def test_what_is_returned_as_it_came() -> None:
    def build(g: SeededGraph) -> None:
        x = g.input((2, 1), UniformQuantizedType.get(8, 1.0))
        g.add(f.ExpandOp.make(x, shape=(2, 1)))
        g.add(f.ReshapeOp.make(g.floats((4,)), shape=(2, 2)))
        g.add(f.ConcatOp.make(g.constant(np.array([3, 4], np.int8), i8), axis=0))

    module = _built(build)
    outputs = tosa_outputs(module, {"in_0": np.array([[3], [4]], np.int8)})
    assert outputs["out_0"].tolist() == [[3], [4]] and outputs["out_2"].tolist() == [3, 4]
    assert_agrees_with_tosa(module, {"in_0": np.array([[3], [4]], np.int8)})


@pytest.mark.parametrize("kind", [q.AddOp, q.ClampOp, q.RescaleOp, f.TransposeOp])
def test_a_fault_of_the_interpreter_is_seen(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = [s for s in range(12) if any(type(op) is kind for op in _moved(s, [kind, q.AddOp])[0].operations)]
    bind = kind.bind

    def off_by_one(*operands: Any, out: Any, **attributes: Any) -> Callable[[], None]:
        run = bind(*operands, out=out, **attributes)

        def faulty() -> None:
            run()
            out.reshape(-1)[:1] ^= 1

        return faulty

    for seed in seeds:
        module = _moved(seed, [kind, q.AddOp])
        assert_agrees_with_tosa(module, example_feeds(module[0], seed))
    monkeypatch.setattr(kind, "bind", staticmethod(off_by_one))
    seen = 0
    for seed in seeds:
        module = _moved(seed, [kind, q.AddOp])
        try:
            assert_agrees_with_tosa(module, example_feeds(module[0], seed))
        except AssertionError as error:
            assert "output 'out_" in str(error)
            seen += 1
    assert seen >= 0.6 * len(seeds) > 5


def test_floats_are_refused() -> None:
    def between(g: SeededGraph) -> None:
        grid = UniformQuantizedType.get(8, 0.5)
        held = g.add(q.ClampOp.make(g.input((2, 2), grid), low=0, high=9))
        real = g.add(q.DequantizeOp.make(held, grid=grid))
        g.add(q.QuantizeOp.make(g.add(f.TransposeOp.make(real, permutation=(1, 0))), grid=grid))

    x = np.zeros((2, 2), np.int8)
    with pytest.raises(SimulationError, match=r"HB0794 at layer 'quantize_3': quantized.quantize .*no floats between"):
        tosa_outputs(_built(between), {"in_0": x})

    def arithmetic(g: SeededGraph) -> None:
        g.add(f.FunctionOp.make(g.floats((2,)), function="sigmoid", parameters=None))

    with pytest.raises(SimulationError, match=r"HB0794 at layer 'function_1': hbir.function .*float arithmetic"):
        tosa_outputs(_built(arithmetic), {})


def test_what_has_no_exact_form_is_refused() -> None:
    def computed_table(g: SeededGraph) -> None:
        entries = g.add(f.ReshapeOp.make(g.input((16, 16), i8), shape=(256,)))
        grid = UniformQuantizedType.get(8, 1.0)
        g.add(q.TableOp.make(g.input((2,), grid), entries, function=None, grid=grid))

    feeds = {"in_0": np.zeros((16, 16), np.int8), "in_1": np.zeros(2, np.int8)}
    with pytest.raises(SimulationError, match=r"HB0794 at layer 'table_1': quantized.table .*table is computed"):
        tosa_outputs(_built(computed_table), feeds)

    def wide_sum(g: SeededGraph) -> None:
        x = g.input((1, 1, 1, 70000), UniformQuantizedType.get(8, 1.0, -128))
        grids = UniformQuantizedType.get(8, 1.0, narrow=True), UniformQuantizedType.get(32, 1.0)
        window = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
        names = ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
        raw = {**dict.fromkeys((*names, "multiplier", "shift")), "low": -(1 << 31), "high": (1 << 31) - 1}
        weight = g.constant(np.full((1, 1, 1, 70000), 127, np.int8), grids[0])
        g.add(q.Conv2dOp.make(x, weight, None, None, **window, **raw, grid=grids[1]))

    module = _built(wide_sum)
    with pytest.raises(SimulationError, match=r"HB0794 at layer 'conv2d_1': .*may reach 2266950000, beyond INT32"):
        tosa_outputs(module, example_feeds(module[0]))

    def empty(g: SeededGraph) -> None:
        none = g.add(f.SliceOp.make(g.input((4,), i32), begin=(2,), end=(2,), step=(1,)))
        g.add(f.ConcatOp.make([none, none], axis=0))

    with pytest.raises(SimulationError, match=r"HB0794 at layer 'slice_0': .*empty"):
        tosa_outputs(_built(empty), {"in_0": np.zeros(4, np.int32)})


def test_arguments_that_do_not_fit() -> None:
    module = _built(lambda g: g.add(f.AddOp.make(g.input((2,), i32), g.input((2,), i32))))
    x = np.zeros(2, np.int32)
    with pytest.raises(IrError, match=r"HB0245: feeds is an input set of \['in_0'\].*feed exactly \['in_0', 'in_1'\]"):
        tosa_outputs(module, {"in_0": x})
    with pytest.raises(IrError, match="HB0222.*in_1"):
        tosa_outputs(module, {"in_0": x, "in_1": x.astype(np.int8)})
    wrong: Any = "main"
    with pytest.raises(IrError, match="HB0245: function is 'main'"):
        tosa_outputs(wrong, {})
