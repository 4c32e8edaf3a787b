"""What differs between modules: nothing for names and order, each planted change by its layer, and in linear time."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import builtin as b
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region

from hbir import diff
from hbir.dialects.base import tensor
from hbir.dialects.hbir import AddOp, ClipOp, ConstantOp, Conv2dOp, constant
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name, name_location
from hbir.module import Module
from hbir.testing import modules


@given(module=modules(("hbir", "quantized"), 6), seed=st.integers(0, 99))
def test_names_and_the_order_of_independent_operations_do_not_count(module: Module, seed: int) -> None:
    other = module.clone()
    for function in other:
        shuffle(function.op.body.block, random.Random(seed))
    other.verify()
    found = diff(module, other)
    assert not found and found.same == sum(len(function.op.body.block.ops) for function in module)


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


def test_twenty_thousand_operations() -> None:
    """Quadratic matching would take minutes here."""
    before, after = network(5000), network(5000)
    named(after, "clip4999").properties["max"] = b.FloatAttr(6.0, b.f64)
    assert [change.layer for change in diff(before, after).changes] == ["clip4999"]
