"""From a path or a ModelProto to a checked model: one graph, a known IR version, opsets that the converters know."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hbir.errors import ImportModelError
from hbir.frontends.onnx.errors import Refusal
from hbir.frontends.onnx.registry import CONTRIB
from hbir.frontends.onnx.tensors import ExternalData, decode_text

__all__ = ["MAX_OPSET", "MIN_OPSET", "Model", "read_model"]

MIN_OPSET = 7
"""The oldest opset that is read."""
MAX_OPSET = 26
"""The newest opset that is read."""
MIN_IR_VERSION = 3
MAX_FILE = (1 << 31) - 1
"""Bytes; protobuf's own limit for one message."""
_ALIASES = {"ai.onnx": ""}


@dataclass(frozen=True)
class Model:
    """A graph that may be walked: `opsets` by domain ("" is ONNX's own), `external` reads the files beside it."""

    graph: Any
    ir_version: int
    opsets: dict[str, int]
    external: ExternalData


def read_model(source: Any) -> Model:
    """Read and check. `source` is a path or a ModelProto. Raises ImportModelError HB0101 to HB0106."""
    from onnx import IR_VERSION, ModelProto

    if isinstance(source, ModelProto):
        model, folder = source, None
    elif isinstance(source, str | os.PathLike):
        path = Path(cast("str | os.PathLike[str]", source))
        model, folder = _parse(_read(path), path.name), path.parent
    else:
        raise ImportModelError(
            Refusal.FILE,
            f"a {type(source).__name__} is not a model",
            lever="give the path of an .onnx file, or an onnx.ModelProto",
        )
    if not model.HasField("graph") or not model.graph.output:
        raise ImportModelError(
            Refusal.NO_GRAPH,
            "the model has no graph with outputs",
            why="the file is empty or is not an ONNX model",
            lever="export the model again and check it with onnx.checker",
        )
    if not MIN_IR_VERSION <= model.ir_version <= IR_VERSION:
        raise ImportModelError(
            Refusal.IR_VERSION,
            f"IR version {model.ir_version} is not between {MIN_IR_VERSION} and {IR_VERSION}",
            why=f"the installed package onnx knows IR versions up to {IR_VERSION}",
            lever="upgrade the package onnx"
            if model.ir_version > IR_VERSION
            else "export the model with a newer exporter",
        )
    return Model(model.graph, model.ir_version, _opsets(model.opset_import), ExternalData(folder))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise ImportModelError(
                Refusal.TOO_LARGE_FILE,
                f"{path.name} has {size} bytes",
                why="a protobuf message ends at 2 GiB",
                lever="save the weights as external data (onnx.save_model(…, save_as_external_data=True))",
            )
        return path.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise ImportModelError(
            Refusal.FILE, f"cannot read {path}", why=reason, lever="check the path of the model"
        ) from None


def _parse(data: bytes, name: str) -> Any:
    from google.protobuf.message import DecodeError
    from onnx import ModelProto

    try:
        return ModelProto.FromString(data)
    except DecodeError as error:
        raise ImportModelError(
            Refusal.NOT_A_MODEL,
            f"{name} is not an ONNX model",
            why=f"truncated, or another format ({str(error).rsplit(': ', 1)[-1]})",
            lever="copy or export the file again",
        ) from None


def _opsets(imports: Iterable[Any]) -> dict[str, int]:
    opsets: dict[str, int] = {}
    for entry in imports:
        domain = decode_text(entry.domain, "a domain")
        opsets[_ALIASES.get(domain, domain)] = entry.version
        if not 0 <= entry.version < 1 << 31:
            what, lever = f"opset {entry.version} of domain '{domain}' does not exist", "export the model again"
            raise ImportModelError(Refusal.OPSET, what, lever=lever)
    version = opsets.get("")
    if version is None and set(opsets) - {CONTRIB}:
        # Every operator is then of a foreign domain, and the refusal of the first one names it.
        return opsets
    target = MAX_OPSET if (version or 0) > MAX_OPSET else 13
    if version is None or not MIN_OPSET <= version <= MAX_OPSET:
        raise ImportModelError(
            Refusal.OPSET,
            "the model names no opset"
            if version is None
            else f"opset {version} is not between {MIN_OPSET} and {MAX_OPSET}",
            lever=f"convert the model with onnx.version_converter.convert_version(model, {target})",
        )
    return opsets
