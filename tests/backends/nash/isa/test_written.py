"""Which bytes are written: both ways to keep it agree with each other, and neither takes much for what a small file can say."""

from __future__ import annotations

import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import Hbm
from backends.nash.hbm import Model, Tensor, write
from backends.nash.isa import Memories, ProgramBuilder, View
from backends.nash.isa.hazards import overlap
from backends.nash.isa.written import WrittenBytes, byte_box, pieces, runs
from hbir.errors import SimulationError
from tests.backends.nash.samples import pool_model

SIZE = 4096
LARGE = Memories(ddr=1 << 36, l1m=1 << 30, constants=64)
SMALL = Memories(ddr=SIZE, l1m=SIZE, constants=64)


@st.composite
def views(draw: st.DrawFn) -> View:
    """Strided boxes of bytes behind the constants, their axes in any order."""
    extents = draw(st.lists(st.integers(1, 5), max_size=4))
    strides, reach = list[int](), 1
    for extent in extents:
        stride = reach * draw(st.integers(1, 3))
        strides.append(stride)
        reach = stride * (extent - 1) + reach
    order = draw(st.permutations(range(len(extents))))
    address = draw(st.integers(64, SIZE - reach))
    return View("DDR", "i8", tuple(extents[i] for i in order), address, tuple(strides[i] for i in order))


def addresses(view: View) -> list[int]:
    grid = np.add.outer(0, view.address)
    for extent, stride in zip(view.shape, view.strides, strict=True):
        grid = np.add.outer(grid, np.arange(extent) * stride)
    return sorted(grid.ravel().tolist())


@given(view=views())
def test_runs_are_the_bytes_of_a_view(view: View) -> None:
    starts, length = runs(view)
    assert pieces(view) == len(starts)
    assert sorted((starts[:, None] + np.arange(length)).ravel().tolist()) == addresses(view)


@given(written=st.lists(views(), max_size=12), asked=st.lists(views(), min_size=1, max_size=6))
def test_flags_and_intervals_agree_with_a_set_of_bytes(written: list[View], asked: list[View]) -> None:
    few, many, known = WrittenBytes(SMALL), WrittenBytes(LARGE), set[int]()
    for view in written:
        few.write(view)
        many.write(view)
        known.update(addresses(view))
        for other in (*asked, view):
            expected = known.issuperset(addresses(other))
            assert few.all(other) == many.all(other) == expected


def test_memories_are_told_apart() -> None:
    for memories in (replace(SMALL, cores=2), replace(LARGE, cores=2)):
        written = WrittenBytes(memories)
        written.write(View.dense("L1M", "i8", (8,), 0, core=1))
        assert written.all(View.dense("L1M", "i8", (8,), 0, core=1))
        assert not written.all(View.dense("L1M", "i8", (8,), 0, core=0))
        assert written.all(View.dense("DDR", "i8", (64,), 0))
        assert not written.all(View.dense("DDR", "i8", (65,), 0))


def with_input(view: View) -> Model:
    model = pool_model()
    return replace(model, memories=replace(model.memories, ddr=1 << 36), inputs=(*model.inputs, Tensor("z", view)))


def test_a_small_file_with_a_large_input_takes_little_memory(tmp_path: Path) -> None:
    # Once one flag for each byte of DDR: 64 GiB, or a MemoryError.
    write([with_input(View.dense("DDR", "i8", (1 << 30,), 1 << 20))], tmp_path / "a.hbm")
    tracemalloc.start()
    try:
        Hbm(tmp_path / "a.hbm")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("count", [1 << 17, 1 << 28])
def test_views_of_very_many_pieces_are_refused(tmp_path: Path, count: int) -> None:
    write([with_input(View("DDR", "i8", (count,), 1 << 20, (2,)))], tmp_path / "a.hbm")
    begin = time.process_time()
    with pytest.raises(SimulationError, match="pieces") as caught:
        Hbm(tmp_path / "a.hbm")
    assert caught.value.code == "HB0701"
    assert time.process_time() - begin < 1


def copies(count: int, extent: int, model: Model) -> Model:
    """Copies between even and odd bytes of L1M."""
    build = ProgramBuilder()
    for _ in range(count):
        src, dst = (View("L1M", "i8", (extent,), odd, (2,)) for odd in (0, 1))
        build.append("COPY", {"src": src, "dst": dst}, layer="copy")
    return replace(model, program=build.build(), memories=replace(model.memories, l1m=4 << 20))


@pytest.mark.parametrize("extent", [1 << 10, 1 << 20])
def test_programs_of_very_many_pieces_are_refused_at_once(tmp_path: Path, extent: int) -> None:
    write([copies(12, extent, pool_model())], tmp_path / "a.hbm")
    begin = time.process_time()
    with pytest.raises(SimulationError) as caught:
        Hbm(tmp_path / "a.hbm")
    # The smaller one is refused for what it reads.
    assert caught.value.code == ("HB0701" if extent == 1 << 20 else "HB0704")
    assert ("pieces" in str(caught.value)) == (extent == 1 << 20)
    assert time.process_time() - begin < 1


