"""However an exporter spells an activation, it becomes one function; what only looks like one does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects.hbir import AddOp, BinaryOp, ClipOp, ConstantOp, DivOp, FunctionOp, MulOp, PowOp
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics
from hbir.testing.graphs import Graph
from passes import Pipeline
from tests.passes.drawing import graphs
from tests.passes.on_units import assert_on_units

SHAPE = (2, 5, 3)
Spelling = Callable[["_Writer", SSAValue], SSAValue]


class _Writer:
    """Writes arithmetic as exporters do: operands on either side, constants of several shapes, division or product."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.x = self.graph.input(SHAPE, f32)

    def number(self, value: float) -> SSAValue:
        shape = self.graph.choose(((), (1,), (1, 1, 1), SHAPE))
        return self.graph.constant(np.full(shape, value, np.float32), f32)

    def either_way(self, kind: type[BinaryOp], a: SSAValue, b: SSAValue) -> SSAValue:
        return self.graph.add(kind.make(*((a, b) if self.graph.integer(0, 1) else (b, a))))

    def times(self, a: SSAValue, b: SSAValue) -> SSAValue:
        return self.either_way(MulOp, a, b)

    def plus(self, a: SSAValue, value: float) -> SSAValue:
        return self.either_way(AddOp, a, self.number(value))

    def scaled(self, a: SSAValue, value: float) -> SSAValue:
        if self.graph.integer(0, 1):
            return self.graph.add(DivOp.make(a, self.number(1 / value)))
        return self.times(a, self.number(value))

    def function(self, name: str, a: SSAValue, *parameters: float) -> SSAValue:
        return self.graph.add(FunctionOp.make(a, function=name, parameters=parameters or None))

    def product(self, *factors: SSAValue | float) -> SSAValue:
        """The product in any order and grouping; at most one factor is a number."""
        left = list(self.graph.draw(st.permutations(factors)))
        while len(left) > 1:
            a, b = left.pop(), left.pop()
            if isinstance(a, SSAValue):
                made = self.times(a, b) if isinstance(b, SSAValue) else self.scaled(a, b)
            else:
                assert isinstance(b, SSAValue)
                made = self.scaled(b, a)
            left.insert(self.graph.integer(0, len(left)), made)
        (result,) = left
        assert isinstance(result, SSAValue)
        return result


def _gelu(w: _Writer, x: SSAValue) -> SSAValue:
    return w.product(x, w.plus(w.function("erf", w.scaled(x, 0.5**0.5)), 1.0), 0.5)


def _gelu_as_sum(w: _Writer, x: SSAValue) -> SSAValue:
    half = w.scaled(x, 0.5)
    return w.either_way(AddOp, half, w.times(half, w.function("erf", w.scaled(x, 0.5**0.5))))


def _gelu_tanh(w: _Writer, x: SSAValue) -> SSAValue:
    cube = w.graph.choose(
        (
            lambda: w.graph.add(PowOp.make(x, w.number(3.0))),
            lambda: w.function("pow", x, 3.0),
            lambda: w.times(x, w.times(x, x)),
        )
    )()
    inner = w.scaled(w.either_way(AddOp, x, w.scaled(cube, 0.044715)), (2 / np.pi) ** 0.5)
    return w.product(x, w.plus(w.function("tanh", inner), 1.0), 0.5)


def _silu(w: _Writer, x: SSAValue) -> SSAValue:
    return w.times(x, w.function("sigmoid", x))


def _silu_from_exponentials(w: _Writer, x: SSAValue) -> SSAValue:
    return w.graph.add(DivOp.make(x, w.plus(w.function("exp", w.function("neg", x)), 1.0)))


def _swish(w: _Writer, x: SSAValue) -> SSAValue:
    return w.times(x, w.function("sigmoid", w.scaled(x, 1.702)))


def _hardswish(w: _Writer, x: SSAValue) -> SSAValue:
    return w.product(x, w.graph.add(ClipOp.make(w.plus(x, 3.0), min=0.0, max=6.0)), 1 / 6)


def _hardswish_from_hardsigmoid(w: _Writer, x: SSAValue) -> SSAValue:
    return w.times(x, w.function("hardsigmoid", x, float(np.float32(1 / 6)), 0.5))


def _mish(w: _Writer, x: SSAValue) -> SSAValue:
    return w.times(x, w.function("tanh", w.function("softplus", x)))


def _softplus(w: _Writer, x: SSAValue) -> SSAValue:
    return w.function("log", w.plus(w.function("exp", x), 1.0))


def _sigmoid(w: _Writer, x: SSAValue) -> SSAValue:
    grown = w.plus(w.function("exp", w.function("neg", x)), 1.0)
    return w.graph.add(DivOp.make(w.number(1.0), grown))


def _softsign(w: _Writer, x: SSAValue) -> SSAValue:
    return w.graph.add(DivOp.make(x, w.plus(w.function("abs", x), 1.0)))


SPELLINGS: tuple[tuple[str, Spelling], ...] = (
    ("gelu", _gelu),
    ("gelu", _gelu_as_sum),
    ("gelu_tanh", _gelu_tanh),
    ("hardswish", _hardswish),
    ("hardswish", _hardswish_from_hardsigmoid),
    ("mish", _mish),
    ("sigmoid", _sigmoid),
    ("silu", _silu),
    ("silu", _silu_from_exponentials),
    ("softplus", _softplus),
    ("softsign", _softsign),
    ("swish", _swish),
)


