"""Operations as numbers: equal ones for equal content, equal computations, and for what becomes of them."""

from __future__ import annotations

from xdsl.context import Context
from xdsl.parser import Parser

from hbir.dialects import all_dialects
from hbir.ir.graph import OUTSIDE, Numbers, OpGraph, same_roles
from hbir.module import Module
from tests.hbir.ir.diff_samples import branches, without_locations


def graph(module: Module, numbers: Numbers | None = None) -> OpGraph:
    return OpGraph(module[0].op.body.block, numbers or Numbers())


def test_equal_computations_have_one_number_and_what_becomes_of_them_another() -> None:
    found = graph(branches([1.0, 2.0]))
    first, second = (at for at, kind in enumerate(found.kinds) if kind == "hbir.function")
    assert found.content[first] == found.content[second] and found.down[first] == found.down[second]
    assert found.up[first] != found.up[second]


def test_no_two_operations_that_reach_the_return_become_the_same() -> None:
    found = graph(branches([1.0, 1.5, 2.0, 3.0]))
    assert len(set(found.up)) == len(found.ops) and len(set(found.down)) == len(found.ops) - 3


def test_two_graphs_share_numbers() -> None:
    numbers = Numbers()
    one, other = (graph(branches(order), numbers) for order in ([1.0, 2.0], [2.0, 1.0]))
    assert sorted(one.down) == sorted(other.down) and sorted(one.up) == sorted(other.up)
    edited = graph(branches([1.0, 2.0], low=-1.0), numbers)
    assert edited.content[1:] == one.content[1:] and edited.content[0] != one.content[0]
    assert edited.shapes == one.shapes
    constants = [at for at, kind in enumerate(one.kinds) if kind == "hbir.constant"]
    assert [at for at in range(len(one.ops)) if one.down[at] == edited.down[at]] == constants
    assert [at for at in range(len(one.ops)) if one.up[at] != edited.up[at]] == [0]


def test_a_module_that_is_out_of_order_is_numbered_as_well() -> None:
    module = branches([1.0])
    block = module[0].op.body.block
    first = module[0].operations[0]
    first.detach()
    block.insert_op_before(first, module[0].return_op)
    found = graph(module)
    assert found.kinds[-2] == "hbir.clip" and found.operands[-2] == [(OUTSIDE, 0)]
    assert found.operands[0] == [(len(found.ops) - 2, 0)]


def test_layers_are_shown_and_may_be_left_out_of_account() -> None:
    found = graph(without_locations(branches([1.0])))
    assert found.layers == found.kinds and found.known_layers == set()
    found.forget_layers()
    assert not any(found.names)


def test_operands_have_roles() -> None:
    texts = {
        '"hbir.conv2d"(%x, %x, %x) <{operandSegmentSizes = array<i32: 1, 1, 0, 1>}>': ("input", "weight", "residual"),
        '"hbir.conv2d"(%x, %x, %x) <{operandSegmentSizes = array<i32: 1, 1, 5, -4>}>': ("0", "1", "2"),
        '"hbir.conv2d"(%x, %x, %x)': ("0", "1", "2"),
        '"hbir.linear"(%x, %x)': ("input", "weight"),
        '"hbir.concat"(%x)': ("inputs 0",),
        '"hbir.concat"(%x, %x)': ("inputs 0", "inputs 1"),
    }
    for text, roles in texts.items():
        op = Parser(_context(), f'%x = "test.x"() : () -> f32 %y = {text} : ({", ".join(["f32"] * len(roles))}) -> f32')
        block = op.parse_module().body.block
        found = OpGraph(block, Numbers())
        assert found.roles(1) == roles and found.roles(0) == (), text


def _context() -> Context:
    context = Context(allow_unregistered=True)
    for dialect in all_dialects():
        context.load_dialect(dialect)
    return context


def test_roles_are_paired_by_name_and_what_is_left_by_place() -> None:
    conv = ("input", "weight", "bias", "residual")
    assert same_roles(conv, conv) == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert same_roles(("input", "weight", "residual"), conv) == [(0, 0), (1, 1), (2, 3), (None, 2)]
    assert same_roles(conv, ("lhs", "rhs")) == [(0, 0), (1, 1), (2, None), (3, None)]
    assert same_roles(("scale", "input"), ("input", "weight")) == [(0, None), (1, 0), (None, 1)]
    assert same_roles((), ("input",)) == [(None, 0)]


def test_what_comes_of_constants_alone() -> None:
    found = graph(branches([1.0]))
    kinds = [kind for kind, fixed in zip(found.kinds, found.fixed, strict=True) if fixed]
    assert kinds == ["hbir.constant"] and found.constant(found.kinds.index("hbir.constant"))
