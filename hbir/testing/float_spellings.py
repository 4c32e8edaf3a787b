"""What exporters spell out in arithmetic: activations, norms, softmax and attention, right ones and some that are nearly so."""

from __future__ import annotations

import math

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import shape_of
from hbir.testing.float_graphs import NUMBERS, inside
from hbir.testing.graphs import Generator, Graph

__all__ = ["SPELLED"]

_INF = float("inf")


def _number(g: Graph, wanted: float) -> SSAValue:
    """A scalar constant: the number that belongs here, at times another."""
    value = g.choose((*NUMBERS[1:4], 4.0)) if not g.integer(0, 7) else wanted
    return g.constant(np.full((1,) * g.choose((0, 0, 0, 1, 4)), value, np.float32), f32)


def _of(g: Graph, name: str, x: SSAValue) -> SSAValue:
    return g.add(f.FunctionOp.make(x, function=name, parameters=None))


def _either(g: Graph, kind: type[f.BinaryOp], x: SSAValue, other: SSAValue) -> SSAValue:
    return g.add(kind.make(*((x, other) if g.maybe() else (other, x))))


def _gated(g: Graph) -> SSAValue:
    """x * gate(x): swish, or hardswish with a hardsigmoid."""
    x = g.value(None)
    name, parameters = g.choose((("sigmoid", None), ("hardsigmoid", (1 / 6, 0.5)), ("hardsigmoid", None)))
    gate = g.add(f.FunctionOp.make(x, function=name, parameters=parameters))
    return _either(g, f.MulOp, x, gate) if g.maybe(4) else gate


def _hardswish(g: Graph) -> SSAValue:
    """x * clip(x + 3, 0, 6) / 6: any part may be absent, any number another."""
    x = y = g.value(None)
    if g.maybe(5):
        y = _either(g, f.AddOp, y, _number(g, 3.0))
    if g.maybe(9):
        low, high = g.choose(((0.0, 6.0), (0.0, 6.0), (0.0, 4.0), (0.0, None), (-1.0, 6.0)))
        y = g.add(f.ClipOp.make(y, min=low, max=high))
    if g.maybe(7):
        y = _either(g, f.MulOp, x, y)
    if not g.maybe(5):
        return y
    if g.maybe():
        return g.add(f.DivOp.make(y, _number(g, 6.0)))
    return g.add(f.MulOp.make(y, _number(g, 1 / 6)))


def _gelu(g: Graph) -> SSAValue:
    """x / 2 * (1 + erf(x / sqrt(2))), or with tanh."""
    x = g.value(None, largest=2.0**20)
    if g.maybe():
        inner = _of(g, "erf", _either(g, f.MulOp, x, _number(g, math.sqrt(0.5))))
    else:
        cube = g.add(f.PowOp.make(x, g.constant(np.array(3.0, np.float32), f32)))
        bent = g.add(f.AddOp.make(x, _either(g, f.MulOp, cube, _number(g, 0.044715))))
        inner = _of(g, "tanh", _either(g, f.MulOp, bent, _number(g, math.sqrt(2 / math.pi))))
    y = _either(g, f.AddOp, inner, _number(g, 1.0)) if g.maybe(7) else inner
    y = _either(g, f.MulOp, x, y) if g.maybe(7) else y
    return _either(g, f.MulOp, y, _number(g, 0.5)) if g.maybe(7) else y


def _exponentials(g: Graph) -> SSAValue:
    """1 / (1 + exp(-x)), log(1 + exp(x)), and x times the hyperbolic tangent of that."""
    x = inside(g, g.value(None), -40.0, 40.0)
    y = _of(g, "neg", x) if g.maybe() else x
    y = g.add(f.AddOp.make(_of(g, "exp", y), g.constant(np.array(1.0, np.float32), f32)))
    kind = g.choose((None, "reciprocal", "div", "log", "mish"))
    if kind is None:
        return y
    if kind == "div":
        return g.add(f.DivOp.make(x if g.maybe() else g.constant(np.array(1.0, np.float32), f32), y))
    y = _of(g, "reciprocal" if kind == "reciprocal" else "log", y)
    return _either(g, f.MulOp, x, _of(g, "tanh", y)) if kind == "mish" else y


