"""The configuration file of hb_compile: YAML with the published sections and keys, checked and turned into a `Job`.

Every published key is accepted. One whose effect exists does what it says; one that the published tool itself ignores by now
gives a warning; one whose effect does not exist here is refused unless it has the value that means "nothing", so that no
setting is dropped in silence. `evaluation_parameters` is an addition: data, and labels, to run the finished binary on.
Paths are relative to the folder in which the command runs. Several inputs are separated by ``;``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from hbir.errors import ConfigError
from tools.job import Calibration, Evaluation, Image, InputPlan, Job, parse_shape
from tools.refusals import Refusal

__all__ = ["Config", "load_config"]

T = TypeVar("T")


def _texts(value: object) -> object:
    """``a;b`` and lists of strings as a tuple; numbers count as text, as YAML reads names such as 0."""
    if value is None or value == "":
        return ()
    parts = cast(list[object], value) if isinstance(value, list) else str(value).split(";")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _number_groups(value: object) -> object:
    """``103.9 116.7;…`` or ``103.9, 116.7`` or a number or a list: for each input a tuple of floats."""
    if value is None or value == "":
        return ()
    if isinstance(value, list):
        return (tuple(cast(list[object], value)),)
    groups = [group.replace(",", " ").split() for group in str(value).split(";")]
    return tuple(tuple(group) for group in groups)


def _path(value: object) -> object:
    return None if value == "" else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts)]
NumberGroups = Annotated[tuple[tuple[float, ...], ...], BeforeValidator(_number_groups)]
OptionalPath = Annotated[Path | None, BeforeValidator(_path)]
Ignored = Any


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelParameters(_Section):
    """Section `model_parameters`."""

    onnx_model: OptionalPath = None
    march: str = ""
    working_dir: Path = Path("./model_output")
    output_model_file_prefix: str = Field(default="model", min_length=1, pattern=r"^[^/\\\x00]+$")
    caffe_model: Any = None
    prototxt: Any = None
    output_nodes: Texts = ()
    remove_node_type: Texts = ()
    remove_node_name: Texts = ()
    node_info: Any = None
    debug_mode: Any = None
    layer_out_dump: bool = False
    enable_vpu: bool = True
    enable_spu: bool = True
    log_level: Ignored = None
    set_node_data_type: Ignored = None


class InputParameters(_Section):
    """Section `input_parameters`."""

    input_name: Texts = ()
    input_type_rt: Texts = ()
    input_type_train: Texts = ()
    input_layout_train: Texts = ()
    input_layout_rt: Ignored = None
    input_space_and_range: Texts = ()
    input_shape: Texts = ()
    input_batch: int | None = None
    separate_batch: bool = False
    separate_name: Texts = ()
    mean_value: NumberGroups = ()
    scale_value: NumberGroups = ()
    std_value: NumberGroups = ()
    norm_type: Ignored = None


class CalibrationParameters(_Section):
    """Section `calibration_parameters`."""

    cal_data_dir: Texts = ()
    calibration_type: Literal["", "default", "max", "percentile", "mse", "kl", "mix", "skip"] = ""
    per_channel: bool = False
    max_percentile: float | None = Field(default=None, ge=0.5, le=1.0)
    run_on_cpu: Texts = ()
    run_on_bpu: Texts = ()
    optimization: Texts = ()
    quant_config: Any = None
    preprocess_on: Ignored = None
    cal_data_type: Ignored = None


class CompilerParameters(_Section):
    """Section `compiler_parameters`."""

    compile_mode: Literal["latency", "bandwidth", "balance"] = "latency"
    balance_factor: int | None = Field(default=None, ge=0, le=100)
    optimize_level: str = "O2"
    core_num: int = Field(default=1, ge=1)
    max_time_per_fc: int = 0
    jobs: int = Field(default=16, ge=0)
    advice: float = Field(default=0.0, ge=0)
    debug: bool = True
    input_source: dict[str, str] = Field(default_factory=dict[str, str])
    cache_mode: Literal["disable", "enable", "force_overwrite"] = "disable"
    cache_path: str = ""
    max_l2m_size: int = Field(default=0, ge=0, le=25_165_824)
    ability_entry: Any = None
    extra_params: dict[str, Any] = Field(default_factory=dict[str, Any])
    hbdk3_compatible_mode: Ignored = None


class CustomOp(_Section):
    """Section `custom_op`; no part of it has an effect here."""

    custom_op_method: Any = None
    custom_op_dir: Any = None
    custom_op_reg_files: Any = None


class EvaluationParameters(_Section):
    """Section `evaluation_parameters`: samples for the finished binary, as `cal_data_dir`, and one class index a line."""

    eval_data_dir: Texts = ()
    labels: OptionalPath = None


class Config(_Section):
    """A whole file."""

    model_parameters: ModelParameters = ModelParameters()
    input_parameters: InputParameters = InputParameters()
    calibration_parameters: CalibrationParameters = CalibrationParameters()
    compiler_parameters: CompilerParameters = CompilerParameters()
    custom_op: CustomOp = CustomOp()
    evaluation_parameters: EvaluationParameters = EvaluationParameters()


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
    import yaml

    try:
        loaded: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(Refusal.CONFIG_FILE, f"cannot read {path}", why=str(why), lever="check the path") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(Refusal.CONFIG_SYNTAX, f"{path.name} is not YAML", why=why, lever="mend the file") from None
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
    for key, value, lever in _without_effect(config):
        shown = ";".join(cast(tuple[str, ...], value)) if isinstance(value, tuple) else value
        raise ConfigError(Refusal.UNSUPPORTED, f"'{key}' = {shown!r} is not supported", where=path.name, lever=lever)
    return _job(config, raw, path, model)


_REMOVE = "remove it"


def _without_effect(config: Config) -> Iterator[tuple[str, object, str]]:
    """Keys that ask for what does not exist here: name, value, lever."""
    model, data, calibration, compiler = (
        *(config.model_parameters, config.input_parameters),
        *(config.calibration_parameters, config.compiler_parameters),
    )
    onnx = "convert the model to ONNX and give it as onnx_model"
    cut = "cut the model before it is compiled (onnx.utils.extract_model)"
    whole = "remove it; each operation runs on the unit that the march has for it"
    candidates: list[tuple[str, object, str]] = [
        ("model_parameters.caffe_model", model.caffe_model, onnx),
        ("model_parameters.prototxt", model.prototxt, onnx),
        ("model_parameters.output_nodes", model.output_nodes, cut),
        (
            "model_parameters.remove_node_type",
            model.remove_node_type,
            "remove it; inputs and outputs stay as the model has them",
        ),
        (
            "model_parameters.remove_node_name",
            model.remove_node_name,
            "remove it; inputs and outputs stay as the model has them",
        ),
        (
            "model_parameters.node_info",
            model.node_info,
            "remove it, or set all widths with calibration_parameters.optimization",
        ),
        ("model_parameters.debug_mode", model.debug_mode, _REMOVE),
        ("model_parameters.layer_out_dump", model.layer_out_dump, "remove it"),
        ("model_parameters.enable_vpu", not model.enable_vpu and "false", whole),
        ("model_parameters.enable_spu", not model.enable_spu and "false", whole),
        (
            "input_parameters.input_batch",
            data.input_batch,
            "export the model with that batch, or give it in input_shape",
        ),
        ("input_parameters.separate_batch", data.separate_batch, _REMOVE),
        ("input_parameters.separate_name", data.separate_name, _REMOVE),
        (
            "input_parameters.input_space_and_range",
            tuple(s for s in data.input_space_and_range if s != "regular"),
            "use 'regular'; only nv12 inputs, which are not supported, have another range",
        ),
        (
            "calibration_parameters.per_channel",
            calibration.per_channel,
            "remove it; weights have a scale per channel anyway",
        ),
        ("calibration_parameters.run_on_cpu", calibration.run_on_cpu, whole),
        ("calibration_parameters.run_on_bpu", calibration.run_on_bpu, whole),
        (
            "calibration_parameters.calibration_type",
            calibration.calibration_type == "mix" and "mix",
            "choose default, max, percentile, mse, kl or skip",
        ),
        (
            "compiler_parameters.max_time_per_fc",
            compiler.max_time_per_fc,
            "set 0; a model runs without being interrupted",
        ),
        ("compiler_parameters.cache_mode", compiler.cache_mode != "disable" and compiler.cache_mode, "set disable"),
        ("compiler_parameters.cache_path", compiler.cache_path, _REMOVE),
        ("compiler_parameters.ability_entry", compiler.ability_entry, _REMOVE),
        ("compiler_parameters.extra_params", compiler.extra_params and str(compiler.extra_params), _REMOVE),
        (
            "compiler_parameters.input_source",
            tuple(f"{k}: {v}" for k, v in compiler.input_source.items() if v != "ddr"),
            "use ddr; pyramid and resizer inputs are not supported",
        ),
        *((f"custom_op.{key}", value, _REMOVE) for key, value in config.custom_op),
    ]
    return (item for item in candidates if item[1])


_DEPRECATED = (
    ("model_parameters", ("log_level", "set_node_data_type")),
    ("input_parameters", ("input_layout_rt", "norm_type")),
    ("calibration_parameters", ("preprocess_on", "cal_data_type")),
    ("compiler_parameters", ("hbdk3_compatible_mode",)),
)
_DEPRECATED_WHY = {
    "norm_type": "what is given of mean_value, scale_value and std_value says it",
    "input_layout_rt": "it follows from input_type_rt",
    "cal_data_type": "the .npy files state their own type",
    "preprocess_on": "calibration data holds what the model was trained on",
}


def _notes(raw: Mapping[str, Any], config: Config) -> tuple[str, ...]:
    notes = [
        f"'{section}.{key}' is deprecated and has no effect"
        + (f": {_DEPRECATED_WHY[key]}" if key in _DEPRECATED_WHY else "")
        for section, keys in _DEPRECATED
        for key in keys
        if cast(dict[str, Any], raw.get(section, {})).get(key) is not None
    ]
    compiler = cast(dict[str, Any], raw.get("compiler_parameters", {}))
    if compiler.get("jobs") is not None:
        notes.append("'compiler_parameters.jobs' has no effect: the compiler runs in one process")
    if compiler.get("balance_factor") is not None and config.compiler_parameters.compile_mode != "balance":
        notes.append("'compiler_parameters.balance_factor' has no effect unless compile_mode is balance")
    return tuple(notes)


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
        inputs=_inputs(config.input_parameters, path),
        calibration=_calibration(config.calibration_parameters, path),
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
        notes=_notes(raw, config),
    )


_IMAGES = ("rgb", "bgr", "gray")
_NOT_YET = ("nv12", "yuv444", "yuv444_128", "yuv_bt601_full", "yuv_bt601_video", "yuv420sp_bt601_video")


def _per_input(values: tuple[T, ...], count: int, key: str, path: Path, *, required: bool) -> tuple[T | None, ...]:
    if not values and not required:
        return (None,) * count
    if not values:
        raise ConfigError(
            Refusal.MISSING,
            f"'input_parameters.{key}' is missing",
            where=path.name,
            lever="add it, for example featuremap",
        )
    if len(values) != count:
        raise ConfigError(
            *(Refusal.INPUT_NAMES, f"'input_parameters.{key}' has {len(values)} entries for {count} inputs"),
            where=path.name,
            lever="give one for each input, separated by ;",
        )
    return values


def _inputs(section: InputParameters, path: Path) -> tuple[InputPlan, ...]:
    count = (
        max(len(section.input_name), 1)
        if section.input_name
        else max(len(section.input_type_rt), len(section.input_shape), 1)
    )
    if len(set(section.input_name)) != len(section.input_name):
        raise ConfigError(
            Refusal.INPUT_NAMES,
            f"input_name names an input twice: {list(section.input_name)}",
            where=path.name,
            lever="name each once",
        )
    if count > 1 and not section.input_name:
        raise ConfigError(
            Refusal.MISSING,
            f"'input_parameters.input_name' is missing with {count} inputs",
            where=path.name,
            lever="name them, separated by ;",
        )
    per = dict(count=count, path=path)
    names = _per_input(section.input_name, **per, key="input_name", required=False)
    runtime = _per_input(section.input_type_rt, **per, key="input_type_rt", required=True)
    trained = _per_input(section.input_type_train, **per, key="input_type_train", required=True)
    layouts = _per_input(section.input_layout_train, **per, key="input_layout_train", required=False)
    shapes = _per_input(section.input_shape, **per, key="input_shape", required=False)
    means = _per_input(section.mean_value, **per, key="mean_value", required=False)
    scales = _per_input(section.scale_value, **per, key="scale_value", required=False)
    deviations = _per_input(section.std_value, **per, key="std_value", required=False)
    plans: list[InputPlan] = []
    for at in range(count):
        where = f"{path.name}, input {names[at] or at}"
        numbers = (means[at] or (), scales[at] or (), deviations[at] or ())
        image = _image(cast(str, runtime[at]), cast(str, trained[at]), layouts[at] or "", numbers, where)
        shape = shapes[at]
        plans.append(InputPlan(names[at] or "", parse_shape(shape, where) if shape else None, image))
    return tuple(plans)


def _image(fed: str, trained: str, layout: str, numbers: tuple[tuple[float, ...], ...], where: str) -> Image | None:
    """None for a feature map."""
    for value in (fed, trained):
        if value in _NOT_YET:
            raise ConfigError(
                *(Refusal.UNSUPPORTED, f"input type '{value}' is not supported"),
                where=where,
                lever="use rgb, bgr, gray or featuremap, and convert the picture before it is fed",
            )
        if value not in (*_IMAGES, "featuremap"):
            raise ConfigError(
                Refusal.VALUE,
                f"input type '{value}' does not exist",
                where=where,
                lever="use rgb, bgr, gray or featuremap",
            )
    mean, scale, deviation = numbers
    if "featuremap" in (fed, trained):
        if fed != trained:
            raise ConfigError(
                Refusal.CONFLICT,
                f"input_type_rt is '{fed}', input_type_train '{trained}'",
                where=where,
                lever="make both featuremap, or both images",
            )
        if any(numbers):
            raise ConfigError(
                *(Refusal.CONFLICT, "mean_value, scale_value and std_value are for images"),
                where=where,
                why="a featuremap is fed as the model takes it",
                lever="remove them and prepare the data outside, or make the input rgb, bgr or gray",
            )
        return None
    if (fed == "gray") != (trained == "gray"):
        raise ConfigError(
            Refusal.CONFLICT,
            f"'{fed}' cannot become '{trained}'",
            where=where,
            lever="make both gray, or both rgb or bgr",
        )
    if layout not in ("NCHW", "NHWC"):
        raise ConfigError(
            Refusal.MISSING if not layout else Refusal.VALUE,
            f"input_layout_train is '{layout}'" if layout else "input_layout_train is missing",
            where=where,
            lever="write NCHW or NHWC",
        )
    if scale and deviation:
        raise ConfigError(
            Refusal.CONFLICT, "scale_value and std_value exclude each other", where=where, lever="keep one of them"
        )
    if 0 in deviation or 0 in scale:
        raise ConfigError(Refusal.VALUE, "a scale or deviation of 0", where=where, lever="use values other than 0")
    return Image(trained, fed, layout, mean, scale or tuple(1 / value for value in deviation))


_OPTIMIZATIONS = ("run_fast", "set_model_output_int8", "set_model_output_int16", "set_all_nodes_int16")


def _calibration(section: CalibrationParameters, path: Path) -> Calibration:
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
        percentile=percentile if percentile is not None else section.max_percentile or Calibration().percentile,
        activation_bits=16 if "set_all_nodes_int16" in names else activation,
        head_bits=8 if "set_model_output_int8" in names else 16 if "set_model_output_int16" in names else head,
        asymmetric=asymmetric,
    )


def _quant_config(value: Any, where: str) -> tuple[int, int, bool, str, float | None]:
    """Activation bits, head bits, asymmetric, observer, percentile of a `quant_config` (a table, or a JSON file)."""
    if value is None or value == "":
        return 8, 16, False, "", None
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
        cast(int, _choice(model, "all_node_type", bits, where, 8)),
        cast(int, _choice(model, "model_output_type", bits, where, 16)),
        cast(bool, _choice(activation, "asymmetric", {True: True, False: False}, where, False)),
        cast(
            str,
            _choice(
                activation, "calibration_type", {k: k for k in ("max", "kl", "percentile", "mse", "default")}, where, ""
            ),
        ),
        None if percentile is None else float(cast(float, percentile)),
    )


def _quant_file(path: Path, where: str) -> Any:
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            Refusal.CONFIG_FILE, f"quant_config {path} cannot be read", where=where, why=str(error)
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
    if value not in known:
        raise ConfigError(
            Refusal.VALUE,
            f"{key} is {value!r}",
            where=where,
            lever=f"choose one of {', '.join(str(name) for name in known)}",
        )
    return known[value]
