"""Operations as numbers: equal ones for equal content, equal computations, and for what becomes of them."""

from __future__ import annotations

from hbir.ir.graph import OUTSIDE, Numbers, OpGraph
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
