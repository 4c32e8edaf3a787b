"""Which pass made or changed an operation: what is tagged, what is not, and that it is the same on every run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from xdsl.dialects import builtin as b
from xdsl.ir import Operation

from hbir.dialects.hbir import AddOp, ClipOp, ConstantOp
from hbir.errors import PassError
from hbir.ir import diff
from hbir.ir.locations import fuse_locations, layer_name, location_names, location_passes, tag_location
from hbir.module import Module
from hbir.testing import modules
from passes import Pass, Pipeline, Promise
from passes.common.provenance import changes_tagged
from passes.common.rewriting import insert_before, replace

NETWORK = """"builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%x: tensor<2xf32> loc("x")):
    %0 = "hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32> loc("low")
    %1 = "hbir.clip"(%0) <{max = 6.0 : f64}> : (tensor<2xf32>) -> tensor<2xf32> loc("high")
    %2 = "hbir.add"(%1, %x) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32> loc("sum")
    "func.return"(%2) : (tensor<2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
"""


def named(module: Module, layer: str) -> Operation:
    return next(op for op in module[0].operations if layer_name(op) == layer)


def tags(module: Module) -> dict[str, tuple[str, ...]]:
    return {layer_name(op): location_passes(op.location) for op in module[0].op.body.block.ops}


def test_only_what_changed_is_tagged() -> None:
    module = Module.parse(NETWORK)
    with changes_tagged(module, "first"):
        named(module, "low").properties["min"] = b.FloatAttr(-1.0, b.f64)
    assert tags(module) == {"low": ("first",), "high": (), "sum": (), "func.return": ()}
    with changes_tagged(module, "second"):
        named(module, "low").properties["min"] = b.FloatAttr(-2.0, b.f64)
    with changes_tagged(module, "idle"):
        pass
    assert tags(module)["low"] == ("first", "second")


def test_a_pass_that_comes_back_is_named_again() -> None:
    module = Module.parse(NETWORK)
    with changes_tagged(module, "first"):
        named(module, "low").properties["min"] = b.FloatAttr(-1.0, b.f64)
    between = module.clone()
    with changes_tagged(module, "first"):
        named(module, "low").properties["min"] = b.FloatAttr(-2.0, b.f64)
    assert tags(module)["low"] == ("first", "first")
    assert [change.passes for change in diff(between, module).changes] == [("first",)]
    assert [change.passes for change in diff(Module.parse(NETWORK), module).changes] == [("first", "first")]


def test_the_same_operand_made_anew_changes_no_reader() -> None:
    module = Module.parse(NETWORK)
    with changes_tagged(module, "rebuild"):
        high = named(module, "high")
        replace(high, [insert_before(high, ClipOp.make(high.operands[0], min=None, max=6.0), [high]).output])
    assert tags(module) == {"low": (), "high": ("rebuild",), "sum": (), "func.return": ()}


def test_another_operand_is_a_change() -> None:
    module = Module.parse(NETWORK)
    with changes_tagged(module, "drop"):
        high = named(module, "high")
        replace(high, [high.operands[0]])
    assert tags(module) == {"low": (), "sum": ("drop",), "func.return": ()}


def test_a_rewritten_operation_keeps_its_history_and_a_new_one_has_none() -> None:
    module = Module.parse(NETWORK)
    with changes_tagged(module, "first"):
        low = named(module, "low")
        low.properties["min"] = b.FloatAttr(-1.0, b.f64)
    with changes_tagged(module, "second"):
        low = named(module, "low")
        made = insert_before(low, ClipOp.make(low.operands[0], min=-3.0, max=None), [low])
        doubled = insert_before(low, AddOp.make(made.output, made.output), [low])
        replace(low, [doubled.output])
    clip, add = module[0].operations[:2]
    assert (clip.name, location_passes(clip.location)) == ("hbir.clip", ("first", "second"))
    assert (add.name, location_passes(add.location)) == ("hbir.add", ("second",))


def test_merged_names_are_a_change() -> None:
    module = Module.parse(NETWORK)
    with changes_tagged(module, "merge"):
        named(module, "low").location = b.FusedLoc(
            (named(module, "low").location, named(module, "high").location), b.NoneAttr()
        )
    assert tags(module)["low+high"] == ("merge",)


def test_tags_outlive_a_location_that_is_written_anew() -> None:
    module = Module.parse(NETWORK)
    low = named(module, "low")
    low.location = tag_location(low.location, ("first",))
    with changes_tagged(module, "second"):
        low.location = fuse_locations([low.location])
    assert tags(module)["low"] == ("first",)


@dataclass(frozen=True)
class _Fails(Pass):
    name: ClassVar[str] = "fails"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        named(module, "low").properties["min"] = b.FloatAttr(-1.0, b.f64)
        raise PassError(99, "on purpose")


def test_a_failing_pass_tags_nothing() -> None:
    module = Module.parse(NETWORK)
    with pytest.raises(PassError), changes_tagged(module, "fails"):
        _Fails().run(module)
    assert not any(tags(module).values())


PIPELINE = "fold-constants,canonicalize,cancel-transposes,fuse-activations,merge-duplicates,dead-code"


@given(module=modules(("hbir",), 6))
def test_tags_are_deterministic_touch_nothing_else_and_say_who(module: Module) -> None:
    once, again = (Pipeline(PIPELINE, verify="none").run(module) for _ in range(2))
    assert str(once) == str(again)
    assert str(Module.parse(str(once), once.constants)) == str(once)
    names = {step.name for step in Pipeline(PIPELINE).steps}
    for change in diff(module, once).changes:
        assert set(change.passes) <= names
        if change.kind == "added":
            assert change.passes
    bare = once.clone()
    for op in bare.op.walk():
        op.location = tag_location(op.location, ())
    assert not diff(once, bare)
    pairs = zip(once.op.walk(), bare.op.walk(), strict=True)
    assert all(location_names(a) == location_names(b) for a, b in pairs)


def test_a_stock_pass_is_told_by_its_name() -> None:
    after = Pipeline("canonicalize").run(Module.parse(NETWORK))
    (clip,) = [op for op in after[0].operations if op.name == "hbir.clip"]
    assert location_passes(clip.location) == ("canonicalize",)
    change = next(change for change in diff(Module.parse(NETWORK), after).changes if change.after == "hbir.clip")
    assert change.passes == ("canonicalize",)


def test_constants_are_tagged_too() -> None:
    text = NETWORK.replace(
        '"hbir.clip"(%x) <{min = 0.0 : f64}> : (tensor<2xf32>)', '"hbir.constant"() <{value = BLOB}> : ()'
    )
    store: Any = Module.parse(NETWORK).constants
    blob = store.put(np.float32([-1.0, 9.0]))
    module = Module.parse(text.replace("BLOB", f'#hbir.blob<"{blob.digest.data}", 8>'), store)
    after = Pipeline("fold-constants").run(module)
    made = [op for op in after[0].operations if isinstance(op, ConstantOp)]
    assert ("fold-constants",) in [location_passes(op.location) for op in made]
