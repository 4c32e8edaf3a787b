"""A YOLOv3 of plain modules by the older interface: fusion by hand, attributes `qconfig`, `prepare_qat`, `torch.jit.trace`.

    python -m tools.examples.qat.yolov3 [--hbm yolov3.hbm] [--march bayes] [--size 64] [--steps 4]

Backbone, neck, and a head whose last convolutions hand out their accumulators, each through a stub of its own. The losses stand
behind the stubs and are not quantised. The pictures are drawn: bright boxes on noise, whose place, size and class are known.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.ao.quantization import fuse_modules

from hbir.errors import HbError
from hbir.torch import March, set_march
from hbir.torch.quantization import (
    DeQuantStub,
    FakeQuantState,
    QuantStub,
    check_model,
    compile_model,
    convert,
    fuse_known_modules,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    prepare_qat,
    set_fake_quantize,
)

__all__ = ["Config", "DeployModel", "YOLOV3", "deployed", "drawn", "main", "qat_model_of", "train_detector"]

ANCHORS = (
    ((116, 90), (156, 198), (373, 326)),
    ((30, 61), (62, 45), (59, 119)),
    ((10, 13), (16, 30), (33, 23)),
)
"""Widths and heights in pixels of a picture of 416, the coarsest grid first."""
STRIDES = (32, 16, 8)


@dataclass(frozen=True)
class Config:
    """The published network has `width` 32 and `blocks` (1, 2, 8, 8, 4)."""

    num_classes: int = 3
    width: int = 8
    blocks: tuple[int, ...] = (1, 1, 1, 1, 1)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels of the three levels, the coarsest first."""
        return tuple(self.width * factor for factor in (32, 16, 8))


class ConvModule(nn.Module):
    """Convolution, batch norm, relu: one operation when it is fused."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.activate = nn.ReLU()
        # Values keep their size from layer to layer, before any training.
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 maps (N, C, H, W), one or one for each level."""
        return self.activate(self.bn(self.conv(x)))

    def fuse_modules(self) -> None:
        """Mark the three as one."""
        fuse_modules(self, ["conv", "bn", "activate"], inplace=True, fuser_func=fuse_known_modules)


class FusedModule(nn.Module):
    """A part of the network; fuses all that it holds."""

    def fuse_modules(self) -> None:
        """Fuse each ConvModule inside."""
        for module in self.modules():
            if isinstance(module, ConvModule):
                module.fuse_modules()


