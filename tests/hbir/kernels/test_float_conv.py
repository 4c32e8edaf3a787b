"""Float kernels on small integers, where float32 is exact and results compare with ==."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hbir.kernels import conv2d, float_avg_pool2d, float_conv2d, float_matmul, float_max_pool2d, max_pool2d, pack_weight


@pytest.mark.parametrize(
    ("cin", "cout", "kernel", "groups"),
    [(5, 7, 3, 1), (8, 8, 3, 8), (4, 8, 3, 4), (6, 9, 2, 3), (12, 5, 1, 1), (1, 1, 3, 1)],
)
@pytest.mark.parametrize(
    ("stride", "pad", "dilation"), [((1, 1), (0, 0, 0, 0), (1, 1)), ((2, 3), (1, 0, 2, 1), (2, 1))]
)
def test_float_conv2d(cin: int, cout: int, kernel: int, groups: int, stride: Any, pad: Any, dilation: Any) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 9, 11, cin)).astype(np.int8)
    w = rng.integers(-9, 10, (cout, kernel, kernel, cin // groups)).astype(np.int8)
    bias = rng.integers(-9, 10, cout)
    geometry: dict[str, Any] = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups}
    expected = conv2d(x, pack_weight(w, groups=groups), bias, None, None, weight_shape=w.shape, **geometry)
    wide = np.repeat(x.astype(np.float32), 2, axis=2)[:, :, ::2]
    assert np.array_equal(float_conv2d(wide, w.astype(np.float32), bias.astype(np.float32), **geometry), expected)


def test_float_pools() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-9, 10, (2, 9, 11, 3)).astype(np.int8)
    options: dict[str, Any] = {"stride": (2, 1), "pad": (1, 0, 1, 1)}
    got = float_max_pool2d(x.astype(np.float32), (3, 2), **options)
    assert np.array_equal(got, max_pool2d(x, (3, 2), **options))
    ones = np.ones((1, 4, 4, 1), np.float32)
    assert (float_avg_pool2d(ones, (2, 2), pad=(1, 1, 1, 1)) == 1).all()
    padded = float_avg_pool2d(ones, (2, 2), pad=(1, 1, 1, 1), count_include_pad=True)
    assert padded[0, :2, :2, 0].tolist() == [[0.25, 0.5], [0.5, 1.0]]


def test_float_matmul() -> None:
    a, b = np.arange(12, dtype=np.float32).reshape(2, 2, 3), np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(float_matmul(a, b), (a.astype(int) @ b.astype(int)))
