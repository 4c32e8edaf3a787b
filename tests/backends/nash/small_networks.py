"""Small networks in ONNX's text form, one idea each, on their way through the backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir import Module, export
from passes import calibrate, convert
from tests.hbir.frontends.onnx.models import text_model

__all__ = ["HOST_NETWORKS", "SMALL_NETWORKS", "deep_network", "heavy_network", "small_network", "text_network"]

Feed = dict[str, npt.NDArray[np.float32]]

MAP = "(float[1,8,12,10] x) => (float[1,8,12,10] y)"

SMALL_NETWORKS: dict[str, tuple[str, str]] = {
    "chain": ("a = Conv <pads = [1,1,1,1]> (x, w3) b = Relu (a) y = Conv <pads = [1,1,1,1]> (b, v3)", MAP),
    "residual": (
        (
            "a = Conv <pads = [1,1,1,1]> (x, w3) b = Relu (a) c = Conv <pads = [1,1,1,1]> (b, v3) d = Add (c, a) e = Relu (d)"
            " y = Conv (e, w1)"
        ),
        MAP,
    ),
    "stride": (
        "a = Conv <pads = [1,1,1,1], strides = [2,2]> (x, w3) y = Conv <pads = [2,0,1,3], dilations = [2,1]> (a, v3)",
        "(float[1,8,12,10] x) => (float[1,8,5,6] y)",
    ),
    "wide_padding": (
        "a = Conv <pads = [3,3,3,3]> (x, w1) b = Relu (a) y = Conv <pads = [4,0,5,0], strides = [2,1]> (b, v3)",
        "(float[1,8,12,10] x) => (float[1,8,13,14] y)",
    ),
    "depthwise": ("a = Conv <pads = [1,1,1,1], group = 8> (x, d3) b = Clip (a, zero, six) y = Conv (b, w1)", MAP),
    "groups": ("a = Conv <pads = [1,1,1,1], group = 2> (x, g3) b = Relu (a) y = Conv (b, w1)", MAP),
    "max_pool": (
        "a = Conv (x, w1) b = MaxPool <kernel_shape = [3,3], pads = [1,1,1,1], strides = [2,2]> (a) y = Conv (b, v1)",
        "(float[1,8,12,10] x) => (float[1,8,6,5] y)",
    ),
    "average_pool": (
        "a = Conv (x, w1) b = AveragePool <kernel_shape = [3,2], pads = [1,0,1,1]> (a) y = Conv (b, v1)",
        MAP,
    ),
    "squeeze_excite": (
        (
            "a = Conv (x, w1) p = GlobalAveragePool (a) q = Conv (p, v1) r = Relu (q) s = Conv (r, w1)"
            " t = HardSigmoid (s) m = Mul (a, t) y = Conv (m, v1)"
        ),
        MAP,
    ),
    "concat": (
        "a = Conv (x, w1) b = Conv <pads = [1,1,1,1]> (x, w3) c = Concat <axis = 1> (a, b) r = Relu (c) y = Conv (r, u1)",
        MAP,
    ),
    "nested_concat": (
        (
            "a = Conv (x, w1) b = Conv (a, v1) c = Concat <axis = 1> (a, b) d = Conv (c, u1) e = Concat <axis = 1> (c, d, a)"
            " y = Conv (e, t1)"
        ),
        MAP,
    ),
    "constant_concat": (
        "a = Conv (x, w1) b = Relu (a) c = Concat <axis = 1> (b, fixed) y = Conv (c, u1)",
        MAP,
    ),
    "split": (
        "a = Conv (x, e1) s, t = Split <axis = 1> (a) p = Conv (s, w1) q = Add (p, t) y = Conv (q, v1)",
        MAP,
    ),
    "strided_slice": (
        "a = Conv (x, e1) s = Slice (a, begin, end, channels, two) p = Conv (s, w1) y = Conv (p, v1)",
        MAP,
    ),
    "spatial_slice": (
        "a = Conv (x, w1) s = Slice (a, begin2, end2, spatial, step2) y = Conv (s, v1)",
        "(float[1,8,12,10] x) => (float[1,8,5,3] y)",
    ),
    "transpose": (
        "a = Conv (x, w1) t = Transpose <perm = [0,1,3,2]> (a) y = Conv (t, v1)",
        "(float[1,8,12,10] x) => (float[1,8,10,12] y)",
    ),
    "reshape": (
        "a = Conv (x, w1) r = Reshape (a, rows) t = Relu (r) y = MatMul (t, square)",
        "(float[1,8,12,10] x) => (float[96,10] y)",
    ),
    "channel_pad": (
        "a = Conv (x, w1) p = Pad (a, pads, zero) y = Conv (p, u1)",
        MAP,
    ),
    "resize_nearest": (
        (
            'a = Conv (x, w1) r = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric",'
            ' nearest_mode = "floor"> (a, , scales) y = Conv (r, v1)'
        ),
        "(float[1,8,12,10] x) => (float[1,8,24,20] y)",
    ),
    "resize_bilinear": (
        (
            'a = Conv (x, w1) r = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (a, , scales)'
            " y = Conv (r, v1)"
        ),
        "(float[1,8,12,10] x) => (float[1,8,24,20] y)",
    ),
    "activations": (
        (
            "a = Conv (x, w1) s = Sigmoid (a) m = Mul (a, s) h = HardSwish (m) b = Conv (h, v1) t = Tanh (b) l = LeakyRelu (t)"
            " y = Conv (l, w1)"
        ),
        MAP,
    ),
    "softmax": (
        "a = Conv (x, w1) s = Softmax <axis = 1> (a) y = Conv (s, v1)",
        MAP,
    ),
    "extrema": (
        "a = Conv (x, w1) b = Conv (x, v1) c = Max (a, b) d = Min (c, x) e = Sub (d, b) y = Conv (e, w1)",
        MAP,
    ),
    "reductions": (
        (
            "a = Conv (x, w1) m = ReduceMax <axes = [2], keepdims = 0> (a) n = ReduceMean <axes = [2], keepdims = 0> (a)"
            " y = Add (m, n)"
        ),
        "(float[1,8,12,10] x) => (float[1,8,10] y)",
    ),
    "matmul": (
        (
            "a = Conv (x, w1) b = Conv (x, v1) t = Transpose <perm = [0,1,3,2]> (b) m = MatMul (a, t) "
            "s = Softmax <axis = -1> (m) y = MatMul (s, b)"
        ),
        MAP,
    ),
    "broadcast_constant": ("a = Conv (x, w1) b = Mul (a, plane) c = Add (b, column) y = Conv (c, v1)", MAP),
    "argmax": (
        "a = Conv (x, w1) y = ArgMax <axis = 1, keepdims = 0> (a)",
        "(float[1,8,12,10] x) => (int64[1,12,10] y)",
    ),
    "classifier": (
        "a = Conv (x, w1) r = Relu (a) p = GlobalAveragePool (r) f = Flatten (p) y = Gemm <transB = 1> (f, dense, offsets)",
        "(float[1,8,12,10] x) => (float[1,5] y)",
    ),
    "two_outputs": (
        "a = Conv (x, w1) b = Relu (a) y = Conv (b, v1) z = Conv <pads = [1,1,1,1]> (b, w3)",
        "(float[1,8,12,10] x) => (float[1,8,12,10] y, float[1,8,12,10] z, float[1,8,12,10] b)",
    ),
    "two_inputs": (
        "a = Conv (x, w1) b = Conv (z, v1) c = Add (a, b) y = Conv (c, w1)",
        "(float[1,8,12,10] x, float[1,8,12,10] z) => (float[1,8,12,10] y)",
    ),
    "input_is_output": (
        "y = Conv (x, w1) z = Identity (x)",
        "(float[1,8,12,10] x) => (float[1,8,12,10] y, float[1,8,12,10] z)",
    ),
    "many_channels": (
        "a = Conv (x, big) r = Relu (a) y = Conv (r, back)",
        "(float[1,8,12,10] x) => (float[1,8,12,10] y)",
    ),
    "div": (
        "c = Conv (x, w1) d = Conv (x, v1) e = Relu (d) h = Add (e, one) q = Div (c, h) y = Conv (q, w1)",
        MAP,
    ),
    "conv_transpose": (
        "c = Conv (x, w1) t = ConvTranspose <strides = [2,2]> (c, back1) y = Conv (t, v1)",
        "(float[1,8,12,10] x) => (float[1,8,23,19] y)",
    ),
}
"""Name: (nodes, signature). Constants are those of `_constants`."""

HOST_NETWORKS: dict[str, tuple[str, str, str]] = {
    "pow": ("c = Conv (x, w1) r = Relu (c) p = Pow (r, r) y = Conv (p, v1)", MAP, "hbir.pow"),
    "pow_of_constant": ("c = Conv (x, w1) r = Relu (c) p = Pow (six, r) y = Conv (p, v1)", MAP, "hbir.pow"),
}
"""Networks with one operation that no unit can do, and its name."""


def _constants() -> Mapping[str, npt.NDArray[Any]]:
    rng = np.random.default_rng(7)

    def weight(*shape: int) -> npt.NDArray[np.float32]:
        return rng.uniform(-1, 1, shape).astype(np.float32)

    return {
        "w1": weight(8, 8, 1, 1),
        "v1": weight(8, 8, 1, 1),
        "back1": weight(8, 8, 1, 1),
        "u1": weight(8, 16, 1, 1),
        "e1": weight(16, 8, 1, 1),
        "t1": weight(8, 32, 1, 1),
        "w3": weight(8, 8, 3, 3),
        "v3": weight(8, 8, 3, 3),
        "d3": weight(8, 1, 3, 3),
        "g3": weight(8, 4, 3, 3),
        "big": weight(80, 8, 1, 1),
        "back": weight(8, 80, 1, 1),
        "square": weight(10, 10),
        "dense": weight(5, 8),
        "offsets": weight(5),
        "fixed": weight(1, 8, 12, 10),
        "plane": weight(1, 1, 12, 10),
        "column": weight(1, 8, 1, 1),
        "one": np.ones((1, 8, 1, 1), np.float32),
        "zero": np.array(0, np.float32),
        "six": np.array(6, np.float32),
        "scales": np.array([1, 1, 2, 2], np.float32),
        "rows": np.array([96, 10], np.int64),
        "image": np.array([1, 8, 12, 10], np.int64),
        "pads": np.array([0, 0, 0, 0, 0, 8, 0, 0], np.int64),
        "begin": np.array([0], np.int64),
        "end": np.array([16], np.int64),
        "channels": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "begin2": np.array([1, 2], np.int64),
        "end2": np.array([11, 8], np.int64),
        "spatial": np.array([2, 3], np.int64),
        "step2": np.array([2, 2], np.int64),
    }


def text_network(body: str, signature: str) -> tuple[Module, list[Feed]]:
    """A calibrated float module from nodes in text form, and feeds uniform in -1 to 2."""
    words = set(re.findall(r"\w+", body))
    constants = {name: array for name, array in _constants().items() if name in words}
    module = export(text_model(body, signature, constants=constants))
    rng = np.random.default_rng(0)
    feeds = [
        {a.name: rng.uniform(-1, 2, a.type.shape).astype(np.float32) for a in module[0].flatten_inputs}
        for _ in range(3)
    ]
    return calibrate(module, feeds), feeds


@cache
def deep_network(bits: int, march: str = "nash-e") -> tuple[Module, list[Feed]]:
    """Two 3 x 3 convolutions over 1,024 channels, the second with a residual and a relu; activations of so many bits."""
    rng = np.random.default_rng(11)
    constants = {
        **{name: rng.uniform(-0.02, 0.02, (40, 1024, 3, 3)).astype(np.float32) for name in ("a1", "a2")},
        "b1": rng.uniform(-1, 1, 40).astype(np.float32),
        "last": rng.uniform(-1, 1, (3, 40, 1, 1)).astype(np.float32),
    }
    body = (
        "a = Conv <pads = [1,1,1,1]> (x, a1, b1) r = Relu (a) b = Conv <pads = [1,1,1,1]> (x, a2)"
        " s = Add (b, r) t = Relu (s) y = Conv (t, last)"
    )
    module = export(text_model(body, "(float[1,1024,6,5] x) => (float[1,3,6,5] y)", constants=constants))
    feeds = [{"x": rng.uniform(-1, 2, (1, 1024, 6, 5)).astype(np.float32)} for _ in range(2)]
    return convert(calibrate(module, feeds, activation_bits=bits), march), feeds


@cache
def heavy_network(dilation: int = 1) -> tuple[Module, list[Feed]]:
    """Convolutions with far more weights than map, each followed by a table: 3 x 3 over 192 channels of a 12 x 12 map."""
    pads = [dilation] * 4
    rng = np.random.default_rng(13)
    constants = {
        "w": rng.uniform(-0.1, 0.1, (192, 16, 1, 1)).astype(np.float32),
        "v": rng.uniform(-0.05, 0.05, (192, 192, 3, 3)).astype(np.float32),
    }
    attributes = f"pads = {pads}, dilations = {pads[:2]}"
    body = f"a = Conv (x, w) b = Sigmoid (a) c = Conv <{attributes}> (b, v) y = Sigmoid (c)"
    module = export(text_model(body, "(float[1,16,12,12] x) => (float[1,192,12,12] y)", constants=constants))
    feeds = [{"x": rng.uniform(-1, 2, (1, 16, 12, 12)).astype(np.float32)} for _ in range(2)]
    return convert(calibrate(module, feeds), "nash-e"), feeds


@cache
def small_network(name: str, march: str = "nash-e") -> tuple[Module, list[Feed]]:
    """The integer module of a network of `SMALL_NETWORKS` or `HOST_NETWORKS`, and feeds."""
    body, signature = SMALL_NETWORKS[name] if name in SMALL_NETWORKS else HOST_NETWORKS[name][:2]
    module, feeds = text_network(body, signature)
    return convert(module, march), feeds
