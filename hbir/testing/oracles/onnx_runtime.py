"""onnxruntime as a judge of imported modules: the same feeds into the ONNX model and into the module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hbir.dialects.base import Array
from hbir.module import Module
from hbir.testing.oracles.packages import import_test_package

__all__ = ["assert_agrees_with_onnxruntime"]


def _session(model: Any) -> Any:
    runtime: Any = import_test_package("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    # Without its own rewrites: what is compared is the model as it was written.
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = str(model) if isinstance(model, str | Path) else model
    source = source if isinstance(source, str | bytes) else source.SerializeToString()
    return runtime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def assert_agrees_with_onnxruntime(
    model: str | Path | bytes | Any, module: Module, feeds: Iterable[Mapping[str, Array]], tolerance: float = 1e-5
) -> None:
    """Every output of the module's first function is onnxruntime's, for all feeds: names, shapes, dtypes and values.

    `model`: a path, the bytes of a file, or an `onnx.ModelProto`. Floats may differ by `tolerance` times the largest finite
    value of the output; integers and booleans may not, and NaN equals NaN. Raises AssertionError with the name of the output
    and the largest difference, ImportError when onnxruntime is missing, ValueError without any feed.
    """
    session, count = _session(model), 0
    names = [output.name for output in session.get_outputs()]
    for count, feed in enumerate(feeds, 1):
        expected = dict(zip(names, session.run(names, dict(feed)), strict=True))
        found = module[0].feed(feed)
        assert set(found) == set(expected), f"outputs {sorted(found)}, onnxruntime has {sorted(expected)}"
        for name, value in expected.items():
            _assert_close(name, count, np.asarray(value), found[name], tolerance)
    if not count:
        raise ValueError("there is no feed to compare with: give at least one")


def _assert_close(name: str, number: int, wanted: Array, got: Array, tolerance: float) -> None:
    where = f"output '{name}' of feed {number}"
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape), (
        f"{where} is {got.dtype}{list(got.shape)}, onnxruntime gives {wanted.dtype}{list(wanted.shape)}"
    )
    if not np.issubdtype(wanted.dtype, np.floating):
        assert np.array_equal(got, wanted), f"{where}: {np.count_nonzero(got != wanted)} of {wanted.size} values differ"
        return
    largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=tolerance * largest, err_msg=where)