class ResBlock(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = ConvModule(channels, channels // 2, 1)
        self.conv2 = ConvModule(channels // 2, channels, 3)
        self.add = torch.ao.nn.quantized.FloatFunctional()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 maps (N, C, H, W), one or one for each level."""
        return self.add.add(self.conv2(self.conv1(x)), x)


class Darknet(FusedModule):
    """The backbone: five stages that halve the picture; the last three go on. The model starts with the QuantStub."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.quant = QuantStub(scale=1 / 128)
        width = config.width
        self.conv1 = ConvModule(3, width, 3)
        stages: list[nn.Module] = []
        for count in config.blocks:
            blocks = [ResBlock(2 * width) for _ in range(count)]
            stages.append(nn.Sequential(ConvModule(width, 2 * width, 3, 2), *blocks))
            width *= 2
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Float32 maps (N, C, H, W), one or one for each level."""
        x = self.conv1(self.quant(x))
        found: list[torch.Tensor] = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return tuple(found[-1:-4:-1])


def _detection(inputs: int, outputs: int) -> nn.Sequential:
    """Five convolutions, narrow and wide in turn."""
    plan = ((inputs, outputs, 1), (outputs, 2 * outputs, 3), (2 * outputs, outputs, 1))
    more = ((outputs, 2 * outputs, 3), (2 * outputs, outputs, 1))
    return nn.Sequential(*(ConvModule(*each) for each in (*plan, *more)))


class Neck(FusedModule):
    """From coarse to fine: each level gets the one above it, enlarged, beside its own."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        coarse, middle, fine = config.channels
        halves = (coarse // 2, middle // 2, fine // 2)
        self.detect = nn.ModuleList(
            [
                _detection(coarse, halves[0]),
                _detection(halves[1] + middle, halves[1]),
                _detection(halves[2] + fine, halves[2]),
            ]
        )
        self.convs = nn.ModuleList([ConvModule(halves[0], halves[1], 1), ConvModule(halves[1], halves[2], 1)])
        self.upsample = nn.ModuleList([nn.Upsample(scale_factor=2, mode="nearest") for _ in range(2)])
        self.cat = nn.ModuleList([torch.ao.nn.quantized.FloatFunctional() for _ in range(2)])

    def forward(self, feats: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Float32 maps (N, C, H, W), one or one for each level."""
        found = [self.detect[0](feats[0])]
        for level, x in enumerate(feats[1:]):
            above = self.upsample[level](self.convs[level](found[-1]))
            joined = cast(Any, self.cat[level]).cat([above, x], 1)
            found.append(self.detect[level + 1](joined))
        return tuple(found)


class Head(nn.Module):
    """Predictions of each level: for each anchor x, y, w, h, confidence, and the classes."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.num_classes = config.num_classes
        self.convs_bridge = nn.ModuleList()
        self.convs_pred = nn.ModuleList()
        # Each level leaves through a stub of its own.
        self.dequant = nn.ModuleList()
        for channels in config.channels:
            self.convs_bridge.append(ConvModule(channels // 2, channels, 3))
            self.convs_pred.append(nn.Conv2d(channels, 3 * (5 + config.num_classes), 1))
            self.dequant.append(DeQuantStub())
        self.loss_cls = nn.BCEWithLogitsLoss(reduction="none")
        self.loss_conf = nn.BCEWithLogitsLoss(reduction="none")
        self.loss_xy = nn.BCEWithLogitsLoss(reduction="none")
        self.loss_wh = nn.MSELoss(reduction="none")

    def fuse_modules(self) -> None:
        """Fuse the bridges."""
        for module in self.convs_bridge:
            cast(ConvModule, module).fuse_modules()

    def forward(self, feats: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Float32 maps (N, C, H, W), one or one for each level."""
        return tuple(
            self.dequant[level](self.convs_pred[level](self.convs_bridge[level](x))) for level, x in enumerate(feats)
        )

    def loss(self, pred_maps: Sequence[torch.Tensor], targets: Sequence[torch.Tensor]) -> torch.Tensor:
        """The four losses of all levels, those of boxes where there is one; behind the stubs, in float."""
        total = torch.zeros(())
        for pred, target in zip(pred_maps, targets, strict=True):
            found = pred.reshape(len(pred), 3, 5 + self.num_classes, *pred.shape[-2:]).movedim(2, -1)
            there = target[..., 4]
            boxes = there.sum().clamp(min=1)
            parts = (
                (self.loss_xy(found[..., :2], target[..., :2]) * there[..., None]).sum() / boxes,
                (self.loss_wh(found[..., 2:4], target[..., 2:4]) * there[..., None]).sum() / boxes,
                (self.loss_cls(found[..., 5:], target[..., 5:]) * there[..., None]).sum() / boxes,
                self.loss_conf(found[..., 4], there).mean(),
            )
            total = total + torch.stack(parts).sum()
        return total


class YOLOV3(nn.Module):
    """The detector. Input (N, 3, S, S) with S a multiple of 32; output the three maps of predictions."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.backbone = Darknet(config)
        self.neck = Neck(config)
        self.bbox_head = Head(config)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Float32 maps (N, C, H, W), one or one for each level."""
        return self.bbox_head(self.neck(self.backbone(x)))


class DeployModel(nn.Module):
    """What is compiled: the three parts, without losses."""

    def __init__(self, backbone: nn.Module, neck: nn.Module, bbox_head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.neck, self.bbox_head = backbone, neck, bbox_head

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Float32 maps (N, C, H, W), one or one for each level."""
        return self.bbox_head(self.neck(self.backbone(x)))


def drawn(config: Config, count: int, size: int, generator: torch.Generator) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Pictures with one box each, and for each level what the head is to say: (N, 3, H, W, 5 + classes)."""
    images = torch.randint(-24, 24, (count, 3, size, size), generator=generator) / 128
    depth = 5 + config.num_classes
    targets = [torch.zeros(count, 3, size // stride, size // stride, depth) for stride in STRIDES]
    for number in range(count):
        wide, high = (int(each) for each in torch.randint(size // 8, size // 2, (2,), generator=generator))
        left = int(torch.randint(0, size - wide, (1,), generator=generator))
        top = int(torch.randint(0, size - high, (1,), generator=generator))
        kind = int(torch.randint(0, config.num_classes, (1,), generator=generator))
        images[number, kind % 3, top : top + high, left : left + wide] += 96 / 128
        level, anchor = _nearest(wide * 416 / size, high * 416 / size)
        stride = STRIDES[level]
        x, y = (left + wide / 2) / stride, (top + high / 2) / stride
        scale = torch.tensor(ANCHORS[level][anchor]) * size / 416
        row = targets[level][number, anchor, int(y), int(x)]
        row[:2] = torch.tensor([x % 1, y % 1])
        row[2:4] = torch.log(torch.tensor([wide, high]) / scale)
        row[4] = row[5 + kind] = 1
    return images, targets


def _nearest(wide: float, high: float) -> tuple[int, int]:
    """Level and number of the anchor that shares most with a box of that size."""

    def shared(level: int, number: int) -> float:
        w, h = ANCHORS[level][number]
        common = min(w, wide) * min(h, high)
        return common / (w * h + wide * high - common)

    return max(((level, number) for level in range(3) for number in range(3)), key=lambda each: shared(*each))


def train_detector(
    model: nn.Module,
    config: Config,
    size: int,
    steps: int,
    generator: torch.Generator,
    *,
    rate: float = 0.01,
) -> list[float]:
    """Run pictures through a model, float or prepared, and its losses; at the rate 0 it only looks."""
    bbox_head = cast(Head, model.bbox_head)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9) if rate else None
    losses: list[float] = []
    for _ in range(steps):
        images, targets = drawn(config, 8, size, generator)
        with torch.set_grad_enabled(rate > 0):
            loss = bbox_head.loss(model(images), targets)
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 10.0)
            optimizer.step()
        losses.append(loss.item())
    return losses


def qat_model_of(model: YOLOV3) -> Callable[[], nn.Module]:
    """Fuse, say what is quantised how; what comes back prepares a copy, for calibration and for training alike."""
    model.backbone.fuse_modules()
    model.neck.fuse_modules()
    model.bbox_head.fuse_modules()
    whole: Any = model
    whole.qconfig = get_default_qat_qconfig()
    for module in model.bbox_head.convs_pred:
        module.qconfig = get_default_qat_out_qconfig()
    for name in ("loss_cls", "loss_conf", "loss_xy", "loss_wh"):
        model.bbox_head.get_submodule(name).qconfig = None
    return lambda: prepare_qat(model)


def deployed(qat_model: nn.Module, hbm: Path, size: int) -> tuple[int, nn.Module, Any, torch.Tensor]:
    """Convert, trace, check and compile: what `check_model` says, the traced model, the binary, and the example input."""
    quantized_model: Any = convert(qat_model.eval())
    deploy_model = DeployModel(quantized_model.backbone, quantized_model.neck, quantized_model.bbox_head)
    example_input = torch.randint(-128, 128, (1, 3, size, size), generator=torch.Generator().manual_seed(7)) / 128
    traced_model: Any = torch.jit.trace(deploy_model.eval(), example_input)
    left = check_model(traced_model, example_input, advice=1)
    binary = compile_model(traced_model, [example_input], opt=0, hbm=hbm)
    return left, quantized_model, binary, example_input


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the binary computes what the model does."""
    parser = argparse.ArgumentParser("yolov3", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hbm", type=Path, default=Path("yolov3.hbm"), help="the binary")
    parser.add_argument("--march", choices=[each.value for each in March], default=March.BAYES.value)
    parser.add_argument("--size", type=int, default=64, help="of the pictures, a multiple of 32 (default: 64)")
    parser.add_argument("--width", type=int, default=8, help="channels of the first layer (default: 8)")
    parser.add_argument("--steps", type=int, default=40, help="of the float training; the others are shorter")
    args = parser.parse_args(arguments)
    config, generator = Config(width=args.width), torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    try:
        set_march(args.march)
        float_model = YOLOV3(config)
        losses = train_detector(float_model.train(), config, args.size, args.steps, generator)
        print(f"float: loss {losses[0]:.3f} to {losses[-1]:.3f}")
        qat_model = train_qat(float_model.eval(), config, args.size, args.steps, generator)
        left, quantized_model, binary, example_input = deployed(qat_model, args.hbm, args.size)
        expected = [each.detach().numpy() for each in quantized_model(example_input)]
        found = binary[0](np.asarray(example_input))
    except HbError as error:
        print(error, file=sys.stderr)
        return 1
    same = sum(int((one == two).sum()) for one, two in zip(expected, found, strict=True))
    total = sum(each.size for each in expected)
    print(f"{args.hbm} for {args.march}: {left} on the host; {same} of {total} values are those of the model")
    return int(same != total)


def train_qat(float_model: YOLOV3, config: Config, size: int, steps: int, generator: torch.Generator) -> nn.Module:
    """Calibrate, take the scales over into a model for training, and train that."""
    prepared = qat_model_of(float_model)
    calib_model = prepared()
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    train_detector(calib_model, config, size, max(2, steps // 4), generator, rate=0.0)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    losses = train_detector(calib_model, config, size, 1, generator, rate=0.0)
    print(f"calibrated: loss {losses[0]:.3f}")

    qat_model = prepared()
    qat_model.load_state_dict(calib_model.state_dict())
    qat_model.train()
    set_fake_quantize(qat_model, FakeQuantState.QAT)
    losses = train_detector(qat_model, config, size, max(2, steps // 10), generator, rate=0.001)
    print(f"qat: loss {losses[0]:.3f} to {losses[-1]:.3f}")
    return qat_model


if __name__ == "__main__":
    sys.exit(main())
