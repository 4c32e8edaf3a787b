"""Whole networks with random weights, small ones in the manner of those that users train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def layer(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1, act: Any = nn.ReLU
) -> nn.Module:
    """Convolution, batch norm, activation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    norm = nn.BatchNorm2d(outputs)
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.uniform_(-0.2, 0.2)
    norm.running_var.uniform_(0.8, 1.2)
    return nn.Sequential(convolution, norm, act())


class Inverted(nn.Module):
    """The block of MobileNetV2."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        wide = inputs * 4
        self.body = nn.Sequential(
            layer(inputs, wide, 1, act=lambda: nn.ReLU6(inplace=True)),
            layer(wide, wide, 3, stride, wide, act=nn.ReLU6),
            layer(wide, outputs, 1, act=nn.Identity),
        )
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, v: Any) -> Any:
        return v + self.body(v) if self.shortcut else self.body(v)


class Residual(nn.Module):
    """The block of ResNet."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = layer(inputs, outputs, 3, stride), layer(outputs, outputs, act=nn.Identity)
        self.down = layer(inputs, outputs, 1, stride, act=nn.Identity) if stride != 1 else None
        self.relu = nn.ReLU(inplace=True)

    def forward(self, v: Any) -> Any:
        out = self.second(self.first(v))
        out += v if self.down is None else self.down(v)
        return self.relu(out)


class Yolo(nn.Module):
    """A head at two scales in the manner of YOLOv3."""

    def __init__(self) -> None:
        super().__init__()
        leaky: Callable[[], nn.Module] = lambda: nn.LeakyReLU(0.1, inplace=True)  # noqa: E731
        self.stem = nn.Sequential(layer(3, 8, act=leaky), nn.MaxPool2d(2), layer(8, 16, act=leaky), nn.MaxPool2d(2))
        self.deep = nn.Sequential(layer(16, 32, 3, 2, act=leaky), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
        self.side, self.up = layer(32, 16, 1, act=leaky), nn.Upsample(scale_factor=2)
        self.low, self.high = nn.Conv2d(32, 21, 1), nn.Conv2d(32, 21, 1)

    def forward(self, v: Any) -> Any:
        near = self.stem(v)
        far = self.deep(near)
        return [self.low(far), self.high(torch.cat([self.up(self.side(far)), near], 1))]


class Vit(nn.Module):
    """Patches, a class token, two layers of attention."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.token, self.places = nn.Parameter(torch.randn(1, 1, width)), nn.Parameter(torch.randn(1, 17, width))
        encoder = nn.TransformerEncoderLayer(width, 4, 32, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(encoder, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 5)

    def forward(self, v: Any) -> Any:
        v = self.patches(v).flatten(2).transpose(1, 2)
        v = torch.cat([self.token.expand(v.shape[0], -1, -1), v], 1) + self.places
        return self.head(self.encoder(v)[:, 0])


class Detr(nn.Module):
    """A backbone, a transformer, queries, two heads."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, width, 3, 2, 1))
        self.transformer = nn.Transformer(width, 4, 1, 1, 32)
        self.places, self.queries = nn.Parameter(torch.rand(16, 1, width)), nn.Embedding(6, width)
        self.classes, self.boxes = nn.Linear(width, 5), nn.Sequential(nn.Linear(width, 8), nn.ReLU(), nn.Linear(8, 4))

    def forward(self, v: Any) -> Any:
        memory = self.backbone(v).flatten(2).permute(2, 0, 1)
        queries = self.queries.weight.unsqueeze(1).repeat(1, v.shape[0], 1)
        found = self.transformer(self.places + 0.1 * memory, queries).transpose(0, 1)
        return [self.classes(found), self.boxes(found).sigmoid()]


def _classifier(*blocks: nn.Module) -> nn.Module:
    return nn.Sequential(
        layer(3, 8, 3, 2), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 5)
    )


def test_mobilenet(same: Callable[..., Any]) -> None:
    same(_classifier(Inverted(8, 8, 1), Inverted(8, 16, 2)).eval(), torch.randn(2, 3, 32, 32))


def test_resnet(same: Callable[..., Any]) -> None:
    same(_classifier(Residual(8, 8, 1), Residual(8, 16, 2)).eval(), torch.randn(2, 3, 32, 32))


def test_yolo(same: Callable[..., Any]) -> None:
    same(Yolo().eval(), torch.randn(2, 3, 32, 32))


def test_vision_transformer(same: Callable[..., Any]) -> None:
    # The token and the places are constants of sixteen bits: values up to 4 are off by 2^-14 at most, and what layer norms
    # make of them stays below that times 32.
    same(Vit().eval(), torch.randn(2, 3, 32, 32), terms=int(32 * 2**-14 / (4 * 2**-24)))


def test_detection_transformer(same: Callable[..., Any]) -> None:
    same(Detr().eval(), torch.randn(2, 3, 32, 32), terms=int(32 * 2**-14 / (4 * 2**-24)))
