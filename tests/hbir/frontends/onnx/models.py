"""Small ONNX models in the format's text form, with the type stubs that package `onnx` leaves open closed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper, parser

__all__ = ["IMAGE", "Array", "initializer", "load", "save", "text_model"]

Array = npt.NDArray[Any]
IMAGE = "(float[1,3,8,8] x) => (float[1,3,8,8] y)"
"""The signature of a model from image to image."""

_HELPER: Any = numpy_helper
_ONNX: Any = onnx


def initializer(name: str, array: npt.ArrayLike) -> onnx.TensorProto:
    """A named constant."""
    return _HELPER.from_array(np.asarray(array), name)


def text_model(
    body: str,
    signature: str = IMAGE,
    *,
    opset: int = 17,
    ir_version: int = 8,
    domains: str = "",
    constants: dict[str, Any] | None = None,
) -> onnx.ModelProto:
    """A model named "net" from nodes in text form; `domains` adds opsets, `constants` initializers."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}{domains}]>'
    model = parser.parse_model(f"{header} net {signature} {{ {body} }}")
    model.graph.initializer.extend(initializer(name, array) for name, array in (constants or {}).items())
    return model


def save(model: onnx.ModelProto, path: Path, **options: Any) -> Path:
    """Write a model."""
    _ONNX.save_model(model, path, **options)
    return path


def load(path: Path) -> onnx.ModelProto:
    """Read a model, without its external data."""
    return _ONNX.load(path, load_external_data=False)
