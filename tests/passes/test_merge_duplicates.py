"""Equal operations become one, whatever module they stand in, and nothing else does."""

from __future__ import annotations

from itertools import combinations

from hypothesis import given, settings
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region, SSAValue

from hbir.dialects.base import tensor
from hbir.dialects.hbir import AddOp, ClipOp
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import location_names, name_location
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, modules
from passes import Pipeline

DIALECTS = ("hbir", "qat", "quantized")


def _doubled(module: Module) -> Module:
    """Every operation twice, each copy reading its own copies, and every output twice."""
    double = module.clone()
    function = double[0]
    block, last = function.op.body.block, function.return_op
    twins = {argument: argument for argument in block.args}
    for op in function.operations:
        copy = op.clone(dict(twins))
        copy.location = name_location(f"twin of {'+'.join(location_names(op))}")
        block.insert_op_before(copy, last)
        twins |= dict(zip(op.results, copy.results, strict=True))
    last.operands = [*last.operands, *(twins[value] for value in last.operands)]
    function.op.properties.pop("res_attrs", None)
    function.update_type()
    double.verify()
    return double


def _duplicates(module: Module) -> int:
    """Pairs of operations that xDSL calls equivalent, operands being the same values; it does not look at result types."""
    block = module[0].op.body.block
    pairs = [(a, b) for a, b in combinations(module[0].operations, 2) if a.result_types == b.result_types]
    return sum(op.is_structurally_equivalent(other, {block: block}) for op, other in pairs)


@settings(max_examples=60)
@given(modules(DIALECTS, 6))
def test_a_module_and_its_twin_are_one_again(module: Module) -> None:
    double = _doubled(module)
    once, merged = (Pipeline("merge-duplicates").run(m) for m in (module, double))
    assert_same_semantics(double, merged)
    assert (_duplicates(double) > 0) == bool(module[0].operations) and _duplicates(merged) == 0
    assert [op.name for op in merged[0].operations] == [op.name for op in once[0].operations]
    assert merged[0].op.body.block.arg_types == once[0].op.body.block.arg_types
    count = len(once[0].return_op.operands)
    outputs = list(merged[0].return_op.operands)
    assert outputs[:count] == outputs[count:]
    for op, alone in zip(merged[0].operations, once[0].operations, strict=True):
        assert set(location_names(alone)) < set(location_names(op))
    assert_round_trips(merged)


@settings(max_examples=60)
@given(modules(DIALECTS, 8))
def test_nothing_equal_is_left_and_the_text_is_always_the_same(module: Module) -> None:
    merged = Pipeline("merge-duplicates", verify="exec").run(module)
    assert _duplicates(merged) == 0
    assert str(merged) == str(Pipeline("merge-duplicates").run(Module.parse(str(module), module.constants)))
    assert str(merged) == str(Pipeline("merge-duplicates").run(merged))


def test_thousands_of_readers_take_one_sweep() -> None:
    """Names are fused once at the end: fusing at every duplicate would take minutes here."""
    block = Block(arg_types=[tensor((1,), f32)])
    total: SSAValue = block.args[0]
    for number in range(3_000):
        clip = ClipOp.make(block.args[0], location=name_location(f"clip{number}"), min=0.0, max=None)
        add = AddOp.make(total, clip.output)
        block.add_ops([clip, add])
        total = add.output
    block.add_op(ReturnOp(total))
    function = FuncOp("main", FunctionType.from_lists(list(block.arg_types), [total.type]), Region(block))
    merged = Pipeline("merge-duplicates", "none").run(Module(ModuleOp([function]), ConstantStore()))
    (clip,) = (op for op in merged[0].operations if isinstance(op, ClipOp))
    assert location_names(clip) == tuple(f"clip{number}" for number in range(3_000))
