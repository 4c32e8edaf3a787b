"""Resize and Upsample: nearest becomes the list of source rows and columns, linear an exact rational map."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from hbir.dialects.hbir import ResizeBilinearOp, ResizeNearestOp
from hbir.frontends.onnx.convolution import from_nhwc, to_nhwc
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Value, extent_text, value_shape

__all__: list[str] = []

_MAX_EXTENT = 1 << 16
_HALF = Fraction(1, 2)
_COORDINATES = ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric")
_ROUNDINGS: dict[str, Callable[[Fraction], int]] = {
    "round_prefer_floor": lambda x: math.ceil(x - _HALF),
    "round_prefer_ceil": lambda x: math.floor(x + _HALF),
    "floor": math.floor,
    "ceil": math.ceil,
}


def source_map(coordinates: str, size: int, out: int, scale: Fraction) -> tuple[Fraction, Fraction]:
    """(step, offset): position i of the result reads the source at i * step + offset, as the operator's page says."""
    if coordinates == "align_corners":
        return (Fraction(size - 1, out - 1) if out > 1 else Fraction(0)), Fraction(0)
    step = 1 / scale
    if coordinates == "asymmetric" or (coordinates == "pytorch_half_pixel" and out == 1):
        return (step if coordinates == "asymmetric" else Fraction(0)), Fraction(0)
    offset = step / 2 - _HALF
    if coordinates == "half_pixel_symmetric":
        # The whole result is centred on the source when rounding made it smaller than scale * size.
        offset += Fraction(size, 2) * (1 - Fraction(out) / (scale * size))
    return step, offset


def rational_scale(scale: float) -> Fraction:
    """The short fraction that a float32 scale was rounded from (0.6 means 3/5), or its exact value without one."""
    exact = Fraction(scale)
    short = exact.limit_denominator(4096)
    return short if np.float32(float(short)) == np.float32(scale) else exact


def _extents(
    node: Node, shape: Sequence[int], scales: Sequence[float] | None, sizes: Sequence[int] | None
) -> list[tuple[int, Fraction]]:
    """(extent, scale) of the result for each axis."""
    given = scales if sizes is None else sizes
    if given is None or len(given) != len(shape):
        raise node.refuse(
            Refusal.SHAPE, f"scales or sizes do not fit {extent_text(tuple(shape))}", lever="check the model"
        )
    if any(not (math.isfinite(item) and item > 0) for item in given):
        raise node.refuse(
            Refusal.SHAPE, f"scales or sizes {list(given)} are not all above zero", lever="check the model"
        )
    if sizes is not None:
        found = [(size, Fraction(size, extent)) for size, extent in zip(sizes, shape, strict=True)]
    else:
        exact = [rational_scale(scale) for scale in given]
        found = [(math.floor(scale * extent), scale) for scale, extent in zip(exact, shape, strict=True)]
    if any(extent < 1 or extent > _MAX_EXTENT for extent, _ in found[2:]) or [e for e, _ in found[:2]] != list(
        shape[:2]
    ):
        raise node.refuse(
            Refusal.SHAPE,
            f"{extent_text(tuple(shape))} would become {extent_text(tuple(extent for extent, _ in found))}",
            why=f"height and width are resized, to at most {_MAX_EXTENT}",
            lever="resize the spatial axes alone",
        )
    return found


def _resize(
    node: Node, scales: Sequence[float] | None, sizes: Sequence[int] | None, coordinates: str, rounding: str, mode: str
) -> Value:
    x = node.operand(0)
    rank = node.rank(0, (3, 4))
    shape = value_shape(x)
    axes = [(size, *target) for size, target in zip(shape[2:], _extents(node, shape, scales, sizes)[2:], strict=True)]
    if rank == 3:
        axes.insert(0, (1, 1, Fraction(1)))
    maps = [(size, out, *source_map(coordinates, size, out, scale)) for size, out, scale in axes]
    if all(size == out and step == 1 and offset == 0 for size, out, step, offset in maps):
        return x
    if mode == "nearest":
        pick = _ROUNDINGS[rounding]
        rows, columns = (
            [min(max(pick(i * step + offset), 0), size - 1) for i in range(out)] for size, out, step, offset in maps
        )
        y = node.emit(ResizeNearestOp, to_nhwc(node, x), rows=rows, columns=columns)
    else:
        rows, columns = (_rational(node, out, step, offset) for _, out, step, offset in maps)
        node.real(0)
        y = node.emit(ResizeBilinearOp, to_nhwc(node, x), rows=rows, columns=columns)
    return from_nhwc(node, y, rank)


