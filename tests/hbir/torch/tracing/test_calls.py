"""Arguments of calls: their leaves, the values among them, and what an output needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from hypothesis import given
from hypothesis import strategies as st

from hbir.torch.operations import lookup
from hbir.torch.tracing.calls import Call, Ref, enters_region, leaves_region, operands, replaced, upstream, weight_of


class Pair(NamedTuple):
    first: Any
    second: Any


LEAVES = st.integers(-9, 9) | st.none() | st.text(max_size=3)
ARGUMENTS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
        | st.builds(Pair, inner, inner)
        | st.builds(slice, LEAVES, LEAVES, LEAVES)
    ),
    max_leaves=12,
)


def leaves(value: Any) -> list[Any]:
    found: list[Any] = []
    replaced(value, found.append)
    return found


@given(ARGUMENTS)
def test_arguments_keep_their_form(value: Any) -> None:
    same = replaced(value, lambda leaf: leaf)
    assert same == value and type(same) is type(value)
    told = replaced(value, repr)
    assert leaves(told) == list(map(repr, leaves(value)))


def call(name: str, *arguments: Any, function: Any = torch.add, **keywords: Any) -> Call:
    operation = function if isinstance(function, str) else lookup(function)
    assert operation is not None
    return Call(name, operation, arguments, keywords, "")


def test_operands_come_in_order_out_of_whatever_holds_them() -> None:
    a, b, c = (Ref(call(name, function="quant")) for name in "abc")
    assert list(operands(((a, 1), {"x": [b, slice(None, c)]}))) == [a, b, c]


def test_what_an_output_needs_comes_operands_first_and_once() -> None:
    enter = call("quant", function="quant")
    left, right = (call(name, Ref(enter), 1.0) for name in ("left", "right"))
    both = call("both", Ref(left), Ref(right))
    unused = call("unused", Ref(left), 2.0)
    leave = call("dequant", Ref(both), function="dequant")
    found = upstream([leave])
    assert found == [enter, left, right, both, leave] and unused not in found
    assert [enters_region(each) for each in found] == [True, False, False, False, False]
    assert [leaves_region(each) for each in found] == [False, False, False, False, True]
    # A QuantStub that another value of the region feeds brings nothing in; integers leave without a stub.
    assert not enters_region(call("again", Ref(both), function="quant"))
    assert leaves_region(call("argmax", Ref(both), -1, function=torch.argmax))


def test_weights_and_their_channels() -> None:
    x, weight = Ref(call("quant", function="quant")), torch.zeros(4, 2, 3, 3)
    found = weight_of(call("conv", x, weight, None, function=torch.nn.functional.conv2d))
    assert found is not None and found[0] is weight and found[1] == 0
    found = weight_of(call("up", x, weight=weight, function=torch.nn.functional.conv_transpose2d))
    assert found is not None and found[0] is weight and found[1] == 1
    assert weight_of(call("product", x, x, function=torch.nn.functional.linear)) is None
