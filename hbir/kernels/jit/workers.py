# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba compiles these functions: their types are the records and intrinsics they use)
"""The threads that run tasks: a job is split into tasks that the caller and its helpers claim one by one.

The caller never waits for a helper that has not begun: on a busy machine it simply runs every task itself. Helpers stay awake
for a moment after a job, because a network is a row of short jobs, then sleep. What is too short to share, and what is too
short to wake a helper for, is stated here in nanoseconds of work; each kernel estimates its own. When a helper that holds a
task loses its processor to another program, the caller has to wait; after that it works alone for a while. A second caller, in
another thread, runs its tasks alone; so does the child of a fork.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from hbir.kernels.jit.compile import released
from hbir.kernels.jit.simd import atomic_add, atomic_load, atomic_swap, call_task, pointer_int64, relax

__all__ = ["bind_task", "split", "threads"]

# Words of the shared state, a cache line (8 words) apart. A ticket holds the job's task count (above bit 20) and the next task.
_TICKET, _DONE, _LOCK, _ADDRESS, _RECORD, _ALONE, _WORDS = 0, 8, 16, 24, 32, 40, 48
_COUNT_BIT = 20
_PATIENCE = 10_000  # rounds a caller waits for a helper that took a task before it counts the machine as busy
_ALONE_JOBS = 200  # jobs it then runs without helpers
_SPINS = 4000  # waiting rounds before a helper sleeps: a few hundred microseconds

# Measured on two processors. A job that is split costs 1 to 3 us more, so that halves gain from about 8 us on; a second thread
# for less than _SHARED would burn a processor for little. Waking a helper costs 25 to 40 us until it works: it pays for a job
# of _LONG, or for a second one of _SHARED in a row.
_SHARED = 20_000  # nanoseconds of work from which a job is split
_LONG = 80_000  # nanoseconds from which it is split in more tasks than threads: a thread that comes late takes less
_ROW = 500_000  # nanoseconds within which jobs follow each other in a row


@numba.njit
def _work(state):
    """Claim and run tasks until none is left; returns how many."""
    ticket, ran = state + 8 * _TICKET, 0
    while True:
        seen = atomic_load(ticket)
        if seen & ((1 << _COUNT_BIT) - 1) >= seen >> _COUNT_BIT:
            return ran
        # The claimed ticket names its own job's count, and that job's address stays until all its tasks are done.
        claimed = atomic_add(ticket, 1)
        index = claimed & ((1 << _COUNT_BIT) - 1)
        if index >= claimed >> _COUNT_BIT:
            return ran
        words = pointer_int64(state)
        call_task(words[_ADDRESS], index, words[_RECORD])
        atomic_add(state + 8 * _DONE, 1)
        ran += 1


@released
def _run(state, address, count, record):
    words = pointer_int64(state)
    alone = count == 1
    if not alone and words[_ALONE] > 0:
        words[_ALONE] -= 1
        alone = True
    if alone or atomic_swap(state + 8 * _LOCK, 1) != 0:
        for index in range(count):
            call_task(address, index, record)
        return 0
    atomic_swap(state + 8 * _ADDRESS, address)
    atomic_swap(state + 8 * _RECORD, record)
    atomic_swap(state + 8 * _DONE, 0)
    atomic_swap(state + 8 * _TICKET, count << _COUNT_BIT)
    _work(state)
    waited = 0
    while atomic_load(state + 8 * _DONE) < count:
        waited += 1
        relax()
    if waited > _PATIENCE:
        words[_ALONE] = _ALONE_JOBS
    atomic_swap(state + 8 * _LOCK, 0)
    return 0


@released
def _assist(state):
    """Run tasks as they come, until none has come for a while."""
    idle = 0
    while idle < _SPINS:
        idle = 0 if _work(state) else idle + 1
        relax()
    return 0


class _Helpers:
    """The helper threads of this process; `asleep` is true while any of them needs the bell."""

    def __init__(self, count: int) -> None:
        self.state = np.zeros(_WORDS, np.int64)
        self.place = self.state.ctypes.data
        self.bell = threading.Condition()
        self.sleeping = 0
        self.missed, self.missed_at = 0, 0
        for number in range(count):
            threading.Thread(target=self._serve, name=f"hbir-kernel-{number}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            with self.bell:
                self.sleeping += 1
                self.bell.wait()
            _assist(self.place)

    def miss(self, tasks: int) -> None:
        """A job of so many tasks comes while helpers sleep: wake them if that and the row before it are worth it."""
        now = time.monotonic_ns()
        self.missed = tasks + (self.missed if now - self.missed_at < _ROW else 0)
        self.missed_at = now
        if self.missed >= 2 * threads():
            self.missed = 0
            self._wake()

    def _wake(self) -> None:
        with self.bell:
            self.sleeping = 0
            self.bell.notify_all()


def threads() -> int:
    """Threads that share the tasks of a job: the caller and its helpers (NUMBA_NUM_THREADS sets it)."""
    return int(numba.config.NUMBA_NUM_THREADS)  # pyright: ignore[reportAttributeAccessIssue]


def split(nanoseconds: float, most: int) -> int:
    """Tasks, at most `most`, for a job that takes one thread about so long: 1 for what is not worth sharing."""
    if nanoseconds < _SHARED or threads() == 1:
        return 1
    return max(1, min(most, threads() if nanoseconds < _LONG else 2 * threads()))


_helpers = _Helpers(threads() - 1)


def bind_task(address: int, count: int, record: npt.NDArray[Any], *alive: Any) -> Callable[[], None]:
    """Function that runs `count` tasks on `record`; it keeps `alive`, whose addresses the record holds, from being freed."""
    place, state, helpers = record.ctypes.data, _helpers.place, _helpers

    def run(_alive: tuple[Any, ...] = (record, *alive)) -> None:
        if count > 1 and helpers.sleeping:
            helpers.miss(count)
        _run(state, address, count, place)

    return run
