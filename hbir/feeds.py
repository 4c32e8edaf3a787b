"""Input sets on disk: one `.npz` file holds an array for each input, under its name, as numpy writes and reads them."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hbir.dialects.base import Array
from hbir.errors import CalibrationError
from hbir.ir.files import replacing

__all__ = ["read_feed", "write_feed"]

# A fixed date: the same arrays give the same bytes.
_DATE = (1980, 1, 1, 0, 0, 0)

# What numpy and zipfile raise over damaged archives; RuntimeError for one that claims to be encrypted.
_DAMAGED = (ValueError, EOFError, KeyError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error)


def write_feed(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write the arrays, by name. Raises ConfigError HB0801 when the file cannot be written."""
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            with archive.open(zipfile.ZipInfo(f"{name}.npy", _DATE), "w", force_zip64=True) as entry:
                # Row-major bytes: what a file holds should not depend on how the array was made.
                np.save(entry, np.asarray(arrays[name], order="C"), allow_pickle=False)


def read_feed(path: Path) -> dict[str, Array]:
    """The arrays of a `.npz` file, by name. Raises CalibrationError HB0414 for a file that is none."""
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array without a name")
            return {name: archive[name] for name in archive.files}
    except (OSError, *_DAMAGED) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or "it ends early"
        lever = "write it with numpy.savez, one array for each input"
        raise CalibrationError(14, f"{path.name} holds no input set", why=reason, lever=lever) from None
