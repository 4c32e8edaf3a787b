"""Calibration and evaluation data on disk: folders of .npy files, one folder for each input, one file for each sample.

Every file is checked by its header before anything runs, so that a wrong one is named at once and not after minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hbir.errors import CalibrationError
from tools.job import Image
from tools.refusals import SampleRefusal

__all__ = ["SampleInput", "Samples", "open_samples", "read_labels"]

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class SampleInput:
    """One input as its files hold it: name, shape and dtype before preparation, and the preparation of an image."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    image: Image | None = None


@dataclass(frozen=True)
class Samples:
    """Checked samples: `files[s][i]` is the file of input i in sample s."""

    inputs: tuple[SampleInput, ...]
    files: tuple[tuple[Path, ...], ...]
    left_out: int
    """Files in the folders that are no .npy files."""

    def __len__(self) -> int:
        return len(self.files)

    def feeds(self, count: int | None = None) -> Iterator[dict[str, Array]]:
        """The first `count` samples as {input name: array} in the form that the module takes.

        Raises CalibrationError HB0422, HB0426 or HB0428 for data that only shows itself when it is read.
        """
        for row in self.files[:count]:
            yield {i.name: _fed(_load(file), i, file) for i, file in zip(self.inputs, row, strict=True)}


def open_samples(folders: Sequence[Path], inputs: Sequence[SampleInput], what: str) -> Samples:
    """Check the folders against the inputs, in order. `what` is "calibration" or "evaluation".

    Raises CalibrationError HB0420 to HB0425.
    """
    if len(folders) != len(inputs):
        raise CalibrationError(
            *(SampleRefusal.COUNT, f"{len(folders)} folders of {what} data for {len(inputs)} inputs"),
            why=f"the inputs are {', '.join(i.name for i in inputs)}",
            lever="give one folder for each input, in that order, separated by ;",
        )
    columns: list[list[Path]] = []
    left_out = 0
    for folder, entry in zip(folders, inputs, strict=True):
        files, others = _files(folder, what)
        left_out += others
        for file in files:
            _check(file, entry)
        columns.append(files)
    counts = {entry.name: len(column) for entry, column in zip(inputs, columns, strict=True)}
    if len(set(counts.values())) > 1:
        raise CalibrationError(
            *(SampleRefusal.COUNT, f"the inputs have different numbers of {what} samples"),
            why=", ".join(f"{name}: {count}" for name, count in counts.items()),
            lever="give each input the same number of files; they are paired in the order of their names",
        )
    return Samples(tuple(inputs), tuple(zip(*columns, strict=True)), left_out)


def _files(folder: Path, what: str) -> tuple[list[Path], int]:
    if not folder.is_dir():
        raise CalibrationError(
            SampleRefusal.FOLDER,
            f"there is no folder {folder}",
            why=f"it is to hold {what} data",
            lever="check the path",
        )
    every = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    files = [path for path in every if path.suffix == ".npy"]
    if not files:
        raise CalibrationError(
            *(SampleRefusal.EMPTY, f"{folder} holds no .npy file"),
            why=f"it holds {len(every)} other files" if every else "it is empty",
            lever="save each sample with numpy.save, 20 to 100 of them",
        )
    return files, len(every) - len(files)


def _load(file: Path, mode: Any = None) -> Array:
    try:
        return np.load(file, mmap_mode=mode, allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise CalibrationError(
            *(SampleRefusal.NOT_NPY, f"{file} is not an .npy file"),
            why=" ".join(str(error).split()),
            lever="save the array with numpy.save; files of a folder are all read as samples",
        ) from None


def _check(file: Path, entry: SampleInput) -> None:
    array = _load(file, "r")
    if array.shape != entry.shape:
        reordered = len(array.shape) == 4 and sorted(array.shape) == sorted(entry.shape)
        lever = "save each sample with exactly this shape, the batch axis included"
        raise CalibrationError(
            *(SampleRefusal.SHAPE, f"{file} has shape {list(array.shape)}"),
            where=f"input '{entry.name}'",
            why=f"the model takes {list(entry.shape)}",
            lever="transpose it: the channels stand elsewhere" if reordered else lever,
        )
    allowed = [entry.dtype, np.dtype(np.uint8)] if entry.image is not None else [entry.dtype]
    if array.dtype not in allowed:
        names = " or ".join(str(dtype) for dtype in allowed)
        raise CalibrationError(
            *(SampleRefusal.DTYPE, f"{file} holds {array.dtype}"),
            where=f"input '{entry.name}'",
            why=f"the model takes {names}, and nothing is converted silently",
            lever=f"save array.astype(numpy.{entry.dtype})",
        )


def _fed(array: Array, entry: SampleInput, file: Path) -> Array:
    """A sample as the module takes it: as it is, or for an image with its channels in the order and place of the input."""
    where = f"input '{entry.name}'"
    if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
        raise CalibrationError(
            SampleRefusal.NOT_FINITE,
            f"{file} holds NaN or infinity",
            where=where,
            lever="save the sample again, or remove the file",
        )
    if entry.image is None:
        return np.ascontiguousarray(array)
    low, high = float(array.min()), float(array.max())
    if low < 0 or high > 255:
        raise CalibrationError(
            *(SampleRefusal.PIXELS, f"{file} holds values from {low:g} to {high:g}"),
            where=where,
            why="an image input takes pixels from 0 to 255; mean and scale are applied inside the model",
            lever="save the picture before it is normalised, or make the input a featuremap",
        )
    pixels = np.asarray(array, np.float32)
    if entry.image.layout == "NCHW":
        pixels = pixels.transpose(0, 2, 3, 1)
    if entry.image.fed != entry.image.trained:
        pixels = pixels[..., ::-1]
    if entry.image.fed == "gray":
        pixels = pixels.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(pixels)


def read_labels(path: Path, samples: int) -> npt.NDArray[np.int64]:
    """One class index a line, as many as there are samples. Raises CalibrationError HB0427."""

    def refuse(what: str, why: str = "") -> CalibrationError:
        return CalibrationError(
            SampleRefusal.LABELS,
            what,
            why=why,
            lever="write one class index a line, in the order of the samples' file names",
        )

    try:
        lines = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise refuse(f"labels {path} cannot be read", str(error)) from None
    if wrong := [line for line in lines if not (line.isascii() and line.isdigit())]:
        raise refuse(f"'{wrong[0][:40]}' in {path} is no class index")
    if len(lines) != samples:
        raise refuse(f"{path} has {len(lines)} labels for {samples} samples")
    return np.array([int(line) for line in lines], np.int64)
