"""The evaluator computes what the interpreter computes, bit for bit, in any order of inputs and outputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import IntegerType, i32, i64

from hbir.dialects import hbir
from hbir.dialects.base import Array, HbOperation
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized import Quantized
from hbir.errors import TrainingError
from hbir.module import Function, Module
from hbir.testing import GENERATORS, Seeded, example_feeds, generate
from hbir.testing.graphs import Graph, SeededGraph
from hbir.torch.integers import Evaluator
from hbir.torch.integers.registry import BUILDERS

MOVEMENTS = {
    *(hbir.ReshapeOp, hbir.TransposeOp, hbir.ConcatOp, hbir.SliceOp, hbir.PadOp, hbir.ExpandOp, hbir.ResizeNearestOp),
    *(hbir.MaxPoolOp, hbir.ArgmaxOp, hbir.MaximumOp, hbir.MinimumOp, hbir.ReduceOp, hbir.CastOp),
}


def computed(function: Function, feed: dict[str, Array]) -> dict[str, Array]:
    """The outputs, last one first."""
    run = Evaluator(function).start()
    for argument in function.flatten_inputs:
        run.enter(argument.index, torch.from_numpy(feed[argument.name]))
    found = {a.name: run.leave(a.index).numpy() for a in reversed(function.flatten_outputs)}
    return {a.name: found[a.name] for a in function.flatten_outputs}


def assert_agrees(module: Module, seed: int = 0) -> None:
    for function in module:
        feed = example_feeds(function, seed)
        expected, actual = function.feed(feed), computed(function, feed)
        for name, value in expected.items():
            np.testing.assert_array_equal(actual[name], value, err_msg=f"{name} of {module!r}", strict=True)


@pytest.mark.parametrize("dialects", [("quantized",), ("quantized", "hbir")])
@pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
def test_drawn_modules(dialects: tuple[str, ...]) -> None:
    for seed in range(200):
        assert_agrees(generate(Seeded(seed), dialects, 5), seed)


@pytest.mark.parametrize("kind", sorted(Quantized.operations, key=lambda op: op.name), ids=lambda op: op.name)
def test_each_operation_of_integers(kind: type[HbOperation]) -> None:
    assert kind in BUILDERS, "it would run on the host, by the interpreter's own kernels"
    for seed in range(12):
        graph = SeededGraph(Seeded(seed))
        GENERATORS[kind](graph)
        assert_agrees(graph.finish(), seed)


def test_what_moves_integers_has_a_meaning_of_its_own() -> None:
    assert set(BUILDERS) >= MOVEMENTS


i8, i16 = IntegerType(8), IntegerType(16)
ELEMENTS = [UniformQuantizedType.get(8, 0.1, 5), UniformQuantizedType.get(16, 0.1), i8, i16, i32, i64]
MOVES: dict[str, Callable[[Any], HbOperation]] = {
    "reshape": lambda x: hbir.ReshapeOp.make(x, shape=(3, 20, 4)),
    "transpose": lambda x: hbir.TransposeOp.make(x, permutation=(0, 3, 1, 2)),
    "concat": lambda x: hbir.ConcatOp.make([x, x], axis=2),
    "slice": lambda x: hbir.SliceOp.make(x, begin=(0, 1, 0, 0), end=(2, 5, 6, 3), step=(1, 2, 3, 1)),
    "pad": lambda x: hbir.PadOp.make(x, before=(0, 1, 0, 0), after=(0, 0, 2, 1), mode="constant", value=-3.0),
    "edge": lambda x: hbir.PadOp.make(x, before=(0, 1, 0, 2), after=(0, 9, 2, 0), mode="edge", value=0.0),
    "reflect": lambda x: hbir.PadOp.make(x, before=(0, 7, 1, 2), after=(0, 9, 2, 0), mode="reflect", value=0.0),
    "expand": lambda x: hbir.ExpandOp.make(x, shape=(3, 2, 5, 6, 4)),
    "nearest": lambda x: hbir.ResizeNearestOp.make(x, rows=(0, 0, 3), columns=(5, 2, 2, 1)),
    "maximum": lambda x: hbir.MaximumOp.make(x, x),
    "minimum": lambda x: hbir.MinimumOp.make(x, x),
    "largest": lambda x: hbir.ReduceOp.make(x, kind="max", axes=(1, 3), keep=False),
    "smallest": lambda x: hbir.ReduceOp.make(x, kind="min", axes=(), keep=True),
    "argmax": lambda x: hbir.ArgmaxOp.make(x, axis=1, keep=True),
}


@pytest.mark.parametrize("move", MOVES)
def test_movements_of_integers(move: str) -> None:
    for seed, element in enumerate(ELEMENTS):
        graph = SeededGraph(Seeded(seed))
        graph.add(MOVES[move](graph.input((2, 5, 6, 4), element)))
        assert_agrees(graph.finish(), seed)


@pytest.mark.parametrize(("pad", "ceil"), [((0, 0, 0, 0), True), ((1, 0, 1, 2), False), ((2, 1, 0, 0), True)])
def test_max_pool_of_codes(pad: tuple[int, ...], ceil: bool) -> None:
    for seed, element in enumerate(ELEMENTS[:2]):
        graph = SeededGraph(Seeded(seed))
        x = graph.input((2, 8, 7, 3), element)
        graph.add(hbir.MaxPoolOp.make(x, kernel=(3, 3), stride=(2, 2), pad=pad, ceil=ceil))
        assert_agrees(graph.finish(), seed)


@pytest.mark.parametrize("to", ["f32", "i8", "i16", "i64"])
def test_casts_of_integers(to: str) -> None:
    for seed, element in enumerate((i8, i32, i64)):
        graph = SeededGraph(Seeded(seed))
        graph.add(hbir.CastOp.make(graph.input((4, 9), element), to=to))
        assert_agrees(graph.finish(), seed)


def two_regions() -> Function:
    """y0 = quantize(x0); y1 = clip-like chain of x1 alone; y2 = of both."""
    graph: Graph = SeededGraph(Seeded(0))
    element = UniformQuantizedType.get(8, 0.5)
    a, b = graph.input((2, 6), element), graph.input((2, 6), element)
    first = graph.add(hbir.MaximumOp.make(a, a))
    second = graph.add(hbir.MinimumOp.make(b, b))
    graph.add(hbir.MaximumOp.make(first, second))
    function = graph.finish()[0]
    # All three leave, the two that are used as well.
    values = [op.results[0] for op in function.operations]
    return_op = function.return_op
    return_op.operands = values
    function.update_type()
    return function


def test_regions_run_one_after_another() -> None:
    function = two_regions()
    a, b = torch.randint(-128, 128, (2, 2, 6), dtype=torch.int8)
    run = Evaluator(function).start()
    run.enter(0, a)
    assert torch.equal(run.leave(0), a)
    with pytest.raises(TrainingError, match="in_1") as error:
        run.leave(2)
    assert error.value.code == "HB0960"
    run.enter(1, b)
    assert torch.equal(run.leave(2), torch.maximum(a, b))
    assert torch.equal(run.leave(1), b)
    assert torch.equal(run.leave(0), a), "an output can leave again"


def test_runs_and_callers_do_not_share_tensors() -> None:
    function = two_regions()
    evaluator, a = Evaluator(function), torch.ones((2, 6), dtype=torch.int8)
    one, two = evaluator.start(), evaluator.start()
    one.enter(0, a)
    a.zero_()
    two.enter(0, a)
    left = one.leave(0)
    assert left.eq(1).all()
    left.zero_()
    assert one.leave(0).eq(1).all()
    assert two.leave(0).eq(0).all()


@pytest.mark.parametrize(
    "wrong", [torch.zeros((2, 5), dtype=torch.int8), torch.zeros((2, 6)), torch.zeros((2, 6), dtype=torch.int32)]
)
def test_misfits_are_refused(wrong: torch.Tensor) -> None:
    run = Evaluator(two_regions()).start()
    with pytest.raises(TrainingError, match=r"torch.int8 of shape \(2, 6\)") as error:
        run.enter(0, wrong)
    assert error.value.code == "HB0960"


def test_an_input_enters_once() -> None:
    run = Evaluator(two_regions()).start()
    run.enter(0, torch.zeros((2, 6), dtype=torch.int8))
    with pytest.raises(TrainingError, match="twice"):
        run.enter(0, torch.zeros((2, 6), dtype=torch.int8))


def test_values_are_freed_after_their_last_use() -> None:
    graph: Graph = SeededGraph(Seeded(0))
    x: Any = graph.input((4, 4), UniformQuantizedType.get(8, 0.5))
    for _ in range(5):
        x = graph.add(hbir.TransposeOp.make(x, permutation=(1, 0)))
    run: Any = Evaluator(graph.finish()[0]).start()
    run.enter(0, torch.zeros((4, 4), dtype=torch.int8))
    run.leave(0)
    assert len(run._values) == 1
