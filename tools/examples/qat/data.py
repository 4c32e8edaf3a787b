"""The pictures of the examples: CIFAR-10 where its folder is given, Fashion-MNIST otherwise.

Both become pictures of 3 x 32 x 32 bytes, which all fit into memory. A network gets k / 128 with k from -128 to 127: what a
camera's pyramid hands over, and exactly the grid of a `QuantStub(scale=1 / 128)`.
"""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hbir.errors import ConfigError

__all__ = ["SIZE", "Pictures", "batches", "load_pictures", "split"]

SIZE = 32
"""Pixels along each side of a picture."""
CIFAR10 = "cifar-10-batches-py"
FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where the Debian package `dataset-fashion-mnist` puts its files."""

_SHIFT = {1: 2, 3: 4}
"""How far training moves a picture at most, by its channels: clothes are centred."""


@dataclass(frozen=True)
class Pictures:
    """Pictures uint8 (N, 1 or 3, 32, 32) and their classes int64 (N,)."""

    images: torch.Tensor
    labels: torch.Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, first: int, end: int | None = None) -> Pictures:
        """The pictures from `first` to before `end`."""
        return Pictures(self.images[first:end], self.labels[first:end])


def load_pictures(data_path: Path) -> tuple[str, Pictures, Pictures]:
    """The name of the data set, its training pictures and its test pictures.

    `data_path` is or holds `cifar-10-batches-py`, or holds the four files of Fashion-MNIST; without either, the files of the
    Debian package are taken. Raises ConfigError HB0892 when there is no data, HB0893 for files that cannot be read.
    """
    for folder in (data_path, data_path / CIFAR10):
        if (folder / "data_batch_1").is_file():
            return "CIFAR-10", *_cifar10(folder)
    for folder in (data_path, FASHION_MNIST):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return "Fashion-MNIST", *(_fashion_mnist(folder, kind) for kind in ("train", "t10k"))
    raise ConfigError(
        92,
        "there are no pictures to train on",
        where=str(data_path),
        why=f"neither {CIFAR10}/data_batch_1 nor train-images-idx3-ubyte.gz is there",
        lever="apt-get install dataset-fashion-mnist, or give the folder of one of both with --data-path",
    )


def split(train: Pictures) -> tuple[Pictures, Pictures]:
    """The pictures to train on, and the last twelfth, by which the best epoch is chosen: the test pictures stay unseen."""
    first = len(train) - max(1, len(train) // 12)
    return train.part(0, first), train.part(first)


def batches(
    pictures: Pictures,
    size: int,
    device: torch.device,
    *,
    seed: int | None = None,
    rank: int = 0,
    ranks: int = 1,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of pictures, float32 (n, 3, 32, 32), and classes.

    With a `seed` they are shuffled, mirrored and shifted, and all have `size` pictures (where there are so many); without, they
    come in order and as they are, and the last may be smaller. Of several processes, number `rank` gets its share; all get
    as many batches.
    """
    count = len(pictures) // ranks
    if seed is None:
        order = torch.arange(rank * count, (rank + 1) * count if rank < ranks - 1 else len(pictures))
        whole = len(order)
    else:
        order = torch.randperm(len(pictures), generator=torch.Generator().manual_seed(seed))[rank::ranks][:count]
        size = min(size, count)
        whole = count // size * size
    generator = torch.Generator().manual_seed((seed or 0) * ranks + rank)
    for first in range(0, whole, size):
        chosen = order[first : first + size]
        images = pictures.images[chosen]
        if seed is not None:
            images = _moved(images, _SHIFT[images.shape[1]], generator)
        values = (images.to(device).float() - 128) / 128
        values = values.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        yield values, pictures.labels[chosen].to(device)


def _moved(images: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Each picture shifted by at most `most` rows and columns, every other one mirrored; zeros come in from outside."""
    count, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (most, most, most, most))
    shift = torch.randint(0, 2 * most + 1, (2, count, 1), generator=generator)
    mirrored = torch.rand(count, 1, generator=generator) < 0.5
    across = torch.arange(width).expand(count, -1)
    columns = torch.where(mirrored, width - 1 - across, across) + shift[1]
    rows = torch.arange(height) + shift[0]
    each = torch.arange(count)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _fashion_mnist(folder: Path, kind: str) -> Pictures:
    """28 x 28 grey levels, with two black pixels around."""
    images = _idx(folder / f"{kind}-images-idx3-ubyte.gz", 3)
    labels = _idx(folder / f"{kind}-labels-idx1-ubyte.gz", 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels):
        raise _damaged(folder, f"{kind} has images {images.shape} and labels {labels.shape}")
    return Pictures(
        torch.nn.functional.pad(torch.from_numpy(images)[:, None], (2, 2, 2, 2)), torch.from_numpy(labels).long()
    )


def _idx(path: Path, rank: int) -> npt.NDArray[np.uint8]:
    """An array of the IDX format: two zeros, 8 for bytes, the rank, big-endian extents, the bytes."""
    try:
        data = gzip.decompress(path.read_bytes())
    except (OSError, EOFError) as error:
        raise _damaged(path, str(error)) from error
    start = 4 + 4 * rank
    shape = tuple(np.frombuffer(data[4:start], ">u4").tolist()) if len(data) >= start else ()
    if data[:4] != bytes((0, 0, 8, rank)) or len(data) - start != int(np.prod(shape, dtype=np.int64)):
        raise _damaged(path, f"it is no IDX file of rank {rank}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape).copy()


class _ArraysOnly(pickle.Unpickler):
    """Reads what the published files hold, arrays and plain values, and nothing that could run."""

    known = (
        *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")),
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _cifar10(folder: Path) -> tuple[Pictures, Pictures]:
    many = [_cifar10_batch(path) for path in sorted(folder.glob("data_batch_*"))]
    train = Pictures(torch.cat([each.images for each in many]), torch.cat([each.labels for each in many]))
    return train, _cifar10_batch(folder / "test_batch")


def _cifar10_batch(path: Path) -> Pictures:
    """One of the files: a dictionary of rows of 3 x 32 x 32 bytes, and their classes."""
    try:
        found = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        images = np.array(found[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = np.array(found[b"labels"], np.int64)
    except (OSError, EOFError, LookupError, TypeError, ValueError, AttributeError, pickle.UnpicklingError) as error:
        raise _damaged(path, str(error)) from error
    if labels.shape != (len(images),):
        raise _damaged(path, f"it has {len(images)} pictures and labels {labels.shape}")
    return Pictures(torch.from_numpy(images), torch.from_numpy(labels))


def _damaged(path: Path, why: str) -> ConfigError:
    return ConfigError(93, "the data set cannot be read", where=str(path), why=why, lever="fetch the file again")
