"""Values by layer for a viewer: from a report, from a binary, or measured against the float network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hbir.dialects.hbir import ConstantOp
from hbir.errors import ConfigError
from hbir.ir.locations import layer_name
from tools.refusals import Refusal

if TYPE_CHECKING:
    import numpy.typing as npt

    from backends.nash.perf import Report
    from hbir.module import Module

__all__ = ["check_layers", "error_overlay", "hbm_overlays", "read_overlay"]

_LARGEST = 1 << 28
"""Bytes of an overlay's file; a report of 20,000 layers has a tenth of them."""


def _refuse(path: Path, why: str) -> ConfigError:
    lever = "give the JSON of hbm_perf, or an object of numbers by layer"
    return ConfigError(Refusal.VALUE, f"{path.name} holds no values by layer", why=why, lever=lever)


def _summed(rows: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Values by layer; those of a layer that is named more than once are added."""
    found: dict[str, float] = {}
    for layer, value in rows:
        found[layer] = found.get(layer, 0) + value
    return found


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return value


def _row_value(row: Mapping[str, Any], name: str) -> float | None:
    """A column of a report's row. `bytes` are those from and to DDR."""
    if name == "bytes":
        parts = [_number(row.get(key)) for key in ("ddr_loaded_bytes", "ddr_stored_bytes")]
        return sum(part for part in parts if part is not None) if None not in parts else None
    return _number(row.get(name))


def read_overlay(name: str, path: Path) -> dict[str, float]:
    """Column `name` (cycles, bytes, time_us, macs, …) of a performance report, or the numbers of a plain JSON object.

    Raises ConfigError HB0822 for a file that cannot be read, HB0813 for one that holds no such values.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise _refuse(path, f"it is larger than {_LARGEST >> 20} MB")
        document = json.loads(path.read_bytes())
    except OSError as error:
        why, lever = error.strerror or str(error), "check the path"
        raise ConfigError(Refusal.FILE, f"{path} cannot be read", why=why, lever=lever) from None
    except (ValueError, RecursionError) as error:
        raise _refuse(path, f"it is no JSON: {str(error)[:100]}") from None
    if not isinstance(document, dict):
        raise _refuse(path, "it is no object")
    whole = cast(dict[str, Any], document)
    extensions = whole.get("extensions")
    if isinstance(extensions, dict):
        rows: Any = cast(dict[str, Any], extensions).get("layers")
        table = cast(list[Any], rows) if isinstance(rows, list) else []
        dicts = [cast(dict[str, Any], row) for row in table if isinstance(row, dict)]
        cells = [(str(row.get("layer")), _row_value(row, name)) for row in dicts]
        found = _summed((layer, value) for layer, value in cells if value is not None)
        if not found:
            raise _refuse(path, f"its layers have no column '{name}'")
        return found
    found = {layer: _number(value) for layer, value in whole.items()}
    wrong = next((layer for layer, value in found.items() if value is None), None)
    if wrong is not None or not found:
        raise _refuse(path, f"'{wrong}' is no number" if wrong is not None else "it is empty")
    return {layer: value for layer, value in found.items() if value is not None}


def check_layers(module: Module, name: str, values: Mapping[str, float]) -> None:
    """Raise ConfigError HB0825 for an overlay of another network: no layer of it, but for inputs, is one of the module's."""
    inputs = {argument.name for function in module for argument in function.flatten_inputs}
    here = {layer_name(op): None for function in module for op in function.operations if not isinstance(op, ConstantOp)}
    # Inputs of different networks often share a name.
    layers = {layer: None for layer in here if layer not in inputs} or here
    if any(layer in layers for layer in values):
        return
    raise ConfigError(
        Refusal.LAYERS,
        f"overlay '{name}' is not one of this module",
        why=f"it has the layers {_some(values)}, and the module has {_some(layers)}",
        lever="give the binary, report or network that belongs to this module, or the module that it was compiled from",
    )


def _some(layers: Iterable[str]) -> str:
    """The first layers, and how many more there are."""
    names = list(layers)
    return (", ".join(names[:4]) or "none") + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def hbm_overlays(path: Path) -> dict[str, dict[str, float]]:
    """Estimated `cycles`, and `bytes` from and to DDR, by layer, over all models of a binary."""
    from backends import Hbm
    from backends.nash.perf import report

    reports: list[Report] = [report(function.model) for function in Hbm(path)]
    rows = [row for each in reports for row in each.layers]
    return {
        "cycles": _summed((row.layer, row.cycles) for row in rows),
        "bytes": _summed((row.layer, row.bound.loaded_bytes + row.bound.stored_bytes) for row in rows),
    }


def error_overlay(module: Module, reference: Module, feed: Mapping[str, npt.NDArray[Any]]) -> dict[str, float]:
    """1 − cosine by layer between a quantised module and the float network on one sample; 0 is no error."""
    from passes.calibrate import FLOAT_PIPELINE
    from passes.manager import Pipeline
    from tools.evaluation import layer_cosines

    cosines = layer_cosines(Pipeline(FLOAT_PIPELINE).run(reference), module, dict(feed))
    return {layer: 1.0 - value for layer, value in cosines.items()}
