"""Pooling over windows, adaptive pooling, interpolation, sampling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from tests.hbir.torch.operations.runs import exact

MODULES = [
    *(nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d((2, 3), (1, 2), (1, 0))),
    *(nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d((3, 2), 2, (1, 0))),
    *(nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(3, 2, ceil_mode=True)),
    *(nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d(3, 2, 1, True, False), nn.AvgPool2d(2, 2, ceil_mode=True)),
    *(
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((2, 4)),
        nn.AdaptiveAvgPool2d((4, 3)),
        nn.AdaptiveAvgPool2d((None, 1)),
    ),
    *(nn.AdaptiveMaxPool2d(1), nn.AdaptiveMaxPool2d((3, 4)), nn.AdaptiveMaxPool2d((4, 5))),
    *(nn.Upsample(scale_factor=2), nn.Upsample(size=(9, 5)), nn.Upsample(scale_factor=2.3), nn.Upsample(size=(1, 1))),
    *(nn.Upsample(scale_factor=(2.0, 0.5), mode="nearest-exact"), nn.Upsample(scale_factor=2, mode="bilinear")),
    *(nn.Upsample(scale_factor=1.5, mode="bilinear"), nn.UpsamplingBilinear2d(scale_factor=2)),
    *(nn.Upsample(size=(3, 4), mode="bilinear", align_corners=True), nn.Upsample(size=(1, 1), mode="bilinear")),
    *(
        nn.Upsample(size=(3, 4), mode="area"),
        nn.Upsample(scale_factor=1.5, mode="bilinear", recompute_scale_factor=True),
    ),
]
OF_SEQUENCES = [
    *(
        nn.MaxPool1d(2),
        nn.AvgPool1d(3, 2, 1),
        nn.AdaptiveAvgPool1d(1),
        nn.AdaptiveAvgPool1d(3),
        nn.AdaptiveMaxPool1d(2),
    ),
    *(nn.Upsample(scale_factor=2, mode="linear"), nn.Upsample(scale_factor=3)),
]


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_images(module: nn.Module, same: Callable[..., Any], x: torch.Tensor) -> None:
    # PyTorch computes the positions of bilinear interpolation in float32: a few roundings of numbers up to 16.
    same(module, x, terms=256)


@pytest.mark.parametrize("module", OF_SEQUENCES, ids=str)
def test_sequences(module: nn.Module, same: Callable[..., Any]) -> None:
    same(module, torch.randn(2, 3, 8), terms=256)
    same(module, torch.randn(2, 3, 9), terms=256)


def test_an_image_without_batch(same: Callable[..., Any], x: torch.Tensor) -> None:
    assert same(nn.MaxPool2d(2), x[0]).got[0].shape == (4, 3, 4)


GRID = exact(2, 5, 7, 2, seed=9).clamp(-2, 2) * 0.55
GRID.view(-1)[0] = 0.5


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("corners", [False, True])
def test_grid_sample(padding: str, corners: bool, same: Callable[..., Any], x: torch.Tensor) -> None:
    def sample(image: Any, grid: Any) -> Any:
        return F.grid_sample(image, grid, mode="bilinear", padding_mode=padding, align_corners=corners)

    # The constants are coordinates up to 8 on grids of sixteen bits: each is off by 8 * 2^-16 at most, a weight by four such
    # steps, a result by those of its 48 pixels times values up to 4; two weights at most are not zero on each axis.
    terms = int(4 * 4 * 4 * 8 * 2**-16 / (2.0**-24 * 4))
    same(sample, x, GRID, terms=terms)
    same(lambda v: sample(v, GRID), x, terms=terms)
    same(lambda v: sample(x, v), GRID, terms=terms)
    same(lambda v: sample(v, GRID[:1].expand(2, -1, -1, -1)), x, terms=terms)


def test_refused(same: Callable[..., Any], x: torch.Tensor) -> None:
    refused: list[tuple[Callable[..., Any], str]] = [
        (lambda v: F.interpolate(v, scale_factor=2, mode="bicubic"), "HB0953.*bicubic"),
        (lambda v: F.avg_pool2d(v, 2, divisor_override=3), "HB0920.*divisor"),
        (lambda v: F.max_pool2d(v, 2, return_indices=True)[0], "HB0910"),
        (lambda v: F.adaptive_max_pool2d(v, 2, return_indices=True)[0], "HB0910|HB0953"),
        (lambda v: F.max_pool2d(v, 2, dilation=2), "HB0920.*dilat"),
        (lambda v: F.grid_sample(x, v.permute(0, 2, 3, 1)[..., :2], mode="nearest", align_corners=False), "HB0953"),
    ]
    for function, text in refused:
        with pytest.raises(TrainingError, match=text):
            same(function, x)
