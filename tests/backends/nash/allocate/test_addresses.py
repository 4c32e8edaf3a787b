"""Placement against brute force, against published instances, and what `allocate` promises about every memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.nash.allocate import allocate
from backends.nash.allocate.addresses import lower_bound, place
from backends.nash.schedule import Buffer, Region, Schedule, Task
from hbir.errors import BackendError
from hbir.march import load_march
from tests.reporting import Figures

DATA = Path(__file__).parents[3] / "data"
Life = tuple[int, int]

buffers = st.lists(
    st.tuples(st.integers(1, 9), st.integers(0, 8), st.integers(0, 5)).map(lambda t: (t[0], (t[1], t[1] + t[2]))),
    min_size=1,
    max_size=6,
)


def alive_together(a: Life, b: Life) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]


def assert_apart(address: Sequence[int], sizes: Sequence[int], lives: Sequence[Life]) -> None:
    for i in range(len(sizes)):
        for j in range(i):
            if alive_together(lives[i], lives[j]):
                assert address[i] + sizes[i] <= address[j] or address[j] + sizes[j] <= address[i]


def optimum(sizes: Sequence[int], lives: Sequence[Life]) -> int:
    """The least peak: some order makes first fit optimal (take an optimal plan's order of addresses), so try all."""
    best = sum(sizes)
    for order in permutations(range(len(sizes))):
        address: dict[int, int] = {}
        for i in order:
            taken = sorted((address[j], address[j] + sizes[j]) for j in address if alive_together(lives[i], lives[j]))
            at = 0
            for low, high in taken:
                if low - at >= sizes[i]:
                    break
                at = max(at, high)
            address[i] = at
        best = min(best, max(at + sizes[i] for i, at in address.items()))
    return best


@given(buffers)
def test_placement_is_legal_and_close_to_the_optimum(rows: list[tuple[int, Life]]) -> None:
    sizes, lives = [size for size, _ in rows], [life for _, life in rows]
    address, peak = place(sizes, lives)
    assert_apart(address, sizes, lives)
    assert peak == max(at + size for at, size in zip(address, sizes, strict=True))
    least, bound = optimum(sizes, lives), lower_bound(sizes, lives)
    assert bound == max(sum(s for s, (a, b) in zip(sizes, lives, strict=True) if a <= t <= b) for t in range(15))
    assert bound <= least <= peak
    # Three orders of first fit are no search; on six buffers they stay within a third of the optimum.
    assert 3 * peak <= 4 * least


def test_nothing_to_place() -> None:
    assert place([], []) == ([], 0)


def test_buffers_that_never_meet_share_an_address() -> None:
    address, peak = place([5, 7, 3], [(0, 1), (2, 3), (4, 4)])
    assert (address, peak) == ([0, 0, 0], 7)


def test_the_first_order_that_fits_is_taken() -> None:
    sizes, lives = [4, 4, 2], [(0, 2), (3, 5), (2, 3)]
    assert place(sizes, lives, capacity=6)[1] <= 6


# (file, largest peak over lower bound that is accepted): first fit reaches these, 1.0 is what a search could reach.
@pytest.mark.parametrize(("file", "limit"), [("minimalloc_A.csv", 1.30), ("minimalloc_D.csv", 1.32)])
def test_published_instances(file: str, limit: float, figures: Figures) -> None:
    """Benchmark instances of MiniMalloc; their optimal peak is 1 MiB. Rows: id, first step, one past the last, size."""
    lines = (DATA / file).read_text(encoding="ascii").splitlines()
    rows = [tuple(map(int, line.split(","))) for line in lines if line[:1].isdigit()]
    sizes, lives = [row[3] for row in rows], [(row[1], row[2] - 1) for row in rows]
    address, peak = place(sizes, lives)
    assert_apart(address, sizes, lives)
    bound = lower_bound(sizes, lives)
    figures(f"{file}: {len(rows)} buffers, peak {peak:,} bytes, {peak / bound:.3f} of the lower bound")
    assert bound <= 1 << 20
    assert bound <= peak <= limit * bound


def region(buffer: int, size: int = 64) -> Region:
    return Region.dense(buffer, "u8", (size,))


def sample() -> Schedule:
    """Load a constant and an input, add them up twice through a workspace in DDR, store the output."""
    kinds = [
        Buffer("CONST", 100, content=bytes(100)),
        Buffer("DDR", 100, name="x", kind="input"),
        Buffer("DDR", 100, name="y", kind="output"),
        *(Buffer("L1M", 128) for _ in range(4)),
        Buffer("DDR", 100),
        Buffer("L1M", 128, core=1),
    ]
    moves = [(0, 3), (1, 4), (4, 5), (5, 7), (7, 6), (6, 2), (0, 8)]
    tasks = [
        Task(
            "LOAD" if kinds[b].space == "L1M" else "STORE",
            kinds[max(a, b)].core,
            "l",
            {"src": region(a), "dst": region(b)},
            {},
            0,
        )
        for a, b in moves
    ]
    return Schedule(tuple(kinds), tuple(tasks))


def test_memories_are_laid_out_as_promised() -> None:
    march = load_march("nash-p")
    schedule = sample()
    found = allocate(schedule, march)
    align = march.memory_alignment
    assert all(at % align == 0 for at in found.address)
    # Constants first, then inputs and outputs, then workspace.
    assert found.address[0] == 0
    assert found.constants == 128
    assert sorted(found.address[i] for i in (1, 2, 7)) == [128, 256, 384]
    assert found.address[7] == 384
    assert found.ddr >= 484
    first = [i for i, b in enumerate(schedule.buffers) if (b.space, b.core) == ("L1M", 0)]
    assert_apart([found.address[i] for i in first], [128] * 4, [schedule.lives[i] for i in first])
    assert found.l1m >= found.l1m_bound == 256
    # Each core has its own L1M.
    assert found.address[8] == 0
    assert "lower bound 256" in str(found)


def test_too_little_memory_is_refused() -> None:
    march = replace(load_march("nash-e"), l1m_bytes=192)
    with pytest.raises(BackendError) as refusal:
        allocate(sample(), march)
    assert refusal.value.code == "HB0541"
    assert "256" in str(refusal.value)
    assert "192" in str(refusal.value)
    assert refusal.value.lever


def test_l2m_beyond_what_was_granted_is_refused() -> None:
    schedule = sample()
    buffers = tuple(replace(b, space="L2M") if i == 7 else b for i, b in enumerate(schedule.buffers))
    assert allocate(Schedule(buffers, schedule.tasks), load_march("nash-p"), l2m_bytes=128).l2m == 128
    with pytest.raises(BackendError, match="L2M"):
        allocate(Schedule(buffers, schedule.tasks), load_march("nash-p"), l2m_bytes=64)
