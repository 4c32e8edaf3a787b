"""Sums of products of a convolution, in a float dtype that holds every one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from hbir.dialects.base import Array, shape_of
from hbir.torch.integers.precision import has_direct_convolution

__all__ = ["Geometry", "Products", "Tile", "sums_of_products"]

_UNFOLDED = 1 << 25
"""Elements that are unfolded at a time."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """Shapes of a convolution (NHWC), and how its windows step. pad = (top, left, bottom, right)."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: tuple[int, ...]
    dilation: tuple[int, int]
    groups: int

    @staticmethod
    def of(op: Any) -> Geometry:
        """The geometry of a `quantized.conv2d`."""
        v, (_, kh, kw, _c) = op.values, shape_of(op.weight.type)
        steps = ((v[name][0], v[name][1]) for name in ("stride", "dilation"))
        stride, dilation = steps
        shapes = shape_of(op.input.type), shape_of(op.output.type)
        return Geometry(*shapes, (kh, kw), stride, tuple(v["pad"]), dilation, v["groups"])

    @property
    def pointwise(self) -> bool:
        """Whether the sums are those of a matrix product."""
        return self.kernel == (1, 1) and self.groups == 1 and not any(self.pad)


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows `begin` to `end` of the results of some images."""

    images: slice
    begin: int
    end: int

    def padded_input(self, x: torch.Tensor, g: Geometry, padding: int) -> torch.Tensor:
        """The codes that these rows read, in float32, with their padding."""
        (sh, _), (dh, _), (top, left, _b, right) = g.stride, g.dilation, g.pad
        first, last = self.begin * sh - top, (self.end - 1) * sh - top + dh * (g.kernel[0] - 1) + 1
        low, high = max(first, 0), min(last, g.input[1])
        codes = x[self.images, low : max(low, high)]
        if not (left or right or low > first or high < last):
            return codes.to(torch.float32)
        shape = (codes.shape[0], last - first, g.input[2] + left + right, g.input[3])
        image = torch.empty(shape, dtype=torch.float32, device=x.device)
        rows = slice(low - first, low - first + codes.shape[1])
        image[:, rows, left : left + g.input[2]] = codes
        # Only the frame: to fill all of it would take as long as the convolution of a small window.
        for frame in (
            image[:, : rows.start],
            image[:, rows.stop :],
            image[:, rows, :left],
            image[:, rows, left + g.input[2] :],
        ):
            if frame.numel():
                frame.fill_(padding)
        return image


Products = Callable[[torch.Tensor, Tile], torch.Tensor]
"""(padded NHWC input of a tile, the tile) -> its sums of products, NHWC; of a matrix for pointwise convolutions."""


def sums_of_products(weight: Array, g: Geometry, dtype: torch.dtype, device: torch.device) -> Products:
    """Sums of products with (Cout, KH, KW, Cin/groups) weights; exact where `dtype` holds every partial sum."""
    values = torch.as_tensor(weight.astype(np.float64), device=device).to(dtype)
    if g.pointwise:
        matrix = values.reshape(values.shape[0], -1).t().contiguous()
        return lambda rows, _: rows.to(dtype) @ matrix
    if dtype is torch.float32 and has_direct_convolution(device):
        # Of one channel, the channels-last form gives wrong sums in torch 2.13.0: steps between columns are forgotten where the
        # kernel has one row and the result one column. Both forms are the same numbers in the same order there.
        single = g.input[3] == 1
        form = torch.contiguous_format if single else torch.channels_last
        kernel = values.permute(0, 3, 1, 2).clone(memory_format=form)

        def convolved(x: torch.Tensor, _: Tile) -> torch.Tensor:
            image = x.reshape(x.shape[0], 1, *x.shape[1:3]) if single else x.permute(0, 3, 1, 2)
            return functional.conv2d(image, kernel, None, g.stride, 0, g.dilation, g.groups).permute(0, 2, 3, 1)

        return convolved
    return _unfolded(values, g)


def _unfolded(values: torch.Tensor, g: Geometry) -> Products:
    """Every window written out, then one matrix product for each group: what any device does exactly."""
    cout, kh, kw, depth = values.shape
    # (groups, window, Cout / groups)
    matrices = values.reshape(g.groups, cout // g.groups, kh * kw * depth).transpose(1, 2).contiguous()
    columns, (sh, sw), (dh, dw) = g.output[2], g.stride, g.dilation

    def images(x: torch.Tensor, rows: int) -> torch.Tensor:
        (n, *_), (image, down, across, place) = x.shape, x.stride()
        windows = x.as_strided(
            (g.groups, n, rows, columns, kh, kw, depth),
            (depth * place, image, sh * down, sw * across, dh * down, dw * across, place),
        )
        sums = torch.bmm(windows.reshape(g.groups, n * rows * columns, kh * kw * depth), matrices)
        return sums.permute(1, 0, 2).reshape(n, rows, columns, cout)

    def run(x: torch.Tensor, tile: Tile) -> torch.Tensor:
        rows = tile.end - tile.begin
        each = max(1, _UNFOLDED // max(1, rows * columns * kh * kw * depth * g.groups))
        image = x.to(values.dtype).contiguous()
        return torch.cat([images(image[i : i + each], rows) for i in range(0, len(image), each)])

    return run
