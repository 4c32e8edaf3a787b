"""Section `calibration_parameters`: data, observer and widths, also from a `quant_config`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hbir.errors import ConfigError
from passes.common.observers import OBSERVER_NAMES
from tools.config_schema import CalibrationParameters
from tools.job import Calibration
from tools.refusals import Refusal

__all__ = ["calibration_plan"]

_DEFAULTS = Calibration()
_OPTIMIZATIONS = ("run_fast", "set_model_output_int8", "set_model_output_int16", "set_all_nodes_int16")


def calibration_plan(section: CalibrationParameters, path: Path) -> Calibration:
    """What the section asks for; `path` names the configuration file in errors. Raises ConfigError."""
    where = path.name
    if unknown := [name for name in section.optimization if name not in _OPTIMIZATIONS]:
        raise ConfigError(
            Refusal.UNSUPPORTED,
            f"optimization '{unknown[0]}' is not supported",
            where=where,
            lever=f"choose among {', '.join(_OPTIMIZATIONS)}",
        )
    skip = section.calibration_type == "skip" or "run_fast" in section.optimization
    if section.calibration_type not in ("", "skip") and not section.cal_data_dir and not skip:
        raise ConfigError(
            *(
                Refusal.MISSING,
                f"calibration_type '{section.calibration_type}' needs data, and cal_data_dir is missing",
            ),
            where=where,
            lever="add cal_data_dir, or set calibration_type: skip for a build that is good for performance only",
        )
    activation, head, asymmetric, observer, percentile = _quant_config(section.quant_config, where)
    names = section.optimization
    return Calibration(
        folders=() if skip else tuple(map(Path, section.cal_data_dir)),
        observer=observer or (section.calibration_type if section.calibration_type not in ("", "skip") else "default"),
        percentile=percentile if percentile is not None else section.max_percentile or _DEFAULTS.percentile,
        activation_bits=16 if "set_all_nodes_int16" in names else activation,
        head_bits=8 if "set_model_output_int8" in names else 16 if "set_model_output_int16" in names else head,
        asymmetric=asymmetric,
    )


def _quant_config(value: Any, where: str) -> tuple[int, int, bool, str, float | None]:
    """Activation bits, head bits, asymmetric, observer, percentile of a `quant_config` (a table, or a JSON file)."""
    if value is None or value == "":
        return _DEFAULTS.activation_bits, _DEFAULTS.head_bits, _DEFAULTS.asymmetric, "", None
    if isinstance(value, str):
        value = _quant_file(Path(value), where)
    table = _table(value, "quant_config", ("model_config",), where)
    model = _table(
        table.get("model_config", {}), "model_config", ("all_node_type", "model_output_type", "activation"), where
    )
    activation = _table(
        model.get("activation", {}), "activation", ("calibration_type", "max_percentile", "asymmetric"), where
    )
    bits = {"int8": 8, "int16": 16}
    percentile = _choice(activation, "max_percentile", None, where)
    if percentile is not None and not (isinstance(percentile, float | int) and 0.5 <= percentile <= 1):
        raise ConfigError(
            Refusal.VALUE, f"max_percentile {percentile!r} is not between 0.5 and 1", where=where, lever="try 0.9999"
        )
    return (
        cast(int, _choice(model, "all_node_type", bits, where, _DEFAULTS.activation_bits)),
        cast(int, _choice(model, "model_output_type", bits, where, _DEFAULTS.head_bits)),
        cast(bool, _choice(activation, "asymmetric", {True: True, False: False}, where, _DEFAULTS.asymmetric)),
        cast(
            str,
            _choice(activation, "calibration_type", {name: name for name in OBSERVER_NAMES}, where, ""),
        ),
        None if percentile is None else float(cast(float, percentile)),
    )


def _quant_file(path: Path, where: str) -> Any:
    try:
        if not path.is_file() and path.exists():
            raise ValueError("it is not a regular file")  # a device may never end
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(
            *(Refusal.CONFIG_FILE, f"quant_config {path} cannot be read"),
            where=where,
            why=str(error),
            lever="give a JSON file, or write the table in place of its path",
        ) from None


def _table(value: Any, name: str, keys: tuple[str, ...], where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(
            Refusal.VALUE, f"{name} is not a table", where=where, lever=f"write a table with {', '.join(keys)}"
        )
    table = cast(dict[str, Any], value)
    if unknown := [key for key in table if key not in keys]:
        raise ConfigError(
            Refusal.UNSUPPORTED,
            f"'{unknown[0]}' in {name} is not supported",
            where=where,
            lever=f"{name} takes {', '.join(keys)}",
        )
    return table


def _choice(
    table: Mapping[str, Any], key: str, known: Mapping[Any, object] | None, where: str, default: object = None
) -> object:
    """The value of `key`, translated by `known`. A list of candidates asks for a search, which does not exist here."""
    value = table.get(key)
    if value is None:
        return default
    if isinstance(value, list):
        items = cast(list[Any], value)
        if len(items) != 1:
            raise ConfigError(
                Refusal.UNSUPPORTED,
                f"{key} lists {len(items)} candidates",
                where=where,
                why="there is no search among them",
                lever="give one",
            )
        value = items[0]
    if known is None:
        return value
    if not isinstance(value, str | bool) or value not in known:
        raise ConfigError(
            Refusal.VALUE,
            f"{key} is {value!r}",
            where=where,
            lever=f"choose one of {', '.join(str(name) for name in known)}",
        )
    return known[value]
