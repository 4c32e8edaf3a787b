"""What this compiler does not do, or no longer needs to be told: which keys are refused and which give a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from passes.common.observers import OBSERVER_NAMES
from tools.config_schema import Config

__all__ = ["notes", "without_effect"]

_REMOVE = "remove it"


def without_effect(config: Config) -> Iterator[tuple[str, object, str]]:
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
        ("model_parameters.layer_out_dump", model.layer_out_dump, _REMOVE),
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
            f"choose {', '.join(OBSERVER_NAMES)} or skip",
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


def notes(raw: Mapping[str, Any], config: Config) -> tuple[str, ...]:
    """A warning for every key that was given (`raw`) and changes nothing."""
    found = [
        f"'{section}.{key}' is deprecated and has no effect"
        + (f": {_DEPRECATED_WHY[key]}" if key in _DEPRECATED_WHY else "")
        for section, keys in _DEPRECATED
        for key in keys
        if cast(dict[str, Any], raw.get(section, {})).get(key) is not None
    ]
    compiler = cast(dict[str, Any], raw.get("compiler_parameters", {}))
    if compiler.get("jobs") is not None:
        found.append("'compiler_parameters.jobs' has no effect: the compiler runs in one process")
    if compiler.get("balance_factor") is not None and config.compiler_parameters.compile_mode != "balance":
        found.append("'compiler_parameters.balance_factor' has no effect unless compile_mode is balance")
    return tuple(found)
