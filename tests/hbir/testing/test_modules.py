"""The strategies: valid modules with values that break things, faults found soon, shrunk to little, and printed as text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import Phase, find, given, settings
from xdsl.dialects.builtin import DenseArrayBase, i8
from xdsl.ir import Operation

from hbir.dialects import hbir as f
from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of, tensor_type
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.numerics.functions import FUNCTIONS
from hbir.testing import (
    GENERATORS,
    Seeded,
    assert_round_trips,
    assert_same_semantics,
    example_feeds,
    generate,
    modules,
    quant_params,
    tensors,
)
from hbir.testing.graphs import SeededGraph
from hbir.testing.modules import Generated
from hbir.testing.ranges import input_range, result_range
from hbir.testing.values import filled
from passes import Pass, Pipeline, Promise


@dataclass(frozen=True)
class Swapped(Pass):
    """A faulty pass: the operands of a subtraction change places."""

    name: ClassVar[str] = "swapped"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, f.SubOp) and op.lhs.type == op.rhs.type:
                op.operands = tuple(reversed(op.operands))


def test_a_fault_is_printed_as_a_few_operations() -> None:
    @settings(max_examples=200, derandomize=True, deadline=None)
    @given(modules(("hbir",), 5))
    def check(module: Module) -> None:
        assert_same_semantics(module, Pipeline([Swapped()]).run(module))

    with pytest.raises(AssertionError) as caught:
        check()
    printed = "\n".join(caught.value.__notes__)
    assert 'module="builtin.module"() ({' in printed and '"hbir.sub"' in printed
    operations = [line for line in printed.splitlines() if '"hbir.' in line]
    assert len(operations) <= 3, printed


FAULTS: dict[str, tuple[tuple[str, ...], Callable[[Operation], bool]]] = {}


def _fault(dialects: tuple[str, ...]) -> Callable[[Callable[[Any], bool]], Callable[[Any], bool]]:
    def note(change: Callable[[Any], bool]) -> Callable[[Any], bool]:
        FAULTS[change.__name__.removeprefix("_")] = (dialects, change)
        return change

    return note


@_fault(("hbir",))
def _transposes_cancel_whatever_they_do(op: Operation) -> bool:
    if not isinstance(op, f.TransposeOp) or op.input.type != op.output.type:
        return False
    op.output.replace_all_uses_with(op.input)
    return True


@_fault(("hbir",))
def _a_clip_loses_its_upper_bound(op: Operation) -> bool:
    if not isinstance(op, f.ClipOp) or op.values["max"] is None or op.values["min"] is None:
        return False
    del op.properties["max"]
    return True


@_fault(("hbir",))
def _padding_is_zero_whatever_its_value(op: Operation) -> bool:
    if not isinstance(op, f.PadOp) or op.values["value"] == 0.0:
        return False
    op.properties["value"] = f.PadOp.make(op.input, **{**op.values, "value": 0.0}).properties["value"]
    return True


@_fault(("quantized",))
def _a_clamp_of_the_sum_is_forgotten(op: Operation) -> bool:
    if not isinstance(op, q.AddOp) or (op.values["low"], op.values["high"]) == op.grid.limits:
        return False
    low, high = op.grid.limits
    wide = q.AddOp.make(*op.operands, **{**op.values, "low": low, "high": high})
    op.properties |= {name: wide.properties[name] for name in ("low", "high")}
    return True


@_fault(("quantized",))
def _a_rescale_rounds_one_bit_less(op: Operation) -> bool:
    if not isinstance(op, q.RescaleOp):
        return False
    shift = op.values["shift"] - 1
    op.properties["shift"] = DenseArrayBase.from_list(i8, shift.tolist())
    return True


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_found_within_200_modules(name: str) -> None:
    dialects, change = FAULTS[name]

    @settings(max_examples=200, derandomize=True, deadline=None, phases=[Phase.generate])
    @given(modules(dialects, 8))
    def check(module: Module) -> None:
        changed = module.clone()
        if sum(change(op) for op in changed[0].operations):
            assert_same_semantics(module, changed)

    with pytest.raises(AssertionError):
        check()


@dataclass(frozen=True)
class Unclipped(Pass):
    """A faulty pass: clips are forgotten."""

    name: ClassVar[str] = "unclipped"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for op in module[0].operations:
            if isinstance(op, f.ClipOp):
                op.output.replace_all_uses_with(op.input)


def test_parts_of_an_idiom_go_while_an_example_shrinks() -> None:
    def broken(module: Module) -> bool:
        try:
            assert_same_semantics(module, Pipeline([Unclipped()]).run(module))
        except AssertionError:
            return True
        return False

    smallest = find(
        modules(("hbir",), 3),
        broken,
        settings=settings(max_examples=200, derandomize=True, deadline=None, database=None),
    )
    names = [op.name for op in smallest[0].operations if not isinstance(op, f.ConstantOp)]
    # Where the clip stands in front of a division, to which it belongs, that one stays.
    assert "hbir.clip" in names and len(names) <= 3, names


def test_every_module_is_valid_and_runs() -> None:
    for seed in range(40):
        module = generate(Seeded(seed), ("hbir", "qat", "quantized"), 6)
        assert_round_trips(module)
        for name, value in module[0].feed(example_feeds(module[0], seed)).items():
            assert np.isfinite(value).all(), (seed, name)


@pytest.mark.parametrize("dialects", [("hbir",), ("hbir", "qat"), ("quantized", "hbir")], ids="-".join)
def test_every_value_is_in_the_range_that_it_is_said_to_have(dialects: tuple[str, ...]) -> None:
    for seed in range(60):
        module = generate(Seeded(seed), dialects, 10)
        known = {argument: input_range(tensor_type(argument.type)) for argument in module[0].operations[0].parent.args}
        outside: list[str] = []

        def look(op: Operation, results: Any, known: Any = known, outside: list[str] = outside) -> None:
            if results[0].dtype == np.float32 and results[0].size:
                low, high = known[op.results[0]]
                slack = 1e-4 * max(abs(low), abs(high), 1.0)
                if not (low - slack <= results[0].min() and results[0].max() <= high + slack):
                    outside.append(f"{layer_name(op)}: {results[0].min()}, {results[0].max()} outside {low}, {high}")

        for op in module[0].operations:
            for result in op.results:
                known[result] = result_range(op, known.__getitem__, module.constants)
        module[0].feed(example_feeds(module[0], seed), look)
        assert not outside, (seed, outside)


def test_every_function_is_generated_with_parameters_of_all_numbers() -> None:
    seen: dict[str, set[object]] = {}
    bounds: set[object] = set()
    for seed in range(600):
        graph = SeededGraph(Seeded(seed))
        for kind in (f.FunctionOp, f.ClipOp):
            GENERATORS[kind](graph)
        for op in graph.block.ops:
            if isinstance(op, f.FunctionOp):
                seen.setdefault(op.values["function"], set()).add(op.values["parameters"])
            if isinstance(op, f.ClipOp):
                bounds.add((op.values["min"], op.values["max"]))
    assert set(seen) == set(FUNCTIONS)
    assert all(len(seen[name]) > 1 for name, function in FUNCTIONS.items() if function.parameters)
    assert len(bounds) > 40 and any(low == high for low, high in bounds)
    assert any(low is not None and high is not None and low < 0 < high != -low for low, high in bounds)


def test_operations_return_as_twins_with_operands_exchanged() -> None:
    exchanged = 0
    for seed in range(40):
        ops = [op for op in generate(Seeded(seed), ("hbir",), 10)[0].operations if isinstance(op, f.BinaryOp)]
        pairs = [(type(op), tuple(op.operands)) for op in ops]
        exchanged += sum((kind, (b, a)) in pairs for kind, (a, b) in pairs if a is not b) // 2
    assert exchanged >= 5


def test_choices_make_the_same_module_again_and_smaller_ones() -> None:
    for seed in range(20):
        choices = Seeded(seed)
        module = generate(choices, ("hbir", "quantized"), 6)
        assert str(generate(Seeded(99, choices.made), ("hbir", "quantized"), 6)) == str(module)
        # Whatever is left out of the choices, a module comes out.
        for at in range(0, len(choices.made), 12):
            shorter = choices.made[:at] + choices.made[at + 2 :]
            generate(Seeded(0, shorter), ("hbir", "quantized"), 6).verify()
    assert len(generate(Seeded(0, []), ("hbir",), 6)[0].operations) == 1


def test_shapes_are_small_odd_long_and_now_and_then_whole_maps() -> None:
    extents: set[int] = set()
    largest = 0
    for seed in range(300):
        for argument in generate(Seeded(seed), ("quantized",), 4)[0].flatten_inputs:
            shape = argument.type.shape
            extents |= set(shape)
            largest = max(largest, int(np.prod(shape)))
    assert {1, 2, 3, 5, 7, 11, 13, 17, 33, 64} <= extents
    assert 4000 <= largest < 1 << 20


def test_results_reach_both_ends_and_ties() -> None:
    """Rescaled values hit the limits, and exact halves before rounding."""
    low = high = ties = 0
    for seed in range(250):
        module = generate(Seeded(seed), ("quantized",), 4)
        for op in module[0].operations:
            if isinstance(op, q.RescaleOp) and op.values["multiplier"].size == 1:
                m, s = int(op.values["multiplier"][0]), int(op.values["shift"][0])
                ties += m & (m - 1) == 0 and s > m.bit_length() - 1
        for value in module[0].feed(example_feeds(module[0], seed)).values():
            if value.dtype == np.int8 and value.size:
                low, high = low + bool(value.min() == -128), high + bool(value.max() == 127)
    assert min(low, high) >= 50 and ties >= 3


def test_floats_with_and_without_what_is_not_finite() -> None:
    seen: set[str] = set()

    @settings(max_examples=100, derandomize=True)
    @given(tensors(finite=False), tensors())
    def check(wild: np.ndarray, tame: np.ndarray) -> None:
        assert np.isfinite(tame).all()
        seen.update(name for name in ("isnan", "isposinf", "isneginf") if getattr(np, name)(wild).any())
        if (np.signbit(tame) & (tame == 0)).any():
            seen.add("negative zero")

    check()
    assert seen == {"isnan", "isposinf", "isneginf", "negative zero"}


def test_grids_are_of_the_asked_kind() -> None:
    scales: set[float] = set()

    @settings(max_examples=200, derandomize=True)
    @given(quant_params((8,), symmetric=True), quant_params())
    def check(symmetric: Any, grid: Any) -> None:
        assert (symmetric.bits, symmetric.zero_point) == (8, 0)
        assert grid.bits == 8 or grid.zero_point == 0
        scales.add(grid.scale)

    check()
    assert {2.0**10, 2.0**-30} <= scales


def test_small_constants_are_shown() -> None:
    module = next(
        made
        for made in (generate(Seeded(seed), ("hbir",), 3) for seed in range(50))
        if any(isinstance(op, f.ConstantOp) and shape_of(op.output.type) == () for op in made[0].operations)
    )
    assert isinstance(module, Generated)
    assert "// constant_" in repr(module) and repr(module).startswith(str(module))


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.int64, np.bool_])
def test_a_tensor_without_axes_is_an_array(dtype: type[Any]) -> None:
    assert all(isinstance(filled((), dtype, seed), np.ndarray) for seed in range(9))
