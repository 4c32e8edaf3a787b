"""Paired measurement of the integer kernels: each layer beside onnxruntime's uint8 x int8 kernel, in turns, as ratios.

Run `python tests/benchmarks/kernels.py`. It prints microseconds, billions of multiply-accumulates a second and the ratio to
onnxruntime; below 1 is faster. Nothing here passes or fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, helper

from hbir.kernels import bind_conv2d, conv2d_output_shape, pack_weight

# name: (height = width, Cin, Cout, kernel, stride, groups)
LAYERS = {
    "first 3x3 3->32 @224 /2": (224, 3, 32, 3, 2, 1),
    "first 7x7 3->64 @224 /2": (224, 3, 64, 7, 2, 1),
    "1x1 32->16 @112": (112, 32, 16, 1, 1, 1),
    "1x1 24->144 @56": (56, 24, 144, 1, 1, 1),
    "1x1 96->24 @56": (56, 96, 24, 1, 1, 1),
    "1x1 96->576 @14": (14, 96, 576, 1, 1, 1),
    "1x1 960->320 @7": (7, 960, 320, 1, 1, 1),
    "1x1 64->256 @56": (56, 64, 256, 1, 1, 1),
    "1x1 256->64 @56": (56, 256, 64, 1, 1, 1),
    "3x3 64->64 @56": (56, 64, 64, 3, 1, 1),
    "3x3 256->256 @14": (14, 256, 256, 3, 1, 1),
    "3x3 512->512 @7": (7, 512, 512, 3, 1, 1),
    "linear 1280->1000": (1, 1280, 1000, 1, 1, 1),
    "depthwise 3x3 32 @112": (112, 32, 32, 3, 1, 32),
    "depthwise 3x3 144 @56": (56, 144, 144, 3, 1, 144),
    "depthwise 3x3 576 @14": (14, 576, 576, 3, 1, 576),
}


def ours(size: int, cin: int, cout: int, kernel: int, stride: int, groups: int) -> Callable[[], object]:
    """Bound int8 convolution of a layer."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (cout, kernel, kernel, cin // groups)).astype(np.int8)
    x = rng.integers(-128, 128, (1, size, size, cin)).astype(np.int8)
    geometry: dict[str, Any] = {"stride": (stride, stride), "pad": (kernel // 2,) * 4}
    out = np.empty(conv2d_output_shape(x.shape, weight.shape, **geometry), np.int8)
    vectors = np.zeros(cout, np.int32), np.full(cout, 20001, np.int32), np.full(cout, 26, np.int8)
    packed = pack_weight(weight, groups=groups)
    return bind_conv2d(x, packed, *vectors, weight_shape=weight.shape, groups=groups, out=out, **geometry)


def theirs(size: int, cin: int, cout: int, kernel: int, stride: int, groups: int) -> Callable[[], object]:
    """onnxruntime's QLinearConv of the same layer, bound to its buffers, on as many threads."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (cout, cin // groups, kernel, kernel)).astype(np.int8)
    constants = [
        helper.make_tensor("s", TensorProto.FLOAT, [], [0.01]),
        helper.make_tensor("zu", TensorProto.UINT8, [], [128]),
        helper.make_tensor("zi", TensorProto.INT8, [], [0]),
        helper.make_tensor("w", TensorProto.INT8, weight.shape, weight.tobytes(), raw=True),
        helper.make_tensor("b", TensorProto.INT32, [cout], [0] * cout),
    ]
    inputs = ["x", "s", "zu", "w", "s", "zi", "s", "zu", "b"]
    node = helper.make_node(
        "QLinearConv",
        inputs,
        ["y"],
        strides=[stride] * 2,
        pads=[kernel // 2] * 4,
        group=groups,
        kernel_shape=[kernel] * 2,
    )
    graph = helper.make_graph(
        [node], "layer", [helper.make_tensor_value_info("x", TensorProto.UINT8, [1, cin, size, size])],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, None)], constants,
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("x", rng.integers(0, 256, (1, cin, size, size)).astype(np.uint8))
    binding.bind_output("y")
    return lambda: session.run_with_iobinding(binding)


def seconds(run: Callable[[], object]) -> float:
    """Mean of a few calls in a row, after the other side's threads have stopped spinning in wait of more work."""
    time.sleep(0.02)
    run()
    calls, begin = 5, time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - begin) / calls


def main() -> None:
    """Print one line for each layer."""
    print(f"{'layer':26s} {'us':>8s} {'GMAC/s':>8s} {'onnxruntime us':>15s} {'ratio':>6s}")
    for name, layer in LAYERS.items():
        size, cin, cout, kernel, stride, groups = layer
        pair = ours(*layer), theirs(*layer)
        best = [float("inf"), float("inf")]
        for _ in range(20):  # in turns, so that both meet the same neighbours
            best = [min(known, seconds(run)) for known, run in zip(best, pair, strict=True)]
        macs = (-(-size // stride)) ** 2 * cout * kernel * kernel * cin // groups
        mine, other = (value * 1e6 for value in best)
        print(f"{name:26s} {mine:8.1f} {macs / mine / 1e3:8.1f} {other:15.1f} {mine / other:6.2f}")


if __name__ == "__main__":
    main()