def _finished(writer: _Writer) -> Module:
    return writer.graph.finish()


def _computing(module: Module) -> list[str]:
    return [
        op.values["function"] if isinstance(op, FunctionOp) else op.name
        for op in module[0].operations
        if not isinstance(op, ConstantOp)
    ]


@pytest.mark.parametrize(("name", "spelling"), SPELLINGS, ids=lambda value: getattr(value, "__name__", value))
def test_every_spelling_becomes_one_function(name: str, spelling: Spelling) -> None:
    @settings(max_examples=30)
    @given(graphs().map(_Writer))
    def check(writer: _Writer) -> None:
        spelling(writer, writer.x)
        module = _finished(writer)
        fused = Pipeline("fuse-activations", verify="exec").run(module)
        assert _computing(fused) == [name]
        # A handful of float32 roundings, each of at most 2^-24 of a value no larger than the largest.
        assert_same_semantics(module, fused, tolerance=2.0**-20)
        assert_round_trips(fused)

    check()


def test_the_slope_of_a_swish_is_kept() -> None:
    @settings(max_examples=10)
    @given(graphs().map(_Writer))
    def check(writer: _Writer) -> None:
        _swish(writer, writer.x)
        (op,) = (
            o for o in Pipeline("fuse-activations").run(_finished(writer))[0].operations if isinstance(o, FunctionOp)
        )
        assert abs(op.values["parameters"][0] - 1.702) < 1e-6

    check()


def _wrong_gelu(w: _Writer, x: SSAValue) -> SSAValue:
    return w.product(x, w.plus(w.function("erf", w.scaled(x, 0.71)), 1.0), 0.5)


def _bounded_silu(w: _Writer, x: SSAValue) -> SSAValue:
    return w.graph.add(ClipOp.make(w.times(x, w.function("sigmoid", x)), min=None, max=1e6))


def _gate_of_another(w: _Writer, x: SSAValue) -> SSAValue:
    return w.times(w.graph.input(SHAPE, f32), w.function("sigmoid", x))


def _broadcast_gate(w: _Writer, x: SSAValue) -> SSAValue:
    row = w.graph.input((3,), f32)
    return w.times(row, w.times(x, w.function("sigmoid", row)))


def _relu6_shifted(w: _Writer, x: SSAValue) -> SSAValue:
    return w.product(x, w.graph.add(ClipOp.make(w.plus(x, 2.5), min=0.0, max=6.0)), 1 / 6)


@pytest.mark.parametrize("spelling", [_wrong_gelu, _gate_of_another, _broadcast_gate, _relu6_shifted])
def test_what_is_another_function_stays(spelling: Spelling) -> None:
    @settings(max_examples=15)
    @given(graphs().map(_Writer))
    def check(writer: _Writer) -> None:
        spelling(writer, writer.x)
        module = _finished(writer)
        assert _computing(Pipeline("fuse-activations").run(module)) == _computing(module)

    check()


def test_a_bound_behind_an_activation_is_no_part_of_it() -> None:
    @settings(max_examples=10)
    @given(graphs().map(_Writer))
    def check(writer: _Writer) -> None:
        _bounded_silu(writer, writer.x)
        assert _computing(Pipeline("fuse-activations").run(_finished(writer))) == ["silu", "hbir.clip"]

    check()


def test_a_long_chain_takes_one_sweep() -> None:
    """Expressions are bounded in length: thousands of products of one another are looked at once each."""

    @settings(max_examples=1)
    @given(graphs().map(_Writer))
    def check(writer: _Writer) -> None:
        value = writer.x
        for _ in range(2_000):
            value = writer.graph.add(MulOp.make(value, value))
        Pipeline("fuse-activations", "none").run(_finished(writer))

    check()


@pytest.mark.parametrize(
    "gelu",
    [
        "d = Div (a, root) e = Erf (d) f = Add (e, one) g = Mul (a, f) h = Mul (g, half)",
        "d = Mul (a, root_half) e = Erf (d) f = Add (one, e) g = Mul (f, half) h = Mul (g, a)",
        (
            "p = Pow (a, three) q = Mul (p, cubic) r = Add (a, q) s = Mul (r, slope) t = Tanh (s) u = Add (t, one)"
            " m = Mul (a, half) h = Mul (m, u)"
        ),
    ],
)
def test_gelu_is_one_table(gelu: str) -> None:
    rng = np.random.default_rng(3)
    names = ("root", "root_half", "one", "half", "three", "cubic", "slope")
    values = (2**0.5, 0.5**0.5, 1.0, 0.5, 3.0, 0.044715, (2 / np.pi) ** 0.5)
    constants = {name: np.array(value, np.float32) for name, value in zip(names, values, strict=True) if name in gelu}
    constants |= {name: rng.uniform(-0.5, 0.5, (8, 8)).astype(np.float32) for name in ("w", "v")}
    module = assert_on_units(
        f"a = MatMul (x, w) {gelu} y = MatMul (h, v)", "(float[1,6,8] x) => (float[1,6,8] y)", constants, steps=8
    )
    kinds = [op.name for op in module[0].operations if op.name.startswith("quantized.")]
    assert sum(kind in ("quantized.table", "quantized.interpolate", "quantized.segmented") for kind in kinds) == 1
    assert not {"quantized.mul", "quantized.add"} & set(kinds)
