"""The checks can fail: another meaning, another name, a text or bytecode that does not come back."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import StringAttr, f32

from hbir.dialects import hbir as f
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
