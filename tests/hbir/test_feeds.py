"""Input sets on disk: what is written is read, the same arrays give the same bytes, damage is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbir.errors import CalibrationError
from hbir.feeds import read_feed, write_feed

ARRAYS = {
    "file": np.arange(6, dtype=np.int8).reshape(2, 3).T,
    "a/b:0": np.float32(2.5).reshape(()),
    "../x": np.zeros((0, 3), np.int32),
}


def test_arrays_come_back_and_bytes_are_stable(tmp_path: Path) -> None:
    write_feed(tmp_path / "a.npz", ARRAYS)
    write_feed(tmp_path / "b.npz", dict(reversed(ARRAYS.items())))
    found = read_feed(tmp_path / "a.npz")
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(found[name], array, strict=True)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_files_of_numpy_are_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.ones((2, 2), np.float32))
    assert read_feed(tmp_path / "a.npz")["x"].sum() == 4


def test_what_is_no_input_set_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "one.npy", np.ones(3))
    np.savez(tmp_path / "object.npz", x=np.array([{}], dtype=object))
    (tmp_path / "empty.npz").write_bytes(b"")
    for name in ("one.npy", "object.npz", "empty.npz", "missing.npz"):
        with pytest.raises(CalibrationError, match=f"HB0414.*{name}"):
            read_feed(tmp_path / name)


def test_damage_is_refused_or_changes_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    write_feed(path, ARRAYS)
    whole = path.read_bytes()

    @settings(max_examples=200)
    @given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
    def check(changes: list[tuple[int, int]], cut: bool) -> None:
        data = bytearray(whole)
        for place, value in changes:
            data[place % len(data)] = value
        path.write_bytes(data[: changes[0][0]] if cut else data)
        try:
            read_feed(path)
        except CalibrationError as error:
            assert error.code == "HB0414"

    check()
