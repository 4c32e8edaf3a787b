"""Kernels called from several threads at once give what one thread gives."""

from __future__ import annotations

import threading

import numpy as np

from hbir.kernels import conv2d, pack_weight


def test_concurrent_callers() -> None:
    rng = np.random.default_rng(0)
    weight = rng.integers(-128, 128, (64, 3, 3, 64)).astype(np.int8)
    packed = pack_weight(weight)
    images = [rng.integers(-128, 128, (1, 28, 28, 64)).astype(np.int8) for _ in range(4)]
    expected = [conv2d(x, packed, None, None, None, weight_shape=weight.shape) for x in images]
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(100):
            got = conv2d(images[number], packed, None, None, None, weight_shape=weight.shape)
            if not np.array_equal(got, expected[number]):
                wrong.append(number)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(len(images))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
