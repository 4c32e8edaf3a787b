"""What differs between modules: nothing for names and order, each planted change by its layer and its pass, and in linear
time."""

from __future__ import annotations

import random
from functools import reduce

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xdsl.dialects import builtin as b
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.rewriter import Rewriter

from hbir import diff
from hbir.dialects.base import tensor
from hbir.dialects.hbir import AddOp, ClipOp, ConstantOp, Conv2dOp, constant
from hbir.ir.constants import ConstantStore
from hbir.ir.diff import ModuleDiff
from hbir.ir.locations import layer_name, name_location, tag_location
from hbir.module import Module
from hbir.testing import Seeded, modules
from hbir.testing.graphs import SeededGraph


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


def shuffle(block: Block, rng: random.Random) -> None:
    """Another order of the operations in which each still stands behind its operands."""
    waiting = list(block.ops)
    for op in waiting:
        op.detach()
    done: set[Operation] = set()
    while waiting:
        ready = [op for op in waiting if all(v.owner in done or isinstance(v.owner, Block) for v in op.operands)]
        ready = [op for op in ready if not isinstance(op, ReturnOp) or len(waiting) == 1]
        chosen = rng.choice(ready)
        block.add_op(chosen)
        done.add(chosen)
        waiting.remove(chosen)


FORM = """"builtin.module"() ({
  "func.func"() <{function_type = (TYPE) -> TYPE, sym_name = "main"}> ({
  ^bb0(%x: TYPE):
    %0 = "OP"(%x) <{function = "tanh"GRID}> : (TYPE) -> TYPE loc(NAMES)
    "func.return"(%0) : (TYPE) -> ()
  }) : () -> ()
}) : () -> ()
"""


def network(layers: int = 6) -> Module:
    """clip(conv(x)) again and again, each layer added to the one before it."""
    store, rng = ConstantStore(), np.random.default_rng(0)
    shape = tensor((1, 4, 4, 8), b.f32)
    block = Block(arg_types=[shape])
    value = block.args[0]
    for number in range(layers):
        weight = constant(rng.standard_normal((8, 1, 1, 8)).astype(np.float32), store, b.f32)
        conv = Conv2dOp.make(
            value, weight.output, None, None, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1
        )
        clip = ClipOp.make(conv.output, min=0.0, max=None)
        total = AddOp.make(clip.output, value)
        for op, kind in ((weight, "weight"), (conv, "conv"), (clip, "clip"), (total, "add")):
            op.location = name_location(f"{kind}{number}")
            block.add_op(op)
        value = total.output
    block.add_op(ReturnOp(value))
    function = FuncOp("main", b.FunctionType.from_lists([shape], [value.type]), Region(block))
    return Module(b.ModuleOp([function]), store)


def named(module: Module, layer: str) -> Operation:
    return next(op for op in module[0].op.body.block.ops if layer_name(op) == layer)


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
    array[0, 0, 0, :2] += np.float32([0.5, -2.0])
    weight.properties["value"] = after.constants.put(array)
    (change,) = diff(before, after).changes
    assert change.layer == "weight3"
    assert change.differences[0].what == "constant"
    assert change.differences[0].note == "2 of 64 numbers differ, by 2 at most"


def test_what_was_removed_and_what_was_added() -> None:
    before, after = network(), network()
    clip = named(after, "clip1")
    clip.results[0].replace_all_uses_with(clip.operands[0])
    clip.detach()
    clip.erase()
    found = {(change.kind, change.layer) for change in diff(before, after).changes}
    assert found == {("removed", "clip1"), ("changed", "add1")}
    found = {(change.kind, change.layer) for change in diff(after, before).changes}
    assert found == {("added", "clip1"), ("changed", "add1")}


def test_layers_without_names_are_matched_through_data_flow() -> None:
    before, after = network(), network()
    for op in after[0].op.body.block.ops:
        op.location = b.UNKNOWN_LOC
    named(before, "clip4").properties["min"] = b.FloatAttr(-1.0, b.f64)
    (change,) = diff(before, after).changes
    assert (change.kind, change.after) == ("changed", "hbir.clip")


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


