"""The idioms that exporters write and passes look for: several operations at once, as they stand in real networks."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np
from xdsl.dialects.builtin import f32
from xdsl.ir import SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import shape_of, tensor_type
from hbir.testing.float_graphs import add_function, batch_norm, bounds, conv_parts, inside
from hbir.testing.float_pairs import PAIRS
from hbir.testing.float_spellings import SPELLED
from hbir.testing.graphs import Generator, Graph
from hbir.testing.ranges import ANY, LARGEST

__all__ = ["IDIOMS"]


def _padded(g: Graph, x: SSAValue) -> SSAValue:
    sides = [[0, g.integer(0, 2), g.integer(0, 2), 0] for _ in range(2)]
    before, after = ([min(n, size - 1) for n, size in zip(side, shape_of(x.type), strict=True)] for side in sides)
    mode = g.choose(("constant", "constant", "reflect", "edge"))
    value = g.choose((0.0, 0.0, 0.0, 0.5, -1.0)) if mode == "constant" else 0.0
    return g.add(f.PadOp.make(x, before=before, after=after, mode=mode, value=value))


def _layer_of(g: Graph, x: SSAValue) -> SSAValue:
    """A convolution or linear layer of a value of rank 4; its clamp, which another clip may have given it, is optional."""
    low, high = bounds(g) if g.maybe(2) else (None, None)
    if g.maybe(3):
        weight, bias, geometry, _ = conv_parts(g, x)
        return g.add(f.Conv2dOp.make(x, weight, bias, None, **geometry, min=low, max=high))
    weight = g.floats((cout := g.integer(1, 4), shape_of(x.type)[-1]), 0.5)
    return g.add(f.LinearOp.make(x, weight, _bias(g, cout), min=low, max=high))


def _scaled(g: Graph, x: SSAValue) -> SSAValue:
    """A part of a batch norm that is spelled out, or a whole one."""
    kind = g.choose((f.MulOp, f.SubOp, f.AddOp, None))
    return (
        batch_norm(g, x)
        if kind is None
        else g.add(kind.make(x, g.floats((1, 1) * g.integer(0, 1) + shape_of(x.type)[-1:])))
    )


def _clipped(g: Graph, x: SSAValue) -> SSAValue:
    low, high = bounds(g)
    return g.add(f.ClipOp.make(x, min=low, max=high))


def _joined(g: Graph, x: SSAValue) -> SSAValue:
    """A sum with a value of the same shape, on either side."""
    other = g.value(shape=shape_of(x.type), other_than=x)
    return g.add(f.AddOp.make(*((x, other) if g.maybe() else (other, x))))


_STAGES: tuple[Callable[[Graph, SSAValue], SSAValue], ...] = (
    *(_clipped, _layer_of, _joined, _scaled, _layer_of, _padded, add_function),
)


def _layer(g: Graph) -> SSAValue:
    """Pad, layer, batch norm in parts or clip, residual add, and clip, as exporters write them: one operation each, or none."""
    x = g.value(4)
    if g.maybe():
        x = _padded(g, x)
    if g.maybe(7):
        x = _layer_of(g, x)
    for stage in g.choose(((), (), (), (_clipped,), (_scaled,), (_scaled, _scaled))):
        x = stage(g, x)
    if g.maybe(3):
        x = _joined(g, x)
    return _clipped(g, x) if g.maybe() else x


def _chain(g: Graph) -> SSAValue:
    """The stages of layers in any order, each of which reads the one before."""
    x = g.value(4)
    for _ in range(4):
        if not g.maybe(5):
            break
        x = g.choose(_STAGES)(g, x)
    return x


def _max_pooled(g: Graph) -> SSAValue:
    """A max pool behind padding that is never chosen, or may be; a window of nothing else is clipped."""
    x = g.value(4)
    if g.maybe():
        sides = [(0, g.integer(0, 1), g.integer(0, 1), 0) for _ in range(2)]
        value = g.choose((-float("inf"), 0.0, -1.0))
        x = g.add(f.PadOp.make(x, before=sides[0], after=sides[1], mode="constant", value=value))
    kernel = [min(g.integer(1, 3), n) for n in shape_of(x.type)[1:3]]
    stride = (g.integer(1, 2), g.integer(1, 2))
    y = g.add(f.MaxPoolOp.make(x, kernel=kernel, stride=stride, pad=(0, 0, 0, 0), ceil=False))
    return y if g.range(y) != ANY else g.add(f.ClipOp.make(y, min=-8.0, max=8.0))


def _channels_first(g: Graph) -> SSAValue:
    """An operation between the pair of transposes that a front end puts around it, and what may stand in between."""
    x = g.value(4)
    if g.maybe(7):
        x = g.add(f.TransposeOp.make(x, permutation=(0, 3, 1, 2)))
    for _ in range(g.integer(0, 2)):
        kind = g.choose(("relu", "scale", "pad", "mean", "softmax", "slice"))
        c = shape_of(x.type)[1]
        if kind == "relu":
            x = _clipped(g, x)
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
    end = g.choose((None, "transpose", "transpose", "linear", "linear"))
    if end is None:
        return x
    if end == "transpose":
        return g.add(f.TransposeOp.make(x, permutation=(0, 2, 3, 1)))
    n, *rest = shape_of(x.type)
    flat = g.add(f.ReshapeOp.make(x, shape=(n, int(np.prod(rest)))))
    weight = g.floats((g.integer(1, 3), int(np.prod(rest))), 0.5)
    return g.add(f.LinearOp.make(flat, weight, None, min=None, max=None))


def _normalized(g: Graph) -> SSAValue:
    """A layer, mostly with a bias, and the batch norm behind it."""
    x = g.value(g.choose((4, 4, 2)))
    if not g.maybe(5):
        return batch_norm(g, x)
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
    order = g.choose([p for p in orders if [p[i] for i in p] != sorted(p)] if g.integer(0, 7) else orders)
    y = g.add(f.TransposeOp.make(x, permutation=order)) if g.maybe(7) else x
    shape = shape_of(y.type)
    rank, at = len(shape), g.integer(0, len(shape) - 1)
    edge = [int(axis == at) for axis in range(rank)]
    kind = g.choose(("none", "binary", "binary", "binary", "linear", "linear", "pad", "slice", "reshape", "reduce"))
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
    if len(shape_of(y.type)) == rank and g.integer(0, 7):
        y = g.add(f.TransposeOp.make(y, permutation=[int(axis) for axis in np.argsort(order)]))
    return y


def _twins(g: Graph) -> SSAValue:
    """Two operations that are the same, or the same but for one attribute or constant; both are read, or returned."""
    x = g.value(4)
    kind = g.choose(("clip", "scale", "slice", "pad", "function"))
    first = _twin(g, x, kind, other=False)
    if not g.maybe(9):
        return first
    second = _twin(g, x, kind, other=g.maybe(2))
    read = g.choose((None, "difference", "difference", "concat", "concat"))
    if read is None:
        return second
    return g.add(f.ConcatOp.make([first, second], axis=3) if read == "concat" else f.SubOp.make(first, second))


def _twin(g: Graph, x: SSAValue, kind: str, *, other: bool) -> SSAValue:
    if kind == "clip":
        return g.add(f.ClipOp.make(x, min=-1.0 if other else 0.0, max=1.0))
    if kind == "scale":
        factor = np.array([-0.0 if other else 0.0, 1.5], np.float32)[g.integer(0, 1)]
        return g.add(f.AddOp.make(x, g.constant(np.full((1, 1, 1, 1), factor), f32)))
    if kind == "slice":
        shape = shape_of(x.type)
        begin = [0, n if other and (n := shape[1] - 1) else 0, 0, 0]
        return g.add(f.SliceOp.make(x, begin=begin, end=[*shape[:1], begin[1] + 1, *shape[2:]], step=[1] * 4))
    if kind == "pad":
        return g.add(f.PadOp.make(x, before=[0] * 4, after=[0, 1, 0, 0], mode="constant", value=float(other)))
    return g.add(f.FunctionOp.make(x, function="leaky_relu", parameters=(0.3,) if other else (0.1,)))


def _again(g: Graph) -> SSAValue:
    """An operation of the graph once more, mostly with something changed; at times the two are combined."""
    kind = g.choose((None, f.SubOp, f.ConcatOp, f.MatmulOp, f.MaximumOp, f.DivOp))
    if kind is not None:
        # Two values that may change places, of which the order says something.
        a = (
            g.value(shape=(n := g.integer(2, 3), n))
            if kind is f.MatmulOp
            else g.value(g.integer(1, 4), steady=kind is f.DivOp)
        )
        a = inside(g, a, 0.5, float("inf")) if kind is f.DivOp else a
        b = g.value(shape=shape_of(a.type), other_than=a, steady=kind is f.DivOp)
        b = inside(g, b, 0.5, float("inf")) if kind is f.DivOp else b
        g.add(f.ConcatOp.make([a, b], axis=0) if kind is f.ConcatOp else kind.make(a, b))
    op = g.twin()
    if op is None:
        return g.value(None)
    first, second = op.results[0], g.last
    alike = first.type == second.type and tensor_type(first.type).element_type == f32
    if alike and shape_of(first.type) and g.maybe():
        kind = g.choose((f.SubOp, f.MaximumOp, None))
        return g.add(f.ConcatOp.make([first, second], axis=0) if kind is None else kind.make(first, second))
    return second


def _computed(g: Graph) -> SSAValue:
    """A constant that is computed from constants, as exporters leave scales and positions, and what reads it."""
    x = g.value(g.integer(1, 4))
    shape = shape_of(x.type)
    turned = g.maybe(3)
    y = g.floats(shape[::-1] if turned else shape)
    for _ in range(2):
        kind = g.choose((None, "scale", "scale", "function", "clip"))
        if kind is None:
            break
        if kind == "scale":
            y = g.add(f.MulOp.make(y, g.floats(shape_of(y.type)[-1:])))
        elif kind == "function":
            y = add_function(g, y)
        else:
            y = _clipped(g, y)
    if turned:
        y = g.add(f.TransposeOp.make(y, permutation=list(range(len(shape)))[::-1]))
    if max(map(abs, g.range(y))) > LARGEST:
        y = g.add(f.ClipOp.make(y, min=-8.0, max=8.0))
    return g.add(g.choose((f.AddOp, f.SubOp, f.MulOp)).make(x, y))


IDIOMS: tuple[Generator, ...] = (
    *(
        _layer,
        _layer,
        _layer,
        _layer,
        _chain,
        _chain,
        _normalized,
        _channels_first,
        _turned,
        _turned,
        _twins,
        _again,
        _again,
        _again,
        _computed,
        _max_pooled,
    ),
    *SPELLED,
    *PAIRS,
)
"""Each adds several operations, in the forms that the passes on float graphs recognise; its parts are optional."""
