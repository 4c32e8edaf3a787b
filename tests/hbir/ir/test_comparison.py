"""What differs between modules: nothing for names and order, each planted change by its layer."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xdsl.dialects import builtin as b
from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import Rewriter

from hbir.dialects.base import tensor
from hbir.dialects.hbir import AddOp, ConstantOp
from hbir.errors import IrError
from hbir.ir import diff
from hbir.ir.locations import layer_name
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
    assert change.differences[0].note == "2 of 64 numbers differ, by 2 at most"


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
        ([1.0, np.nan, np.inf], [1.5, np.nan, np.inf], "1 of 3 numbers differ, by 0.5 at most"),
        ([1.0, 2.0, np.inf], [np.nan, 2.5, np.inf], "2 of 3 numbers differ, some from NaN or infinity"),
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
