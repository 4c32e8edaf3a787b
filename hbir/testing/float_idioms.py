"""The idioms that exporters write and passes look for: several operations at once, as they stand in real networks."""

from __future__ import annotations

from itertools import permutations

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import shape_of
from hbir.testing.float_graphs import BOUNDS, batch_norm, conv_parts
from hbir.testing.graphs import Generator, Graph

__all__ = ["IDIOMS"]


def _spelled_swish(g: Graph) -> SSAValue:
    x = g.value(None)
    name, parameters = g.choose((("sigmoid", None), ("hardsigmoid", (1 / 6, 0.5)), ("hardsigmoid", None)))
    gate = g.add(f.FunctionOp.make(x, function=name, parameters=parameters))
    return g.add(f.MulOp.make(*((x, gate) if g.integer(0, 1) else (gate, x))))


def _spelled_hardswish(g: Graph) -> SSAValue:
    x = g.value(None)
    moved = g.add(f.AddOp.make(x, g.constant(np.array(3.0, np.float32), f32)))
    gate = g.add(f.ClipOp.make(moved, min=0.0, max=6.0))
    scaled = g.add(f.MulOp.make(x, gate))
    rank = g.integer(0, 5)
    if g.integer(0, 1):
        return g.add(f.DivOp.make(scaled, g.constant(np.full((1,) * rank, 6.0, np.float32), f32)))
    return g.add(f.MulOp.make(scaled, g.constant(np.full((1,) * rank, 1 / 6, np.float32), f32)))


def _layer(g: Graph) -> SSAValue:
    """Pad, convolution, batch norm, residual add and relu, as exporters write them: one operation each."""
    x = g.value(4)
    if g.integer(0, 1):
        before, after = ([0, g.integer(0, 2), g.integer(0, 2), 0] for _ in range(2))
        x = g.add(f.PadOp.make(x, before=before, after=after, mode="constant", value=0.0))
    weight, bias, geometry, cout = conv_parts(g, x)
    y = g.add(f.Conv2dOp.make(x, weight, bias, None, **geometry, min=None, max=None))
    if g.integer(0, 1):
        y = g.add(f.MulOp.make(y, g.floats((cout,))))
    if g.integer(0, 1):
        y = g.add(f.SubOp.make(y, g.floats((1, 1, cout))))
    if g.integer(0, 1):
        y = g.add(f.AddOp.make(y, g.value(shape=shape_of(y.type))))
    low, high = g.choose(BOUNDS[:4])
    return g.add(f.ClipOp.make(y, min=low, max=high))


def _channels_first(g: Graph) -> SSAValue:
    """An operation between the pair of transposes that a front end puts around it, and what may stand in between."""
    x = g.value(4)
    x = g.add(f.TransposeOp.make(x, permutation=(0, 3, 1, 2)))
    for _ in range(g.integer(0, 2)):
        kind = g.choose(("relu", "scale", "pad", "mean", "softmax", "slice"))
        c = shape_of(x.type)[1]
        if kind == "relu":
            x = g.add(f.ClipOp.make(x, min=0.0, max=None))
        elif kind == "scale":
            x = g.add(f.MulOp.make(x, g.floats((c, 1, 1))))
        elif kind == "pad":
            x = g.add(f.PadOp.make(x, before=(0, 0, 1, 0), after=(0, 1, 0, 1), mode="edge", value=0.0))
        elif kind == "mean":
            x = g.add(f.ReduceOp.make(x, kind="mean", axes=(2, 3), keep=True))
        elif kind == "softmax":
            x = g.add(f.SoftmaxOp.make(x, axis=1))
        else:
            shape = shape_of(x.type)
            x = g.add(f.SliceOp.make(x, begin=(0, 0, 0, 0), end=(shape[0], 1, *shape[2:]), step=(1, 1, 1, 1)))
    if g.integer(0, 1):
        return g.add(f.TransposeOp.make(x, permutation=(0, 2, 3, 1)))
    n, *rest = shape_of(x.type)
    flat = g.add(f.ReshapeOp.make(x, shape=(n, int(np.prod(rest)))))
    weight = g.floats((g.integer(1, 3), int(np.prod(rest))), 0.5)
    return g.add(f.LinearOp.make(flat, weight, None, min=None, max=None))


def _normalized(g: Graph) -> SSAValue:
    """A layer, mostly with a bias, and the batch norm behind it."""
    x = g.value(g.choose((4, 4, 2)))
    if len(shape_of(x.type)) == 2:
        weight, cout = g.floats((n := g.integer(1, 4), shape_of(x.type)[1]), 0.5), n
        made: f.Conv2dOp | f.LinearOp = f.LinearOp.make(x, weight, _bias(g, cout), min=None, max=None)
    else:
        weight, _, geometry, cout = conv_parts(g, x)
        made = f.Conv2dOp.make(x, weight, _bias(g, cout), None, **geometry, min=None, max=None)
    return batch_norm(g, g.add(made))


