"""Partners are found without names and in any order: an edit never makes its neighbours strangers."""

from __future__ import annotations

import random
from functools import reduce

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from xdsl.dialects import builtin as b
from xdsl.rewriter import Rewriter

from hbir.dialects.hbir import AddOp, ConstantOp, FunctionOp, MulOp
from hbir.ir import ConstantStore, ModuleDiff, diff
from hbir.ir.locations import layer_name, name_location
from hbir.module import Module
from hbir.testing import Seeded, generate, modules
from hbir.testing.graphs import SeededGraph
from tests.hbir.ir.diff_samples import branches, many, named, network, shuffle, without_locations

FORM = """"builtin.module"() ({
  "func.func"() <{function_type = (TYPE) -> TYPE, sym_name = "main"}> ({
  ^bb0(%x: TYPE):
    %0 = "OP"(%x) <{function = "tanh"GRID}> : (TYPE) -> TYPE loc(NAMES)
    "func.return"(%0) : (TYPE) -> ()
  }) : () -> ()
}) : () -> ()
"""


@given(module=modules(("hbir", "quantized"), 8), data=st.data())
def test_one_edit_is_one_change_where_there_are_no_locations(module: Module, data: st.DataObject) -> None:
    before, after = without_locations(module.clone()), without_locations(module.clone())
    assume(after[0].operations)
    op = data.draw(st.sampled_from(after[0].operations))
    op.attributes["planted"] = b.UnitAttr()
    shuffle(after[0].op.body.block, random.Random(data.draw(st.integers(0, 99))))
    found = diff(before, after)
    (change,) = found.changes
    assert [each.what for each in change.differences] == ["attribute 'planted'"]
    place = list(after[0].op.body.block.ops).index(op)
    assert found.rows[place] == change


@pytest.mark.parametrize("seed", range(5))
def test_modules_whose_layers_all_have_other_names(seed: int) -> None:
    before = generate(Seeded(seed), ("hbir", "quantized"), 12)
    after = before.clone()
    for number, op in enumerate(after[0].op.body.block.ops):
        op.location = name_location(f"other{number}")
    shuffle(after[0].op.body.block, random.Random(seed))
    assert not diff(before, after)
    op = after[0].operations[0]
    op.attributes["planted"] = b.UnitAttr()
    assert [(change.kind, change.layer) for change in diff(before, after).changes] == [("changed", layer_name(op))]


def test_layers_without_names_are_matched_through_data_flow() -> None:
    before, after = network(), network()
    for op in after[0].op.body.block.ops:
        op.location = b.UNKNOWN_LOC
    named(before, "clip4").properties["min"] = b.FloatAttr(-1.0, b.f64)
    (change,) = diff(before, after).changes
    assert (change.kind, change.after) == ("changed", "hbir.clip")


def test_twins_in_another_order_are_the_same() -> None:
    assert not diff(branches([1.0, 2.0, 3.0]), branches([3.0, 1.0, 2.0]))


def test_twins_behind_an_edit_and_in_another_order_are_the_same() -> None:
    (change,) = diff(branches([1.0, 2.0, 3.0]), branches([3.0, 1.0, 2.0], low=-1.0)).changes
    assert (change.after, [each.what for each in change.differences]) == ("hbir.clip", ["attribute 'min'"])


def test_what_lies_between_two_edits_is_the_same() -> None:
    before, after = branches([1.0, 2.0, 3.0]), branches([2.0, 3.0, 1.0], low=-1.0)
    added = next(op for op in after[0].operations[::-1] if isinstance(op, AddOp))
    added.attributes["planted"] = b.UnitAttr()
    assert [change.after for change in diff(before, after).changes] == ["hbir.clip", "hbir.add"]


def test_a_constant_that_became_another_one_is_no_stranger() -> None:
    before, after = branches([1.0, 2.0]), branches([1.0, 7.0])
    (change,) = diff(before, after).changes
    assert (change.after, change.differences[0].note) == (
        "hbir.constant",
        "4 of 4 numbers differ, by 5 at most; first at 0: 2.0 -> 7.0",
    )


def test_another_kind_in_the_same_place_is_a_partner() -> None:
    before, after = branches([1.0]), branches([1.0])
    clip = after[0].operations[0]
    Rewriter.replace_op(clip, FunctionOp.make(clip.operands[0], function="exp"))
    (change,) = diff(before, after).changes
    assert (change.kind, change.before, change.after) == ("changed", "hbir.clip", "hbir.function")


def test_equal_constants_without_names_stand_for_each_other() -> None:
    """One of two equal constants less: their readers read the same."""
    before, after = branches([1.0]), branches([1.0])
    product = next(op for op in before[0].operations if isinstance(op, MulOp))
    twin = product.operands[1].owner
    assert isinstance(twin, ConstantOp)
    copy = twin.clone()
    before[0].op.body.block.insert_op_before(copy, product)
    product.operands[0] = copy.output
    product = next(op for op in after[0].operations if isinstance(op, MulOp))
    product.operands[0] = product.operands[1]
    assert [(change.kind, change.before) for change in diff(before, after).changes] == [("removed", "hbir.constant")]


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


def test_one_layer_of_many_equal_operations() -> None:
    """Names that tell nothing apart: the edits alone are told, every third operation of a chain."""
    before = many(60)
    for op in before[0].operations:
        op.location = name_location("all")
    after = before.clone()
    edited = after[0].operations[::3]
    for op in edited:
        op.attributes["planted"] = b.UnitAttr()
    found = diff(before, after)
    assert [change.after for change in found.changes] == [op.name for op in edited]


