"""QuantizeLinear and DequantizeLinear: a pair becomes fake quantisation, a stored weight a float constant on a grid."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import BlockArgument, SSAValue

from hbir.dialects.base import Array, tensor, tensor_type
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized import DequantizeOp
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import CONTRIB, converts
from hbir.frontends.onnx.tensors import DataType, type_name
from hbir.frontends.onnx.values import Quantized, Static, Value, value_shape

__all__: list[str] = []

_GRIDS: dict[np.dtype[Any], tuple[int, int]] = {
    np.dtype(np.int8): (8, 0),
    np.dtype(np.uint8): (8, 128),
    np.dtype(np.int16): (16, 0),
    np.dtype(np.uint16): (16, 32768),
}
"""Integer dtype to (bits, what is subtracted to make it signed)."""
_LEVER = "quantise again with QuantFormat.QDQ and int8, uint8 or int16"


def _scale(node: Node) -> npt.NDArray[np.float32]:
    scale = node.array(1, "scale")
    if scale.dtype.kind != "f":
        raise node.refuse(Refusal.SCALE, f"the scale is {scale.dtype}", why="a scale is a float", lever=_LEVER)
    with np.errstate(over="ignore"):
        scale = scale.astype(np.float32)
    if not scale.size or not (np.isfinite(scale) & (scale > 0)).all():
        worst = scale[~(np.isfinite(scale) & (scale > 0))]
        raise node.refuse(
            Refusal.SCALE,
            f"scale {worst.flat[0] if worst.size else 'without elements'} is not finite and above zero",
            why="every step of a grid has a length",
            lever="calibrate again; a layer without any activity gives such scales",
        )
    return scale


def _zero_point(node: Node, dtype: np.dtype[Any], scale: Array) -> Array:
    if not node.has(2):
        return np.zeros(scale.shape, dtype)
    zero = node.array(2, "zero point")
    if zero.dtype != dtype or zero.size not in (1, scale.size):
        raise node.refuse(
            Refusal.SCALE,
            f"{zero.size} zero points of {zero.dtype} do not fit {scale.size} scales and {dtype}",
            lever="check the model",
        )
    return np.broadcast_to(zero.reshape(-1), scale.reshape(-1).shape)


def _axis(node: Node, scale: Array, shape: tuple[int, ...]) -> int:
    """The axis that the scales run along, -1 for one scale."""
    axis = node.integer("axis", 1)
    if scale.size == 1 and (scale.ndim == 0 or not shape or not -len(shape) <= axis < len(shape) or shape[axis] != 1):
        return -1
    axis = node.axis(axis, len(shape))
    if scale.ndim != 1 or scale.size != shape[axis]:
        raise node.refuse(
            Refusal.SCALE,
            f"scales of {list(scale.shape)} do not fit axis {axis} of {list(shape)}",
            lever="check the model",
        )
    return axis


def _grid(
    node: Node, dtype: np.dtype[Any], scale: npt.NDArray[np.float32], shape: tuple[int, ...]
) -> UniformQuantizedType:
    bits, shift = _GRIDS[dtype]
    zero = _zero_point(node, dtype, scale).astype(np.int64).reshape(-1) - shift
    return UniformQuantizedType.get(bits, scale.reshape(-1).tolist(), zero.tolist(), axis=_axis(node, scale, shape))


def _along(values: Array, axis: int, rank: int) -> Array:
    """Parameters shaped so that they run along their axis."""
    flat = values.reshape(-1)
    return flat.reshape(()) if axis < 0 else flat.reshape([-1 if at == axis else 1 for at in range(rank)])


def _quantize(node: Node, default: DataType) -> Value:
    x, scale = node.real(0), _scale(node)
    shape = value_shape(x)
    dtype = node.array(2, "zero point").dtype if node.has(2) else default.dtype
    if dtype not in _GRIDS:
        raise node.refuse(
            Refusal.ELEMENT_TYPE,
            f"values are quantised to {dtype}",
            why="int8, uint8, int16 and uint16 are",
            lever=_LEVER,
        )
    if isinstance(x, Static):
        axis = _axis(node, scale, shape)
        step, zero = _along(scale, axis, len(shape)), _along(_zero_point(node, dtype, scale), axis, len(shape))
        limits = np.iinfo(dtype)
        with np.errstate(all="ignore"):
            levels = np.rint(x.array.astype(np.float32) / step) + zero.astype(np.float32)
        if np.isnan(levels).any():
            raise node.refuse(Refusal.NOT_FINITE, f"constant '{x.name}' holds NaN", lever="repair the weights")
        return Static(np.clip(levels, limits.min, limits.max).astype(dtype), x.name)
    grid = _grid(node, dtype, scale, shape)
    value = node.emit(FakeQuantOp, x, grid=grid)
    if not isinstance(value, SSAValue):
        raise node.refuse(
            Refusal.INTEGER_DATA, "a quantised value is quantised again", lever="remove one QuantizeLinear"
        )
    return Quantized(value, grid, dtype.kind == "u")


@converts("QuantizeLinear")
def quantize_v10(node: Node) -> Value:
    """uint8 unless a zero point says otherwise."""
    return _quantize(node, DataType.UINT8)


@converts("QuantizeLinear")
def quantize_v13(node: Node) -> Value:
    """With `axis`; `saturate` concerns float8 alone."""
    node.ignore("saturate")
    return _quantize(node, DataType.UINT8)


@converts("QuantizeLinear")
def quantize_v21(node: Node) -> Value:
    """With `output_dtype`; blocks are not supported."""
    node.expect("block_size", 0, "quantise per tensor or per channel")
    node.ignore("saturate", "precision")
    wanted = node.integer("output_dtype", 0)
    grids = {DataType.INT8, DataType.UINT8, DataType.INT16, DataType.UINT16}
    if wanted not in {0, *map(int, grids)}:
        raise node.unsupported("output_dtype", type_name(wanted), "int8, uint8, int16 and uint16 are supported", _LEVER)
    if wanted and node.has(2) and node.array(2, "zero point").dtype != DataType(wanted).dtype:
        raise node.refuse(Refusal.SCALE, "output_dtype differs from the zero point's type", lever="check the model")
    return _quantize(node, DataType(wanted) if wanted else DataType.UINT8)


@converts("QuantizeLinear", domain=CONTRIB)
def contrib_quantize_v1(node: Node) -> Value:
    """onnxruntime's form: the same, with 16 bits in every opset."""
    return _quantize(node, DataType.UINT8)


