"""Operators that move values. They hold for floats, for quantised integers before DequantizeLinear and, computed at
once, for shape arithmetic."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hbir.dialects.base import Array
from hbir.dialects.hbir import ConcatOp, ExpandOp, PadOp, ReshapeOp, SliceOp, TransposeOp
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converts
from hbir.frontends.onnx.values import Static, Value, extent_text, value_shape

__all__ = ["cut"]

_MAX_GATHER = 1024


def reshaped(node: Node, x: Value, shape: Sequence[int]) -> Value:
    """`x` under another shape; `x` itself when it has that shape."""
    return x if value_shape(x) == tuple(shape) else node.emit(ReshapeOp, x, shape=tuple(shape))


def cut(node: Node, x: Value, axis: int, begin: int, end: int, step: int = 1) -> Value:
    """`x[begin:end:step]` along one axis, bounds inside the tensor; `x` itself when nothing is cut."""
    shape = value_shape(x)
    if (begin, end, step) == (0, shape[axis], 1):
        return x
    bounds = [(begin, end, step) if at == axis else (0, extent, 1) for at, extent in enumerate(shape)]
    return node.emit(
        SliceOp,
        x,
        begin=tuple(b for b, _, _ in bounds),
        end=tuple(e for _, e, _ in bounds),
        step=tuple(s for _, _, s in bounds),
    )


# Shapes


@converts("Identity")
def identity_v1(node: Node) -> Value:
    """The operand."""
    return node.operand(0)


@converts("Dropout")
def dropout_v7(node: Node) -> Value:
    """The operand: dropout does nothing outside training."""
    node.ignore("ratio", "seed")
    if node.has(2) and node.array(2, "training_mode").any():
        raise node.refuse(
            Refusal.ATTRIBUTE, "dropout is in training mode", lever="export the model in inference mode (.eval())"
        )
    return node.operand(0)


def _reshape(node: Node, allow_zero: bool) -> Value:
    x = node.operand(0)
    old, new = value_shape(x), node.integers(1, "shape")
    if not allow_zero:
        if any(extent == 0 and at >= len(old) for at, extent in enumerate(new)):
            raise node.refuse(
                Refusal.SHAPE, f"shape {new} copies an extent that {extent_text(old)} lacks", lever="check the model"
            )
        new = [old[at] if extent == 0 else extent for at, extent in enumerate(new)]
    if new.count(-1) > 1 or min(new, default=0) < -1:
        raise node.refuse(Refusal.SHAPE, f"shape {new} has more than one unknown extent", lever="check the model")
    if -1 in new:
        known = -math.prod(new)
        if known == 0 or math.prod(old) % known:
            raise node.refuse(
                Refusal.SHAPE,
                f"{extent_text(old)} does not reshape to {new}",
                lever="check the shapes given for the inputs",
            )
        new[new.index(-1)] = math.prod(old) // known
    return reshaped(node, x, new)


@converts("Reshape")
def reshape_v5(node: Node) -> Value:
    """0 copies an extent, -1 takes the rest."""
    return _reshape(node, allow_zero=False)


@converts("Reshape")
def reshape_v14(node: Node) -> Value:
    """With `allowzero`: 0 then means an empty axis."""
    return _reshape(node, bool(node.integer("allowzero", 0)))


def _flatten(node: Node, lowest: int) -> Value:
    x = node.operand(0)
    shape, axis = value_shape(x), node.integer("axis", 1)
    if not lowest * len(shape) <= axis <= len(shape):
        raise node.refuse(
            Refusal.ATTRIBUTE, f"axis {axis} does not fit rank {len(shape)}", lever="check the model's axes"
        )
    axis = axis + len(shape) if axis < 0 else axis
    return reshaped(node, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


@converts("Flatten")
def flatten_v1(node: Node) -> Value:
    """To a matrix: the axes before `axis`, and the rest."""
    return _flatten(node, 0)


@converts("Flatten")
def flatten_v11(node: Node) -> Value:
    """With a negative axis."""
    return _flatten(node, -1)


def _squeeze(node: Node, axes: Sequence[int] | None) -> Value:
    x = node.operand(0)
    shape = value_shape(x)
    dropped = [at for at, extent in enumerate(shape) if extent == 1] if axes is None else node.axes(axes, len(shape))
    if any(shape[at] != 1 for at in dropped):
        raise node.refuse(
            Refusal.SHAPE, f"axes {dropped} of {extent_text(shape)} are not all of extent 1", lever="check the model"
        )
    return reshaped(node, x, [extent for at, extent in enumerate(shape) if at not in dropped])


@converts("Squeeze")
def squeeze_v1(node: Node) -> Value:
    """`axes` as an attribute."""
    return _squeeze(node, node.opt_integers("axes"))


@converts("Squeeze")
def squeeze_v13(node: Node) -> Value:
    """`axes` as an operand."""
    return _squeeze(node, node.integers(1, "axes") if node.has(1) else None)


def _unsqueeze(node: Node, axes: Sequence[int]) -> Value:
    x = node.operand(0)
    rest = iter(value_shape(x))
    rank = len(value_shape(x)) + len(axes)
    new = node.axes(axes, rank)
    return reshaped(node, x, [1 if at in new else next(rest) for at in range(rank)])


@converts("Unsqueeze")
def unsqueeze_v1(node: Node) -> Value:
    """`axes` as an attribute."""
    return _unsqueeze(node, node.opt_integers("axes") or [])


@converts("Unsqueeze")
def unsqueeze_v13(node: Node) -> Value:
    """`axes` as an operand."""
    return _unsqueeze(node, node.integers(1, "axes"))


# Order


@converts("Transpose")
def transpose_v1(node: Node) -> Value:
    """Axes in the order `perm`, reversed when absent."""
    x = node.operand(0)
    rank = len(value_shape(x))
    permutation = node.opt_integers("perm") or list(range(rank))[::-1]
    return x if permutation == list(range(rank)) else node.emit(TransposeOp, x, permutation=tuple(permutation))


@converts("DepthToSpace")
def depth_to_space_v1(node: Node) -> Value:
    """Channels to blocks of pixels; in NHWC a transpose between two reshapes."""
    return _depth_to_space(node, "DCR")


@converts("DepthToSpace")
def depth_to_space_v11(node: Node) -> Value:
    """With `mode`: depth-column-row, or column-row-depth (PyTorch's pixel shuffle)."""
    return _depth_to_space(node, node.choice("mode", "DCR", ("DCR", "CRD")))


def _block(node: Node) -> int:
    block = node.integer("blocksize", 0)
    if block < 1:
        raise node.refuse(Refusal.ATTRIBUTE, f"attribute blocksize={block} is below 1", lever="check the model")
    return block


def _depth_to_space(node: Node, mode: str) -> Value:
    block = _block(node)
    node.rank(0, (4,))
    n, c, h, w = node.shape(0)
    if c % (block * block):
        raise node.refuse(
            Refusal.SHAPE, f"{c} channels do not make blocks of {block} x {block}", lever="check the model"
        )
    depth = c // (block * block)
    x = node.emit(TransposeOp, node.operand(0), permutation=(0, 2, 3, 1))
    split = (n, h, w, block, block, depth) if mode == "DCR" else (n, h, w, depth, block, block)
    order = (0, 1, 3, 2, 4, 5) if mode == "DCR" else (0, 1, 4, 2, 5, 3)
    y = node.emit(TransposeOp, node.emit(ReshapeOp, x, shape=split), permutation=order)
    y = node.emit(ReshapeOp, y, shape=(n, h * block, w * block, depth))
    return node.emit(TransposeOp, y, permutation=(0, 3, 1, 2))


@converts("SpaceToDepth")
def space_to_depth_v1(node: Node) -> Value:
    """Blocks of pixels to channels."""
    block = _block(node)
    node.rank(0, (4,))
    n, c, h, w = node.shape(0)
    if h % block or w % block:
        raise node.refuse(
            Refusal.SHAPE, f"an image of {h} x {w} has no whole blocks of {block} x {block}", lever="pad the image"
        )
    x = node.emit(TransposeOp, node.operand(0), permutation=(0, 2, 3, 1))
    y = node.emit(ReshapeOp, x, shape=(n, h // block, block, w // block, block, c))
    y = node.emit(TransposeOp, y, permutation=(0, 1, 3, 2, 4, 5))
    y = node.emit(ReshapeOp, y, shape=(n, h // block, w // block, block * block * c))
    return node.emit(TransposeOp, y, permutation=(0, 3, 1, 2))


# Parts


@converts("Concat")
def concat_v4(node: Node) -> Value:
    """Operands one after another along `axis`."""
    values = node.operands()
    axis = node.axis(node.integer("axis", 1), len(value_shape(values[0])))
    return values[0] if len(values) == 1 else node.emit(ConcatOp, values, axis=axis)


def _split(node: Node, sizes: Sequence[int] | None) -> tuple[Value, ...]:
    x = node.operand(0)
    shape, parts = value_shape(x), len(node.outputs)
    axis = node.axis(node.integer("axis", 0), len(shape))
    if sizes is None:
        # From opset 18 the last part may be smaller; before, the extent must divide.
        size = -(-shape[axis] // max(parts, 1))
        sizes = [min(size, max(shape[axis] - size * part, 0)) for part in range(parts)]
        if node.opset < 18 and len(set(sizes)) > 1:
            raise node.refuse(
                Refusal.SHAPE, f"extent {shape[axis]} does not split in {parts} equal parts", lever="check the model"
            )
    if len(sizes) != parts or min(sizes, default=0) < 0 or sum(sizes) != shape[axis]:
        raise node.refuse(
            Refusal.SHAPE, f"sizes {list(sizes)} do not split extent {shape[axis]} in {parts}", lever="check the model"
        )
    ends = np.cumsum(sizes).tolist()
    return tuple(cut(node, x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True))


@converts("Split")
def split_v2(node: Node) -> tuple[Value, ...]:
    """Sizes as an attribute."""
    return _split(node, node.opt_integers("split"))


@converts("Split")
def split_v13(node: Node) -> tuple[Value, ...]:
    """Sizes as an operand."""
    return _split(node, node.integers(1, "split") if node.has(1) else None)


@converts("Split")
def split_v18(node: Node) -> tuple[Value, ...]:
    """With `num_outputs`, which is the number of results."""
    if node.integer("num_outputs", len(node.outputs)) != len(node.outputs):
        raise node.refuse(
            Refusal.ATTRIBUTE, "attribute num_outputs is not the number of results", lever="check the model"
        )
    return _split(node, node.integers(1, "split") if node.has(1) else None)


def _slice(
    node: Node, starts: Sequence[int], ends: Sequence[int], axes: Sequence[int] | None, steps: Sequence[int] | None
) -> Value:
    x = node.operand(0)
    shape = value_shape(x)
    chosen = node.axes(range(len(starts)) if axes is None else axes, len(shape))
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(chosen) == len(steps) or 0 in steps:
        raise node.refuse(Refusal.SHAPE, "starts, ends, axes and steps do not fit together", lever="check the model")
    bounds = [(0, extent, 1) for extent in shape]
    for start, end, axis, step in zip(starts, ends, chosen, steps, strict=True):
        begin, stop, step = slice(start, end, step).indices(shape[axis])
        bounds[axis] = (begin, max(begin, stop), step) if step > 0 else (begin, stop, step)
    if isinstance(x, Static) and x.grid is None:
        view = tuple(slice(b, None if s < 0 and e < 0 else e, s) for b, e, s in bounds)
        return Static(np.ascontiguousarray(x.array[view]), x.name)
    if any(step < 0 for _, _, step in bounds):
        raise node.refuse(
            Refusal.DATA_DEPENDENT,
            "a negative step reverses data",
            why="only known tensors are reversed",
            lever="slice forwards",
        )
    if all(bound == (0, extent, 1) for bound, extent in zip(bounds, shape, strict=True)):
        return x
    return node.emit(
        SliceOp, x, begin=[b for b, _, _ in bounds], end=[e for _, e, _ in bounds], step=[s for _, _, s in bounds]
    )


@converts("Slice")
def slice_v1(node: Node) -> Value:
    """Bounds as attributes."""
    starts, ends = node.opt_integers("starts") or [], node.opt_integers("ends") or []
    return _slice(node, starts, ends, node.opt_integers("axes"), None)


@converts("Slice")
def slice_v10(node: Node) -> Value:
    """Bounds as operands, with steps."""
    axes = node.integers(3, "axes") if node.has(3) else None
    steps = node.integers(4, "steps") if node.has(4) else None
    return _slice(node, node.integers(1, "starts"), node.integers(2, "ends"), axes, steps)


@converts("Gather")
def gather_v1(node: Node) -> Value:
    """Known indices along an axis: a slice where they are evenly spaced, slices side by side otherwise."""
    x, indices = node.operand(0), node.array(1, "indices")
    shape = value_shape(x)
    axis = node.axis(node.integer("axis", 0), len(shape))
    extent = shape[axis]
    if indices.dtype.kind not in "iu" or (indices.size and not -extent <= indices.min() <= indices.max() < extent):
        raise node.refuse(
            Refusal.SHAPE, f"an index lies outside axis {axis} of {extent_text(shape)}", lever="check the model"
        )
    indices = np.where(indices < 0, indices + extent, indices)
    if isinstance(x, Static) and x.grid is None:
        node.room(*shape[:axis], *indices.shape, *shape[axis + 1 :])
        return Static(np.take(x.array, indices, axis=axis), x.name)
    return reshaped(
        node, _taken(node, x, axis, indices.reshape(-1)), (*shape[:axis], *indices.shape, *shape[axis + 1 :])
    )


def _taken(node: Node, x: Value, axis: int, indices: Array) -> Value:
    steps = np.diff(indices)
    if not indices.size or indices.size > _MAX_GATHER:
        raise node.refuse(
            Refusal.DATA_DEPENDENT,
            f"{indices.size} indices are gathered",
            why=f"1 to {_MAX_GATHER} are supported",
            lever="use Slice",
        )
    if indices.size == 1 or (np.all(steps == steps[0]) and steps[0] >= 1):
        return cut(node, x, axis, int(indices[0]), int(indices[-1]) + 1, int(steps[0]) if indices.size > 1 else 1)
    # Runs of neighbours stay together.
    runs = np.split(indices, np.flatnonzero(steps != 1) + 1)
    return node.emit(ConcatOp, [cut(node, x, axis, int(run[0]), int(run[-1]) + 1) for run in runs], axis=axis)


# Growth


@converts("Expand")
def expand_v8(node: Node) -> Value:
    """Broadcast in both directions."""
    x = node.operand(0)
    shape = np.broadcast_shapes(value_shape(x), tuple(node.integers(1, "shape")))
    return x if shape == value_shape(x) else node.emit(ExpandOp, x, shape=shape)


@converts("Tile")
def tile_v6(node: Node) -> Value:
    """Repetition: a new axis in front of each repeated one, broadcast."""
    x, repeats = node.operand(0), node.integers(1, "repeats")
    shape = value_shape(x)
    if len(repeats) != len(shape) or min(repeats, default=0) < 0:
        raise node.refuse(Refusal.SHAPE, f"repeats {repeats} do not fit {extent_text(shape)}", lever="check the model")
    if all(repeat == 1 for repeat in repeats):
        return x
    pairs = list(zip(repeats, shape, strict=True))
    y = reshaped(node, x, [e for repeat, extent in pairs for e in ((1, extent) if repeat != 1 else (extent,))])
    y = node.emit(
        ExpandOp,
        y,
        shape=tuple(e for repeat, extent in pairs for e in ((repeat, extent) if repeat != 1 else (extent,))),
    )
    return reshaped(node, y, [repeat * extent for repeat, extent in pairs])


def _pad(node: Node, pads: Sequence[int], value: float, axes: Sequence[int] | None) -> Value:
    x = node.real(0)
    shape = value_shape(x)
    mode = node.choice("mode", "constant", ("constant", "edge", "reflect"))
    chosen = node.axes(range(len(shape)) if axes is None else axes, len(shape))
    if len(pads) != 2 * len(chosen):
        raise node.refuse(Refusal.SHAPE, f"pads {list(pads)} do not fit {len(chosen)} axes", lever="check the model")
    if not math.isfinite(value) and mode == "constant" and any(pads):
        raise node.refuse(
            Refusal.NOT_FINITE,
            f"the padding value is {value}",
            why="no quantised value can stand for it",
            lever="let MaxPool pad itself",
        )
    before, after = [0] * len(shape), [0] * len(shape)
    for at, axis in enumerate(chosen):
        before[axis], after[axis] = pads[at], pads[at + len(chosen)]
        reach = max(before[axis], after[axis])
        if mode == "reflect" and reach >= shape[axis] and reach > 0:
            raise node.refuse(
                Refusal.SHAPE,
                f"a reflection of {reach} does not fit axis {axis} of {extent_text(shape)}",
                lever="pad less",
            )
    for axis, extent in enumerate(shape):
        # A negative pad crops.
        begin, end = max(-before[axis], 0), extent - max(-after[axis], 0)
        if begin > end:
            raise node.refuse(Refusal.SHAPE, f"pads {list(pads)} cut away all of axis {axis}", lever="check the model")
        x = cut(node, x, axis, begin, end)
    grown = (tuple(max(pad, 0) for pad in before), tuple(max(pad, 0) for pad in after))
    return node.emit(PadOp, x, before=grown[0], after=grown[1], mode=mode, value=value) if any(map(any, grown)) else x


@converts("Pad")
def pad_v2(node: Node) -> Value:
    """Pads and value as attributes."""
    value = node.opt_number("value")
    return _pad(node, node.opt_integers("pads") or [], 0.0 if value is None else value, None)


@converts("Pad")
def pad_v11(node: Node) -> Value:
    """Pads and value as operands; axes from opset 18."""
    value = node.scalar(2, "constant_value") if node.has(2) else 0.0
    return _pad(node, node.integers(1, "pads"), value, node.integers(3, "axes") if node.has(3) else None)