def _rational(node: Node, out: int, step: Fraction, offset: Fraction) -> tuple[int, int, int, int]:
    if step == 0:
        step = Fraction(1)  # one position: the step is never used
    common = math.lcm(step.denominator, offset.denominator)
    entries = (out, int(step * common), int(offset * common), common)
    if max(map(abs, entries)) >= 1 << 62:
        raise node.refuse(
            Refusal.ATTRIBUTE, f"the scale {float(1 / step)} is too uneven", lever="give `sizes` instead of `scales`"
        )
    return entries


@converts("Upsample")
def upsample_v7(node: Node) -> Value:
    """Scales as an attribute; every position reads the source at i / scale."""
    mode = node.choice("mode", "nearest", ("nearest", "linear"))
    return _resize(node, node.opt_numbers("scales"), None, "asymmetric", "floor", mode)


@converts("Upsample")
def upsample_v9(node: Node) -> Value:
    """Scales as an operand."""
    mode = node.choice("mode", "nearest", ("nearest", "linear"))
    return _resize(node, _scales(node, 1), None, "asymmetric", "floor", mode)


@converts("Resize")
def resize_v10(node: Node) -> Value:
    """The first form: scales, asymmetric coordinates."""
    return upsample_v9(node)


def _scales(node: Node, index: int) -> list[float]:
    return [float(scale) for scale in node.array(index, "scales").reshape(-1)]


def _given(node: Node, index: int) -> bool:
    """Before optional operands had empty names, exporters passed empty tensors."""
    return node.has(index) and math.prod(node.shape(index)) > 0


@converts("Resize")
def resize_v11(node: Node) -> Value:
    """Scales or sizes, coordinate modes and rounding modes."""
    mode = node.choice("mode", "nearest", ("nearest", "linear"), "use mode nearest or linear")
    coordinates = node.choice("coordinate_transformation_mode", "half_pixel", _COORDINATES)
    rounding = node.choice("nearest_mode", "round_prefer_floor", _ROUNDINGS)
    node.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value")
    scales = _scales(node, 2) if _given(node, 2) else None
    sizes = node.integers(3, "sizes") if _given(node, 3) else None
    return _resize(node, scales, sizes, coordinates, rounding, mode)


@converts("Resize")
def resize_v18(node: Node) -> Value:
    """With axes; antialiasing is not supported."""
    node.expect("antialias", 0, "export without antialias")
    node.choice("keep_aspect_ratio_policy", "stretch", ("stretch",))
    axes = node.opt_integers("axes")
    if axes is None:
        return resize_v11(node)
    shape = node.shape(0)
    chosen = node.axes(axes, len(shape))
    mode = node.choice("mode", "nearest", ("nearest", "linear"), "use mode nearest or linear")
    coordinates = node.choice("coordinate_transformation_mode", "half_pixel", _COORDINATES)
    rounding = node.choice("nearest_mode", "round_prefer_floor", _ROUNDINGS)
    node.ignore("cubic_coeff_a", "exclude_outside", "extrapolation_value")
    scales = _scales(node, 2) if _given(node, 2) else None
    sizes = node.integers(3, "sizes") if _given(node, 3) else None
    if any(given is not None and len(given) != len(chosen) for given in (scales, sizes)):
        raise node.refuse(Refusal.SHAPE, f"scales or sizes do not fit axes {axes}", lever="check the model")
    if scales is not None:
        by_axis = dict(zip(chosen, scales, strict=True))
        scales = [by_axis.get(axis, 1.0) for axis in range(len(shape))]
    if sizes is not None:
        targets = dict(zip(chosen, sizes, strict=True))
        sizes = [targets.get(axis, extent) for axis, extent in enumerate(shape)]
    return _resize(node, scales, sizes, coordinates, rounding, mode)
