"""Computed in tiles from the parts that `input_part` names, every operation gives what it gives on the whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from backends.nash.isa import BY_NAME, dtype_name
from backends.nash.lower import Node, TensorView
from backends.nash.simulator.kernels import BINDERS
from backends.nash.tile import input_part, output_part, tile_axis
from hbir.kernels import pack_weight

Array = npt.NDArray[Any]
Params = Mapping[str, int]


def defaults(opcode: str, given_params: Params) -> dict[str, int]:
    return {p.name: p.default for p in BY_NAME[opcode].params} | dict(given_params)


def view(number: int, array: Array) -> TensorView:
    return TensorView.dense(number, array.shape, dtype_name(array.dtype))


def node(opcode: str, reads: Mapping[str, Array], out: Array, params: Params) -> Node:
    views = {role: view(i, array) for i, (role, array) in enumerate(reads.items())}
    return Node(opcode, BY_NAME[opcode].unit, "layer", views, {"out": view(len(views), out)}, dict(params))


def run(opcode: str, arrays: Mapping[str, Array], params: Params) -> None:
    BINDERS[opcode](dict(arrays), dict(params))()


def check_tiles(
    opcode: str, reads: Mapping[str, Array], constants: Mapping[str, Array], out: Array, params: Params, rows: int
) -> None:
    """Run the operation on the whole, then in tiles of `rows` from copies of the parts; both agree and the parts fit."""
    params = defaults(opcode, params)
    whole, tiled = np.zeros_like(out), np.full_like(out, 77)
    run(opcode, {**reads, **constants, "out": whole}, params)
    work = node(opcode, reads, out, params)
    axis = tile_axis(work)
    assert axis is not None
    for low in range(0, out.shape[axis], rows):
        box = output_part(work, axis, (low, min(low + rows, out.shape[axis])), None)
        arrays: dict[str, Array] = {}
        changed: dict[str, int] = {}
        for role, array in reads.items():
            part, more = input_part(work, role, work.reads[role], axis, box)
            assert all(
                b >= 0 and n > 0 and b + n <= size
                for b, n, size in zip(part.begin, part.extent, array.shape, strict=True)
            )
            cut = tuple(slice(b, b + n) for b, n in zip(part.begin, part.extent, strict=True))
            arrays[role] = array[cut].copy()
            changed |= more
        place = tuple(slice(b, b + n) for b, n in zip(box.begin, box.extent, strict=True))
        piece = np.zeros(box.extent, out.dtype)
        run(opcode, {**arrays, **constants, "out": piece}, params | changed)
        tiled[place] = piece
    assert (tiled == whole).all()


windows = st.fixed_dictionaries(
    {
        "kernel_h": st.integers(1, 4),
        "kernel_w": st.integers(1, 3),
        "stride_h": st.integers(1, 3),
        "stride_w": st.integers(1, 2),
        "pad_top": st.integers(0, 3),
        "pad_left": st.integers(0, 2),
        "pad_bottom": st.integers(0, 3),
        "pad_right": st.integers(0, 2),
    }
)


def extent(size: int, p: Params, axis: str, before: str, after: str) -> int:
    reach = p.get(f"dilation_{axis}", 1) * (p[f"kernel_{axis}"] - 1) + 1
    return (size + p[before] + p[after] - reach) // p[f"stride_{axis}"] + 1


def map_shape(height: int, width: int, p: Params) -> tuple[int, int]:
    return extent(height, p, "h", "pad_top", "pad_bottom"), extent(width, p, "w", "pad_left", "pad_right")


@given(windows, st.integers(1, 3), st.sampled_from([1, 2, 8]), st.integers(1, 12), st.integers(1, 7), st.booleans())
def test_convolutions(p: dict[str, int], dilation: int, groups: int, height: int, rows: int, residual: bool) -> None:
    p = p | {"dilation_h": dilation, "dilation_w": 1, "groups": groups, "weight_bits": 8, "pad_value": -3}
    reach = dilation * (p["kernel_h"] - 1) + 1
    assume(max(p["pad_top"], p["pad_bottom"]) < reach)
    shape = map_shape(height, 5, p)
    assume(min(shape) > 0)
    rng = np.random.default_rng(height)
    weight = rng.integers(-20, 20, (8, p["kernel_h"], p["kernel_w"], 8 // groups), np.int8)
    out = np.zeros((1, *shape, 8), np.int8)
    reads: dict[str, Array] = {"x": rng.integers(-128, 128, (1, height, 5, 8), np.int8)}
    if residual:
        reads["residual"] = rng.integers(-128, 128, out.shape, np.int8)
        p |= {"residual_zp": 2, "residual_multiplier": 16385, "residual_shift": 12}
        p |= {"output_multiplier": 16387, "output_shift": 20}
    constants = {
        "weight": pack_weight(weight, groups=groups),
        "bias": rng.integers(-500, 500, 8, np.int32),
        "multiplier": rng.integers(1 << 14, 1 << 15, 8, np.int32) | 1,
        "shift": np.full(8, 16 if residual else 22, np.int8),
    }
    check_tiles("CONV", reads, constants, out, p | {"low": -128, "high": 127, "zp_out": 1}, rows)


@given(st.sampled_from(["MAXPOOL", "AVGPOOL"]), windows, st.integers(1, 12), st.integers(1, 7))
def test_pools(opcode: str, p: dict[str, int], height: int, rows: int) -> None:
    assume(max(p["pad_top"], p["pad_bottom"]) < p["kernel_h"] and max(p["pad_left"], p["pad_right"]) < p["kernel_w"])
    shape = map_shape(height, 6, p)
    assume(min(shape) > 0)
    x = np.random.default_rng(rows).integers(-128, 128, (1, height, 6, 4), np.int8)
    more = {"zp_in": 3, "zp_out": 3, "low": -128, "high": 127} if opcode == "AVGPOOL" else {}
    check_tiles(opcode, {"x": x}, {}, np.zeros((1, *shape, 4), np.int8), p | more, rows)


@pytest.mark.parametrize(("pad_top", "pad_bottom"), [(1, 0), (0, 1), (3, 3)])
def test_windows_wholly_in_the_padding_are_not_cut(pad_top: int, pad_bottom: int) -> None:
    p = defaults("CONV", {"kernel_h": 1, "kernel_w": 1, "pad_top": pad_top, "pad_bottom": pad_bottom})
    x, out = np.zeros((1, 4, 4, 8), np.int8), np.zeros((1, 4 + pad_top + pad_bottom, 4, 8), np.int8)
    assert tile_axis(node("CONV", {"x": x}, out, p)) is None
    assert tile_axis(node("CONV", {"x": x}, out, p | {"kernel_h": 4})) == 1


@given(
    st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(0, 3), st.integers(2, 20), st.integers(1, 7)
)
def test_a_single_row_is_cut_along_its_columns(
    kernel: int, stride: int, left: int, right: int, width: int, step: int
) -> None:
    p = {"kernel_h": 1, "kernel_w": kernel, "stride_h": 1, "stride_w": stride, "pad_left": left, "pad_right": right}
    p |= {"pad_top": 0, "pad_bottom": 0}
    assume(max(left, right) < kernel)
    columns = extent(width, p, "w", "pad_left", "pad_right")
    assume(columns > 1)
    x = np.random.default_rng(width).integers(-128, 128, (1, 1, width, 4), np.int8)
    check_tiles("MAXPOOL", {"x": x}, {}, np.zeros((1, 1, columns, 4), np.int8), p, step)


shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@given(st.data(), shapes, st.sampled_from(["ADD", "MUL", "MAXIMUM"]), st.integers(1, 4))
def test_binary_operations_broadcast(data: Any, shape: tuple[int, ...], opcode: str, rows: int) -> None:
    operand = st.tuples(*(st.sampled_from(sorted({1, n})) for n in shape))
    ranks = st.integers(0, len(shape))
    rng = np.random.default_rng(rows)
    a = rng.integers(-128, 128, shape, np.int8)
    b = rng.integers(-128, 128, data.draw(operand)[data.draw(ranks) :], np.int8)
    pair = (b, a) if data.draw(st.booleans()) else (a, b)
    params: dict[str, int] = {}
    if opcode != "MAXIMUM":
        params = {"low": -128, "high": 127, "multiplier": 16385, "shift": 20}
    if opcode == "ADD":
        params |= {"multiplier_a": 16385, "shift_a": 10, "multiplier_b": 20001, "shift_b": 10}
    out = np.zeros(shape, np.int8)
    assume(tile_axis(node(opcode, {"a": pair[0], "b": pair[1]}, out, params)) is not None)
    check_tiles(opcode, {"a": pair[0], "b": pair[1]}, {}, out, params, rows)


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 4))
def test_matrix_products(m: int, k: int, n: int, batch: int, rows: int) -> None:
    rng = np.random.default_rng(m)
    a, b = rng.integers(-128, 128, (batch, m, k), np.int8), rng.integers(-128, 128, (batch, k, n), np.int8)
    params = {"zp_a": 1, "zp_b": -2, "multiplier": 16385, "shift": 22, "low": -128, "high": 127}
    check_tiles("MATMUL", {"a": a, "b": b}, {}, np.zeros((batch, m, n), np.int8), params, rows)


@given(st.sampled_from(["REDUCE_SUM", "REDUCE_MAX"]), st.integers(0, 6), st.integers(1, 3))
def test_reductions(opcode: str, axes: int, rows: int) -> None:
    x = np.random.default_rng(axes).integers(-128, 128, (3, 5, 4), np.int8)
    shape = tuple(1 if axes >> i & 1 else n for i, n in enumerate(x.shape))
    params = {"axes": axes}
    if opcode == "REDUCE_SUM":
        params |= {"zp_in": 1, "multiplier": 16385, "shift": 17, "low": -128, "high": 127}
    check_tiles(opcode, {"x": x}, {}, np.zeros(shape, np.int8), params, rows)


@given(st.integers(1, 9), st.integers(1, 4))
def test_resized_maps_are_cut_along_their_channels(channels: int, rows: int) -> None:
    x = np.random.default_rng(channels).integers(-128, 128, (1, 3, 4, channels), np.int8)
    places = {"rows": np.array([0, 0, 1, 2, 2], np.int32), "columns": np.array([0, 1, 1, 3], np.int32)}
    check_tiles("RESIZE_NEAREST", {"x": x}, places, np.zeros((1, 5, 4, channels), np.int8), {}, rows)


def test_a_chunk_of_channels_takes_its_part_of_the_residual() -> None:
    x, out = np.zeros((1, 6, 4, 8), np.int8), np.zeros((1, 6, 4, 48), np.int8)
    work = node("CONV", {"x": x, "residual": out}, out, defaults("CONV", {"kernel_h": 1, "kernel_w": 1}))
    box = output_part(work, 1, (2, 4), (16, 32))
    assert (box.begin, box.extent) == ((0, 2, 0, 16), (1, 2, 4, 16))
    part, _ = input_part(work, "residual", work.reads["residual"], 1, box)
    assert part == box
    part, changed = input_part(work, "x", work.reads["x"], 1, box)
    assert (part.begin, part.extent) == ((0, 2, 0, 0), (1, 2, 4, 8))
    assert changed == {"pad_top": 0, "pad_bottom": 0}


def test_a_part_is_a_view_of_the_same_storage() -> None:
    whole = TensorView.dense(3, (1, 6, 4, 8), "i16", offset=64)
    part = whole.part((0, 2, 1, 0), (1, 3, 2, 8))
    assert (part.storage, part.offset, part.strides) == (3, 64 + 2 * 64 + 16, whole.strides)
    assert part.has_dense_rows
    assert not part.is_dense
    assert whole.is_dense
    assert whole.size == 384
