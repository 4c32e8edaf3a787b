"""The configuration file: every published key is known, and every one either works, warns or is refused."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from hbir.errors import ConfigError
from tests.tools.small import write_config
from tools.config import load_config
from tools.config_schema import Config
from tools.job import Image, Job

# Section -> keys, from the public documentation of hb_compile 3.5.
PUBLISHED = {
    "model_parameters": "onnx_model caffe_model prototxt march working_dir output_model_file_prefix output_nodes"
    " remove_node_type remove_node_name node_info debug_mode layer_out_dump enable_vpu enable_spu log_level set_node_data_type",
    "input_parameters": "input_name input_type_rt input_type_train input_layout_train input_layout_rt input_space_and_range"
    " input_shape input_batch separate_batch separate_name mean_value scale_value std_value norm_type",
    "calibration_parameters": "cal_data_dir calibration_type per_channel max_percentile run_on_cpu run_on_bpu optimization"
    " quant_config preprocess_on cal_data_type",
    "compiler_parameters": "compile_mode balance_factor optimize_level core_num max_time_per_fc jobs advice debug input_source"
    " cache_mode cache_path max_l2m_size ability_entry extra_params hbdk3_compatible_mode",
    "custom_op": "custom_op_method custom_op_dir custom_op_reg_files",
}


def base(**sections: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A valid configuration with keys of some sections added or replaced."""
    config: dict[str, dict[str, Any]] = {
        "model_parameters": {"onnx_model": "m.onnx", "march": "nash-e"},
        "input_parameters": {"input_type_rt": "featuremap", "input_type_train": "featuremap"},
        "calibration_parameters": {},
        "compiler_parameters": {},
    }
    return {**config, **{name: {**config.get(name, {}), **keys} for name, keys in sections.items()}}


def loaded(tmp_path: Path, **sections: dict[str, Any]) -> Job:
    return load_config(write_config(tmp_path / "c.yaml", base(**sections)))


def refusal(tmp_path: Path, **sections: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, **sections)
    assert caught.value.lever
    return str(caught.value)


def image(**keys: Any) -> dict[str, Any]:
    return {"input_type_rt": "rgb", "input_type_train": "rgb", "input_layout_train": "NCHW", **keys}


def test_every_published_key_is_known() -> None:
    for section, keys in PUBLISHED.items():
        known = set(getattr(Config.model_fields[section].annotation, "model_fields", ()))
        assert known == set(keys.split()), section


def test_defaults(tmp_path: Path) -> None:
    job = loaded(tmp_path)
    assert (job.folder, job.prefix, job.opt, job.balance, job.core_num, job.max_l2m_size, job.debug) == (
        *(Path("model_output"), "model", 2, 100, 1, 0, True),
    )
    assert job.calibration.folders == ()
    assert job.notes == ()


def test_several_inputs_are_separated_by_semicolons(tmp_path: Path) -> None:
    job = loaded(
        tmp_path,
        input_parameters={
            "input_name": "a;b",
            "input_type_rt": "rgb;featuremap",
            "input_type_train": "bgr;featuremap",
            "input_layout_train": "NHWC;NCHW",
            "input_shape": "1x8x8x3; 2x5",
            "mean_value": "1 2 3;",
            "std_value": "2, 4, 8;",
        },
        calibration_parameters={"cal_data_dir": "x;y", "calibration_type": "kl"},
    )
    first, second = job.inputs
    assert first.image == Image("bgr", "rgb", "NHWC", (1, 2, 3), (0.5, 0.25, 0.125))
    assert (first.name, first.shape, second.name, second.shape, second.image) == ("a", (1, 8, 8, 3), "b", (2, 5), None)
    assert (job.calibration.folders, job.calibration.observer) == ((Path("x"), Path("y")), "kl")


@pytest.mark.parametrize("text", ["1.5 2 3", "1.5, 2, 3", "1.5,2,3", [1.5, 2, 3]])
def test_both_spellings_of_numbers(tmp_path: Path, text: Any) -> None:
    plan = loaded(tmp_path, input_parameters=image(mean_value=text)).inputs[0]
    assert plan.image is not None and plan.image.mean == (1.5, 2, 3)


@pytest.mark.parametrize(("mode", "balance"), [("latency", 100), ("bandwidth", 0), ("balance", 30)])
def test_compile_mode(tmp_path: Path, mode: str, balance: int) -> None:
    assert loaded(tmp_path, compiler_parameters={"compile_mode": mode, "balance_factor": 30}).balance == balance


