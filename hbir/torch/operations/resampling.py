"""Images at other positions: interpolation to another size, and sampling at computed coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch

from hbir.dialects.hbir import ResizeNearestOp
from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import NN, F, in_region, per_axis, region_error, reshaped, shape, transposed
from hbir.torch.operations.registry import Kind, composite, operation

__all__: list[str] = []

_MAX_WEIGHTS = 1 << 26
"""Elements of the matrix of weights of a computed grid."""


def _sources(size: int, out: int | None, scale: float | None, exact: bool) -> list[int]:
    """The position that PyTorch reads for each position of the result."""
    line = torch.arange(size, dtype=torch.float32).reshape(1, 1, size)
    run = NN._upsample_nearest_exact1d if exact else NN.upsample_nearest1d
    found = run(line, None if out is None else [out], None if scale is None else [scale])
    return [int(item) for item in found.reshape(-1)]


def _nearest(e: Any, x: Value, size: Any, scales: Any, exact: bool) -> Value:
    extents = shape(x)[2:]
    sizes, factors = ([None] * len(extents) if part is None else list(part) for part in (size, scales))
    maps = [_sources(*each, exact) for each in zip(extents, sizes, factors, strict=True)]
    rows, columns = maps if len(maps) == 2 else ([0], maps[0])
    n, channels, *_ = shape(x)
    image = reshaped(e, x, [n, channels, 1, *extents]) if len(maps) == 1 else x
    last = transposed(e, image, [0, 2, 3, 1])
    y = e.build.emit(ResizeNearestOp, (last,), {"rows": rows, "columns": columns}, e.location)
    return reshaped(e, transposed(e, y, [0, 3, 1, 2]), e.shape)


@operation(Kind.KEEP, NN.upsample_nearest1d, NN.upsample_nearest2d)
def upsample_nearest(e: Any, input: Value, output_size: Any, scale_factors: Any = None) -> Value:
    """The value at `floor(i / scale)`."""
    return _nearest(e, input, output_size, scale_factors, False)


@operation(Kind.KEEP, NN._upsample_nearest_exact1d, NN._upsample_nearest_exact2d)
def upsample_nearest_exact(e: Any, input: Value, output_size: Any, scale_factors: Any = None) -> Value:
    """The value whose centre is nearest."""
    return _nearest(e, input, output_size, scale_factors, True)


@operation(Kind.COMPUTE, NN.upsample_linear1d, NN.upsample_bilinear2d)
def upsample_linear(e: Any, input: Value, output_size: Any, align_corners: bool, scale_factors: Any = None) -> Value:
    """Between the two or four nearest values, by distance."""
    coordinates = "align_corners" if align_corners else "half_pixel"
    named = {"mode": "linear", "coordinate_transformation_mode": coordinates}
    if scale_factors is None:
        return e.onnx("Resize", input, None, None, list(e.shape), **named)
    scales = torch.tensor([1.0, 1.0, *scale_factors], dtype=torch.float32)
    return e.onnx("Resize", input, None, scales, **named)


def _target(input: Any, size: Any, scale: Any, recompute: bool | None) -> tuple[Any, Any]:
    """(sizes, factors) for the spatial axes, one of them None."""
    axes = input.dim() - 2
    if size is not None:
        return per_axis(size, axes), None
    listed: list[Any] = list(cast("Sequence[Any]", scale)) if isinstance(scale, Sequence) else [scale] * axes
    factors = [float(each) for each in listed]
    if not recompute:
        return None, factors
    return [math.floor(extent * factor) for extent, factor in zip(input.shape[2:], factors, strict=True)], None


@composite(F.interpolate)
def interpolate(
    input: Any,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:
    """Nearest moves values and keeps their grid; linear computes and has one of its own; area is an adaptive mean."""
    axes = input.dim() - 2
    if antialias or axes not in (1, 2):
        what = "with antialias" if antialias else f"of {axes} axes"
        raise region_error(53, f"interpolation {what} has no form", lever="use images or sequences without antialias")
    target = _target(input, size, scale_factor, recompute_scale_factor)
    if mode == "area":
        sizes = target[0] or _target(input, None, scale_factor, True)[0]
        return F.adaptive_avg_pool1d(input, sizes) if axes == 1 else F.adaptive_avg_pool2d(input, sizes)
    runs = {
        ("nearest", 1): NN.upsample_nearest1d,
        ("nearest", 2): NN.upsample_nearest2d,
        ("nearest-exact", 1): NN._upsample_nearest_exact1d,
        ("nearest-exact", 2): NN._upsample_nearest_exact2d,
    }
    if (mode, axes) in runs:
        return runs[mode, axes](input, *target)
    if mode not in ("linear", "bilinear"):
        raise region_error(53, f"interpolation with mode '{mode}' has no form", lever="use nearest or bilinear")
    run = NN.upsample_linear1d if axes == 1 else NN.upsample_bilinear2d
    return run(input, target[0], bool(align_corners), target[1])


@composite(F.upsample, F.upsample_nearest, F.upsample_bilinear)
def upsample(*_: Any, **named: Any) -> Any:
    """Refused: the old names of interpolate."""
    raise region_error(53, "the old upsample functions have no form", lever="call torch.nn.functional.interpolate")


# Sampling


def _known_weights(grid: torch.Tensor, height: int, width: int, mode: str, padding: str, corners: bool) -> torch.Tensor:
    """What each pixel adds to each result, (N, positions, pixels): PyTorch samples the images of one pixel."""
    pixels = torch.eye(height * width, device=grid.device).reshape(1, height * width, height, width)
    sampled = F.grid_sample(
        pixels.expand(grid.shape[0], -1, -1, -1), grid, mode=mode, padding_mode=padding, align_corners=corners
    )
    return sampled.flatten(2).transpose(1, 2)


def _tent(coordinate: Any, size: int, padding: str, corners: bool) -> Any:
    """The weights of the rows or columns of an image, (N, positions, size): 1 - distance, down to zero."""
    reach, shift = (size - 1, size - 1) if corners else (size, size - 1)
    at = coordinate.flatten(1).unsqueeze(-1) * (reach / 2) + shift / 2
    at = torch.clamp(at, 0.0, float(size - 1)) if padding == "border" else at
    distance = torch.abs(at - torch.arange(size, dtype=torch.float32, device=coordinate.device))
    return torch.relu(1.0 - distance)


@composite(F.grid_sample)
def grid_sample(
    input: Any,
    grid: Any,
    mode: str = "bilinear",
    padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> Any:
    """A product with a matrix of weights, constant for a constant grid: no unit reads at computed positions.

    The matrix has an element for each position and pixel; coordinates need sixteen bits.
    """
    corners = bool(align_corners)
    if input.dim() != 4:
        raise region_error(53, "grid_sample of a volume has no form", lever="sample images")
    n, channels, height, width = input.shape
    rows, columns = grid.shape[1:3]
    if in_region(grid):
        if mode != "bilinear" or padding_mode not in ("zeros", "border"):
            what = f"grid_sample with mode '{mode}' and padding '{padding_mode}' has no form for a computed grid"
            raise region_error(53, what, lever="use bilinear with zeros or border")
        if rows * columns * height * width > _MAX_WEIGHTS:
            what = f"grid_sample reads {height}x{width} pixels at {rows}x{columns} computed positions"
            lever = "sample a smaller image, or at fewer positions"
            raise region_error(53, what, why="each position has a weight for each pixel", lever=lever)
        vertical = _tent(grid[..., 1], height, padding_mode, corners).unsqueeze(-1)
        horizontal = _tent(grid[..., 0], width, padding_mode, corners).unsqueeze(-2)
        weights = (vertical * horizontal).flatten(2)
    else:
        weights = _known_weights(grid, height, width, mode, padding_mode, corners)
        same = bool((weights == weights[:1]).all())
        if same and in_region(input):
            return F.linear(input.flatten(2), weights[0]).reshape(n, channels, rows, columns)
    picked = torch.matmul(weights, input.flatten(2).transpose(1, 2))
    return picked.transpose(1, 2).reshape(n, channels, rows, columns)
