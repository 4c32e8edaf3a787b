"""The TOSA oracle: that its graphs say what its docstrings say (judged by numpy), and that it refuses instead of
guessing."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from hbir.errors import SimulationError
from hbir.testing.oracles import import_test_package, tosa
from hbir.testing.oracles.tosa import Graph

RNG = np.random.default_rng(7)
X = RNG.integers(-128, 128, (1, 8, 9, 6)).astype(np.int8)
X16 = RNG.integers(-32768, 32768, (1, 8, 9, 6)).astype(np.int16)
W = RNG.integers(-127, 128, (4, 3, 3, 6)).astype(np.int8)
BIAS = RNG.integers(-1000, 1000, 4)
EVERY32 = {"lo": -(1 << 31), "hi": (1 << 31) - 1, "out_dtype": np.int32}


def convolved(
    x: np.ndarray, w: np.ndarray, stride: int, pad: tuple[int, int, int, int], dilation: int, zp: int = 0
) -> np.ndarray:
    top, left, bottom, right = pad
    wide = np.pad(x.astype(np.int64) - zp, ((0, 0), (top, bottom), (left, right), (0, 0)))
    _, kh, kw, _ = w.shape
    height = (wide.shape[1] - dilation * (kh - 1) - 1) // stride + 1
    width = (wide.shape[2] - dilation * (kw - 1) - 1) // stride + 1
    out = np.zeros((x.shape[0], height, width, w.shape[0]), np.int64)
    for y in range(height):
        for z in range(width):
            rows = slice(y * stride, y * stride + dilation * (kh - 1) + 1, dilation)
            columns = slice(z * stride, z * stride + dilation * (kw - 1) + 1, dilation)
            out[:, y, z] = np.tensordot(wide[:, rows, columns], w.astype(np.int64), ((1, 2, 3), (1, 2, 3)))
    return out


@pytest.mark.parametrize("x", [X, X16], ids=["int8", "int16"])
@pytest.mark.parametrize(
    ("stride", "pad", "dilation"), [(1, (0, 0, 0, 0), 1), (2, (1, 0, 1, 1), 1), (3, (0, 2, 1, 0), 2)]
)
def test_convolution_accumulator_with_any_rest_of_the_stride(
    x: np.ndarray, stride: int, pad: tuple[int, int, int, int], dilation: int
) -> None:
    got = tosa.conv2d(x, W, BIAS, None, None, stride=(stride, stride), pad=pad, dilation=(dilation, dilation))
    assert got.dtype == (np.int32 if x.dtype == np.int8 else np.int64)
    assert np.array_equal(got, convolved(x, W, stride, pad, dilation) + BIAS)


def test_convolution_window_that_sees_only_padding() -> None:
    x, w = np.array([[[[89]]]], np.int8), np.array([[[[3]]]], np.int8)
    got = tosa.conv2d(x, w, np.array([7]), None, None, stride=(2, 1), pad=(1, 0, 0, 0), zp_in=5)
    assert got.tolist() == [[[[7]]]]


def test_groups_and_depthwise() -> None:
    w = RNG.integers(-127, 128, (4, 3, 3, 3)).astype(np.int8)
    parts = [convolved(X[..., 3 * g : 3 * g + 3], w[2 * g : 2 * g + 2], 1, (0, 0, 0, 0), 1) for g in (0, 1)]
    assert np.array_equal(tosa.conv2d(X, w, None, None, None, groups=2), np.concatenate(parts, 3))
    w = RNG.integers(-127, 128, (12, 3, 3, 1)).astype(np.int8)
    parts = [convolved(X[..., g : g + 1], w[2 * g : 2 * g + 2], 1, (0, 0, 0, 0), 1) for g in range(6)]
    assert np.array_equal(tosa.conv2d(X, w, None, None, None, groups=6), np.concatenate(parts, 3))


def test_residual_is_the_add_pattern() -> None:
    residual = RNG.integers(-128, 128, (1, 6, 7, 4)).astype(np.int8)
    m, s = np.array([16385, 20001, 30001, 32767]), np.array([17, 18, 19, 20])
    main = (convolved(X, W, 1, (0, 0, 0, 0), 1) * m + (1 << (s - 1))) >> s
    side = ((residual.astype(np.int64) - 3) * 17001 + (1 << 7)) >> 8
    expected = np.clip((((main + side) * 16385 + (1 << 21)) >> 22) - 4, -100, 90)
    got = tosa.conv2d(
        X,
        W,
        None,
        m,
        s,
        residual=residual,
        residual_multiplier=17001,
        residual_shift=8,
        residual_zp=3,
        out_multiplier=16385,
        out_shift=22,
        zp_out=-4,
        lo=-100,
        hi=90,
    )
    assert np.array_equal(got, expected)


def test_transposed_convolution_spreads_every_input() -> None:
    expected = np.zeros((1, 2 * 7 + 3, 2 * 8 + 3, 4), np.int64)
    for y in range(8):
        for z in range(9):
            expected[0, 2 * y : 2 * y + 3, 2 * z : 2 * z + 3] += np.einsum(
                "c,okwc->kwo", X[0, y, z].astype(np.int64), W.astype(np.int64)
            )
    got = tosa.transpose_conv2d(X, W, BIAS, None, None, stride=(2, 2), out_pad=(-1, 0, 0, -2))
    assert np.array_equal(got, (expected + BIAS)[:, 1:, :-2])


def test_moves() -> None:
    assert np.array_equal(tosa.concat([X, X + 1], 2), np.concatenate([X, X + 1], 2))
    widths = [(0, 0), (1, 2), (0, 0), (3, 0)]
    assert np.array_equal(tosa.pad(X, widths, -5), np.pad(X, widths, constant_values=-5))
    assert np.array_equal(tosa.reshape(X16, (8, 54)), X16.reshape(8, 54))
    assert np.array_equal(tosa.slice_(X, (0, 1, 2, 3), (1, 2, 3, 2)), X[:, 1:3, 2:5, 3:5])
    assert np.array_equal(tosa.transpose(X, (0, 3, 1, 2)), X.transpose(0, 3, 1, 2))
    assert np.array_equal(tosa.reverse(X, 1), X[:, ::-1])
    assert np.array_equal(tosa.tile(X, (1, 2, 1, 3)), np.tile(X, (1, 2, 1, 3)))


def test_int48_goes_through_the_executable() -> None:
    x = np.array([1 << 40, -5, 77, -(1 << 46)])
    got = tosa.rescale(x, 16385, 32, **EVERY32)
    assert got.tolist() == [(v * 16385 + (1 << 31)) >> 32 for v in x.tolist()]


def test_graph_of_several_outputs() -> None:
    graph = Graph()
    x = graph.input(X)
    largest = graph.reduce("REDUCE_MAX", x, 3)
    total = graph.reduce("REDUCE_SUM", graph.cast(x, "INT32"), 1)
    first, second = graph.run(largest, total)
    assert np.array_equal(first, X.max(3, keepdims=True)) and np.array_equal(second, X.sum(1, keepdims=True))


def test_compare_and_select() -> None:
    graph = Graph()
    a, b = graph.input(X.astype(np.int32)), graph.input(X[:, ::-1].astype(np.int32))
    (chosen,) = graph.run(graph.select(graph.compare("GREATER", a, b), a, b))
    assert np.array_equal(chosen, np.maximum(X, X[:, ::-1]))


def test_what_tosa_leaves_open_is_refused() -> None:
    graph = Graph()
    with pytest.raises(SimulationError, match=r"HB0790.*UNPREDICTABLE"):
        tosa.rescale(np.array([1 << 30], np.int32), (1 << 30) + 1, 20, **EVERY32)
    steep = np.where(np.arange(513) % 2, 32767, -32768).astype(np.int16)
    with pytest.raises(SimulationError, match="HB0790"):
        tosa.table_int16(X16, steep)
    with pytest.raises(SimulationError, match=r"HB0790.*refused"):
        graph.run(graph.reshape(graph.input(X), (5,)), apart=True)
    with pytest.raises(SimulationError, match=r"HB0790.*refused"):
        tosa.rescale(np.array([1 << 46]), 32767, 2, **EVERY32)


def test_what_tosa_cannot_say_is_refused() -> None:
    with pytest.raises(SimulationError, match="HB0791"):
        tosa.rescale(np.array([1 << 40]), (1 << 30) + 1, 40, **EVERY32)
    wide = np.full((1, 3, 3, 4096), 127, np.int8)
    with pytest.raises(SimulationError, match=r"HB0791.*convolution"):
        tosa.conv2d(np.zeros((1, 3, 3, 4096), np.int16), wide, None, (1 << 30) + 1, 40)
    with pytest.raises(SimulationError, match="HB0792"):
        tosa.rescale(X, 16385, 20, zp_in=128)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tosa_reference_model", None)
    with pytest.raises(ImportError, match=r"hbir\[test\]"):
        import_test_package("tosa_reference_model")