def test_optimization_and_quant_config_choose_widths(tmp_path: Path) -> None:
    first = loaded(
        tmp_path, calibration_parameters={"optimization": "set_all_nodes_int16;set_model_output_int8"}
    ).calibration
    assert (first.activation_bits, first.head_bits) == (16, 8)
    activation = {"calibration_type": ["kl"], "asymmetric": True, "max_percentile": 0.99}
    config = {"model_config": {"all_node_type": "int16", "activation": activation}}
    second = loaded(tmp_path, calibration_parameters={"quant_config": config}).calibration
    assert (second.activation_bits, second.observer, second.asymmetric, second.percentile) == (16, "kl", True, 0.99)


def test_skip_uses_no_data(tmp_path: Path) -> None:
    for keys in ({"calibration_type": "skip"}, {"optimization": "run_fast"}):
        assert loaded(tmp_path, calibration_parameters={"cal_data_dir": "x", **keys}).calibration.folders == ()


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model_parameters", "log_level", "debug"),
        ("input_parameters", "norm_type", "no_preprocess"),
        ("input_parameters", "input_layout_rt", "NHWC"),
        ("calibration_parameters", "cal_data_type", "float32"),
        ("calibration_parameters", "preprocess_on", False),
        ("compiler_parameters", "hbdk3_compatible_mode", False),
        ("compiler_parameters", "jobs", 4),
        ("compiler_parameters", "balance_factor", 3),
    ],
)
def test_what_has_no_effect_is_said(tmp_path: Path, section: str, key: str, value: object) -> None:
    (note,) = loaded(tmp_path, **{section: {key: value}}).notes
    assert f"{section}.{key}" in note


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("model_parameters", "caffe_model", "m.caffemodel"),
        ("model_parameters", "output_nodes", "a;b"),
        ("model_parameters", "remove_node_type", "Quantize"),
        ("model_parameters", "node_info", {"Conv_0": {"ON": "CPU"}}),
        ("model_parameters", "layer_out_dump", True),
        ("model_parameters", "enable_vpu", False),
        ("input_parameters", "input_batch", 4),
        ("input_parameters", "separate_batch", True),
        ("input_parameters", "input_space_and_range", "bt601_video"),
        ("calibration_parameters", "per_channel", True),
        ("calibration_parameters", "run_on_cpu", "Conv_0"),
        ("calibration_parameters", "calibration_type", "mix"),
        ("calibration_parameters", "optimization", "run_slow"),
        ("calibration_parameters", "quant_config", {"op_config": {"Conv": {"qtype": "int16"}}}),
        ("compiler_parameters", "max_time_per_fc", 2000),
        ("compiler_parameters", "cache_mode", "enable"),
        ("compiler_parameters", "extra_params", {"a": 1}),
        ("compiler_parameters", "input_source", {"x": "pyramid"}),
        ("custom_op", "custom_op_method", "register"),
        ("input_parameters", "input_type_rt", "nv12"),
        ("input_parameters", "input_type_rt", "yuv444"),
    ],
)
def test_what_does_not_exist_here_is_refused(tmp_path: Path, section: str, key: str, value: object) -> None:
    text = refusal(tmp_path, **{section: {key: value}})
    assert "HB0815" in text and "not supported" in text


