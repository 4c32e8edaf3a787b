"""Kernels called from several threads at once give what one thread gives; what is shared, and when helpers wake."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hbir.kernels import conv2d, pack_weight
from hbir.kernels.jit import workers


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


@pytest.mark.parametrize(
    ("threads", "nanoseconds", "most", "tasks"),
    [
        (2, 19_999, 9, 1),  # not worth a second thread
        (2, 20_000, 9, 2),
        (2, 79_999, 9, 2),
        (2, 80_000, 9, 4),  # a thread that comes late takes less
        (4, 1e9, 99, 8),
        (4, 1e9, 3, 3),
        (2, 1e9, 0, 1),
        (1, 1e9, 9, 1),
    ],
)
def test_split(monkeypatch: pytest.MonkeyPatch, threads: int, nanoseconds: float, most: int, tasks: int) -> None:
    monkeypatch.setattr(workers, "threads", lambda: threads)
    assert workers.split(nanoseconds, most) == tasks


@pytest.mark.parametrize(
    ("jobs", "wakes"),
    [
        ([(0, 4)], [0]),  # a long job wakes the helpers at once
        ([(0, 2), (400_000, 2), (800_000, 2), (1_000_000, 2)], [400_000, 1_000_000]),  # short ones in a row every time
        ([(0, 2), (600_000, 2), (1_200_000, 2)], []),  # short ones with pauses between them do not
    ],
)
def test_when_helpers_wake(monkeypatch: pytest.MonkeyPatch, jobs: list[tuple[int, int]], wakes: list[int]) -> None:
    clock, woken = SimpleNamespace(now=0), []
    monkeypatch.setattr(workers, "threads", lambda: 2)
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic_ns=lambda: 10**9 + clock.now))
    helpers: Any = workers._Helpers(0)  # pyright: ignore[reportPrivateUsage]
    helpers._wake = lambda: woken.append(clock.now)
    for at, tasks in jobs:
        clock.now = at
        helpers.miss(tasks)
    assert woken == wakes
