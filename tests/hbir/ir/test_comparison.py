"""What differs between modules: nothing for names and order, each planted change by its layer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xdsl.dialects import builtin as b
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter

from hbir.dialects.base import tensor
from hbir.dialects.hbir import AddOp, ClipOp, ConstantOp, Conv2dOp, constant
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError
from hbir.ir import ConstantStore, diff
from hbir.ir.locations import layer_name, name_location
from hbir.module import Module
from hbir.testing import Seeded, modules
from hbir.testing.graphs import SeededGraph
from tests.hbir.ir.diff_samples import named, network, remove, shuffle


@given(module=modules(("hbir", "quantized"), 6), seed=st.integers(0, 99))
def test_names_and_the_order_of_independent_operations_do_not_count(module: Module, seed: int) -> None:
    other = module.clone()
    for function in other:
        shuffle(function.op.body.block, random.Random(seed))
    other.verify()
    found = diff(module, other)
    assert not found and found.same == sum(len(function.op.body.block.ops) for function in module)


@given(module=modules(("hbir", "quantized"), 6))
def test_a_module_differs_from_its_copies_in_nothing(module: Module) -> None:
    for other in (module.clone(), Module.parse(str(module), module.constants)):
        found = diff(module, other)
        assert not found and [row.kind for row in found.rows] == ["same"] * found.same


@given(module=modules(("hbir", "quantized"), 6), data=st.data())
def test_a_planted_attribute_is_found_with_its_layer(module: Module, data: st.DataObject) -> None:
    other = module.clone()
    assume(other[0].operations)
    op = data.draw(st.sampled_from(other[0].operations))
    op.attributes["planted"] = b.StringAttr("news")
    (change,) = diff(module, other).changes
    assert (change.kind, change.layer, change.before, change.after) == ("changed", layer_name(op), op.name, op.name)
    assert [(each.what, each.before, each.after) for each in change.differences] == [
        ("attribute 'planted'", "none", '"news"')
    ]


@given(module=modules(("hbir", "quantized"), 6), data=st.data())
def test_a_planted_constant_is_found_with_its_layer(module: Module, data: st.DataObject) -> None:
    other = module.clone()
    constants = [op for op in other[0].operations if isinstance(op, ConstantOp)]
    assume(constants)
    op = data.draw(st.sampled_from(constants))
    array = np.array(op.array(other.constants))
    assume(array.size)
    array.reshape(-1)[0] = 0 if array.reshape(-1)[0] else 1
    op.properties["value"] = other.constants.put(array)
    (change,) = diff(module, other).changes
    assert (change.layer, change.differences[0].what) == (layer_name(op), "constant")
    assert change.differences[0].note.startswith(f"1 of {array.size} numbers differ")


@given(module=modules(("hbir", "quantized"), 6), data=st.data())
def test_a_planted_operand_is_found_with_its_layer(module: Module, data: st.DataObject) -> None:
    other = module.clone()
    block = other[0].op.body.block
    seen: list[SSAValue] = list(block.args)
    places: list[tuple[Operation, int, SSAValue]] = []
    for op in block.ops:
        places += [
            (op, at, value)
            for at, operand in enumerate(op.operands)
            for value in seen
            if value is not operand and value.type == operand.type
        ]
        seen += op.results
    assume(places)
    op, at, value = data.draw(st.sampled_from(places))
    op.operands[at] = value
    (change,) = diff(module, other).changes
    assert change.layer == layer_name(op) and [each.what for each in change.differences] == [f"operand {at}"]


def test_a_changed_attribute_is_told_with_its_layer() -> None:
    before, after = network(), network()
    clip = named(after, "clip2")
    clip.properties["max"] = b.FloatAttr(6.0, b.f64)
    (change,) = diff(before, after).changes
    assert (change.kind, change.layer, change.after) == ("changed", "clip2", "hbir.clip")
    (difference,) = change.differences
    assert (difference.what, difference.before, difference.after) == ("attribute 'max'", "none", "6.000000e+00 : f64")


def test_a_changed_constant_is_told_with_its_largest_difference() -> None:
    before, after = network(), network()
    weight = named(after, "weight3")
    assert isinstance(weight, ConstantOp)
    array = np.array(weight.array(after.constants), np.float32)
    array[0, 0, 0, :2] += np.array([0.5, -2.0], np.float32)
    weight.properties["value"] = after.constants.put(array)
    (change,) = diff(before, after).changes
    assert change.layer == "weight3"
    assert change.differences[0].what == "constant"
    note = "2 of 64 numbers differ, by 2 at most; first at [0, 0, 0, 0]: "
    assert change.differences[0].note.startswith(note)


def test_what_was_removed_and_what_was_added() -> None:
    before, after = network(), network()
    clip = named(after, "clip1")
    remove(clip)
    found = {(change.kind, change.layer) for change in diff(before, after).changes}
    assert found == {("removed", "clip1"), ("changed", "add1")}
    found = {(change.kind, change.layer) for change in diff(after, before).changes}
    assert found == {("added", "clip1"), ("changed", "add1")}


def test_what_is_no_module_is_refused() -> None:
    module = network(1)
    others: tuple[Any, ...] = ("after.bc", None, module.op)
    for other in others:
        for pair in ((module, other), (other, module)):
            with pytest.raises(IrError, match="HB0236") as caught:
                diff(*pair)
            assert "is no module" in str(caught.value)


def test_functions_of_one_side_only() -> None:
    before, after = network(1), network(1)
    after[0].op.properties["sym_name"] = b.StringAttr("other")
    assert [(change.kind, change.function) for change in diff(before, after).changes] == [
        ("removed", "main"), ("added", "other"),
    ]  # fmt: skip


def test_numbers_of_two_types_are_not_subtracted() -> None:
    before, after = network(), network()
    weight = named(after, "weight3")
    assert isinstance(weight, ConstantOp)
    weight.properties["value"] = after.constants.put(np.zeros((8, 1, 1, 8), np.int32))
    Rewriter.replace_value_with_new_type(weight.output, tensor((8, 1, 1, 8), b.i32))
    change = next(change for change in diff(before, after).changes if change.layer == "weight3")
    assert [(each.what, each.note) for each in change.differences] == [("constant", ""), ("type of result 0", "")]


def test_rows_hold_every_operation_once_in_program_order() -> None:
    before, after = network(2), network(2)
    clip = named(after, "clip1")
    remove(clip)
    rows = diff(before, after).rows
    assert [(row.layer, row.kind) for row in rows] == [
        *((f"{kind}0", "same") for kind in ("weight", "conv", "clip", "add")),
        *(("weight1", "same"), ("conv1", "same"), ("clip1", "removed"), ("add1", "changed"), ("func.return", "same")),
    ]
    assert {row.after_type for row in rows if row.layer.startswith("conv")} == {"1x4x4x8xf32"}
    assert next(row for row in rows if row.kind == "removed").before_type == "1x4x4x8xf32"


@pytest.mark.parametrize(
    ("one", "other", "note"),
    [
        ([1.0, np.nan, np.inf], [1.0, np.nan, np.inf], None),
        ([1.0, np.nan, np.inf], [1.5, np.nan, np.inf], "1 of 3 numbers differ, by 0.5 at most; first at 0: 1.0 -> 1.5"),
        (
            [1.0, 2.0, np.inf],
            [np.nan, 2.5, np.inf],
            "2 of 3 numbers differ, some from NaN or infinity; first at 0: 1.0 -> nan",
        ),
        ([0.0, 1.0, 2.0], [-0.0, 1.0, 2.0], "no number differs in value"),
    ],
)
def test_constants_with_special_numbers(one: list[float], other: list[float], note: str | None) -> None:
    def holding(numbers: list[float]) -> Module:
        graph = SeededGraph(Seeded(0, []))
        x = graph.input((3,), b.f32)
        graph.add(AddOp.make(x, graph.constant(np.array(numbers, np.float32), b.f32)))
        return graph.finish()

    changes = diff(holding(one), holding(other)).changes
    notes = [each.note for change in changes for each in change.differences if each.what == "constant"]
    assert notes == ([] if note is None else [note])


def test_long_values_are_held_in_full_and_shown_around_their_difference() -> None:
    before, after = network(1), network(1)
    numbers = [23_000 + at for at in range(400)]
    for module, last in ((before, 23941), (after, 23946)):
        named(module, "conv0").attributes["scales"] = b.DenseArrayBase.from_list(b.i32, [*numbers, last])
    (difference,) = diff(before, after).changes[0].differences
    assert difference.before.startswith("array<i32: 23000,") and difference.before.endswith(" 23941>")
    assert difference.after == difference.before.replace("23941", "23946")
    assert difference.note == "1 of 401 numbers differ, by 5 at most; first at 400: 23941 -> 23946"
    assert [(text[0], text[-6:]) for text in difference.shown] == [("…", "23941>"), ("…", "23946>")]


def test_scales_of_types_are_told_one_by_one_and_never_look_the_same() -> None:
    scales = np.full(200, 0.1, np.float32)
    other = scales.copy()
    other[199] = 0.25
    before, after = (_rounded(each) for each in (scales, other))
    found = diff(before, after)
    note = "scales: 1 of 200 numbers differ, by 0.15 at most; first at 199: 0.1 -> 0.25"
    noted = [each for change in found.changes for each in change.differences if each.what == "type of result 0"]
    assert [each.note for each in noted] == [note]
    (weight,) = (change for change in found.changes if change.layer == "weight")
    assert weight.before_type.count(",") == 200 and weight.shown_types[0] != weight.shown_types[1]
    for change in found.changes:
        assert all(each.shown[0] != each.shown[1] and max(map(len, each.shown)) < 130 for each in change.differences)


def _rounded(scales: npt.NDArray[np.float32]) -> Module:
    """A constant whose type has these scales, per channel."""
    store, element = ConstantStore(), UniformQuantizedType.get(8, scales, axis=0)
    weight = constant(np.zeros((len(scales), 1), np.int8), store, element)
    weight.location = name_location("weight")
    block = Block([weight, ReturnOp(weight.output)])
    function = FuncOp("main", b.FunctionType.from_lists([], [weight.output.type]), Region(block))
    return Module(b.ModuleOp([function]), store)


def test_an_operand_that_moved_is_the_same() -> None:
    """A residual is the third operand, or the fourth where there is a bias."""

    def module(biased: bool) -> Module:
        graph = SeededGraph(Seeded(0, []))
        x = graph.input((1, 4, 4, 8), b.f32)
        weight = graph.constant(np.zeros((8, 1, 1, 8), np.float32), b.f32)
        bias = graph.constant(np.ones(8, np.float32), b.f32) if biased else None
        form: dict[str, Any] = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
        graph.add(Conv2dOp.make(x, weight, bias, x, **form))
        return graph.finish()

    changes = {change.after: change for change in diff(module(False), module(True)).changes}
    assert changes["hbir.constant"].kind == "added" and len(changes) == 2
    told = {each.what: (each.before, each.after) for each in changes["hbir.conv2d"].differences}
    del told["attribute 'operandSegmentSizes'"]
    assert told == {"operand 2": ("none", f"hbir.constant '{changes['hbir.constant'].layer}'")}


def test_operands_that_look_alike_are_told_apart() -> None:
    """Two operations of one kind and layer: which one is read now is told by what became of them."""

    def module(second: bool, extra: bool = False) -> Module:
        graph = SeededGraph(Seeded(0, []))
        x = graph.input((3,), b.f32)
        values = [graph.add(ClipOp.make(x, min=low, max=None)) for low in (1.0, 2.0, *([3.0] if extra else []))]
        graph.add(AddOp.make(values[-1 if second else 0], x))
        graph.add(AddOp.make(values[0], values[1]))
        found = graph.finish()
        for op in found[0].operations:
            op.location = name_location("all")
        return found

    cases = (
        (module(False), module(True), ("hbir.clip 'all' (now #0)", "hbir.clip 'all' (#1)")),
        (module(False), module(True, extra=True), ("hbir.clip 'all'", "hbir.clip 'all' (added)")),
        (module(True, extra=True), module(False), ("hbir.clip 'all' (removed)", "hbir.clip 'all'")),
    )
    for before, after, texts in cases:
        differences = [each for change in diff(before, after).changes for each in change.differences]
        assert [(each.before, each.after) for each in differences] == [texts]


def test_two_nan_are_the_same() -> None:
    before, after = network(1), network(1)
    for module in (before, after):
        named(module, "conv0").attributes["odd"] = b.FloatAttr(float("nan"), b.f64)
    assert not diff(before, after)
