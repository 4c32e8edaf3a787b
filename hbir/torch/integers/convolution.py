"""Convolutions and matrix products of integers by float products that are exact, whatever the order of their sums.

Activations stay NHWC, and a convolution sees the channels-last view of them. A convolution is cut into tiles of rows: codes
become floats, floats sums, and sums codes again while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hbir.dialects import quantized as q
from hbir.dialects.base import Array, shape_of
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.torch.integers.blocks import block_elements, in_blocks
from hbir.torch.integers.elementwise import requantise
from hbir.torch.integers.products import Geometry, Products, Tile, sums_of_products
from hbir.torch.integers.registry import Prepared, builds
from hbir.torch.integers.rescaling import Requantise, rescaling
from hbir.torch.integers.values import centred, largest, released, torch_dtype

__all__: list[str] = []

_SINGLE = 1 << 24
"""Integers up to here, and sums that never leave them, are exact in float32."""
_DOUBLE = 1 << 53
_BYTE = 8
_BAND = 16
"""Blocks of results that a kernel computes at a time."""


@dataclass(frozen=True, slots=True)
class _Accumulator:
    """Sums of products, what is added to each channel, and a bound for both and for their sum."""

    products: Products
    offset: Array
    bound: int


def _split(high: Products, low: Products) -> Products:
    """int16 in two bytes: x = 256 * a + b with a from -128 to 127 and b from 0 to 255."""

    def run(x: torch.Tensor, tile: Tile) -> torch.Tensor:
        upper = x.div(256.0).floor_()  # by a power of two: exact
        lower = x.sub(upper, alpha=256)
        return high(upper, tile).to(torch.float64).mul_(256.0).add_(low(lower, tile))

    return run


def _accumulator(
    weight: Array, bias: Array | None, g: Geometry, element: UniformQuantizedType, device: torch.device
) -> _Accumulator:
    """The cheapest exact sums. No partial sum, in whatever order, leaves max |x| * sum |w| of a channel.

    sum((x - zp) * w) + bias = sum(x * w) + (bias - zp * sum(w)), where padding reads zp.
    """
    wide = weight.astype(np.int64).reshape(len(weight), -1)
    heaviest = int(np.abs(wide).sum(axis=1).max(initial=0))
    reach = heaviest << (element.bits - 1)
    offset = (np.zeros(len(weight), np.int64) if bias is None else bias) - element.zero_point * wide.sum(axis=1)
    if reach <= _SINGLE:
        products = sums_of_products(weight, g, torch.float32, device)
    elif element.bits == 2 * _BYTE and heaviest << _BYTE <= _SINGLE:
        half = sums_of_products(weight, g, torch.float32, device)
        products = _split(half, half)
    elif reach <= _DOUBLE:
        products = sums_of_products(weight, g, torch.float64, device)
    else:
        raise ValueError(f"sums up to {reach} are not exact in float64")
    return _Accumulator(products, offset, reach + int(np.abs(offset).max(initial=0)))


Finish = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], None]
"""(where codes go, sums of products, residual or None): the epilogue."""


def _epilogue(op: q.Conv2dOp, acc: _Accumulator, device: torch.device) -> Finish:
    v, grid = op.values, op.values["grid"]
    limits = {"zero_point": grid.zero_point, "low": v["low"], "high": v["high"]}
    if v["multiplier"] is None:
        # The accumulator as it is, in int32, which a proof has shown to hold it.
        added = torch.as_tensor(acc.offset, dtype=torch.float64, device=device)
        # Or as a float: times its scale in float64, rounded once.
        scale = None if v["float_type"] is None else _scales(grid, device)

        def raw(out: torch.Tensor, sums: torch.Tensor, _: torch.Tensor | None) -> None:
            total = sums.to(torch.float64) + added
            out.copy_(total if scale is None else total.mul_(scale))

        return raw
    if op.residual is None:
        last = Requantise(v["multiplier"], v["shift"], acc.bound, device, offset=acc.offset, **limits)
        return lambda out, sums, _: last(out, sums)
    element = quantized_element(op.residual.type)
    scaled, reach = rescaling(v["multiplier"], v["shift"], acc.bound, device, acc.offset)
    other, width = rescaling(v["residual_multiplier"], v["residual_shift"], largest(element), device)
    joined = Requantise(v["output_multiplier"], v["output_shift"], reach + width, device, **limits)

    def run(out: torch.Tensor, sums: torch.Tensor, residual: torch.Tensor | None) -> None:
        if residual is not None:
            joined(out, scaled(sums).add_(other(centred(residual, element, torch.float64))))

    return run


def _scales(grid: UniformQuantizedType, device: torch.device) -> torch.Tensor:
    """The scales of an accumulator in float64: one, or one for each channel of the last axis."""
    return torch.as_tensor(grid.scale_array.astype(np.float64), device=device)


def _pointwise_tiles(g: Geometry, device: torch.device) -> Iterator[slice]:
    """Runs of rows of the matrix: blocks, but of no fewer rows than a product needs to be quick."""
    rows, width = int(np.prod(g.output[:3])), max(1, g.output[3])
    step = max(block_elements(device) // width, 192)
    yield from (slice(begin, min(begin + step, rows)) for begin in range(0, rows, step))


def _image_tiles(g: Geometry, device: torch.device) -> Iterator[Tile]:
    """Bands of rows of one image after another, or several small images: a call of a kernel costs as much as 2^16 results."""
    images, rows, columns, channels = g.output
    if device.type != "cpu":
        yield Tile(slice(0, images), 0, rows)
        return
    band = max(1, _BAND * block_elements(device) // max(1, columns * channels))
    together = max(1, band // max(1, rows))
    for image in range(0, images, together):
        for row in range(0, rows, band):
            yield Tile(slice(image, min(image + together, images)), row, min(row + band, rows))


def _runner(
    op: q.Conv2dOp, g: Geometry, element: UniformQuantizedType, acc: _Accumulator, device: torch.device
) -> Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]:
    finish, dtype = _epilogue(op, acc, device), torch_dtype(op.output.type)
    pointwise, (sh, sw) = g.pointwise, g.stride

    def run(x: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        out = torch.empty(g.output, dtype=dtype, device=device)
        if pointwise:
            channels, width = g.input[3], g.output[3]
            rows, target = x[:, ::sh, ::sw].reshape(-1, channels), out.view(-1, width)
            other = None if residual is None else residual.reshape(-1, width)
            whole = Tile(slice(0, 1), 0, 1)
            for part in _pointwise_tiles(g, device):
                sums = acc.products(rows[part].to(torch.float32), whole)
                finish(target[part], sums, None if other is None else other[part])
            return out
        for tile in _image_tiles(g, device):
            image = tile.padded_input(x, g, element.zero_point)
            at = (tile.images, slice(tile.begin, tile.end))
            _by_rows(finish, out[at], acc.products(image, tile), None if residual is None else residual[at])
        return out

    return run


def _by_rows(finish: Finish, out: torch.Tensor, sums: torch.Tensor, residual: torch.Tensor | None) -> None:
    """The epilogue of a tile, block by block. `out` is contiguous: rows of one image, or images."""
    width = out.shape[-1]
    target, rows = out.view(-1, width), sums.reshape(-1, width)
    other = None if residual is None else residual.reshape(-1, width)
    step = max(1, block_elements(out.device) // max(1, width))
    for begin in range(0, len(target), step):
        part = slice(begin, begin + step)
        finish(target[part], rows[part], None if other is None else other[part])


@builds(q.Conv2dOp)
def conv2d(op: q.Conv2dOp, constants: Sequence[Array | None], device: torch.device) -> Prepared:
    """`quantized.conv2d`, with weights and bias prepared once where they are constants."""
    element, g = quantized_element(op.input.type), Geometry.of(op)

    def prepare(weight: Array, bias: Array | None) -> Callable[..., torch.Tensor]:
        return _runner(op, g, element, _accumulator(weight, bias, g, element, device), device)

    weight, bias = constants[1], constants[2]
    if weight is not None and (bias is not None or op.bias is None):
        run = prepare(weight, bias)

        def prepared(x: torch.Tensor, _w: None, _b: None, residual: torch.Tensor | None) -> torch.Tensor:
            return run(x, residual)

        return Prepared(prepared, absorbed=(1, 2))

    def computed(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor | None, r: torch.Tensor | None) -> torch.Tensor:
        return prepare(released(w), None if b is None else released(b))(x, r)

    return Prepared(computed)


@builds(q.MatmulOp)
def matmul(op: q.MatmulOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """`quantized.matmul`: in float32 where K products stay within 2^24, else in float64 (K of two int16 up to 2^21)."""
    a, b = quantized_element(op.lhs.type), quantized_element(op.rhs.type)
    bound = largest(a) * largest(b) * shape_of(op.lhs.type)[-1]
    if bound > _DOUBLE:
        raise ValueError(f"sums up to {bound} are not exact in float64")
    dtype = torch.float32 if bound <= _SINGLE else torch.float64
    shape, result = shape_of(op.output.type), torch_dtype(op.output.type)
    last = requantise(op, bound, device) if op.values["float_type"] is None else _as_float(op, device)

    def run(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return in_blocks(last, shape, result, torch.matmul(centred(x, a, dtype), centred(y, b, dtype)))

    return Prepared(run)


def _as_float(op: q.MatmulOp, device: torch.device) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """Sums times their scale in float64, rounded once to float32."""
    scale = _scales(op.values["grid"], device)

    def run(out: torch.Tensor, sums: torch.Tensor) -> None:
        out.copy_(sums.to(torch.float64).mul_(scale))

    return run
