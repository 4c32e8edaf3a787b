"""The checks can fail: another meaning, another name, a text or bytecode that does not come back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import StringAttr, f32

from hbir import testing as t
from hbir.dialects import hbir as f
from hbir.errors import HbError
from hbir.module import Module
from hbir.testing import Seeded, assert_round_trips, assert_same_semantics, checks
from hbir.testing.graphs import SeededGraph


def _module(scale: float = 2.0) -> Module:
    graph = SeededGraph(Seeded(0, []))
    x = graph.input((2, 3), f32)
    graph.add(f.MulOp.make(x, graph.constant(np.full((3,), scale, np.float32), f32)))
    return graph.finish()


def test_another_meaning_is_told() -> None:
    assert_same_semantics(_module(), _module())
    assert_same_semantics(_module(), _module(2.00001), tolerance=1e-4)
    with pytest.raises(AssertionError, match="out_0"):
        assert_same_semantics(_module(), _module(2.00001))
    with pytest.raises(AssertionError, match="out_0"):
        assert_same_semantics(_module(), _module(2.1), tolerance=1e-4)


def test_another_name_is_told() -> None:
    other = _module()
    other[0].flatten_outputs[0].name = "y"
    with pytest.raises(AssertionError, match=r"outputs \['y'\] instead of \['out_0'\]"):
        assert_same_semantics(_module(), other)


def test_a_round_trip_that_loses_something_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _module()
    assert_round_trips(module)
    stock = checks.read_bytecode

    def lossy(data: memoryview, dialects: object) -> object:
        op, blobs = stock(data, dialects)  # pyright: ignore[reportArgumentType]
        op.attributes["hbir.lost"] = StringAttr("")
        return op, blobs

    monkeypatch.setattr(checks, "read_bytecode", lossy)
    with pytest.raises(AssertionError, match="comes back from bytecode"):
        assert_round_trips(module)
    monkeypatch.setattr(checks, "read_bytecode", lambda data, dialects: (stock(data, dialects)[0], {}))
    with pytest.raises(AssertionError, match="constants change"):
        assert_round_trips(module)


def test_other_functions_are_told() -> None:
    renamed = _module()
    renamed[0].op.sym_name = StringAttr("other")
    empty = _module()
    empty[0].op.detach()
    for other in (renamed, empty):
        with pytest.raises(AssertionError, match="functions"):
            assert_same_semantics(_module(), other)


MISUSES: dict[str, tuple[str, Callable[[Any, Any], object]]] = {
    "a kind that is a number": ("HB0245", lambda m, none: t.operations(5)),
    "a kind that is None": ("HB0245", lambda m, none: t.operations(none)),
    "a kind that is no operation": ("HB0245", lambda m, none: t.operations(int)),
    "a text for a number of operations": ("HB0245", lambda m, none: t.modules(max_ops="a")),
    "no operations": ("HB0245", lambda m, none: t.modules(max_ops=0)),
    "fewer than no operations": ("HB0245", lambda m, none: t.modules(max_ops=-1)),
    "an unknown dialect": ("HB0245", lambda m, none: t.modules(("nope",))),
    "no dialects": ("HB0245", lambda m, none: t.modules(())),
    "a text for dialects": ("HB0245", lambda m, none: t.modules("hbir")),
    "a list in dialects": ("HB0245", lambda m, none: t.modules([["hbir"]])),
    "dialects that are None": ("HB0245", lambda m, none: t.modules(none)),
    "choices that are None": ("HB0245", lambda m, none: t.generate(none)),
    "an unknown dialect by seed": ("HB0245", lambda m, none: t.generate(Seeded(0), ("tosa",))),
    "no operations by seed": ("HB0245", lambda m, none: t.generate(Seeded(0), max_ops=0)),
    "nothing before": ("HB0236", lambda m, none: t.assert_same_semantics(none, m)),
    "a function after": ("HB0236", lambda m, none: t.assert_same_semantics(m, m[0])),
    "feeds that are a number": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, feeds=5)),
    "feeds that are one input set": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, feeds={"in_0": 1})),
    "feeds that hold a number": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, feeds=[1])),
    "no feeds": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, feeds=[])),
    "a tolerance that is a text": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, tolerance="1")),
    "a tolerance below zero": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, tolerance=-1)),
    "a tolerance that is none": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, tolerance=float("nan"))),
    "a tolerance beyond any float": ("HB0245", lambda m, none: t.assert_same_semantics(m, m, tolerance=10**400)),
    "a trip of nothing": ("HB0236", lambda m, none: t.assert_round_trips(none)),
    "feeds for a module": ("HB0245", lambda m, none: t.example_feeds(m)),
    "a seed below zero": ("HB0245", lambda m, none: t.example_feeds(m[0], -1)),
    "a seed that is a text": ("HB0245", lambda m, none: t.example_feeds(m[0], "a")),
    "a reach that is a text": ("HB0245", lambda m, none: t.example_feeds(m[0], 0, "a")),
    "a shape that is a number": ("HB0245", lambda m, none: t.tensors(5)),
    "a shape with a text": ("HB0245", lambda m, none: t.tensors(("a",))),
    "an extent below zero": ("HB0245", lambda m, none: t.tensors((2, -1))),
    "drawn shapes that are none": ("HB0245", lambda m, none: _drawn(t.tensors(st.just("ab")))),
    "a dtype that is none": ("HB0245", lambda m, none: t.tensors((2,), "nope")),
    "no dtype": ("HB0245", lambda m, none: t.tensors((2,), none)),
    "texts as elements": ("HB0245", lambda m, none: t.tensors((2,), str)),
    "complex elements": ("HB0245", lambda m, none: t.tensors((2,), np.complex64)),
    "an infinite reach": ("HB0245", lambda m, none: t.tensors((2,), reach=float("inf"))),
    "a text for finite": ("HB0245", lambda m, none: t.tensors((2,), finite="no")),
    "bits that are a number": ("HB0245", lambda m, none: t.quant_params(8)),
    "another width": ("HB0245", lambda m, none: t.quant_params((7,))),
    "a text for symmetric": ("HB0245", lambda m, none: t.quant_params(symmetric="no")),
    "no scales": ("HB0245", lambda m, none: t.quant_params(scales=())),
    "a scale of zero": ("HB0245", lambda m, none: t.quant_params(scales=(0.0,))),
    "a scale beyond float32": ("HB0245", lambda m, none: t.quant_params(scales=(1e300,))),
    "a scale that is a text": ("HB0245", lambda m, none: t.quant_params(scales=("1",))),
}


def _drawn(strategy: st.SearchStrategy[Any]) -> None:
    @settings(max_examples=1, database=None)
    @given(strategy)
    def draw(value: object) -> None:
        del value

    draw()


@pytest.mark.parametrize("name", MISUSES)
def test_misuse_is_refused_with_a_lever(name: str) -> None:
    code, misuse = MISUSES[name]
    with pytest.raises(HbError) as refusal:
        misuse(_module(), None)
    assert refusal.value.code == code and refusal.value.lever


def test_input_sets_that_come_one_by_one_serve_every_function() -> None:
    def twice(scale: float) -> Module:
        module, other = _module(), _module(scale)
        function = other[0].op
        function.detach()
        function.sym_name = StringAttr("second")
        module.op.body.block.add_op(function)
        for digest, data in other.constants.subset(other.constants).items():
            module.constants.add(digest, data)
        return module

    feeds = [{"in_0": np.ones((2, 3), np.float32)}]
    with pytest.raises(AssertionError, match="out_0"):
        assert_same_semantics(twice(2.0), twice(3.0), feeds=iter(feeds))