def _weight(node: Node, x: Static, scale: npt.NDArray[np.float32]) -> Value:
    """Stored integers as `(q - zp) * scale` in float32: on a grid for 8 and 16 bits, plain for int32, a bias."""
    shape, dtype = x.array.shape, x.array.dtype
    axis = _axis(node, scale, shape)
    zero = _along(_zero_point(node, dtype, scale), axis, len(shape)).astype(np.int64)
    with np.errstate(over="ignore"):  # an infinity is refused when the constant is used
        real = ((x.array.astype(np.int64) - zero).astype(np.float64) * _along(scale, axis, len(shape))).astype(
            np.float32
        )
    return Static(real, x.name, None if dtype == np.int32 else _grid(node, dtype, scale, shape))


def _from_input(node: Node, x: SSAValue, scale: npt.NDArray[np.float32]) -> Value:
    """A network input of integers: its type takes the grid, and it is dequantised."""
    type_ = tensor_type(x.type)
    element, shape = type_.element_type, type_.get_shape()
    integer = element.storage if isinstance(element, UniformQuantizedType) else element
    width: int = cast(Any, integer).width.data if isinstance(integer, IntegerType) else 0
    if width not in (8, 16) or not isinstance(x, BlockArgument):
        raise node.refuse(
            Refusal.ELEMENT_TYPE,
            f"{element} is dequantised",
            why="int8 and int16 inputs are",
            lever="make the input float32",
        )
    grid = _grid(node, np.dtype(f"int{width}"), scale, shape)
    if isinstance(element, IntegerType) and not x.uses.get_length() and grid.per_axis is None:
        x = node.build.retype(x, tensor(shape, grid))
    elif element != grid:
        raise node.refuse(
            Refusal.GRID_MISMATCH,
            "the integers of an input are read in two ways",
            lever="dequantise the input once, with one scale",
        )
    return node.emit(DequantizeOp, x, grid=grid)


def _dequantize(node: Node) -> Value:
    x, scale = node.operand(0), _scale(node)
    if isinstance(x, Static):
        if x.array.dtype not in _GRIDS and x.array.dtype != np.int32:
            raise node.refuse(Refusal.ELEMENT_TYPE, f"{x.array.dtype} is dequantised", lever=_LEVER)
        return _weight(node, x, scale)
    if isinstance(x, SSAValue):
        return _from_input(node, x, scale)
    stored = np.dtype(f"{'u' if x.unsigned else ''}int{x.grid.bits}")
    if _grid(node, stored, scale, value_shape(x)) != x.grid:
        raise node.refuse(
            Refusal.GRID_MISMATCH,
            "the scale or zero point differs from that of the QuantizeLinear before it",
            why="such a pair would change the numbers beyond rounding",
            lever="give both nodes the same scale and zero point",
        )
    return x.value


@converts("DequantizeLinear")
def dequantize_v10(node: Node) -> Value:
    """One scale, or scales along `axis`."""
    return _dequantize(node)


@converts("DequantizeLinear")
def dequantize_v21(node: Node) -> Value:
    """Blocks are not supported; `output_dtype` names a float type, and all are float32 here."""
    node.expect("block_size", 0, "quantise per tensor or per channel")
    node.ignore("output_dtype")
    return _dequantize(node)


@converts("DequantizeLinear", domain=CONTRIB)
def contrib_dequantize_v1(node: Node) -> Value:
    """onnxruntime's form: the same, with 16 bits in every opset."""
    return _dequantize(node)