def _bias(g: Graph, channels: int) -> SSAValue | None:
    return g.floats((channels,)) if g.integer(0, 3) else None


def _turned(g: Graph) -> SSAValue:
    """A transpose of any order, what passes pull through it, and mostly the transpose back."""
    # Of equal extents no type says that axes were mixed up; orders that are not their own inverse tell the two apart.
    x = g.value(shape=g.choose(((2, 2, 2), (3, 3, 3), (1, 3, 3, 3), (2, 2, 2, 2))))
    orders = list(permutations(range(len(shape_of(x.type)))))[1:]
    order = g.choose([p for p in orders if [p[i] for i in p] != sorted(p)] if g.integer(0, 3) else orders)
    y = g.add(f.TransposeOp.make(x, permutation=order))
    shape = shape_of(y.type)
    rank, at = len(shape), g.integer(0, len(shape) - 1)
    edge = [int(axis == at) for axis in range(rank)]
    kind = g.choose(("binary", "binary", "linear", "pad", "slice", "reshape", "reduce", "none"))
    if kind == "binary":
        y = g.add(g.choose((f.AddOp, f.MulOp)).make(y, g.floats(shape[g.integer(0, 1) :])))
    elif kind == "pad":
        y = g.add(f.PadOp.make(y, before=edge, after=[0] * rank, mode="constant", value=0.5))
    elif kind == "slice":
        begin = [int(e and n > 1) for e, n in zip(edge, shape, strict=True)]
        y = g.add(f.SliceOp.make(y, begin=begin, end=shape, step=[1] * rank))
    elif kind == "reshape":
        y = g.add(f.ReshapeOp.make(y, shape=(*shape[:at], 1, *shape[at:])))
    elif kind == "linear":
        y = g.add(f.LinearOp.make(y, g.floats((g.integer(1, 3), shape[-1])), None, min=None, max=None))
    elif kind == "reduce":
        y = g.add(f.ReduceOp.make(y, kind="mean", axes=[at], keep=True))
    if len(shape_of(y.type)) == rank and g.integer(0, 3):
        y = g.add(f.TransposeOp.make(y, permutation=[int(axis) for axis in np.argsort(order)]))
    return y


def _twins(g: Graph) -> SSAValue:
    """Two operations that are the same, or the same but for one attribute or constant; both are read."""
    x = g.value(4)
    kind = g.choose(("clip", "scale", "slice", "pad", "function"))
    found: list[SSAValue] = []
    for other in (False, bool(g.integer(0, 2))):
        if kind == "clip":
            found.append(g.add(f.ClipOp.make(x, min=-1.0 if other else 0.0, max=1.0)))
        elif kind == "scale":
            factor = np.array([-0.0 if other else 0.0, 1.5], np.float32)[g.integer(0, 1)]
            found.append(g.add(f.AddOp.make(x, g.constant(np.full((1, 1, 1, 1), factor), f32))))
        elif kind == "slice":
            shape = shape_of(x.type)
            begin = [0, n if other and (n := shape[1] - 1) else 0, 0, 0]
            found.append(
                g.add(f.SliceOp.make(x, begin=begin, end=[*shape[:1], begin[1] + 1, *shape[2:]], step=[1] * 4))
            )
        elif kind == "pad":
            found.append(
                g.add(f.PadOp.make(x, before=[0] * 4, after=[0, 1, 0, 0], mode="constant", value=float(other)))
            )
        else:
            parameters = (0.3,) if other else (0.1,)
            found.append(g.add(f.FunctionOp.make(x, function="leaky_relu", parameters=parameters)))
    return g.add(f.ConcatOp.make(found, axis=3) if g.integer(0, 1) else f.SubOp.make(*found))


def _computed(g: Graph) -> SSAValue:
    """A constant that is computed from constants, as exporters leave scales and positions, and what reads it."""
    x = g.value(g.integer(1, 4))
    shape = shape_of(x.type)
    y = g.floats(shape[::-1])
    for _ in range(g.integer(1, 2)):
        kind = g.choose(("scale", "function", "clip"))
        if kind == "scale":
            y = g.add(f.MulOp.make(y, g.floats(shape_of(y.type)[-1:])))
        elif kind == "function":
            y = g.add(f.FunctionOp.make(y, function=g.choose(("sigmoid", "tanh", "abs")), parameters=None))
        else:
            y = g.add(f.ClipOp.make(y, min=-1.0, max=1.0))
    y = g.add(f.TransposeOp.make(y, permutation=list(range(len(shape)))[::-1]))
    return g.add(g.choose((f.AddOp, f.SubOp, f.MulOp)).make(x, y))


IDIOMS: tuple[Generator, ...] = (
    *(_layer, _normalized, _channels_first, _turned, _twins, _computed),
    *(_spelled_swish, _spelled_hardswish),
)
"""Each adds several operations, in the forms that the passes on float graphs recognise."""
