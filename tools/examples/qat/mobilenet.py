"""MobileNetV2 as plain modules, with stubs at its ends. Names of parameters are those of the published ImageNet weights
(`mobilenet_v2-b0353104.pth`), which therefore load.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hbir.errors import ConfigError
from hbir.torch.quantization import DeQuantStub, QuantStub

__all__ = ["PRETRAINED", "MobileNetV2", "QATReadyMobileNetV2", "load_pretrain"]

PRETRAINED = "mobilenet_v2-b0353104.pth"
"""The file of the ImageNet weights, by its published name."""

# Expansion, channels, blocks, stride of the first block: table 2 of the article.
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def _rounded(channels: float, step: int) -> int:
    """The nearest multiple of `step`, not more than a tenth below `channels`."""
    nearest = max(step, int(channels + step / 2) // step * step)
    return nearest if nearest >= 0.9 * channels else nearest + step


def _conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [_conv(inputs, hidden, 1)] if expansion != 1 else []
        project = [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*expand, _conv(hidden, hidden, 3, stride, hidden), *project)
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 pictures (N, 3, H, W) to scores; of a block, a map to a map."""
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """The float network: float32 pictures (N, 3, H, W) to scores (N, num_classes).

    `inverted_residual_setting` has rows of expansion, channels, blocks, and stride of the first block.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        width_mult: float = 1.0,
        inverted_residual_setting: Sequence[Sequence[int]] | None = None,
        round_nearest: int = 8,
    ) -> None:
        super().__init__()
        channels = _rounded(32 * width_mult, round_nearest)
        last = _rounded(1280 * max(1.0, width_mult), round_nearest)
        layers: list[nn.Module] = [_conv(3, channels, stride=2)]
        for expansion, wide, blocks, stride in inverted_residual_setting or _STAGES:
            for block in range(blocks):
                outputs = _rounded(wide * width_mult, round_nearest)
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        self.features = nn.Sequential(*layers, _conv(channels, last, 1))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, num_classes))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.classifier[1].weight, 0, 0.01)
        nn.init.zeros_(self.classifier[1].bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 pictures (N, 3, H, W) to scores; of a block, a map to a map."""
        x = self.features(x)
        x = nn.functional.adaptive_avg_pool2d(x, (1, 1))
        return self.classifier(torch.flatten(x, 1))


class QATReadyMobileNetV2(MobileNetV2):
    """The same network between stubs: all that quantisation needs.

    Arguments are those of MobileNetV2. Pictures have values of k / 128 with k from -128 to 127, as they come from a camera's
    pyramid: the scale is given.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.quant = QuantStub(scale=1 / 128)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 pictures (N, 3, H, W) to scores; of a block, a map to a map."""
        x = self.quant(x)
        x = super().forward(x)
        return self.dequant(x)


def load_pretrain(model: nn.Module, path: Path) -> None:
    """Load the ImageNet weights; the classifier only when it has as many classes.

    Raises ConfigError HB0895 for weights of another network or width.
    """
    weights = torch.load(path, map_location="cpu", weights_only=True)
    own = model.state_dict()
    if own["classifier.1.bias"].shape != weights.get("classifier.1.bias", torch.empty(0)).shape:
        weights = {key: value for key, value in weights.items() if not key.startswith("classifier.")}
    wrong = [key for key in own if not key.startswith("classifier.") and key not in weights]
    wrong += [key for key, value in weights.items() if key not in own or own[key].shape != value.shape]
    if wrong:
        what, lever = f"{path.name} does not fit the network: '{wrong[0]}'", "use --width 1.0 with the ImageNet weights"
        raise ConfigError(95, what, where=str(path), lever=lever)
    model.load_state_dict(weights, strict=False)