def test_returns_are_partners_whatever_they_return() -> None:
    before, after = network(1), network(1)
    after[0].return_op.operands[0] = after[0].op.body.block.args[0]
    (change,) = diff(before, after).changes
    assert (change.kind, change.after) == ("changed", "func.return")
    assert change.differences[0].after == "argument 0"


def test_the_float_and_the_integer_form_of_a_layer_are_partners() -> None:
    grid = "!quant.uniform<i8:f32, 0.5>"
    texts = (
        {"TYPE": "tensor<2xf32>", "OP": "hbir.function", "NAMES": '"act"', "GRID": ""},
        {
            "TYPE": f"tensor<2x{grid}>", "OP": "quantized.function", "NAMES": 'fused["act", "more"]',
            "GRID": f", grid = {grid}",
        },
    )  # fmt: skip
    modules = [Module.parse(reduce(lambda text, item: text.replace(*item), each.items(), FORM)) for each in texts]
    change = next(change for change in diff(*modules).changes if change.layer)
    assert (change.before, change.after, change.layer) == ("hbir.function", "quantized.function", "act+more")


def test_rows_hold_every_operation_once_in_program_order() -> None:
    before, after = network(2), network(2)
    clip = named(after, "clip1")
    clip.results[0].replace_all_uses_with(clip.operands[0])
    clip.detach()
    clip.erase()
    rows = diff(before, after).rows
    assert [(row.layer, row.kind) for row in rows] == [
        *((f"{kind}0", "same") for kind in ("weight", "conv", "clip", "add")),
        *(("weight1", "same"), ("conv1", "same"), ("clip1", "removed"), ("add1", "changed"), ("func.return", "same")),
    ]
    assert {row.after_type for row in rows if row.layer.startswith("conv")} == {"1x4x4x8xf32"}
    assert next(row for row in rows if row.kind == "removed").before_type == "1x4x4x8xf32"


def test_changes_name_the_passes_between_the_two_modules() -> None:
    before, after = network(), network()
    for module in (before, after):
        op = named(module, "clip2")
        op.location = tag_location(op.location, ("early",))
    named(after, "clip2").location = tag_location(named(after, "clip2").location, ("early", "late", "later", "late"))
    assert diff(before, after).changes == ()  # a tag alone is no change
    named(after, "clip2").properties["max"] = b.FloatAttr(6.0, b.f64)
    (change,) = diff(before, after).changes
    assert change.passes == ("late", "later")
    (change,) = diff(after, before).changes
    assert change.passes == ()
    named(after, "clip2").location = tag_location(named(after, "clip2").location, ("rebuilt",))
    (change,) = diff(before, after).changes
    assert change.passes == ("rebuilt",)


def many(copies: int) -> Module:
    """The network of one layer again and again, by cloning: 4 operations for each copy."""
    module = network(1)
    block = module[0].op.body.block
    body, end = list(block.ops)[:-1], module[0].return_op
    value = end.operands[0]
    for number in range(1, copies):
        mapping: dict[SSAValue, SSAValue] = {block.args[0]: value}
        for op in body:
            copied = op.clone(mapping)
            copied.location = name_location(f"{layer_name(op)[:-1]}{number}")
            block.insert_op_before(copied, end)
        value = copied.results[0]
    end.operands[0] = value
    return module


def test_twenty_thousand_operations() -> None:
    """Quadratic matching would take minutes here, most of all when every operation differs."""
    before = many(5000)
    after = before.clone()
    for op in after[0].operations[10_000:]:
        op.attributes["new"] = b.UnitAttr()
    found: ModuleDiff = diff(before, after)
    assert (len(found.changes), found.same) == (10_000, 10_001)
    assert found.changes[0].layer == "weight2500" and found.changes[-1].layer == "add4999"


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
