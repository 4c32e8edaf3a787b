"""Float ONNX files that no package ships: MobileNetV2 from its published PyTorch weights, and ResNet-50 with
reproducible random weights whose batch norm statistics were measured on pictures. Both are written node by node with
`onnx.helper`, so that the file does not depend on an exporter's version."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

__all__ = ["mobilenet_v2", "resnet50"]

Array = npt.NDArray[np.float32]

BATCH_NORM_EPSILON = 1e-5
OPSET = 17
IR_VERSION = 8

# Inverted residual settings of MobileNetV2 (Sandler et al. 2018, table 2): expansion, channels, repeats, stride.
MOBILENET_V2_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
# Bottleneck settings of ResNet-50 (He et al. 2015, table 1): inner channels, repeats, stride of the first block.
RESNET50_STAGES = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))


@dataclass(frozen=True)
class _Graph:
    """An ONNX graph being written: nodes and initializers in order; values are referred to by name."""

    weights: Mapping[str, Array]
    fold_batch_norm: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    initializers: list[onnx.TensorProto] = field(default_factory=list[onnx.TensorProto])

    def constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.initializers.append(numpy_helper.from_array(np.asarray(value, order="C"), name))
        return name

    def node(self, op_type: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(op_type, inputs, [name + "_out"], name=name, **attributes))
        return name + "_out"

    def conv_norm(self, x: str, conv: str, norm: str, *, stride: int = 1, groups: int = 1) -> str:
        """A convolution without bias, "same" padding for its odd kernel, and the batch norm behind it."""
        weight = self.weights[conv + ".weight"]
        kernel = int(weight.shape[2])
        attributes: dict[str, Any] = {
            "kernel_shape": [kernel, kernel],
            "strides": [stride, stride],
            "pads": [kernel // 2] * 4,
            "dilations": [1, 1],
            "group": groups,
        }
        gamma, beta, mean, variance = (
            self.weights[f"{norm}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")
        )
        if self.fold_batch_norm:
            # float64: the folded constants are then correctly rounded up to the last operation.
            scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + BATCH_NORM_EPSILON)
            folded = (weight * scale[:, None, None, None]).astype(np.float32)
            bias = (beta - mean * scale).astype(np.float32)
            inputs = [x, self.constant(conv + ".weight", folded), self.constant(conv + ".bias", bias)]
            return self.node("Conv", inputs, conv, **attributes)
        y = self.node("Conv", [x, self.constant(conv + ".weight", weight)], conv, **attributes)
        names = ("weight", "bias", "running_mean", "running_var")
        parameters = [
            self.constant(f"{norm}.{key}", value)
            for key, value in zip(names, (gamma, beta, mean, variance), strict=True)
        ]
        return self.node("BatchNormalization", [y, *parameters], norm, epsilon=BATCH_NORM_EPSILON)

    def relu(self, x: str, name: str) -> str:
        return self.node("Relu", [x], name)

    def add(self, x: str, y: str, name: str) -> str:
        return self.node("Add", [x, y], name)

    def max_pool(self, x: str, name: str) -> str:
        return self.node("MaxPool", [x], name, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])

    def classifier(self, x: str, layer: str) -> str:
        pooled = self.node("GlobalAveragePool", [x], "pool")
        flat = self.node("Flatten", [pooled], "flatten", axis=1)
        parameters = [self.constant(f"{layer}.{key}", self.weights[f"{layer}.{key}"]) for key in ("weight", "bias")]
        self.nodes.append(helper.make_node("Gemm", [flat, *parameters], ["logits"], name=layer, transB=1))
        return "logits"

    def model(self, name: str) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            name,
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 224, 224])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1000])],
            self.initializers,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model


def mobilenet_v2(weights: Mapping[str, Array], *, fold_batch_norm: bool = True) -> onnx.ModelProto:
    """MobileNetV2, width 1.0, input "input" float32 [1, 3, 224, 224], output "logits" float32 [1, 1000].

    `weights` maps torchvision's state dict keys to float32 arrays. Relu6 is `Clip` with `min` and `max` as inputs, the
    form PyTorch exports. With `fold_batch_norm` (as an exporter in eval mode does) every convolution has a bias;
    without it a BatchNormalization node follows each of the 52 convolutions.
    """
    graph = _Graph(weights, fold_batch_norm)
    low, high = graph.constant("zero", np.array(0, np.float32)), graph.constant("six", np.array(6, np.float32))

    def relu6(x: str, name: str) -> str:
        return graph.node("Clip", [x, low, high], name + ".relu6")

    x = relu6(graph.conv_norm("input", "features.0.0", "features.0.1", stride=2), "features.0")
    channels, index = 32, 1
    for expansion, out_channels, repeats, first_stride in MOBILENET_V2_STAGES:
        for repeat in range(repeats):
            stride = first_stride if repeat == 0 else 1
            block, y, position = f"features.{index}.conv", x, 0
            if expansion != 1:
                y = relu6(graph.conv_norm(y, f"{block}.0.0", f"{block}.0.1"), f"{block}.0")
                position = 1
            hidden = channels * expansion
            depthwise = f"{block}.{position}"
            y = graph.conv_norm(y, f"{depthwise}.0", f"{depthwise}.1", stride=stride, groups=hidden)
            y = relu6(y, depthwise)
            y = graph.conv_norm(y, f"{block}.{position + 1}", f"{block}.{position + 2}")
            x = graph.add(x, y, f"features.{index}.add") if stride == 1 and channels == out_channels else y
            channels, index = out_channels, index + 1
    x = relu6(graph.conv_norm(x, f"features.{index}.0", f"features.{index}.1"), f"features.{index}")
    graph.classifier(x, "classifier.1")
    return graph.model("mobilenet_v2")


Value = TypeVar("Value")


class _Emitter(Protocol[Value]):
    """What ResNet-50 needs from whoever walks it; `Value` is a tensor's name or a tensor. Layers are named as in
    torchvision."""

    def conv_norm(self, x: Value, conv: str, norm: str, *, stride: int = 1) -> Value: ...

    def relu(self, x: Value, name: str) -> Value: ...

    def add(self, x: Value, y: Value, name: str) -> Value: ...

    def max_pool(self, x: Value, name: str) -> Value: ...


def _bottleneck(emit: _Emitter[Value], x: Value, block: str, stride: int, *, downsample: bool) -> Value:
    """One bottleneck block, with the stride on the 3x3 convolution."""
    y = emit.relu(emit.conv_norm(x, f"{block}.conv1", f"{block}.bn1"), f"{block}.relu1")
    y = emit.relu(emit.conv_norm(y, f"{block}.conv2", f"{block}.bn2", stride=stride), f"{block}.relu2")
    y = emit.conv_norm(y, f"{block}.conv3", f"{block}.bn3")
    if downsample:
        x = emit.conv_norm(x, f"{block}.downsample.0", f"{block}.downsample.1", stride=stride)
    return emit.relu(emit.add(x, y, f"{block}.add"), f"{block}.relu3")


def _resnet50_features(emit: _Emitter[Value], x: Value) -> Value:
    """Everything of ResNet-50 before the global average pool."""
    x = emit.max_pool(emit.relu(emit.conv_norm(x, "conv1", "bn1", stride=2), "relu"), "maxpool")
    for stage, (_, repeats, first_stride) in enumerate(RESNET50_STAGES, start=1):
        for index in range(repeats):
            stride = first_stride if index == 0 else 1
            x = _bottleneck(emit, x, f"layer{stage}.{index}", stride, downsample=index == 0)
    return x


def _round_digits(values: npt.NDArray[np.floating[Any]], digits: int = 4) -> Array:
    """Values rounded to so many significant digits. They are measured in float64, so that the last bits, which depend
    on the number of threads and the machine, decide a rounding practically never."""
    return np.array([float(f"{value:.{digits - 1}e}") for value in values.ravel()], np.float32).reshape(values.shape)


def _resnet50_random_weights(seed: int) -> dict[str, Array]:
    """He-initialised weights; `RandomState`, because its streams are frozen across numpy versions."""
    random = np.random.RandomState(seed)
    weights: dict[str, Array] = {}

    def conv(name: str, out_channels: int, in_channels: int, kernel: int) -> None:
        deviation = np.sqrt(2.0 / (in_channels * kernel * kernel))
        shape = (out_channels, in_channels, kernel, kernel)
        weights[name + ".weight"] = (random.standard_normal(shape) * deviation).astype(np.float32)

    def norm(name: str, channels: int) -> None:
        weights[name + ".weight"] = random.uniform(0.5, 1.5, channels).astype(np.float32)
        weights[name + ".bias"] = (random.standard_normal(channels) * 0.2).astype(np.float32)

    conv("conv1", 64, 3, 7)
    norm("bn1", 64)
    channels = 64
    for stage, (inner, repeats, _) in enumerate(RESNET50_STAGES, start=1):
        for index in range(repeats):
            block = f"layer{stage}.{index}"
            sizes = ((inner, channels, 1), (inner, inner, 3), (4 * inner, inner, 1))
            for number, (out_channels, in_channels, kernel) in enumerate(sizes, start=1):
                conv(f"{block}.conv{number}", out_channels, in_channels, kernel)
                norm(f"{block}.bn{number}", out_channels)
            if index == 0:
                conv(f"{block}.downsample.0", 4 * inner, channels, 1)
                norm(f"{block}.downsample.1", 4 * inner)
            channels = 4 * inner
    weights["fc.weight"] = (random.standard_normal((1000, channels)) * 0.05).astype(np.float32)
    return weights


@dataclass(frozen=True)
class _StatisticsRun:
    """Runs the network in PyTorch and writes each batch norm's mean and variance over the pictures into `weights`."""

    weights: dict[str, Array]

    def conv_norm(self, x: torch.Tensor, conv: str, norm: str, *, stride: int = 1) -> torch.Tensor:
        weight = torch.from_numpy(self.weights[conv + ".weight"]).double()
        y = functional.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        variance, mean = torch.var_mean(y, dim=(0, 2, 3), correction=0)
        self.weights[norm + ".running_mean"] = _round_digits(mean.numpy())
        self.weights[norm + ".running_var"] = _round_digits(variance.numpy())
        keys = ("running_mean", "running_var", "weight", "bias")
        means, variances, gamma, beta = (torch.from_numpy(self.weights[f"{norm}.{key}"]).double() for key in keys)
        return functional.batch_norm(y, means, variances, gamma, beta, eps=BATCH_NORM_EPSILON)

    def relu(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.relu(x)

    def add(self, x: torch.Tensor, y: torch.Tensor, name: str) -> torch.Tensor:
        return x + y

    def max_pool(self, x: torch.Tensor, name: str) -> torch.Tensor:
        return functional.max_pool2d(x, 3, stride=2, padding=1)


def resnet50(pictures: Array, *, seed: int = 0, fold_batch_norm: bool = True) -> onnx.ModelProto:
    """ResNet-50 v1.5 with random weights, input "input" float32 [1, 3, 224, 224], output "logits" float32 [1, 1000].

    `pictures` (float32 [n, 3, 224, 224]) set the batch norm statistics and the classifier's bias, so that every layer's
    values have a natural size and the classes of different pictures differ. An untouched random network outputs nearly
    nothing and passes any comparison.
    """
    weights = _resnet50_random_weights(seed)
    with torch.no_grad():
        features = _resnet50_features(_StatisticsRun(weights), torch.from_numpy(pictures).double())
        pooled = features.mean(dim=(0, 2, 3)).numpy()
    weights["fc.bias"] = _round_digits(-(weights["fc.weight"].astype(np.float64) @ pooled))
    graph = _Graph(weights, fold_batch_norm)
    graph.classifier(_resnet50_features(graph, "input"), "fc")
    return graph.model("resnet50")