@pytest.mark.parametrize(
    ("sections", "code", "part"),
    [
        ({"model_parameters": {"marsh": "nash-e"}}, "HB0812", "did you mean 'march'?"),
        ({"compiler_parameters": {"march": "nash-e"}}, "HB0812", "belongs to 'model_parameters.march'"),
        ({"compiler_parameter": {}}, "HB0812", "did you mean 'compiler_parameters'?"),
        ({"model_parameters": {"march": ""}}, "HB0814", "march"),
        ({"model_parameters": {"onnx_model": None}}, "HB0814", "onnx_model"),
        ({"model_parameters": {"output_model_file_prefix": "../x"}}, "HB0813", "output_model_file_prefix"),
        ({"compiler_parameters": {"optimize_level": "O3"}}, "HB0813", "O0, O1 or O2"),
        ({"compiler_parameters": {"core_num": "many"}}, "HB0813", "core_num"),
        ({"compiler_parameters": {"max_l2m_size": 25165825}}, "HB0813", "max_l2m_size"),
        ({"compiler_parameters": {"compile_mode": "balance"}}, "HB0814", "balance_factor"),
        ({"calibration_parameters": {"calibration_type": "kl"}}, "HB0814", "cal_data_dir"),
        ({"calibration_parameters": {"max_percentile": 0.4}}, "HB0813", "max_percentile"),
        ({"evaluation_parameters": {"labels": "l.txt"}}, "HB0814", "eval_data_dir"),
        ({"input_parameters": {"input_shape": "1,3,4,4"}}, "HB0813", "1x3x224x224"),
        ({"input_parameters": {"input_name": "a;a"}}, "HB0818", "twice"),
        ({"input_parameters": {"input_name": "a;b"}}, "HB0818", "entries for 2 inputs"),
        ({"input_parameters": {"input_type_rt": ""}}, "HB0814", "input_type_rt"),
        ({"input_parameters": {"mean_value": "1 2 3"}}, "HB0816", "featuremap"),
        ({"input_parameters": image(input_layout_train="")}, "HB0814", "NCHW"),
        ({"input_parameters": image(scale_value="1", std_value="1")}, "HB0816", "exclude"),
        ({"input_parameters": image(std_value="1 0 1")}, "HB0813", "0"),
        ({"input_parameters": image(input_type_rt="gray")}, "HB0816", "gray"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, sections: dict[str, dict[str, Any]], code: str, part: str) -> None:
    text = refusal(tmp_path, **sections)
    assert code in text and part in text


@pytest.mark.parametrize(
    "text", ["a: [", "- a\n- b\n", "text", "", "a: 1\n  b: 2\n", "? [1]: 2\n: :", "\t", "a: 1\na: 2\n"]
)
def test_text_that_is_no_configuration(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="HB081"):
        load_config(path)


def test_a_key_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    """One of its values would be lost without a word."""
    path = tmp_path / "c.yaml"
    path.write_text("compiler_parameters:\n  optimize_level: O0\n  optimize_level: O2\n")
    with pytest.raises(ConfigError, match=r"HB0811.*'optimize_level' is there twice.*line 2"):
        load_config(path)


def test_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "b.yaml"):
        with pytest.raises(ConfigError, match="HB0810"):
            load_config(path)


HOSTILE = {
    "aliases that double": "".join(f"k{i}: &k{i} [{f'*k{i - 1}, *k{i - 1}' if i else 'x'}]\n" for i in range(60)),
    "merges that double": "a0: &a0 {x: y}\n"
    + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60)),
    "a value that holds itself": "a: &a [*a]\n",
    "a long text over and over": f"a: &a {'x' * 100_000}\nb: [{'*a, ' * 1000}]\n",
    "brackets": "a: " + "[" * 100_000,
    "many keys": "".join(f"k{i}: v\n" for i in range(20_000)),
    "a long text": "#" * (1 << 19),
    "a long number": "model_parameters: {march: 0x" + "f" * 5000 + "}",
    "sixties": "a: 1" + ":1" * 50_000,
    "sixties of a float": "a: 1" + ":1" * 200 + ".5",
    "an empty integer": "a: !!int ''",
    "an empty float": "a: !!float ''",
    "a truth that is none": "a: !!bool x",
    "a time that is none": "a: !!timestamp x",
    "a month that is none": "a: 2001-99-01",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_yaml_is_refused_at_once(tmp_path: Path, name: str) -> None:
    (tmp_path / "c.yaml").write_text(HOSTILE[name], "utf-8")
    begin = time.process_time()
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "c.yaml")
    assert caught.value.code == "HB0811"
    assert len(str(caught.value)) < 1000
    assert time.process_time() - begin < 1


def test_an_alias_stands_for_a_value(tmp_path: Path) -> None:
    text = "model_parameters: {onnx_model: m.onnx, march: &m nash-e, log_level: *m}\ninput_parameters: &i\n"
    (tmp_path / "c.yaml").write_text(text + "  {input_type_rt: featuremap, input_type_train: featuremap}\n", "utf-8")
    assert load_config(tmp_path / "c.yaml").march == "nash-e"


@pytest.mark.parametrize("value", [["a", "b"], [["a"]], {"a": 1}, [{}], [None], 1, 0.5])
@pytest.mark.parametrize("key", ["all_node_type", "model_output_type"])
def test_a_value_of_quant_config_that_is_no_name_is_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, calibration_parameters={"quant_config": {"model_config": {key: value}}})
    assert key in str(caught.value)


def test_a_quant_config_that_is_no_file_or_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    for path in ("/dev/zero", str(tmp_path), str(tmp_path / "deep.json")):
        assert "quant_config" in refusal(tmp_path, calibration_parameters={"quant_config": path})


@pytest.mark.parametrize("shape", ["9" * 5000, "1x" + "9" * 5000, "1x0", "99999999999", "x"])
def test_a_shape_that_is_none_is_refused(tmp_path: Path, shape: str) -> None:
    text = refusal(tmp_path, input_parameters={"input_shape": shape})
    assert text.startswith("HB0813") and len(text) < 300