def test_inputs_of_very_many_pieces_are_refused_at_once(tmp_path: Path) -> None:
    model = with_input(View("DDR", "i8", (1 << 16,), 1 << 20, (2,)))
    more = tuple(replace(model.inputs[1], name=f"z{number}") for number in range(200))
    write([replace(model, inputs=(*model.inputs, *more))], tmp_path / "a.hbm")
    begin = time.process_time()
    with pytest.raises(SimulationError, match="inputs and outputs lie in too many pieces"):
        Hbm(tmp_path / "a.hbm")
    assert time.process_time() - begin < 1


def test_comparing_views_of_many_pieces_is_bounded(tmp_path: Path) -> None:
    # Even bytes are filled, odd ones are loaded by another queue: nothing orders them, and bounding intervals always meet.
    build, extent, model = ProgramBuilder(), 1 << 13, pool_model()
    for number in range(40):
        even, odd = (View("L1M", "i8", (extent,), 2 * number + at, (2,)) for at in (0, 1))
        build.append("FILL", {"dst": even}, layer="fill")
        build.append("LOAD", {"src": View("DDR", "i8", (extent,), 64, (0,)), "dst": odd}, layer="load")
    write(
        [replace(model, program=build.build(), memories=replace(model.memories, l1m=1 << 20), outputs=())],
        tmp_path / "a.hbm",
    )
    begin = time.process_time()
    with pytest.raises(SimulationError, match="too many pieces of L1M0 to be compared"):
        Hbm(tmp_path / "a.hbm")
    assert time.process_time() - begin < 1


def test_intervals_are_bounded() -> None:
    def spread(first: int, count: int) -> View:
        return View("DDR", "i8", (count,), 64 + 2 * first, (2,))

    written = WrittenBytes(LARGE)
    written.write(spread(0, 1 << 16))
    written.write(spread(0, 1 << 15))  # nothing new
    assert written.all(spread(0, 1 << 16))
    assert not written.all(spread(0, (1 << 16) + 1))
    written.write(View.dense("DDR", "i8", (5,), 64))  # four of them become one, and they touch no other
    written.write(spread(1 << 16, 2))
    assert written.all(spread(0, (1 << 16) + 2))
    with pytest.raises(SimulationError, match="HB0701.*what is written lies in more than 65536 pieces"):
        written.write(spread((1 << 16) + 2, 1))


def test_what_is_remembered_of_views_stays_small() -> None:
    # A process that verified 400,000 files once held 200 MB of them.
    assert byte_box.cache_info().maxsize == 1 << 14
    assert overlap.cache_info().maxsize == 1 << 13


@pytest.mark.parametrize(
    ("dtype", "shape", "strides", "extents", "steps"),
    [
        ("i16", (4, 8), (16, 2), (64,), (1,)),
        ("i16", (8, 4), (2, 16), (64,), (1,)),
        ("i16", (4, 8), (20, 2), (4, 16), (20, 1)),
        ("i8", (2, 3, 4, 5), (300, 100, 10, 2), (6, 20, 1), (100, 2, 1)),
        ("i8", (5, 3, 4, 2), (2, 100, 10, 300), (6, 20, 1), (100, 2, 1)),
        ("i8", (2, 3, 4), (50, 10, 2), (2, 3, 4, 1), (50, 10, 2, 1)),
        ("i8", (1, 4), (7, 1), (4,), (1,)),
        ("i8", (3, 1, 4), (0, 9, 2), (4, 1), (2, 1)),
        ("i32", (), (), (4,), (1,)),
    ],
)
def test_boxes_have_as_few_axes_as_can_be(
    dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], extents: tuple[int, ...], steps: tuple[int, ...]
) -> None:
    view = View("L1M", dtype, shape, 0, strides)
    assert byte_box(view) == (extents, steps)
    assert pieces(view) == int(np.prod(extents[:-1]))


@pytest.mark.parametrize("memories", [SMALL, LARGE])
def test_what_touches_is_one_and_what_lies_before_is_not_written(memories: Memories) -> None:
    written = WrittenBytes(memories)
    for address in (104, 100, 108):
        written.write(View.dense("DDR", "i8", (4,), address))
    assert written.all(View.dense("DDR", "i8", (12,), 100))
    for view in (
        View("DDR", "i8", (2,), 90, (10,)),
        View("DDR", "i8", (2,), 111, (10,)),
        View.dense("DDR", "i8", (2,), 99),
    ):
        assert not written.all(view)
