"""Pooling, reduction, resizing, matrix product and the float border against loops over Python integers and numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir import kernels
from hbir.numerics import dequantize, quantize, reciprocal_scale

Array = npt.NDArray[Any]


def scaled(x: Any, m: int, s: int) -> Any:
    return (x * m + (1 << (s - 1))) >> s


def tile(rng: np.random.Generator, dtype: Any, shape: tuple[int, ...]) -> Array:
    """A view with contiguous channels into a larger buffer, many elements at the ends of the range."""
    info = np.iinfo(dtype)
    n, h, w, c = shape
    buffer = rng.integers(info.min, info.max + 1, (n, 2 * h, w + 1, c + 3))
    buffer = np.where(rng.random(buffer.shape) < 0.3, info.min, buffer).astype(dtype)
    return buffer[:, ::2, 1:, 2 : 2 + c]


@st.composite
def windows(draw: st.DrawFn) -> dict[str, Any]:
    kernel = (draw(st.integers(1, 5)), draw(st.integers(1, 5)))
    return {
        "shape": (draw(st.integers(1, 2)), draw(st.integers(5, 12)), draw(st.integers(5, 12)), draw(st.integers(1, 40))),
        "dtype": draw(st.sampled_from([np.int8, np.int16])), "kernel": kernel,
        "stride": (draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        "pad": tuple(draw(st.integers(0, limit - 1)) for limit in kernel * 2), "seed": draw(st.integers(0, 2**32)),
    }  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(windows(), st.integers(-128, 127))
def test_pools(p: dict[str, Any], zp_in: int) -> None:
    rng = np.random.default_rng(p["seed"])
    x = tile(rng, p["dtype"], p["shape"])
    options = {"stride": p["stride"], "pad": p["pad"]}
    largest = kernels.max_pool2d(x, p["kernel"], **options)
    try:
        average = kernels.avg_pool2d(x, p["kernel"], zp_in=zp_in, zp_out=3, lo=-120, hi=110, **options)
    except ValueError:
        average = None  # legal only when a window sees nothing: checked below
    for oy in range(largest.shape[1]):
        for ox in range(largest.shape[2]):
            y0, x0 = oy * p["stride"][0] - p["pad"][0], ox * p["stride"][1] - p["pad"][1]
            seen = x[:, max(y0, 0) : y0 + p["kernel"][0], max(x0, 0) : x0 + p["kernel"][1]].astype(np.int64)
            count = seen.shape[1] * seen.shape[2]
            assert count
            assert np.array_equal(largest[:, oy, ox], seen.max(axis=(1, 2)))
            assert average is not None
            expected = scaled((seen - zp_in).sum(axis=(1, 2)), *reciprocal_scale(count)) + 3
            assert np.array_equal(average[:, oy, ox], np.clip(expected, -120, 110))


def test_windows_of_padding_alone() -> None:
    x = np.ones((1, 2, 2, 1), np.int8)
    assert kernels.max_pool2d(x, (1, 1), pad=(1, 0, 0, 0))[0, :, 0, 0].tolist() == [-128, 1, 1]
    with pytest.raises(ValueError, match="only padding"):
        kernels.avg_pool2d(x, (1, 1), pad=(1, 0, 0, 0))


def test_large_pools_are_shared_between_threads() -> None:
    rng = np.random.default_rng(0)
    x = tile(rng, np.int8, (2, 64, 64, 24))
    got = kernels.max_pool2d(x, (3, 3), stride=(2, 2))
    expected = np.max([x[:, i : i + 61 : 2, j : j + 61 : 2] for i in range(3) for j in range(3)], axis=0)
    assert np.array_equal(got, expected)
    assert np.array_equal(kernels.avg_pool2d(x, (1, 1)), x)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4), st.sampled_from([np.int8, np.int16]), st.booleans(), st.data(),
    st.integers(0, 2**32),
)  # fmt: skip
def test_reductions(shape: list[int], dtype: Any, keepdims: bool, data: st.DataObject, seed: int) -> None:
    x = np.random.default_rng(seed).integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    total = (x.astype(np.int64) - 5).sum(axis=axes, keepdims=keepdims)
    assert np.array_equal(kernels.reduce_sum(x, axes, keepdims=keepdims, zp_in=5), total)
    got = kernels.reduce_sum(x, axes, keepdims=keepdims, zp_in=5, multiplier=16385, shift=20, zp_out=2)
    assert got.dtype == x.dtype
    assert np.array_equal(got, np.clip(scaled(total, 16385, 20) + 2, -128, 127))
    assert np.array_equal(kernels.reduce_max(x, axes, keepdims=keepdims), x.max(axis=axes, keepdims=keepdims))
    assert np.array_equal(kernels.reduce_min(x, axes, keepdims=keepdims), x.min(axis=axes, keepdims=keepdims))
    best = kernels.argmax(x, axes[0], keepdims=keepdims)
    assert best.dtype == np.int32
    assert np.array_equal(best, x.argmax(axis=axes[0], keepdims=keepdims))


def resized(x: Array, mode: str, scale: Any, offset: Any, border: Any) -> list[Any]:
    """TOSA 1.0 RESIZE of one channel, element by element in Python integers."""
    height, width = x.shape
    yn, yd, xn, xd = scale
    rows = ((height - 1) * yn - offset[0] + border[0]) // yd + 1
    columns = ((width - 1) * xn - offset[1] + border[1]) // xd + 1
    result = []
    for oy in range(rows):
        for ox in range(columns):
            y, z = oy * yd + offset[0], ox * xd + offset[1]
            iy, ix = y // yn, z // xn
            dy, dx = y - iy * yn, z - ix * xn
            y0, y1, x0, x1 = max(iy, 0), min(iy + 1, height - 1), max(ix, 0), min(ix + 1, width - 1)
            if mode == "nearest":
                result.append(int(x[y1 if 2 * dy >= yn else y0, x1 if 2 * dx >= xn else x0]))
            else:
                v = [[int(x[a, b]) for b in (x0, x1)] for a in (y0, y1)]
                upper = v[0][0] * (xn - dx) + v[0][1] * dx
                result.append(upper * (yn - dy) + (v[1][0] * (xn - dx) + v[1][1] * dx) * dy)
    return result


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["nearest", "bilinear"]), st.sampled_from([np.int8, np.int16]), st.integers(2, 7), st.integers(2, 7),
    st.sampled_from([((4, 2, 4, 2), (-1, -1), (1, 1)), ((2, 1, 2, 1), (0, 0), (1, 1)), ((2, 2, 2, 2), (0, 0), (0, 0)),
                     ((16, 8, 8, 2), (-4, -3), (4, 3)), ((6, 1, 10, 1), (0, 0), (5, 9))]),
    st.integers(0, 2**32),
)  # fmt: skip
def test_resize(mode: Any, dtype: Any, height: int, width: int, geometry: Any, seed: int) -> None:
    x = tile(np.random.default_rng(seed), dtype, (2, height, width, 3))
    scale, offset, border = geometry
    options: dict[str, Any] = {"mode": mode, "scale": scale, "offset": offset, "border": border}
    raw = kernels.resize(x, **options)
    assert raw.dtype == (x.dtype if mode == "nearest" else np.int32 if dtype == np.int8 else np.int64)
    got = kernels.resize(x, multiplier=16385, shift=18, zp_in=2, zp_out=-1, lo=-100, hi=100, **options)
    assert got.dtype == x.dtype
    for n in range(2):
        for c in range(3):
            assert raw[n, :, :, c].reshape(-1).tolist() == resized(x[n, :, :, c], mode, scale, offset, border)
            moved = resized(x[n, :, :, c].astype(np.int64) - 2, mode, scale, offset, border)
            expected = [min(max(scaled(v, 16385, 18) - 1, -100), 100) for v in moved]
            assert got[n, :, :, c].reshape(-1).tolist() == expected


def test_resize_refuses_sizes_that_are_not_whole() -> None:
    with pytest.raises(ValueError, match="multiple"):
        kernels.resize(
            np.zeros((1, 3, 3, 1), np.int8), mode="nearest", scale=(4, 3, 4, 2), offset=(0, 0), border=(0, 0)
        )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 20), st.integers(1, 300), st.integers(1, 20), st.sampled_from([np.int8, np.int16]),
    st.sampled_from([((), ()), ((3,), ()), ((2, 1), (3,))]), st.integers(0, 2**32),
)  # fmt: skip
def test_matmul(m: int, k: int, n: int, dtype: Any, batch: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    info = np.iinfo(dtype)
    a = rng.choice([info.min, info.max, 1, -7], (*batch[0], m, k)).astype(dtype)
    b = rng.choice([info.min, info.max, 3, -5], (*batch[1], k, n)).astype(dtype)
    acc = kernels.matmul(a, b, zp_a=4, zp_b=-6)
    expected = (a.astype(np.int64) - 4) @ (b.astype(np.int64) + 6)
    assert np.array_equal(acc, expected)
    got = kernels.matmul(a, b, zp_a=4, zp_b=-6, multiplier=16385, shift=30, zp_out=7)
    assert got.dtype == dtype
    assert np.array_equal(got, np.clip(scaled(expected, 16385, 30) + 7, -128, 127))


@settings(max_examples=50, deadline=None)
@given(st.floats(2.0**-20, 2.0**4, width=32), st.integers(-128, 127), st.integers(0, 2**32))
def test_float_border_equals_the_numerics(scale: float, zero: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((3, 1000)) * 200).astype(np.float32)
    x[0, :8] = np.array([np.nan, np.inf, -np.inf, 0.5, 1.5, -0.5, 1e30, -0.0]) * np.float32(scale)
    for view in (x, x[:, ::2]):
        q = kernels.quantize(view, scale, zero)
        assert q.dtype == np.int8
        assert np.array_equal(q, quantize(view, scale, zero))
        assert np.array_equal(kernels.dequantize(q, scale, zero), dequantize(q, scale, zero))
    wide = rng.integers(-(2**31), 2**31, 700).astype(np.int32)
    assert np.array_equal(kernels.dequantize(wide, scale, zero), dequantize(wide, scale, zero))
    channels = rng.uniform(2.0**-20, 2.0**4, 7).astype(np.float32)
    for accumulators in (wide.reshape(100, 7), wide.reshape(2, 50, 7)[:, ::2]):
        last = accumulators.ndim - 1
        got = kernels.dequantize(accumulators, channels, zero, axis=last)
        assert np.array_equal(got, dequantize(accumulators, channels, zero, axis=last))
    vector = np.array([0.5, 0.25, 2.0], np.float32)
    assert np.array_equal(kernels.quantize(x, vector, axis=0), quantize(x, vector, axis=0))
