"""The configuration file of hb_compile: YAML with the published sections and keys, checked and turned into a `Job`.

Every published key is accepted. One whose effect exists does what it says; one that the published tool itself ignores by now
gives a warning; one whose effect does not exist here is refused unless it has the value that means "nothing", so that no
setting is dropped in silence. `evaluation_parameters` is an addition: data, and labels, to run the finished binary on.
Paths are relative to the folder in which the command runs. Several inputs are separated by ``;``.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from hbir.errors import ConfigError
from tools.config_calibration import calibration_plan
from tools.config_inputs import input_plans
from tools.config_schema import Config
from tools.config_support import notes, without_effect
from tools.job import Evaluation, Job
from tools.refusals import Refusal

__all__ = ["load_config"]


def _nearest(location: tuple[int | str, ...]) -> str:
    """The known key that an unknown one is closest to, or the list of them."""
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    known, wrong = list(section.model_fields), str(location[-1])
    if close := difflib.get_close_matches(wrong, known, 1, 0.5):
        return f"did you mean '{close[0]}'?"
    elsewhere = [
        f"'{s}.{k}'" for s, f in Config.model_fields.items() for k in cast(Any, f.annotation).model_fields if k == wrong
    ]
    return f"it belongs to {elsewhere[0]}" if elsewhere else f"the keys here are {', '.join(known)}"


def _refusal(error: ValidationError, path: Path) -> ConfigError:
    first = error.errors()[0]
    location, where = first["loc"], f"{path.name}"
    key = ".".join(str(part) for part in location)
    if first["type"] == "extra_forbidden":
        return ConfigError(Refusal.UNKNOWN_KEY, f"unknown key '{key}'", where=where, lever=_nearest(location))
    given = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
    return ConfigError(
        Refusal.VALUE, f"'{key}'{given} does not fit", where=where, why=first["msg"], lever=f"mend '{key}'"
    )


def _read(path: Path) -> dict[str, Any]:
    from tools.config_yaml import NotYamlError, load_yaml

    try:
        loaded: Any = load_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(Refusal.CONFIG_FILE, f"cannot read {path}", why=str(why), lever="check the path") from None
    except NotYamlError as error:
        raise ConfigError(
            Refusal.CONFIG_SYNTAX, f"{path.name} is not YAML", why=str(error), lever="mend the file"
        ) from None
    if not isinstance(loaded, dict):
        raise ConfigError(
            Refusal.CONFIG_SYNTAX,
            f"{path.name} holds no sections",
            lever=f"write sections such as {', '.join(Config.model_fields)}",
        )
    # A section without keys is read as None; it means the defaults.
    return {str(key): {} if value is None else value for key, value in cast(dict[Any, Any], loaded).items()}


def load_config(path: Path, *, model: Path | None = None) -> Job:
    """Read and check a configuration file. `model` stands in for `onnx_model` (a module that is compiled again).

    Raises ConfigError HB0810 to HB0818; the text names the key, and for an unknown one the nearest that is known.
    """
    raw = _read(path)
    try:
        config = Config.model_validate(raw)
    except ValidationError as error:
        raise _refusal(error, path) from None
    for key, value, lever in without_effect(config):
        shown = ";".join(cast(tuple[str, ...], value)) if isinstance(value, tuple) else value
        raise ConfigError(Refusal.UNSUPPORTED, f"'{key}' = {shown!r} is not supported", where=path.name, lever=lever)
    return _job(config, raw, path, model)


def _job(config: Config, raw: Mapping[str, Any], path: Path, model: Path | None) -> Job:
    given, compiler = config.model_parameters, config.compiler_parameters
    if given.onnx_model is None and model is None:
        raise ConfigError(
            Refusal.MISSING, "'model_parameters.onnx_model' is missing", where=path.name, lever="name the .onnx file"
        )
    if not given.march:
        raise ConfigError(
            *(Refusal.MISSING, "'model_parameters.march' is missing"),
            where=path.name,
            lever="add march: nash-e (or nash-m, nash-p, nash-h, or the path of a .toml file)",
        )
    if compiler.optimize_level not in ("O0", "O1", "O2"):
        raise ConfigError(
            Refusal.VALUE,
            f"optimize_level '{compiler.optimize_level}' does not exist",
            where=path.name,
            lever="choose O0, O1 or O2",
        )
    if compiler.compile_mode == "balance" and compiler.balance_factor is None:
        raise ConfigError(
            Refusal.MISSING,
            "compile_mode 'balance' needs balance_factor",
            where=path.name,
            lever="add balance_factor: 0 to 100",
        )
    balance = {"latency": 100, "bandwidth": 0, "balance": compiler.balance_factor or 0}[compiler.compile_mode]
    evaluation = config.evaluation_parameters
    if evaluation.labels is not None and not evaluation.eval_data_dir:
        raise ConfigError(
            Refusal.MISSING, "labels are given without eval_data_dir", where=path.name, lever="add eval_data_dir"
        )
    return Job(
        model=model or cast(Path, given.onnx_model),
        march=given.march,
        folder=given.working_dir,
        prefix=given.output_model_file_prefix,
        inputs=input_plans(config.input_parameters, path),
        calibration=calibration_plan(config.calibration_parameters, path),
        evaluation=Evaluation(tuple(map(Path, evaluation.eval_data_dir)), evaluation.labels)
        if evaluation.eval_data_dir
        else None,
        opt=int(compiler.optimize_level[1]),
        balance=balance,
        core_num=compiler.core_num,
        max_l2m_size=compiler.max_l2m_size,
        debug=compiler.debug,
        advice_us=compiler.advice,
        settings=raw,
        notes=notes(raw, config),
    )
