"""Weight layouts: the byte order in which the kernels read weights, and in which a binary stores them.

Dense weights come in lines of 16 output channels x 4 consecutive K elements (K = kernel row, kernel column, input channel),
depthwise weights in lines of 16 channels of one tap; both are zero padded. Sixteen output channels are contiguous, so a slice
of channels that starts at a multiple of 16 is a contiguous range of the packed weight and equals the packed slice.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["LANES", "is_depthwise", "pack_weight", "packed_size", "unpack_weight"]

LANES = 16
"""Output channels that lie side by side in a packed weight."""
DEPTH = 4  # K elements that sit side by side: the four bytes of one int8 dot-product lane


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def is_depthwise(shape: tuple[int, ...], groups: int) -> bool:
    """Whether a weight (Cout, kh, kw, Cin/groups) has the depthwise layout: several groups of one input channel."""
    return groups > 1 and shape[3] == 1


def packed_size(shape: tuple[int, int, int, int], *, groups: int = 1) -> int:
    """Elements (bytes for int8) that `pack_weight` gives for a weight of `shape` (Cout, kh, kw, Cin/groups)."""
    channels, height, width, depth = shape
    if is_depthwise(shape, groups):
        return _up(channels, LANES) * height * width
    return groups * _up(channels // groups, LANES) * _up(height * width * depth, DEPTH)


def pack_weight(weight: npt.NDArray[Any], *, groups: int = 1) -> npt.NDArray[Any]:
    """Packed form of a weight (Cout, kh, kw, Cin/groups) of int8 or int16: one dimension, same dtype.

    Dense: [groups][ceil(Cout/groups/16)][ceil(K/4)][16][4]; depthwise: [ceil(Cout/16)][kh*kw][16].
    """
    channels, height, width, depth = weight.shape
    if channels % groups:
        raise ValueError(f"{channels} output channels do not split into {groups} groups")
    if is_depthwise(weight.shape, groups):
        lines = np.zeros((_up(channels, LANES), height * width), weight.dtype)
        lines[:channels] = weight.reshape(channels, -1)
        return np.ascontiguousarray(lines.reshape(-1, LANES, height * width).transpose(0, 2, 1)).reshape(-1)
    per_group, k = channels // groups, height * width * depth
    padded = np.zeros((groups, _up(per_group, LANES), _up(k, DEPTH)), weight.dtype)
    padded[:, :per_group, :k] = weight.reshape(groups, per_group, k)
    blocks = padded.reshape(groups, -1, LANES, padded.shape[2] // DEPTH, DEPTH)
    return np.ascontiguousarray(blocks.transpose(0, 1, 3, 2, 4)).reshape(-1)


def unpack_weight(packed: npt.NDArray[Any], shape: tuple[int, int, int, int], *, groups: int = 1) -> npt.NDArray[Any]:
    """The weight (Cout, kh, kw, Cin/groups) that `pack_weight` packed."""
    channels, height, width, depth = shape
    if packed.size != packed_size(shape, groups=groups):
        expected = packed_size(shape, groups=groups)
        raise ValueError(f"a packed weight of shape {shape} has {expected} elements, not {packed.size}")
    if is_depthwise(shape, groups):
        lines = packed.reshape(-1, height * width, LANES).transpose(0, 2, 1).reshape(-1, height * width)
        return np.ascontiguousarray(lines[:channels]).reshape(shape)
    per_group, k = channels // groups, height * width * depth
    blocks = packed.reshape(groups, _up(per_group, LANES) // LANES, _up(k, DEPTH) // DEPTH, LANES, DEPTH)
    rows = blocks.transpose(0, 1, 3, 2, 4).reshape(groups, _up(per_group, LANES), _up(k, DEPTH))
    return np.ascontiguousarray(rows[:, :per_group, :k]).reshape(shape)
