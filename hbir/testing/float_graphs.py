"""One generator for each operation of the float dialects."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from xdsl.dialects.builtin import f32, i8, i16, i32, i64
from xdsl.ir import SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import HbOperation, shape_of
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.testing.graphs import Generator, Graph
from hbir.testing.ranges import LARGEST
from hbir.testing.values import filled

__all__ = [
    "DOMAINS",
    "FLOAT_GENERATORS",
    "NUMBERS",
    "QAT_GENERATORS",
    "add_function",
    "batch_norm",
    "bounds",
    "conv_parts",
    "inside",
    "other_operand",
]

_INF = float("inf")

NUMBERS = (0.0, 1.0, 6.0, -1.0, 0.5, -0.5, 3.0, -3.0, 2.0, 0.1, -0.1, 1e-3, -6.0, 20.0, 127.0)
"""Numbers that networks and formats have in particular places."""

Domain: TypeAlias = tuple[tuple[float, ...] | None, float, float]

_EVERYWHERE = (None, -_INF, _INF)
DOMAINS: dict[str, tuple[Domain, ...]] = {
    "sigmoid": (_EVERYWHERE,),
    **dict.fromkeys(("tanh", "relu", "silu", "hardswish", "gelu", "abs", "gelu_tanh", "mish", "neg"), (_EVERYWHERE,)),
    **dict.fromkeys(("erf", "softplus", "softsign", "square", "identity", "ceil", "floor", "round"), (_EVERYWHERE,)),
    "sign": (_EVERYWHERE,),
    "hardsigmoid": tuple((p, -_INF, _INF) for p in (None, (1 / 6, 0.5), (0.2, 0.5), (0.5, 0.25), (-1.0, 0.0))),
    "leaky_relu": tuple((p, -_INF, _INF) for p in (None, (0.1,), (0.5,), (0.0,), (-1.0,), (2.0,))),
    "elu": tuple((p, -_INF, _INF) for p in (None, (0.5,), (2.0,), (0.0,))),
    "swish": tuple((p, -_INF, _INF) for p in (None, (1.702,), (-1.0,), (0.5,))),
    "affine": tuple((p, -_INF, _INF) for p in ((2.0, 0.5), (-1.0, 0.0), (1 / 6, 3.0), (1.0,), (0.0, 1.0), None)),
    "clip": tuple((p, -_INF, _INF) for p in ((0.0, 6.0), (-1.0, 1.0), (-0.5, 3.0), (1.0, 1.0), None)),
    "exp": ((None, -40.0, 40.0), (None, -_INF, 0.0)),
    "cos": ((None, -64.0, 64.0),),
    "sin": ((None, -64.0, 64.0),),
    "log": ((None, 1e-6, _INF),),
    "sqrt": ((None, 0.0, _INF), (None, 1e-3, _INF)),
    "rsqrt": ((None, 1e-6, _INF),),
    "reciprocal": ((None, 1e-3, _INF), (None, -_INF, -1e-3)),
    "pow": (
        *((p, -_INF, _INF) for p in (None, (2.0,), (3.0,), (1.0,), (0.0,))),
        *((p, 0.0, _INF) for p in ((0.5,), (1.5,))),
        *((p, 1e-3, _INF) for p in ((-1.0,), (-0.5,), (-2.0,))),
    ),
}
"""For each function, parameters with the part of the line where they have finite values that are not too large."""
_STEPS = ("ceil", "floor", "round", "sign")
_SMOOTH = ("cos", "exp", "sin")


def bounds(g: Graph) -> tuple[float | None, float | None]:
    """Lower and upper bound of a clip, or of what a layer fuses; equal ones are legal."""
    kind = g.choose(("relu", "both", "relu6", "both", "low", "high", "none"))
    if kind in ("relu", "relu6"):
        return 0.0, 6.0 if kind == "relu6" else None
    low = g.choose(NUMBERS) if kind in ("both", "low") else None
    high = g.choose([n for n in NUMBERS if low is None or n >= low]) if kind in ("both", "high") else None
    return low, high


def inside(g: Graph, x: SSAValue, low: float, high: float) -> SSAValue:
    """`x`, brought between two numbers, one of them 0 or beyond, in one of the ways of networks, where it is not there yet."""
    least, most = g.range(x)
    if low <= least and most <= high:
        return x
    positive = low >= 0 and high == _INF
    way = g.choose(("clip", "abs", "square", "root", "maximum", "exp") if positive else ("clip",))
    if way == "clip":
        # Somewhat inside, now and then.
        low = g.choose([low, *(n for n in NUMBERS if low < n <= high)]) if low > -_INF else low
        high = g.choose([high, *(n for n in NUMBERS if low <= n < high)]) if g.maybe() else high
        return g.add(f.ClipOp.make(x, min=None if low == -_INF else low, max=None if high == _INF else high))
    if way == "root":
        root = g.add(f.FunctionOp.make(inside(g, x, 0.0, _INF), function="sqrt", parameters=None))
        return g.add(f.ClipOp.make(root, min=g.choose([max(low, 1e-3), 0.5, 2.0, 0.1]), max=None))
    if way == "exp":
        x = g.add(f.ClipOp.make(x, min=-6.0, max=6.0)) if least < -6 or most > 6 else x
        return g.add(f.FunctionOp.make(x, function="exp", parameters=None))
    if way != "maximum":
        x = g.add(f.FunctionOp.make(x, function=way, parameters=None))
    added = g.constant(np.array(g.choose([low or 1e-3, 1.0, 1e-2, 0.5]), np.float32), f32)
    return g.add((f.MaximumOp if way == "maximum" else f.AddOp).make(x, added))


def _window(g: Graph, size: int) -> tuple[int, int, int, int, int]:
    """Kernel, stride, dilation and pads on both sides of one axis; the window fits."""
    kernel, stride = g.integer(1, min(3, size)), g.integer(1, 2)
    dilation = g.integer(1, 2) if 2 * (kernel - 1) + 1 <= size else 1
    return kernel, stride, dilation, g.integer(0, kernel - 1), g.integer(0, kernel - 1)


def conv_parts(g: Graph, x: SSAValue) -> tuple[SSAValue, SSAValue | None, dict[str, Any], int]:
    """Weight, bias, geometry and output channels of a convolution that fits `x`."""
    _, h, w, c = shape_of(x.type)
    (kh, sh, dh, top, bottom), (kw, sw, dw, left, right) = _window(g, h), _window(g, w)
    groups = g.choose([n for n in (1, c, 2) if c % n == 0])
    cout = groups * g.integer(1, 2)
    weight = g.floats((cout, kh, kw, c // groups), 0.5)
    bias = g.floats((cout,)) if g.integer(0, 1) else None
    geometry: dict[str, object] = {
        "stride": (sh, sw),
        "pad": (top, left, bottom, right),
        "dilation": (dh, dw),
        "groups": groups,
    }
    return weight, bias, geometry, cout


def _conv2d(g: Graph) -> SSAValue:
    x = g.value(4)
    weight, bias, geometry, _ = conv_parts(g, x)
    low, high = bounds(g)
    plain = f.Conv2dOp.make(x, weight, bias, None, **geometry, min=low, max=high)
    if not g.integer(0, 2):
        residual = g.value(shape=shape_of(plain.output.type))
        return g.add(f.Conv2dOp.make(x, weight, bias, residual, **geometry, min=low, max=high))
    return g.add(plain)


def _conv_transpose2d(g: Graph) -> SSAValue:
    x = g.value(4)
    c = shape_of(x.type)[3]
    groups = g.choose([n for n in (1, c) if c % n == 0])
    cout, kernel, stride = groups * g.integer(1, 2), g.integer(2, 3), g.integer(1, 2)
    weight = g.floats((cout, kernel, kernel, c // groups), 0.5)
    bias = g.floats((cout,)) if g.integer(0, 1) else None
    pad, extra = (g.integer(0, 1), 0, g.integer(0, 0), g.integer(0, 1)), (g.integer(0, stride - 1), 0)
    return g.add(
        f.ConvTranspose2dOp.make(x, weight, bias, stride=(stride, stride), pad=pad, output_pad=extra, groups=groups)
    )


def _linear(g: Graph) -> SSAValue:
    x = g.value(g.choose((2, 3, 4, 1)))
    cout, (low, high) = g.integer(1, 4), bounds(g)
    weight = g.floats((cout, shape_of(x.type)[-1]), 0.5)
    return g.add(f.LinearOp.make(x, weight, g.floats((cout,)) if g.integer(0, 1) else None, min=low, max=high))


def _matmul(g: Graph) -> SSAValue:
    a = g.value(g.integer(2, 4))
    *batch, _, depth = shape_of(a.type)
    columns = g.integer(1, 4)
    shape = (depth, columns) if g.integer(0, 1) else (*batch, depth, columns)
    b = g.floats(shape, 0.5) if g.integer(0, 1) else g.value(shape=shape)
    return g.add(f.MatmulOp.make(a, b))


def other_operand(g: Graph, x: SSAValue, reach: float = 1.0, *, steady: bool = False) -> SSAValue:
    """A second operand that broadcasts: a constant or a value, of the same shape, per channel, or a scalar."""
    shape = shape_of(x.type)
    kind = g.choose(("same", "same", "scalar", "channel", "ones", "neutral"))
    if kind == "same":
        return g.value(shape=shape, other_than=x, steady=steady)
    if kind == "neutral":
        return g.constant(np.full(shape[-1:], g.choose(NUMBERS), np.float32), f32)
    wanted = {"scalar": (), "channel": shape[-1:], "ones": (1,) * len(shape)}[kind]
    return g.floats(wanted, reach)


def _binary(kind: type[f.BinaryOp]) -> Generator:
    def generate(g: Graph) -> SSAValue:
        x = g.value(None)
        other = other_operand(g, x)
        return g.add(kind.make(*((x, other) if g.maybe() else (other, x))))

    return generate


def _div(g: Graph) -> SSAValue:
    """By constants and by values, both away from zero."""
    x = g.value(None)
    kind = g.choose(("number", "constant", "value", "value"))
    if kind == "value":
        divisor = inside(g, other_operand(g, x, steady=True), *g.choose(((1e-3, _INF), (0.1, _INF), (-_INF, -0.1))))
        # One over something, now and then.
        numerator = g.constant(np.array(g.choose((1.0, -2.0)), np.float32), f32) if g.maybe() else x
        return g.add(f.DivOp.make(numerator, divisor))
    shape = g.choose(((), shape_of(x.type)[-1:], shape_of(x.type)))
    if kind == "number":
        return g.add(f.DivOp.make(x, g.constant(np.full(shape, g.choose((2.0, 0.25, 6.0, -3.0)), np.float32), f32)))
    array = 1.0 + np.abs(filled(shape, "float32", g.integer(0, 99)))
    return g.add(f.DivOp.make(x, g.constant(array.astype(np.float32), f32)))


def _pow(g: Graph) -> SSAValue:
    """Whole powers of anything, others of what is positive."""
    exponent, low = g.choose(((2.0, -_INF), (1.0, -_INF), (3.0, -_INF), (0.5, 1e-3), (-1.0, 1e-3), (-0.5, 1e-3)))
    x = inside(g, g.value(None, steady=low > 0), low, _INF)
    return g.add(f.PowOp.make(x, g.constant(np.array(exponent, np.float32), f32)))


def batch_norm(g: Graph, x: SSAValue, *, even: bool = False) -> SSAValue:
    """A batch norm over the last axis of `x`; `even`: its factors differ by little, as a layer behind it asks for."""
    channels = shape_of(x.type)[-1:]
    scale, bias, mean = (g.floats(channels) for _ in range(3))
    if even:
        scale = g.constant(1 + 0.5 * np.tanh(filled(channels, "float32", g.integer(0, 99))), f32)
    spread = 0.0 if even else 1.0
    variance = g.constant(
        (0.5 + spread * np.abs(filled(channels, "float32", g.integer(0, 99)))).astype(np.float32), f32
    )
    return g.add(f.BatchNormOp.make(x, scale, bias, mean, variance, epsilon=1e-5))


def _softmax(g: Graph) -> SSAValue:
    x = g.value(g.integer(1, 4))
    return g.add(f.SoftmaxOp.make(x, axis=g.integer(0, len(shape_of(x.type)) - 1)))


def _pool(kind: type[HbOperation]) -> Generator:
    def generate(g: Graph) -> SSAValue:
        x = g.value(4)
        _, h, w, _ = shape_of(x.type)
        (kh, sh, _, top, bottom), (kw, sw, _, left, right) = _window(g, h), _window(g, w)
        options: dict[str, object] = {"kernel": (kh, kw), "stride": (sh, sw), "pad": (top, left, bottom, right)}
        options["ceil"] = bool(g.integer(0, 1))
        if kind is f.AvgPoolOp:
            options["count_pad"] = bool(g.integer(0, 1))
        return g.add(kind.make(x, **options))

    return generate


def _reduce(g: Graph) -> SSAValue:
    x = g.value(g.integer(1, 4))
    axes = [axis for axis in range(len(shape_of(x.type))) if g.integer(0, 1)]
    kind = g.choose(("mean", "sum", "max", "min", "prod"))
    reach, count = max(2.0, *map(abs, g.range(x))), int(np.prod([shape_of(x.type)[axis] for axis in axes]))
    if kind == "prod" and count * np.log2(reach) > np.log2(LARGEST):
        kind = "max"  # a product of many overflows
    return g.add(f.ReduceOp.make(x, kind=kind, axes=axes, keep=bool(g.integer(0, 1))))


def _argmax(g: Graph) -> SSAValue:
    x = g.value(g.integer(1, 4), steady=True)
    return g.add(f.ArgmaxOp.make(x, axis=g.integer(0, len(shape_of(x.type)) - 1), keep=g.maybe()))


def add_function(g: Graph, x: SSAValue | None = None) -> SSAValue:
    """A function of a value, which is brought to where the function has one."""
    name = g.choose(DOMAINS if x is None or x in g.steady else [n for n in DOMAINS if not _careful(n)])
    parameters, low, high = g.choose(DOMAINS[name])
    x = inside(g, g.value(None, steady=_careful(name)) if x is None else x, low, high)
    return g.add(f.FunctionOp.make(x, function=name, parameters=parameters))


def _careful(name: str) -> bool:
    """Whether a function has steps, or is steep somewhere."""
    return name in _STEPS or (name not in _SMOOTH and any(domain[1:] != (-_INF, _INF) for domain in DOMAINS[name]))


def _clip(g: Graph) -> SSAValue:
    low, high = bounds(g)
    return g.add(f.ClipOp.make(g.value(None), min=low, max=high))


def _cast(g: Graph) -> SSAValue:
    x = g.input(g.shape(g.integer(0, 3)), g.choose((i8, i16, i32, i64)))
    return g.add(f.CastOp.make(x, to="f32"))


def _reshape(g: Graph) -> SSAValue:
    x = g.value(None)
    shape = list(shape_of(x.type))
    for _ in range(g.integer(1, 2)):
        merge = len(shape) >= 2 and g.integer(0, 1)
        at = g.integer(0, max(len(shape) - 2, 0))
        if merge:
            shape[at : at + 2] = [shape[at] * shape[at + 1]]
        elif shape and shape[at] % 2 == 0 and g.integer(0, 1):
            shape[at : at + 1] = [2, shape[at] // 2]
        else:
            shape.insert(at, 1)
    return g.add(f.ReshapeOp.make(x, shape=shape))


def _transpose(g: Graph) -> SSAValue:
    # Of equal extents the type says nothing on the order.
    x = g.value(shape=(g.integer(2, 3),) * g.integer(2, 4)) if not g.integer(0, 2) else g.value(None)
    order = list(range(len(shape_of(x.type))))
    for at in range(len(order) - 1):
        other = g.integer(at, len(order) - 1)
        order[at], order[other] = order[other], order[at]
    return g.add(f.TransposeOp.make(x, permutation=order))


def _concat(g: Graph) -> SSAValue:
    x = g.value(g.integer(1, 4))
    shape = list(shape_of(x.type))
    axis, others = g.integer(0, len(shape) - 1), [x]
    for _ in range(g.integer(0, 2)):
        shape[axis] = g.integer(1, 4)
        others.append(g.value(shape=shape) if g.integer(0, 1) else g.floats(shape))
    return g.add(f.ConcatOp.make(others, axis=axis))


def _slice(g: Graph) -> SSAValue:
    x = g.value(None)
    begin = [g.integer(0, n - 1) for n in shape_of(x.type)]
    end = [g.integer(b + 1, n) for b, n in zip(begin, shape_of(x.type), strict=True)]
    return g.add(f.SliceOp.make(x, begin=begin, end=end, step=[g.integer(1, 2) for _ in begin]))


def _pad(g: Graph) -> SSAValue:
    x = g.value(None)
    shape = shape_of(x.type)
    before, after = ([g.integer(0, min(2, n - 1)) for n in shape] for _ in range(2))
    mode, value = g.choose(("constant", "constant", "edge", "reflect")), g.choose(NUMBERS)
    return g.add(f.PadOp.make(x, before=before, after=after, mode=mode, value=value if mode == "constant" else 0.0))


def _expand(g: Graph) -> SSAValue:
    x = g.value(None)
    shape = [g.integer(1, 3) if n == 1 else n for n in shape_of(x.type)]
    return g.add(f.ExpandOp.make(x, shape=[2, *shape] if len(shape) < 4 and g.integer(0, 1) else shape))


def _resize_nearest(g: Graph) -> SSAValue:
    x = g.value(4)
    _, h, w, _ = shape_of(x.type)
    rows, columns = (sorted(g.integer(0, n - 1) for _ in range(g.integer(1, 5))) for n in (h, w))
    return g.add(f.ResizeNearestOp.make(x, rows=rows, columns=columns))


def _resize_bilinear(g: Graph) -> SSAValue:
    sides = [(g.integer(1, 6), *g.choose(((1, 0, 1), (1, 0, 2), (1, -1, 4), (2, 1, 3)))) for _ in range(2)]
    return g.add(f.ResizeBilinearOp.make(g.value(4), rows=sides[0], columns=sides[1]))


def _constant(g: Graph) -> SSAValue:
    """A constant that something reads."""
    value = g.floats(g.shape(2))
    return g.add(f.ReshapeOp.make(value, shape=(1, *shape_of(value.type))))


def _fake_quant(g: Graph) -> SSAValue:
    if g.integer(0, 3):
        return g.add(FakeQuantOp.make(g.value(None), grid=g.grid()))
    # Scales per axis are for weights.
    x = g.value(g.choose((4, 2)))
    cout, columns = g.integer(1, 3), shape_of(x.type)[-1]
    grid = UniformQuantizedType.get(8, np.linspace(0.01, 0.05, cout).tolist(), axis=0, narrow=True)
    weight = g.add(FakeQuantOp.make(g.floats((cout, columns)), grid=grid))
    x = g.add(FakeQuantOp.make(x, grid=g.grid()))
    return g.add(f.LinearOp.make(x, weight, None, min=None, max=None))


FLOAT_GENERATORS: dict[type[HbOperation], Generator] = {
    f.ArgmaxOp: _argmax,
    f.AvgPoolOp: _pool(f.AvgPoolOp),
    f.BatchNormOp: lambda g: batch_norm(g, g.value(g.choose((4, 2)))),
    f.CastOp: _cast,
    f.ClipOp: _clip,
    f.ConcatOp: _concat,
    f.ConstantOp: _constant,
    f.Conv2dOp: _conv2d,
    f.ConvTranspose2dOp: _conv_transpose2d,
    f.ExpandOp: _expand,
    f.FunctionOp: add_function,
    f.LinearOp: _linear,
    f.MatmulOp: _matmul,
    f.MaxPoolOp: _pool(f.MaxPoolOp),
    f.PadOp: _pad,
    f.ReduceOp: _reduce,
    f.ReshapeOp: _reshape,
    f.ResizeBilinearOp: _resize_bilinear,
    f.ResizeNearestOp: _resize_nearest,
    f.SliceOp: _slice,
    f.SoftmaxOp: _softmax,
    f.TransposeOp: _transpose,
    **{kind: _binary(kind) for kind in f.BINARY_OPS},
    f.DivOp: _div,
    f.PowOp: _pow,
}
"""For each operation of the dialect hbir, what adds one to a graph."""
QAT_GENERATORS: dict[type[HbOperation], Generator] = {FakeQuantOp: _fake_quant}
"""The same for the dialect qat."""
