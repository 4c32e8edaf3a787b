"""Convolutions, transposed convolutions and matrix products."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hbir.dialects.hbir import AddOp, Conv2dOp, ConvTranspose2dOp, LinearOp, MatmulOp, MulOp, ReshapeOp, TransposeOp
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value, value_shape

__all__ = ["Window", "from_nhwc", "lifted", "read_window", "to_nhwc"]


def to_nhwc(node: Node, x: Value) -> Value:
    """NCHW to NHWC; NCL becomes an image of height 1. Raises HB0116 for other ranks."""
    shape = value_shape(x)
    if len(shape) == 3:
        n, channels, length = shape
        return node.emit(ReshapeOp, node.emit(TransposeOp, x, permutation=(0, 2, 1)), shape=(n, 1, length, channels))
    if len(shape) != 4:
        raise node.refuse(
            Refusal.RANK,
            f"the input has rank {len(shape)}",
            why="images (NCHW) and sequences (NCL) are supported",
            lever="split a volume into images in the model",
        )
    return node.emit(TransposeOp, x, permutation=(0, 2, 3, 1))


def from_nhwc(node: Node, y: Value, rank: int) -> Value:
    """The way back of `to_nhwc` to a tensor of rank 3 or 4."""
    if rank == 4:
        return node.emit(TransposeOp, y, permutation=(0, 3, 1, 2))
    n, _, length, channels = value_shape(y)
    return node.emit(TransposeOp, node.emit(ReshapeOp, y, shape=(n, length, channels)), permutation=(0, 2, 1))


def lifted(values: Sequence[int], missing: int) -> tuple[int, int]:
    """A parameter of one or two spatial axes as (row, column); a sequence has one row, for which `missing` stands."""
    return (missing, values[0]) if len(values) == 1 else (values[0], values[1])


@dataclass(frozen=True)
class Window:
    """A sliding window in the dialect's terms: (row, column) pairs, pad = (top, left, bottom, right)."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    pad: tuple[int, int, int, int]


def read_spatial(node: Node, key: str, axes: int, default: int) -> list[int]:
    """An attribute with one integer for each spatial axis, each at least 1. Raises HB0113."""
    values = node.opt_integers(key)
    if values is None:
        return [default] * axes
    if len(values) != axes or min(values) < 1:
        raise node.refuse(
            Refusal.ATTRIBUTE, f"attribute {key}={values} does not fit {axes} spatial axes", lever="check the model"
        )
    return values


def read_pads(node: Node, axes: int) -> list[int]:
    """The attribute `pads` (all begins, then all ends), zeros when absent. Raises HB0113."""
    pads = node.opt_integers("pads")
    if pads is None:
        return [0] * (2 * axes)
    if len(pads) != 2 * axes:
        raise node.refuse(
            Refusal.ATTRIBUTE, f"attribute pads={pads} does not fit {axes} spatial axes", lever="check the model"
        )
    if min(pads) < 0:
        raise node.unsupported("pads", pads, "a negative pad crops the input", "crop with Slice before the layer")
    return pads


