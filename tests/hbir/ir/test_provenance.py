"""Changes name the passes that made them, also those of what is gone."""

from __future__ import annotations

from xdsl.dialects import builtin as b

from hbir.dialects.hbir import ClipOp, FunctionOp
from hbir.ir import diff
from hbir.ir.locations import fuse_locations, name_location, tag_location
from tests.hbir.ir.diff_samples import named, network, remove


def test_changes_name_the_passes_between_the_two_modules() -> None:
    before, after = network(), network()
    for module in (before, after):
        op = named(module, "clip2")
        op.location = tag_location(op.location, ("early",))
    named(after, "clip2").location = tag_location(named(after, "clip2").location, ("early", "late", "later", "late"))
    assert diff(before, after).changes == ()  # a tag alone is no change
    named(after, "clip2").properties["max"] = b.FloatAttr(6.0, b.f64)
    (change,) = diff(before, after).changes
    assert change.passes == ("late", "later", "late")
    (change,) = diff(after, before).changes
    assert change.passes == ()
    named(after, "clip2").location = tag_location(named(after, "clip2").location, ("rebuilt",))
    (change,) = diff(before, after).changes
    assert change.passes == ("rebuilt",)


def test_removed_operations_name_the_passes_behind_what_took_their_place() -> None:
    before, after = network(), network()
    clip, conv = named(after, "clip2"), named(after, "conv2")
    remove(clip)
    conv.location = tag_location(fuse_locations([conv.location, name_location("clip2")]), ("early", "fuse"))
    named(after, "add2").location = tag_location(named(after, "add2").location, ("fuse", "late"))
    named(after, "clip3").location = tag_location(named(after, "clip3").location, ("elsewhere",))
    found = {change.layer: change.passes for change in diff(before, after).changes}
    # Both of what carries its layer and what read it have met "fuse".
    assert found == {"clip2": ("fuse",), "add2": ("fuse", "late")}


def test_readers_that_are_gone_too_pass_on_who_did_it() -> None:
    before, after = network(), network()
    for layer in ("clip2", "conv2", "weight2"):
        remove(named(after, layer))
    named(after, "add2").location = tag_location(named(after, "add2").location, ("strip",))
    found = {change.layer: (change.kind, change.passes) for change in diff(before, after).changes}
    assert found == dict.fromkeys(("clip2", "conv2", "weight2"), ("removed", ("strip",))) | {
        "add2": ("changed", ("strip",))
    }


def test_where_nothing_read_it_the_rest_of_its_layer_tells() -> None:
    before, after = network(), network()
    for module in (before, after):
        block = module[0].op.body.block
        dead = ClipOp.make(block.args[0], min=-5.0, max=None)
        dead.location = name_location("clip2")
        block.insert_op_before(dead, named(module, "clip2"))
    remove(named(after, "clip2"))
    named(after, "clip2").location = tag_location(named(after, "clip2").location, ("dead-code",))
    (change,) = diff(before, after).changes
    assert (change.kind, change.passes) == ("removed", ("dead-code",))


def test_what_was_added_to_the_layer_later_is_no_witness_where_readers_are() -> None:
    before, after = network(), network()
    remove(named(after, "clip2"))
    reader = named(after, "add2")
    reader.location = tag_location(reader.location, ("strip", "quantize"))
    added = FunctionOp.make(reader.operands[0], function="tanh")
    added.location = tag_location(fuse_locations([name_location("clip2"), name_location("more")]), ("quantize",))
    after[0].op.body.block.insert_op_before(added, after[0].return_op)
    changes = {(change.kind, change.layer): change.passes for change in diff(before, after).changes}
    assert changes == {
        ("removed", "clip2"): ("strip", "quantize"), ("added", "clip2+more"): ("quantize",),
        ("changed", "add2"): ("strip", "quantize"),
    }  # fmt: skip
