"""Sections and keys of the configuration file, as published, with their types and ranges."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from passes.common.observers import OBSERVER_NAMES

__all__ = [
    "CalibrationParameters",
    "CompilerParameters",
    "Config",
    "CustomOp",
    "EvaluationParameters",
    "InputParameters",
    "ModelParameters",
]


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


def _known_type(value: str) -> str:
    known = ("", *OBSERVER_NAMES, "mix", "skip")
    if value not in known:
        raise ValueError(f"Input should be one of {', '.join(map(repr, known))}")
    return value


CalibrationType = Annotated[str, AfterValidator(_known_type)]
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
    calibration_type: CalibrationType = ""
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
