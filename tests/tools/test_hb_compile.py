"""hb_compile from end to end: files, numbers, modes, and a folder that is as it was when something goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper

from backends import Hbm
from hbir.module import load
from tests.networks import calibration_feeds, evaluation, network
from tests.networks import run as run_float
from tests.tools.small import SHAPE, build_model, configuration, write_config, write_samples
from tools.hb_compile import main

ROOT = Path(__file__).parents[2]
FILES = {
    *(
        "small.hbm",
        "small.html",
        "small.json",
        "small.csv",
        "small_trace.json",
        "small_node_info.csv",
        "small_report.json",
    ),
    *("small_quantized_model.bc", "hb_compile.log"),
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def succeed(*arguments: object) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result


def report(folder: Path, prefix: str = "small") -> dict[str, Any]:
    return json.loads((folder / f"{prefix}_report.json").read_text())


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_configuration_gives_every_file_and_the_log(tmp_path: Path) -> None:
    result = succeed("-c", write_config(tmp_path / "c.yaml", configuration(tmp_path)))
    assert names(tmp_path / "out") == FILES
    assert set(report(tmp_path / "out")["files"]) == FILES
    log = (tmp_path / "out/hb_compile.log").read_text()
    stages = ["export", "calibrate", "convert", "compile", "run the binary", "estimate"]
    marks = [log.index(f"Start to {stage}") for stage in stages]
    assert marks == sorted(marks)
    assert "Start hb_compile..." in log and "The hb_compile completes running." in log
    for part in ("conv1", "TAE", "Latency of a board run", "small.hbm", "bit for bit"):
        assert part in result.stdout


def test_binary_equals_the_module_and_resembles_the_float_model(tmp_path: Path) -> None:
    succeed("-c", write_config(tmp_path / "c.yaml", configuration(tmp_path)))
    binary, module = Hbm(tmp_path / "out/small.hbm")[0], load(tmp_path / "out/small_quantized_model.bc")[0]
    random = np.random.default_rng(7)
    for _ in range(3):
        feed = {"x": random.normal(0, 1, SHAPE).astype(np.float32)}
        (value,) = binary.feed(feed).values()
        assert value.tobytes() == module.feed(feed)["y"].tobytes()
        (expected,) = run_float(tmp_path / "small.onnx", [feed])[0].values()
        # Three 8-bit roundings of values near 1 leave a few percent.
        assert np.abs(expected - value).max() < 0.1 * np.abs(expected).max()
    (output,) = report(tmp_path / "out")["evaluation"]["outputs"]
    assert output["name"] == "y" and 0.99 < output["smallest cosine"] <= output["cosine"] <= 1


def test_a_real_network_keeps_its_accuracy(tmp_path: Path) -> None:
    data = evaluation("mnist", 40)
    assert data.labels is not None
    for folder, feeds in (("digits", calibration_feeds("mnist", 20)), ("eval", data.inputs)):
        (tmp_path / folder).mkdir()
        for index, feed in enumerate(feeds):
            np.save(tmp_path / folder / f"{index:03d}.npy", feed["Input3"])
    (tmp_path / "labels.txt").write_text("\n".join(map(str, data.labels)))
    config = configuration(tmp_path)
    config["model_parameters"] |= {"onnx_model": str(network("mnist")), "march": "nash-m"}
    config["calibration_parameters"]["cal_data_dir"] = str(tmp_path / "digits")
    config["evaluation_parameters"] = {"eval_data_dir": str(tmp_path / "eval"), "labels": str(tmp_path / "labels.txt")}
    result = succeed("-c", write_config(tmp_path / "c.yaml", config), "--json")
    found = json.loads(result.stdout)
    assert found == {**report(tmp_path / "out"), "files": found["files"]}
    accuracy = found["evaluation"]["accuracy"]
    assert accuracy["samples"] == 40
    logits = [next(iter(o.values())) for o in run_float(network("mnist"), data.inputs)]
    right = sum(int(np.argmax(value)) == label for value, label in zip(logits, data.labels, strict=True))
    assert accuracy["float correct"] == right
    assert abs(accuracy["binary correct"] - right) <= 1
    assert {row["unit"] for row in found["layers"]} >= {"TAE", "AAE"}
    assert found["performance"]["latency of a board run (us)"] == pytest.approx(
        found["performance"]["device latency (us)"] + found["performance"]["dispatch overhead (us)"]
    )


def test_fast_perf_check_mode_and_recompilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build_model(tmp_path / "small.onnx")
    fast = succeed("--fast-perf", "-m", model, "--march", "nash-p", "--core-num", 2, "-o", tmp_path / "fast")
    assert names(tmp_path / "fast") == FILES
    assert "good for performance, not for results" in fast.stderr
    assert Hbm(tmp_path / "fast/small.hbm").models[0].options["core_num"] == 2
    monkeypatch.chdir(tmp_path)
    succeed("-m", model, "--march", "nash-e")
    assert names(tmp_path / ".hb_compile") == FILES
    module = tmp_path / "fast/small_quantized_model.bc"
    succeed("-m", module, "--march", "nash-p", "-o", tmp_path / "again")
    assert names(tmp_path / "again") == FILES
    assert (tmp_path / "again/small_quantized_model.bc").read_bytes() == module.read_bytes()
    other = run("-m", module, "--march", "nash-e", "-o", tmp_path / "other")
    assert other.exit_code == 1 and "HB0820" in other.stderr


def test_a_module_is_compiled_again_with_a_configuration(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    path = write_config(tmp_path / "c.yaml", config)
    succeed("-c", path)
    before = (tmp_path / "out/small.hbm").read_bytes()
    module = (tmp_path / "out/small_quantized_model.bc").rename(tmp_path / "kept.bc")
    succeed("-c", path, "-m", module, "-o", tmp_path / "second")
    assert (tmp_path / "second/small.hbm").read_bytes() == before


def test_dynamic_shapes_are_given(tmp_path: Path) -> None:
    model = build_model(tmp_path / "small.onnx", shape=("n", 3, "h", "w"))
    refused = run("--fast-perf", "-m", model, "--march", "nash-e", "-o", tmp_path / "no")
    assert refused.exit_code == 1 and "HB0120" in refused.stderr
    succeed("--fast-perf", "-m", model, "--march", "nash-e", "-i", "x", "1x3x16x16", "-o", tmp_path / "out")
    config = configuration(tmp_path)
    build_model(tmp_path / "small.onnx", shape=("n", 3, "h", "w"))
    config["input_parameters"]["input_shape"] = "1x3x16x16"
    succeed("-c", write_config(tmp_path / "c.yaml", config), "-o", tmp_path / "named")
    assert Hbm(tmp_path / "named/small.hbm")[0].flatten_inputs[0].shape == SHAPE


def test_stages_are_skipped(tmp_path: Path) -> None:
    path = write_config(tmp_path / "c.yaml", configuration(tmp_path))
    pair = {"hb_compile.log"}
    succeed("-c", path, "--skip", "compile", "-o", tmp_path / "a")
    assert names(tmp_path / "a") == pair | {"small_quantized_model.bc"}
    succeed("-c", path, "--skip", "export", "-o", tmp_path / "b")
    assert names(tmp_path / "b") == pair | {"small_calibrated_model.bc"}


def test_an_own_march_file(tmp_path: Path) -> None:
    march = tmp_path / "mine.toml"
    march.write_text(
        'base = "nash-e"\nname = "mine"\nclock_hz = { value = 5e8, source = "a test", confidence = "invented" }\n'
    )
    config = configuration(tmp_path)
    config["model_parameters"]["march"] = str(march)
    succeed("-c", write_config(tmp_path / "c.yaml", config))
    assert Hbm(tmp_path / "out/small.hbm").march_name == "mine"


def test_image_inputs_take_pixels(tmp_path: Path) -> None:
    config = configuration(tmp_path)
    config["input_parameters"] = {
        "input_type_rt": "bgr",
        "input_type_train": "rgb",
        "input_layout_train": "NCHW",
        "mean_value": "120 110 100",
        "std_value": "60 61 62",
    }
    config["calibration_parameters"]["cal_data_dir"] = str(write_samples(tmp_path / "pixels", 6, dtype=np.uint8))
    succeed("-c", write_config(tmp_path / "c.yaml", config))
    binary = Hbm(tmp_path / "out/small.hbm")[0]
    assert binary.flatten_inputs[0].shape == (1, 16, 16, 3)
    for seed in range(3):
        rgb = np.random.default_rng(seed).integers(0, 256, SHAPE).astype(np.float32)
        mean, deviation = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((120, 110, 100), (60, 61, 62)))
        (expected,) = run_float(tmp_path / "small.onnx", [{"x": (rgb - mean) / deviation}])[0].values()
        fed = np.ascontiguousarray(rgb.transpose(0, 2, 3, 1)[..., ::-1])
        (value,) = binary.feed({"x": fed}).values()
        assert np.abs(expected - value).max() < 0.1 * np.abs(expected).max()


def test_two_runs_in_two_places_give_the_same_binary(tmp_path: Path) -> None:
    digests: list[bytes] = []
    for seed, part in (("1", "a"), ("2", "b/c")):
        folder = tmp_path / part
        folder.mkdir(parents=True)
        path = write_config(folder / "c.yaml", configuration(folder))
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "tools.hb_compile", "-q", "-c", str(path)]
        subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder)
        digests.append(b"".join((folder / "out" / name).read_bytes() for name in sorted(FILES - {"hb_compile.log"})))
    assert digests[0] == digests[1]


def test_output_is_plain_off_a_terminal(tmp_path: Path) -> None:
    result = succeed("-c", write_config(tmp_path / "c.yaml", configuration(tmp_path)))
    assert "\x1b" not in result.output
    quiet = succeed("-q", "-c", tmp_path / "c.yaml")
    assert quiet.stderr == ""


def test_help_is_quick_and_has_examples() -> None:
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tools.hb_compile", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    assert time.perf_counter() - begin < 5
    assert "Examples:" in done.stdout
    for heavy in ("numpy", "xdsl", "onnx", "pydantic", "rich"):
        assert f" {heavy}\n" not in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_only_its_log(tmp_path: Path, number: signal.Signals) -> None:
    config = configuration(tmp_path)
    write_samples(tmp_path / "cal", 3000)
    path = write_config(tmp_path / "c.yaml", config)
    command = [sys.executable, "-m", "tools.hb_compile", "-c", str(path)]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=ROOT,
        # A test run in the background of a shell hands down that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Start to calibrate"):
            break
    process.send_signal(number)
    rest = process.stderr.read()
    assert process.wait(30) == 128 + number
    assert "Traceback" not in rest
    assert names(tmp_path / "out") == {"hb_compile.log"}


def test_two_inputs_are_paired_by_name(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["left", "w"], ["c"], "conv"),
        helper.make_node("Add", ["c", "right"], ["y"], "add"),
    ]
    weight = np.full((2, 3, 1, 1), 0.25, np.float32)
    shapes = {"left": (1, 3, 4, 4), "right": (1, 2, 4, 4)}
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "pair.onnx").write_bytes(model.SerializeToString())
    config = configuration(tmp_path)
    config["model_parameters"]["onnx_model"] = str(tmp_path / "pair.onnx")
    folders = [str(write_samples(tmp_path / name, 3, shape=shapes[name])) for name in ("right", "left")]
    config["input_parameters"] = {
        "input_name": "right;left",
        **{f"input_type_{k}": "featuremap;featuremap" for k in ("rt", "train")},
    }
    config["calibration_parameters"]["cal_data_dir"] = ";".join(folders)
    succeed("-c", write_config(tmp_path / "c.yaml", config))
    binary = Hbm(tmp_path / "out/small.hbm")[0]
    assert [tensor.name for tensor in binary.flatten_inputs] == ["left", "right"]
    config["calibration_parameters"]["cal_data_dir"] = ";".join(folders[::-1])
    wrong = run("-c", write_config(tmp_path / "c.yaml", config))
    assert wrong.exit_code == 1 and "HB0423 at input 'right'" in wrong.stderr