def read_window(node: Node, extents: Sequence[int], kernel: Sequence[int]) -> Window:
    """strides, dilations, pads and auto_pad for an input of the given spatial extents. Raises HB0113."""
    axes = len(extents)
    stride, dilation = read_spatial(node, "strides", axes, 1), read_spatial(node, "dilations", axes, 1)
    pads = read_pads(node, axes)
    auto = node.choice("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    if auto != "NOTSET" and any(pads):
        raise node.unsupported("auto_pad", auto, f"the node has pads={pads} too", "remove one of the two attributes")
    if auto.startswith("SAME"):
        for axis, extent in enumerate(extents):
            reach = dilation[axis] * (kernel[axis] - 1) + 1
            missing = max((-(-extent // stride[axis]) - 1) * stride[axis] + reach - extent, 0)
            before = missing // 2 if auto == "SAME_UPPER" else missing - missing // 2
            pads[axis], pads[axes + axis] = before, missing - before
    (top, left), (bottom, right) = lifted(pads[:axes], 0), lifted(pads[axes:], 0)
    return Window(lifted(kernel, 1), lifted(stride, 1), lifted(dilation, 1), (top, left, bottom, right))


def _kernel(node: Node, weight: Sequence[int]) -> Sequence[int]:
    kernel = weight[2:]
    given = node.opt_integers("kernel_shape")
    if given is not None and tuple(given) != tuple(kernel):
        raise node.refuse(
            Refusal.ATTRIBUTE,
            f"attribute kernel_shape={given} does not fit a weight of {list(weight)}",
            lever="check the model",
        )
    return kernel


def _groups(node: Node) -> int:
    groups = node.integer("group", 1)
    if groups < 1:
        raise node.refuse(Refusal.ATTRIBUTE, f"attribute group={groups} is below 1", lever="check the model")
    return groups


@converts("Conv")
def conv_v1(node: Node) -> Value:
    """Conv of an image or a sequence: weight (Cout, Cin/groups, KH, KW) becomes (Cout, KH, KW, Cin/groups)."""
    x, w = node.real(0), node.real(1)
    rank = node.rank(0, (3, 4))
    node.rank(1, (rank,))
    kernel = _kernel(node, value_shape(w))
    groups = _groups(node)
    window = read_window(node, value_shape(x)[2:], kernel)
    y = node.emit(
        Conv2dOp,
        to_nhwc(node, x),
        to_nhwc(node, w),
        node.real(2) if node.has(2) else None,
        None,
        stride=window.stride,
        pad=window.pad,
        dilation=window.dilation,
        groups=groups,
        min=None,
        max=None,
    )
    return from_nhwc(node, y, rank)


def _transposed_weight(node: Node, w: Value, groups: int) -> Value:
    """(Cin, Cout/groups, KH, KW) to (Cout, KH, KW, Cin/groups)."""
    shape = value_shape(w)
    inputs, outputs = shape[0], shape[1]
    kh, kw = lifted(shape[2:], 1)
    if inputs % groups:
        raise node.refuse(
            Refusal.SHAPE, f"{inputs} input channels do not make {groups} groups", lever="check the weight's shape"
        )
    if groups == 1 and len(shape) == 4:
        return node.emit(TransposeOp, w, permutation=(1, 2, 3, 0))
    split = node.emit(ReshapeOp, w, shape=(groups, inputs // groups, outputs, kh, kw))
    turned = node.emit(TransposeOp, split, permutation=(0, 2, 3, 4, 1))
    return node.emit(ReshapeOp, turned, shape=(groups * outputs, kh, kw, inputs // groups))


def _transposed_pads(
    node: Node, extents: Sequence[int], kernel: Sequence[int], stride: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """(pads, output padding) of ConvTranspose; `output_shape` and SAME determine them, as the operator's page says."""
    axes, grown = len(extents), list(extra)
    wanted = node.opt_integers("output_shape")
    auto = node.choice("auto_pad", "NOTSET", ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"))
    pads = read_pads(node, axes)
    if wanted is None and not auto.startswith("SAME"):
        return pads, grown
    wanted = [extent * s for extent, s in zip(extents, stride, strict=True)] if wanted is None else wanted[-axes:]
    if len(wanted) != axes:
        raise node.refuse(
            Refusal.ATTRIBUTE,
            f"attribute output_shape={wanted} does not fit {axes} spatial axes",
            lever="check the model",
        )
    for axis in range(axes):
        total = stride[axis] * (extents[axis] - 1) + extra[axis] + kernel[axis] - wanted[axis]
        # An extent that the windows do not reach is filled up at the end.
        grown[axis] += max(-total, 0)
        total = max(total, 0)
        # The larger half goes in front, except for SAME_UPPER.
        end = total - total // 2 if auto == "SAME_UPPER" else total // 2
        pads[axis], pads[axes + axis] = total - end, end
    return pads, grown


@converts("ConvTranspose")
def conv_transpose_v1(node: Node) -> Value:
    """ConvTranspose of an image or a sequence, with groups and output padding."""
    x, w = node.real(0), node.real(1)
    rank = node.rank(0, (3, 4))
    node.rank(1, (rank,))
    axes, groups = rank - 2, _groups(node)
    kernel = _kernel(node, value_shape(w))
    if any(d != 1 for d in read_spatial(node, "dilations", axes, 1)):
        raise node.unsupported(
            "dilations", node.opt_integers("dilations"), "transposed convolutions are not dilated", "use dilations of 1"
        )
    stride = read_spatial(node, "strides", axes, 1)
    extra = node.opt_integers("output_padding") or [0] * axes
    if len(extra) != axes or any(not 0 <= e < s for e, s in zip(extra, stride, strict=True)):
        raise node.unsupported("output_padding", extra, "it is at least 0 and below the stride")
    pads, extra = _transposed_pads(node, value_shape(x)[2:], kernel, stride, extra)
    (top, left), (bottom, right) = lifted(pads[:axes], 0), lifted(pads[axes:], 0)
    y = node.emit(
        ConvTranspose2dOp,
        to_nhwc(node, x),
        _transposed_weight(node, w, groups),
        node.real(2) if node.has(2) else None,
        stride=lifted(stride, 1),
        pad=(top, left, bottom, right),
        output_pad=lifted(extra, 0),
        groups=groups,
    )
    return from_nhwc(node, y, rank)


def _row_bias(c: Value | None, columns: int) -> Value | None:
    """`c` as a bias vector, when it is one."""
    if isinstance(c, Static) and c.grid is None:
        shape = c.array.shape
        if len(shape) <= 2 and all(n == 1 for n in shape[:-1]) and (not shape or shape[-1] in (1, columns)):
            return (
                c
                if shape == (columns,)
                else Static(np.broadcast_to(c.array.reshape(shape[-1:]), (columns,)).copy(), c.name)
            )
        return None
    return c if c is not None and value_shape(c) == (columns,) else None


@converts("Gemm")
def gemm_v7(node: Node) -> Value:
    """`alpha * A @ B + beta * C`: a linear layer when B is known, a matrix product otherwise."""
    a, b = node.real(0), node.real(1)
    c = node.real(2) if node.has(2) else None
    node.rank(0, (2,))
    node.rank(1, (2,))
    alpha, beta = node.number("alpha", 1.0), node.number("beta", 1.0)
    turn_a, turn_b = bool(node.integer("transA", 0)), bool(node.integer("transB", 0))
    if turn_a:
        a = node.emit(TransposeOp, a, permutation=(1, 0))
    if c is not None and beta != 1.0:
        c = node.emit(MulOp, c, node.number_like(beta, c)) if beta else None
    columns = value_shape(b)[0 if turn_b else 1]
    bias = _row_bias(c, columns) if alpha == 1.0 else None
    if isinstance(b, Static):
        y = node.emit(
            LinearOp, a, b if turn_b else node.emit(TransposeOp, b, permutation=(1, 0)), bias, min=None, max=None
        )
    else:
        bias = None
        y = node.emit(MatmulOp, a, node.emit(TransposeOp, b, permutation=(1, 0)) if turn_b else b)
    if alpha != 1.0:
        y = node.emit(MulOp, y, node.number_like(alpha, y))
    if c is None or bias is not None:
        return y
    if np.broadcast_shapes(value_shape(c), value_shape(y)) != value_shape(y):
        raise node.refuse(
            Refusal.SHAPE,
            f"C of {list(value_shape(c))} does not broadcast to {list(value_shape(y))}",
            lever="check the model",
        )
    return node.emit(AddOp, y, c)


@converts("MatMul")
def matmul_v1(node: Node) -> Value:
    """numpy's matmul; a known matrix on the right makes a linear layer."""
    a, b = node.real(0), node.real(1)
    left, right = value_shape(a), value_shape(b)
    if not left or not right:
        raise node.refuse(Refusal.RANK, "a matrix product takes no scalar", lever="multiply with Mul")
    if isinstance(b, Static) and len(right) == 2:
        return node.emit(LinearOp, a, node.emit(TransposeOp, b, permutation=(1, 0)), None, min=None, max=None)
    if len(left) == 1:
        a = node.emit(ReshapeOp, a, shape=(1, *left))
    if len(right) == 1:
        b = node.emit(ReshapeOp, b, shape=(*right, 1))
    y = node.emit(MatmulOp, a, b)
    shape = list(value_shape(y))
    kept = shape[:-2] + ([] if len(left) == 1 else [shape[-2]]) + ([] if len(right) == 1 else [shape[-1]])
    return y if kept == shape else node.emit(ReshapeOp, y, shape=kept)
