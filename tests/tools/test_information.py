"""hb_model_info and hrt_model_exec on a compiled network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from backends import Hbm, link
from backends.nash.simulator import simulate
from tests.tools.small import SHAPE, build_model, write_samples
from tools import hb_compile, hb_model_info, hrt_model_exec
from tools.throughput import throughput


@pytest.fixture(name="folder", scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.onnx, small.hbm, small_quantized_model.bc for nash-p."""
    folder = tmp_path_factory.mktemp("compiled")
    model = build_model(folder / "small.onnx")
    run(hb_compile.main, "-q", "--fast-perf", "-m", model, "--march", "nash-p", "-o", folder)
    return folder


def run(command: click.Command, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def information(path: Path, *arguments: object) -> dict[str, Any]:
    (model,) = json.loads(run(hb_model_info.main, "--json", *arguments, path))
    return model


@pytest.mark.parametrize("name", ["small.hbm", "small.onnx", "small_quantized_model.bc"])
def test_every_kind_of_file_names_inputs_and_outputs(folder: Path, name: str) -> None:
    model = information(folder / name)
    rows = {row["name"]: (row["type"], row["shape"]) for row in model["tensors"]}
    assert rows["x"] == ("input", list(SHAPE))
    assert rows["y"][0] == "output"
    text = run(hb_model_info.main, "-v", folder / name)
    assert "1x3x16x16" in text and all(operation in text for operation in model["operations"])


def test_memory_is_that_of_the_report(folder: Path) -> None:
    memory = information(folder / "small.hbm")["memory"]
    published = json.loads((folder / "small.json").read_text())["summary"]["DDR access data"]
    for key in ("input memory", "output memory", "dynamic memory", "static memory", "min memory requirement"):
        assert memory[key] == published[key]


def test_placement_is_shown_when_asked(folder: Path) -> None:
    assert "Placement" not in run(hb_model_info.main, folder / "small.hbm")
    assert "Placement" in run(hb_model_info.main, "-v", folder / "small.hbm")


def test_model_info_of_the_runtime(folder: Path) -> None:
    text = run(hrt_model_exec.main, "model_info", "--model_file", folder / "small.hbm")
    for part in (
        "[model name]: small",
        "input[0]:",
        "valid shape: (1,3,16,16)",
        "HB_DNN_TENSOR_TYPE_F32",
        "quanti type: NONE",
    ):
        assert part in text
    value = json.loads(run(hrt_model_exec.main, "model_info", "--model_file", folder / "small.hbm", "--json"))
    assert value["input"][0]["aligned byte size"] >= 3 * 16 * 16 * 4


def test_inference_writes_what_the_binary_gives(folder: Path, tmp_path: Path) -> None:
    sample = write_samples(tmp_path, 1) / "000.npy"
    text = run(
        hrt_model_exec.main,
        "infer",
        "--model_file",
        folder / "small.hbm",
        "--input_file",
        sample,
        "-o",
        tmp_path / "out",
    )
    (path,) = (tmp_path / "out").iterdir()
    assert str(path) in text
    expected = Hbm(folder / "small.hbm")[0].feed({"x": np.load(sample)})["y"]
    assert np.load(path).tobytes() == expected.tobytes()


def test_one_of_several_models_is_chosen(folder: Path, tmp_path: Path) -> None:
    other = folder / "other.onnx"
    other.write_bytes((folder / "small.onnx").read_bytes())
    run(hb_compile.main, "-q", "--fast-perf", "-m", other, "--march", "nash-p", "-o", tmp_path)
    link([folder / "small.hbm", tmp_path / "other.hbm"], tmp_path / "both.hbm")
    both = tmp_path / "both.hbm"
    assert [m["model"] for m in json.loads(run(hb_model_info.main, "--json", both))] == ["small", "other"]
    assert information(both, "-n", "other")["model"] == "other"
    missing = CliRunner().invoke(hrt_model_exec.main, ["model_info", "--model_file", str(both)])
    assert missing.exit_code == 1 and "HB0821" in missing.stderr and "small, other" in missing.stderr
    text = run(hrt_model_exec.main, "model_info", "--model_file", both, "--model_name", "other")
    assert "[model name]: other" in text


def test_perf_prints_the_published_block(folder: Path, tmp_path: Path) -> None:
    arguments = ("perf", "--model_file", folder / "small.hbm", "--thread_num", 2, "--frame_count", 50)
    text = run(hrt_model_exec.main, *arguments)
    marks = [
        "Frame count: 50, Thread Average: ",
        "FPS: ",
        "Running condition:",
        "Thread number is: 2",
        "Perf result:",
        "Frame      rate",
    ]
    at = [text.index(mark) for mark in marks]
    assert at == sorted(at)
    assert "This computer: " in text
    value = json.loads(run(hrt_model_exec.main, *arguments, "--json", "--profile_path", tmp_path / "p"))
    assert value["running_condition"]["frame_count"] == 50
    parts = (tmp_path / "p/profiler.log").read_text().split("***\n")
    assert json.loads(parts[0].split("\n", 1)[1])["perf_result"] == value["perf_result"]
    assert set(json.loads(parts[1])) == {"model_latency", "processor_latency", "task_latency"}
    assert (tmp_path / "p/profiler.csv").read_text().count("\n") == 2


def test_throughput_follows_threads_and_cores(folder: Path) -> None:
    model = Hbm(folder / "small.hbm").models[0]
    device, dispatch = simulate(model).seconds, model.march.dispatch_seconds
    one = throughput(model, 4, 1, 100)
    assert one.average_latency_seconds == pytest.approx(device + dispatch)
    assert one.frames_per_second == pytest.approx(1 / (device + dispatch))
    for threads in (2, 8):
        several = throughput(model, 4, threads, 100)
        # Little's law, and no more than the cores or the threads can give.
        assert several.average_latency_seconds * several.frames_per_second == pytest.approx(threads)
        assert several.frames_per_second <= min(threads / (device + dispatch), 4 / device) * (1 + 1e-9)
    many = throughput(model, 1, 32, 100)
    assert many.frames_per_second == pytest.approx(min(1 / device, 32 / (device + dispatch)))
    assert many.shortest_seconds <= many.average_latency_seconds <= many.longest_seconds
