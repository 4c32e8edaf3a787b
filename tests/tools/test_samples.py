"""Folders of samples: what fits is fed exactly, what does not is named before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hbir.errors import CalibrationError
from tests.tools.small import SHAPE, write_samples
from tools.job import Image
from tools.samples import SampleInput, Samples, open_samples, read_labels

FLOAT = np.dtype(np.float32)
PLAIN = SampleInput("x", SHAPE, FLOAT)


def opened(folder: Path, entry: SampleInput = PLAIN) -> Samples:
    return open_samples([folder], [entry], "calibration")


def refused(code: str, folder: Path, entry: SampleInput = PLAIN) -> str:
    with pytest.raises(CalibrationError, match=code) as caught:
        list(opened(folder, entry).feeds())
    assert caught.value.lever
    return str(caught.value)


def test_samples_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write_samples(tmp_path, 12)
    (tmp_path / "note.txt").write_text("")
    (tmp_path / ".hidden").write_text("")
    samples = opened(tmp_path)
    assert (len(samples), samples.left_out) == (12, 1)
    for index, feed in enumerate(samples.feeds()):
        assert feed["x"].tobytes() == np.load(tmp_path / f"{index:03d}.npy").tobytes()
    assert len(list(samples.feeds(3))) == 3


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.float16, np.uint8])
def test_wrong_dtype(tmp_path: Path, dtype: type) -> None:
    assert "nothing is converted silently" in refused("HB0424", write_samples(tmp_path, 1, dtype=dtype))


def test_wrong_shape(tmp_path: Path) -> None:
    assert "[3, 16, 16]" in refused("HB0423", write_samples(tmp_path / "a", 1, shape=(3, 16, 16)))
    assert "transpose" in refused("HB0423", write_samples(tmp_path / "b", 1, shape=(1, 16, 16, 3)))


def test_one_wrong_file_among_many_is_named(tmp_path: Path) -> None:
    write_samples(tmp_path, 9)
    np.save(tmp_path / "004.npy", np.zeros((1, 3, 8, 8), np.float32))
    with pytest.raises(CalibrationError, match="004.npy"):
        opened(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"garbage" * 9, b"\x93NUMPY\x01\x00\xff\xff{'descr': "])
def test_files_that_are_no_arrays(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    refused("HB0422", tmp_path)


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    refused("HB0422", tmp_path)


def test_truncated_data(tmp_path: Path) -> None:
    write_samples(tmp_path, 1)
    (tmp_path / "000.npy").write_bytes((tmp_path / "000.npy").read_bytes()[:-4])
    refused("HB0422", tmp_path)


def test_no_folder_and_no_samples(tmp_path: Path) -> None:
    refused("HB0420", tmp_path / "none")
    refused("HB0421", tmp_path)
    (tmp_path / "picture.jpg").write_bytes(b"")
    assert "1 other files" in refused("HB0421", tmp_path)


def test_counts_must_agree(tmp_path: Path) -> None:
    folders = [write_samples(tmp_path / "a", 2), write_samples(tmp_path / "b", 3)]
    with pytest.raises(CalibrationError, match="HB0425.*x: 2, y: 3"):
        open_samples(folders, [PLAIN, SampleInput("y", SHAPE, FLOAT)], "calibration")
    with pytest.raises(CalibrationError, match="HB0425.*1 folders"):
        open_samples(folders[:1], [PLAIN, PLAIN], "calibration")


def test_nan_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full(SHAPE, np.nan, np.float32))
    refused("HB0428", tmp_path)


@pytest.mark.parametrize(("fed", "layout"), [("rgb", "NCHW"), ("bgr", "NCHW"), ("rgb", "NHWC"), ("bgr", "NHWC")])
def test_pictures_are_fed_as_the_input_takes_them(tmp_path: Path, fed: str, layout: str) -> None:
    shape = (1, 3, 4, 5) if layout == "NCHW" else (1, 4, 5, 3)
    write_samples(tmp_path, 1, shape=shape, dtype=np.uint8)
    stored = np.load(tmp_path / "000.npy")
    entry = SampleInput("x", shape, FLOAT, Image("rgb", fed, layout))
    (feed,) = opened(tmp_path, entry).feeds()
    assert feed["x"].dtype == np.float32 and feed["x"].shape == (1, 4, 5, 3) and feed["x"].flags.c_contiguous
    for channel in range(3):
        source = stored[0, channel] if layout == "NCHW" else stored[0, ..., channel]
        assert (feed["x"][0, ..., channel if fed == "rgb" else 2 - channel] == source).all()


def test_normalised_pictures_are_refused(tmp_path: Path) -> None:
    write_samples(tmp_path, 1)
    assert "before it is normalised" in refused(
        "HB0426", tmp_path, SampleInput("x", SHAPE, FLOAT, Image("rgb", "rgb", "NCHW"))
    )


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("0\n3\n2\n")
    assert read_labels(path, 3).tolist() == [0, 3, 2]
    for text in ("0\n1\n", "0\n1\n-1\n", "0\n1\ncat\n", "0\n1\n²\n"):
        path.write_text(text)
        with pytest.raises(CalibrationError, match="HB0427"):
            read_labels(path, 3)
    with pytest.raises(CalibrationError, match="HB0427"):
        read_labels(tmp_path / "none", 3)