def _softsign(g: Graph) -> SSAValue:
    x = g.value(None)
    y = _of(g, "abs", x) if g.maybe(7) else inside(g, x, 0.0, _INF)
    return g.add(f.DivOp.make(x, g.add(f.AddOp.make(y, g.constant(np.array(1.0, np.float32), f32)))))


def _axes(g: Graph, x: SSAValue) -> tuple[int, ...]:
    rank = len(shape_of(x.type))
    return g.choose(((rank - 1,), tuple(range(1, rank)) or (0,), (0,)))


def _norm(g: Graph) -> SSAValue:
    """Layer norm, instance norm, RMS norm, and what divides by a length: all in parts, each of which may be absent."""
    x = g.value(g.integer(1, 4), steady=True, largest=2.0**20)
    axes, keep = _axes(g, x), True
    if g.maybe():
        x = g.add(f.SubOp.make(x, g.add(f.ReduceOp.make(x, kind="mean", axes=axes, keep=keep))))
    size = g.choose(("square", "square", "abs", "times", "pow"))
    if size == "times":
        y = g.add(f.MulOp.make(x, x))
    elif size == "pow":
        y = g.add(f.PowOp.make(x, g.constant(np.array(2.0, np.float32), f32)))
    else:
        y = _of(g, size, x)
    if g.maybe():
        y = g.add(f.ReduceOp.make(y, kind=g.choose(("sum", "mean", "max")), axes=axes, keep=keep))
    if g.maybe():
        y = g.add(f.AddOp.make(y, g.constant(np.array(g.choose((1e-3, 0.1, 1.0)), np.float32), f32)))
    if g.maybe(3):
        y = _of(g, "sqrt", inside(g, y, 0.0, _INF))
    if g.range(y)[0] < 1e-3 or g.maybe():
        low = g.choose((1e-3, 0.5, 2.0, 0.1, 1.0, 3.0))
        y = g.add(f.ClipOp.make(y, min=low, max=g.choose((None, None, None, 8.0))))
    if g.maybe(3):
        y = g.add(f.DivOp.make(x, y))
    else:
        y = g.add(f.MulOp.make(x, _of(g, g.choose(("reciprocal", "rsqrt")), y)))
    for kind in (f.MulOp, f.AddOp):
        if g.maybe():
            y = g.add(kind.make(y, g.floats(shape_of(x.type)[-1:])))
    return y


def _softmax(g: Graph) -> SSAValue:
    """exp(x - max(x)) / sum(exp(x - max(x))), where the greatest may be left out, and the logarithm taken."""
    x = inside(g, g.value(g.integer(1, 4)), -40.0, 40.0)
    axes = _axes(g, x)
    if g.maybe():
        x = g.add(f.SubOp.make(x, g.add(f.ReduceOp.make(x, kind="max", axes=axes, keep=True))))
    y = _of(g, "exp", x)
    if not g.maybe(4):
        return y
    total = g.add(f.ReduceOp.make(y, kind="sum", axes=axes, keep=True))
    if g.maybe(4):
        return g.add(f.DivOp.make(y, total))
    return g.add(f.SubOp.make(x, _of(g, "log", total)))


def _attention(g: Graph) -> SSAValue:
    """softmax(q k^T * scale) v of values of one shape; transposes, scale and softmax may be absent."""
    q = g.value(g.choose((3, 4, 2)), largest=2.0**20)
    shape = shape_of(q.type)
    k, v = (g.value(shape=shape, largest=2.0**20) for _ in range(2))
    rank = len(shape)
    k = g.add(f.TransposeOp.make(k, permutation=(*range(rank - 2), rank - 1, rank - 2)))
    y = g.add(f.MatmulOp.make(q, k))
    if g.maybe(3):
        y = _either(g, f.MulOp, y, _number(g, 0.5)) if g.maybe() else g.add(f.DivOp.make(y, _number(g, 2.0)))
    if g.maybe(3):
        y = g.add(f.SoftmaxOp.make(y, axis=rank - 1))
    return g.add(f.MatmulOp.make(y, v)) if g.maybe(3) else y


SPELLED: tuple[Generator, ...] = (
    *(_gated, _hardswish, _hardswish, _gelu, _exponentials, _softsign),
    *(_norm, _norm, _norm, _norm, _softmax, _attention),
)
"""Each adds one such expression, or a part of it."""