def test_twenty_thousand_operations() -> None:
    """Quadratic matching would take minutes here, most of all when every operation differs."""
    before = many(5000)
    after = before.clone()
    for op in after[0].operations[10_000:]:
        op.attributes["new"] = b.UnitAttr()
    found: ModuleDiff = diff(before, after)
    assert (len(found.changes), found.same) == (10_000, 10_001)
    assert found.changes[0].layer == "weight2500" and found.changes[-1].layer == "add4999"
    for module in (before, after):
        without_locations(module)
    found = diff(before, after)
    assert (len(found.changes), found.same) == (10_000, 10_001)


CONV = """"builtin.module"() ({
  "func.func"() <{function_type = (tensor<1x4x4x2xf32>) -> tensor<1x4x4x4xOUT>, sym_name = "main"}> ({
  ^bb0(%x: tensor<1x4x4x2xf32>):
    BODY
    "func.return"(%y) : (tensor<1x4x4x4xOUT>) -> ()
  }) : () -> ()
}) : () -> ()
"""
FLOAT = """%b = BIAS : () -> tensor<4xf32> loc("conv")
    %w = WEIGHT : () -> tensor<4x1x1x2xf32> loc("conv")
    %r = "qat.fake_quant"(%w) <{grid = GRID}> : (tensor<4x1x1x2xf32>) -> tensor<4x1x1x2xf32> loc("conv")
    %y = "hbir.conv2d"(%x, %r, %b) <{SHAPE}> : (tensor<1x4x4x2xf32>, tensor<4x1x1x2xf32>, tensor<4xf32>)
      -> tensor<1x4x4x4xf32> loc("conv")"""
INTEGERS = """%v = WEIGHT : () -> tensor<4x1x1x2xGRID> loc("conv")
    %w = BIAS : () -> tensor<4xi32> loc("conv")
    %q = "quantized.quantize"(%x) <{grid = IN}> : (tensor<1x4x4x2xf32>) -> tensor<1x4x4x2xIN> loc("x")
    %y = "quantized.conv2d"(%q, %v, %w) <{SHAPE, multiplier = array<i32: 1073741824>, shift = array<i8: 30>, low = -128 : i64,
      high = 127 : i64, grid = OUT}> : (tensor<1x4x4x2xIN>, tensor<4x1x1x2xGRID>, tensor<4xi32>) -> tensor<1x4x4x4xOUT>
      loc("conv")"""


def convolution(body: str, weight: npt.NDArray[np.generic], bias: npt.NDArray[np.generic]) -> Module:
    store, text = ConstantStore(), CONV.replace("BODY", body)
    for name, array in (("WEIGHT", weight), ("BIAS", bias)):
        text = text.replace(name, f'"hbir.constant"() <{{value = {store.put(array)}}}>')
    form = "stride = array<i64: 1, 1>, pad = array<i64: 0, 0, 0, 0>, dilation = array<i64: 1, 1>, groups = 1 : i64"
    texts = {
        "SHAPE": f"{form}, operandSegmentSizes = array<i32: 1, 1, 1, 0>",
        "GRID": "!quant.uniform<i8<-127:127>:f32:0, {0.5, 0.5, 0.5, 0.5}>",
        "IN": "!quant.uniform<i8:f32, 0.5>",
        "OUT": "!quant.uniform<i8:f32, 0.25>" if body == INTEGERS else "f32",
    }
    return Module.parse(reduce(lambda found, each: found.replace(*each), texts.items(), text), store)


def test_constants_are_partners_by_what_they_are_to_a_pair() -> None:
    """The integer weight stands where the float bias stood, and all have one layer: weight is weight, and bias is bias."""
    before = convolution(FLOAT, np.ones((4, 1, 1, 2), np.float32), np.ones(4, np.float32))
    after = convolution(INTEGERS, np.ones((4, 1, 1, 2), np.int8), np.ones(4, np.int32))
    found = diff(before, after)
    constants = [(row.before_type, row.after_type.split("!")[0]) for row in found.rows if row.after == "hbir.constant"]
    assert constants == [("4x1x1x2xf32", "4x1x1x2x"), ("4xf32", "4xi32")]
    conv = next(change for change in found.changes if change.after == "quantized.conv2d")
    assert [each.what for each in conv.differences if each.what.startswith("operand")] == ["operand 0", "operand 1"]
    assert [change.before for change in found.changes if change.kind == "removed"] == ["qat.fake_quant"]
    assert all(each.before != each.after for change in found.changes for each in change.differences)


def test_constants_of_one_layer_and_several_forms_are_no_partners() -> None:
    """Four numbers that were added are gone; the one that is multiplied with now is new."""

    def module(added: bool) -> Module:
        graph = SeededGraph(Seeded(0, []))
        x = graph.input((1, 4), b.f32)
        total = graph.add(AddOp.make(x, graph.constant(np.ones((1, 4), np.float32), b.f32) if added else x))
        if not added:
            graph.add(MulOp.make(total, graph.constant(np.ones(1, np.float32), b.f32)))
        found = graph.finish()
        for op in found[0].operations:
            op.location = name_location("layer")
        return found

    changes = diff(module(True), module(False)).changes
    constants = [change for change in changes if "hbir.constant" in (change.before, change.after)]
    assert sorted(change.kind for change in constants) == ["added", "removed"]
