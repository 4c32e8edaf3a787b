"""Operations that move values: shapes, orders, parts, repetition, padding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from hbir.frontends.onnx.values import Value
from hbir.torch.operations.common import NN, F, region_error, reshaped, shape, transposed
from hbir.torch.operations.registry import Kind, composite, methods, operation, properties, spellings

__all__: list[str] = []


@operation(
    Kind.KEEP,
    *(torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, torch.unflatten, torch.ravel),
    *methods("flatten", "reshape", "view", "squeeze", "unsqueeze", "unflatten", "ravel", "view_as", "reshape_as"),
)
def reshape(e: Any, input: Value, *how: Any, **named: Any) -> Value:
    """Another shape, which PyTorch computed when the model ran."""
    if any(isinstance(each, torch.dtype) for each in (*how, *named.values())):
        raise e.no_form("a view under another dtype has no form", lever="compute with float32")
    return reshaped(e, input, e.shape)


# Order


@operation(Kind.KEEP, *spellings("transpose", "swapaxes", "swapdims"))
def transpose(e: Any, input: Value, dim0: int, dim1: int) -> Value:
    """Two axes change places."""
    order = list(range(len(shape(input))))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    return transposed(e, input, order)


def _listed(args: Sequence[Any], named: Any) -> list[int]:
    """Axes as several numbers, as one list, or as one number."""
    given: Any = args if named is None else named
    inner = given[0] if len(given) == 1 and not isinstance(given[0], int) else given
    return [int(axis) for axis in inner]


@operation(Kind.KEEP, torch.permute, *methods("permute"))
def permute(e: Any, input: Value, *args: Any, dims: Any = None) -> Value:
    """Axes in the given order."""
    listed = _listed(args, dims)
    return transposed(e, input, [axis % len(shape(input)) for axis in listed])


@operation(Kind.KEEP, torch.t, *methods("t"), *properties("T", "mT"))
def turn(e: Any, input: Value, *_: Any) -> Value:
    """A matrix, or a stack of them, with rows and columns exchanged."""
    rank = len(shape(input))
    return transposed(e, input, [*range(rank - 2), *range(rank - 2, rank)[::-1]])


@operation(Kind.KEEP, *spellings("movedim", "moveaxis"))
def movedim(e: Any, input: Value, source: Any, destination: Any) -> Value:
    """Some axes go to other places; the rest keep their order."""
    rank = len(shape(input))
    pairs = zip(*([each] if isinstance(each, int) else each for each in (source, destination)), strict=True)
    goal = {to % rank: at % rank for at, to in pairs}
    rest = iter(axis for axis in range(rank) if axis not in goal.values())
    return transposed(e, input, [goal[at] if at in goal else next(rest) for at in range(rank)])


@operation(Kind.KEEP, F.pixel_shuffle)
def pixel_shuffle(e: Any, input: Value, upscale_factor: int) -> Value:
    """(..., C * r * r, H, W) to (..., C, H * r, W * r)."""
    *front, channels, height, width = shape(input)
    r, n = upscale_factor, len(shape(input)) - 3
    split = reshaped(e, input, [*front, channels // (r * r), r, r, height, width])
    order = [*range(n), n, n + 3, n + 1, n + 4, n + 2]
    return reshaped(e, transposed(e, split, order), e.shape)


@operation(Kind.KEEP, F.pixel_unshuffle)
def pixel_unshuffle(e: Any, input: Value, downscale_factor: int) -> Value:
    """(..., C, H * r, W * r) to (..., C * r * r, H, W)."""
    *front, channels, height, width = shape(input)
    r, n = downscale_factor, len(shape(input)) - 3
    split = reshaped(e, input, [*front, channels, height // r, r, width // r, r])
    order = [*range(n), n, n + 2, n + 4, n + 1, n + 3]
    return reshaped(e, transposed(e, split, order), e.shape)


@operation(Kind.KEEP, torch.channel_shuffle, F.native_channel_shuffle)
def channel_shuffle(e: Any, input: Value, groups: int) -> Value:
    """Channels of the groups in turn."""
    n, channels, *rest = shape(input)
    split = reshaped(e, input, [n, groups, channels // groups, *rest])
    return reshaped(e, transposed(e, split, [0, 2, 1, *range(3, 3 + len(rest))]), e.shape)


# Parts


@operation(Kind.COMPUTE, *spellings("cat", "concat", "concatenate"))
def cat(e: Any, tensors: Sequence[Any], dim: int = 0, *, axis: int | None = None) -> Value:
    """One after another along an axis, all on one grid."""
    return e.onnx("Concat", *map(e.real, tensors), axis=dim if axis is None else axis)


@operation(Kind.COMPUTE, torch.stack)
def stack(e: Any, tensors: Sequence[Any], dim: int = 0) -> Value:
    """One after another along a new axis, all on one grid."""
    at = dim % len(e.shape)
    extents = [1 if axis == at else extent for axis, extent in enumerate(e.shape)]
    return e.onnx("Concat", *(reshaped(e, e.real(each), extents) for each in tensors), axis=at)


@operation(Kind.KEEP, *spellings("split", "chunk", "tensor_split", "split_with_sizes"))
def split(e: Any, input: Value, sizes: Any = None, dim: int = 0, **_: Any) -> Any:
    """Parts along an axis, as PyTorch cut them when the model ran."""
    at = dim % len(shape(input))
    extents = [part[at] for part in e.call.shapes]
    return e.onnx("Split", input, extents, outputs=len(extents), axis=at)


@operation(Kind.KEEP, *spellings("unbind"))
def unbind(e: Any, input: Value, dim: int = 0) -> Any:
    """The slices along an axis, without it."""
    at = dim % len(shape(input))
    parts = e.onnx("Split", input, [1] * len(e.call.shapes), outputs=len(e.call.shapes), axis=at)
    return [reshaped(e, part, e.shape) for part in parts]


# Repetition


@operation(Kind.KEEP, torch.broadcast_to, *methods("expand", "expand_as", "broadcast_to"))
def expand(e: Any, input: Value, *_: Any, **named: Any) -> Value:
    """Broadcast to a shape."""
    return e.onnx("Expand", input, list(e.shape))


@operation(Kind.KEEP, torch.tile, *methods("repeat", "tile"))
def repeat(e: Any, input: Value, *how: Any, **named: Any) -> Value:
    """The whole tensor again and again."""
    extents = [1] * (len(e.shape) - len(shape(input))) + list(shape(input))
    counts = [out // extent for out, extent in zip(e.shape, extents, strict=True)]
    return e.onnx("Tile", reshaped(e, input, extents), counts)


@operation(Kind.KEEP, *spellings("repeat_interleave"))
def repeat_interleave(e: Any, input: Value, repeats: Any, dim: int | None = None, **_: Any) -> Value:
    """Each slice again and again."""
    if not isinstance(repeats, int):
        raise e.no_form("repeat_interleave by a tensor has no form", lever="give one number")
    flat = list(shape(input)) if dim is not None else [math.prod(shape(input))]
    at = 0 if dim is None else dim % len(flat)
    wide = reshaped(e, input, [*flat[: at + 1], 1, *flat[at + 1 :]])
    return reshaped(e, e.onnx("Expand", wide, [*flat[: at + 1], repeats, *flat[at + 1 :]]), e.shape)


@operation(Kind.KEEP, *spellings("flip"))
def flip(e: Any, input: Value, *args: Any, dims: Any = None) -> Value:
    """Axes backwards: a gather of their slices."""
    listed = _listed(args, dims)
    x = input
    for axis in listed:
        at = axis % len(shape(x))
        x = e.onnx("Gather", x, list(range(shape(x)[at]))[::-1], axis=at)
    return x


@operation(Kind.KEEP, *spellings("roll"))
def roll(e: Any, input: Value, shifts: Any, dims: Any = ()) -> Value:
    """What leaves at the end of an axis comes back at its front."""
    listed = [dims] if isinstance(dims, int) else list(dims)
    moves = [shifts] if isinstance(shifts, int) else list(shifts)
    x = input if listed else reshaped(e, input, [math.prod(shape(input))])
    for shift, dim in zip(moves, listed or [0], strict=True):
        at = dim % len(shape(x))
        extent = shape(x)[at]
        if cut := -shift % extent:
            parts = e.onnx("Split", x, [cut, extent - cut], outputs=2, axis=at)
            x = e.onnx("Concat", parts[1], parts[0], axis=at)
    return x if listed else reshaped(e, x, e.shape)


# Padding

_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@operation(Kind.KEEP, torch.constant_pad_nd, NN.pad)
def pad(e: Any, input: Value, pad: Sequence[int], mode: Any = "constant", value: Any = None) -> Value:
    """Zeros, or values of the tensor, around it; negative pads crop."""
    rank = len(shape(input))
    missing = [0] * (rank - len(pad) // 2)
    begins = [*missing, *list(pad)[0::2][::-1]]
    return e.onnx("Pad", input, [*begins, *missing, *list(pad)[1::2][::-1]], 0.0, mode=_MODES[mode])


@composite(F.pad)
def padded(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Any:
    """Zeros keep the grid; another number is added around them. Circular padding is a concatenation of slices."""
    if mode == "circular":
        return _circular(input, list(pad))
    if mode not in _MODES:
        raise region_error(53, f"padding with mode '{mode}' has no form", lever=f"use one of {', '.join(_MODES)}")
    if mode != "constant" or not value:
        return NN.pad(input, list(pad), mode, None if mode != "constant" else 0.0)
    if not math.isfinite(value):
        raise region_error(
            53, f"padding with {value} has no form", why="no grid reaches that far", lever="use a number"
        )
    around = F.pad(torch.zeros(input.shape, device=input.device), list(pad), "constant", value)
    return NN.pad(input, list(pad), mode, 0.0) + around


def _circular(x: Any, pads: list[int]) -> Any:
    for number, (before, after) in enumerate(zip(pads[0::2], pads[1::2], strict=True)):
        dim = x.dim() - 1 - number
        extent = x.shape[dim]
        parts = [x.narrow(dim, extent - before, before)] if before else []
        parts += [x, *([x.narrow(dim, 0, after)] if after else [])]
        x = torch.cat(parts, dim) if len(parts) > 1 else x
    return x
