"""Bad input of every kind: exit status 1, one paragraph with code and lever, no traceback, nothing half-written."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper

from tests.tools import small
from tools import hb_compile, hb_model_info, hbir_opt, hrt_model_exec

ROOT = Path(__file__).parents[2]
PARAGRAPH = re.compile(r"HB0\d{3}( at [^\n]+)?: [^\n]+\. Change: [^\n]+\n")


def check(stdout: str, stderr: str, status: int, code: str) -> None:
    """One paragraph at the end of stderr; nothing that looks like a result."""
    assert status == 1, stdout + stderr
    assert "Traceback" not in stdout + stderr
    assert stdout == ""
    last = stderr.splitlines(keepends=True)[-1]
    assert PARAGRAPH.fullmatch(last), last
    assert last.startswith(code)
    assert stderr.count("HB0") == last.count("HB0")


def refused(command: click.Command, code: str, *arguments: object) -> str:
    result = CliRunner().invoke(command, [str(a) for a in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    check(result.stdout, result.stderr, result.exit_code, code)
    return result.stderr


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def truncated(folder: Path) -> Path:
    path = small.build_model(folder / "m.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    return path


def garbage(folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(np.random.default_rng(0).bytes(5000))
    return folder / "m.onnx"


def empty(folder: Path) -> Path:
    (folder / "m.onnx").write_bytes(b"")
    return folder / "m.onnx"


def external(folder: Path) -> Path:
    """Weights in a file outside the model's folder."""
    (folder / "secret.bin").write_bytes(bytes(8 * 27 * 4))
    (folder / "inner").mkdir()
    model = onnx.load(small.build_model(folder / "inner/m.onnx"))
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="../secret.bin")
    (folder / "inner/m.onnx").write_bytes(model.SerializeToString())
    return folder / "inner/m.onnx"


def symlink(folder: Path) -> Path:
    path = external(folder)
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data[0].value = "link.bin"
    path.write_bytes(model.SerializeToString())
    (path.parent / "link.bin").symlink_to(folder / "secret.bin")
    return path


def scale(value: float) -> Callable[[Path], Path]:
    """A quantised input with that scale."""

    def build(folder: Path) -> Path:
        path = small.build_model(folder / "m.onnx")
        model = onnx.load(path)
        model.graph.initializer.append(helper.make_tensor("s", TensorProto.FLOAT, [], [value]))
        model.graph.initializer.append(helper.make_tensor("z", TensorProto.INT8, [], [0]))
        model.graph.node[0].input[0] = "xd"
        model.graph.node.insert(0, helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "quant"))
        model.graph.node.insert(1, helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "dequant"))
        path.write_bytes(model.SerializeToString())
        return path

    return build


MODELS: list[tuple[str, Callable[[Path], Path], str, str]] = [
    ("truncated", truncated, "HB0102", ""),
    ("garbage", garbage, "HB0102", ""),
    ("empty", empty, "HB0103", ""),
    ("operator", lambda f: small.build_model(f / "m.onnx", op="Frobnicate"), "HB0110", "act1"),
    ("domain", lambda f: small.build_model(f / "m.onnx", op="Magic", domain="com.acme"), "HB0111", "act1"),
    ("dynamic", lambda f: small.build_model(f / "m.onnx", shape=(1, 3, "h", "w")), "HB0120", "'x'"),
    ("escape", external, "HB0140", "w"),
    ("symlink", symlink, "HB0141", "w"),
    ("nan", lambda f: small.build_model(f / "m.onnx", nan=True), "HB0130", "w"),
    ("zero scale", scale(0.0), "HB0150", "quant"),
    ("negative scale", scale(-0.1), "HB0150", "quant"),
    ("no file", lambda f: f / "none.onnx", "HB0822", ""),
    ("folder", lambda f: Path(str(f) + ".onnx"), "HB0822", ""),
    ("kind", lambda f: f / "m.pb", "HB0817", ""),
]


@pytest.mark.parametrize(("build", "code", "where"), [m[1:] for m in MODELS], ids=[m[0] for m in MODELS])
def test_models(tmp_path: Path, build: Callable[[Path], Path], code: str, where: str) -> None:
    model, out = build(tmp_path), tmp_path / "out"
    for mode in ([], ["--fast-perf"]):
        text = refused(hb_compile.main, code, *mode, "-m", model, "--march", "nash-e", "-o", out)
        assert where in text
        assert left(out) <= {"hb_compile.log"}
    refused(hbir_opt.main, code, model, "-o", tmp_path / "module.mlir")
    assert not (tmp_path / "module.mlir").exists()


@pytest.mark.parametrize(
    ("shape", "dtype", "code"),
    [((1, 3, 8, 8), np.float32, "HB0423"), (small.SHAPE, np.float64, "HB0424"), (small.SHAPE, np.int8, "HB0424")],
)
@pytest.mark.parametrize("section", ["calibration_parameters", "evaluation_parameters"])
def test_samples(tmp_path: Path, shape: tuple[int, ...], dtype: Any, code: str, section: str) -> None:
    config = small.configuration(tmp_path)
    folder = str(small.write_samples(tmp_path / "wrong", 2, shape=shape, dtype=dtype))
    config.setdefault(section, {})["eval_data_dir" if section.startswith("eval") else "cal_data_dir"] = folder
    text = refused(hb_compile.main, code, "-c", small.write_config(tmp_path / "c.yaml", config))
    assert "000.npy" in text and "'x'" in text
    assert left(tmp_path / "out") == {"hb_compile.log"}


def test_labels_beyond_the_outputs(tmp_path: Path) -> None:
    config = small.configuration(tmp_path)
    (tmp_path / "labels.txt").write_text("0\n1\n9\n2\n")
    config["evaluation_parameters"] = {"eval_data_dir": str(tmp_path / "cal"), "labels": str(tmp_path / "labels.txt")}
    refused(hb_compile.main, "HB0427", "-c", small.write_config(tmp_path / "c.yaml", config))
    assert left(tmp_path / "out") == {"hb_compile.log"}


def test_march(tmp_path: Path) -> None:
    model, out = small.build_model(tmp_path / "m.onnx"), tmp_path / "out"
    refused(hb_compile.main, "HB0814", "-m", model, "-o", out)
    assert "nash-e" in refused(hb_compile.main, "HB0501", "-m", model, "--march", "nash-x", "-o", out)
    refused(hb_compile.main, "HB0502", "-m", model, "--march", tmp_path / "none.toml", "-o", out)
    assert "nash-e has 1 core" in refused(
        hb_compile.main, "HB0813", "--fast-perf", "-m", model, "--march", "nash-e", "--core-num", 2, "-o", out
    )
    assert not out.exists()


def test_options_that_exclude_each_other(tmp_path: Path) -> None:
    path = small.write_config(tmp_path / "c.yaml", small.configuration(tmp_path))
    for extra in (
        ["--fast-perf"],
        ["--core-num", 1],
        ["--march", "nash-e"],
        ["-m", tmp_path / "small.onnx"],
        ["-i", "x", "1x3"],
    ):
        refused(hb_compile.main, "HB0816", "-c", path, *extra)
    refused(hb_compile.main, "HB0814")
    refused(
        hb_compile.main, "HB0813", "--fast-perf", "-m", tmp_path / "small.onnx", "--march", "nash-e", "-i", "x", "1,3"
    )


def test_input_names(tmp_path: Path) -> None:
    config = small.configuration(tmp_path)
    config["input_parameters"]["input_name"] = "image"
    text = refused(hb_compile.main, "HB0818", "-c", small.write_config(tmp_path / "c.yaml", config))
    assert "input_name: x" in text


def test_an_image_needs_an_image_input(tmp_path: Path) -> None:
    config = small.configuration(tmp_path)
    config["input_parameters"] = {"input_type_rt": "gray", "input_type_train": "gray", "input_layout_train": "NCHW"}
    refused(hb_compile.main, "HB0819", "-c", small.write_config(tmp_path / "c.yaml", config))


def test_a_file_in_place_of_the_output_folder(tmp_path: Path) -> None:
    model = small.build_model(tmp_path / "m.onnx")
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file/deeper"):
        text = refused(hb_compile.main, "HB0801", "--fast-perf", "-m", model, "--march", "nash-e", "-o", folder)
        assert "a file stands in place of the folder" in text
    assert (tmp_path / "file").read_text() == "kept"
    refused(hbir_opt.main, "HB0801", model, "-o", tmp_path / "file/m.mlir")


@pytest.fixture(name="binary", scope="module")
def compiled_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("binary")
    model = small.build_model(folder / "small.onnx")
    done = CliRunner().invoke(
        hb_compile.main, ["-q", "--fast-perf", "-m", str(model), "--march", "nash-e", "-o", str(folder)]
    )
    assert done.exit_code == 0, done.output
    return folder / "small.hbm"


def test_damaged_binaries(binary: Path, tmp_path: Path) -> None:
    data, bad = binary.read_bytes(), tmp_path / "bad.hbm"
    positions = np.linspace(0, len(data) - 1, 40).astype(int)
    versions = [data[:at] for at in positions] + [
        data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :] for at in positions
    ]
    for version in [*versions, b"", data + b"\0"]:
        bad.write_bytes(version)
        refused(hb_model_info.main, "HB06", bad)
        refused(hrt_model_exec.main, "HB06", "perf", "--model_file", bad)


def test_binaries_that_are_not_there(binary: Path, tmp_path: Path) -> None:
    refused(hrt_model_exec.main, "HB0822", "model_info", "--model_file", tmp_path / "none.hbm")
    refused(hrt_model_exec.main, "HB0814", "model_info")
    refused(hrt_model_exec.main, "HB0821", "model_info", "--model_file", binary, "--model_name", "other")
    refused(hb_model_info.main, "HB0562", "-n", "other", binary)
    refused(hb_model_info.main, "HB0814")


def test_inference_inputs(binary: Path, tmp_path: Path) -> None:
    folder = small.write_samples(tmp_path / "in", 1, shape=(1, 3, 8, 8))
    base = ("infer", "--model_file", binary, "-o", tmp_path / "out")
    refused(hrt_model_exec.main, "HB0818", *base)
    refused(hrt_model_exec.main, "HB0822", *base, "--input_file", tmp_path / "none.npy")
    refused(hrt_model_exec.main, "HB07", *base, "--input_file", folder / "000.npy")
    good = small.write_samples(tmp_path / "good", 1) / "000.npy"
    (tmp_path / "file").write_text("")
    refused(
        hrt_model_exec.main, "HB0801", "infer", "--model_file", binary, "--input_file", good, "-o", tmp_path / "file"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("cores", "word"),
    [
        *(("3", "has cores 1 to"), ("1,1", "core 1 is named twice"), ("0,0", "any core"), ("0,1", "any core")),
        *(("0,7", "any core"), ("1,9", "has cores 1 to"), ("", "no list"), ("-1", "no list"), ("1,", "no list")),
        *(("1.0", "no list"), ("\uff11", "no list"), ("9" * 5000, "no list"), (" 1", "no list")),
    ],
)
def test_cores_that_are_not_there(binary: Path, cores: str, word: str) -> None:
    assert word in refused(hrt_model_exec.main, "HB0813", "perf", "--model_file", binary, "--core_id", cores)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--thread_num", "0"), ("--thread_num", "-1"), ("--thread_num", "33"), ("--thread_num", "x")),
        *(("--frame_count", "0"), ("--frame_count", "-3"), ("--frame_count", "1e3"), ("--frame_count", "")),
    ],
)
def test_counts_outside_their_range_are_usage_errors(binary: Path, option: str, value: str) -> None:
    result = CliRunner().invoke(hrt_model_exec.main, ["perf", "--model_file", str(binary), option, value])
    assert result.exit_code == 2 and result.stdout == ""
    assert f"Invalid value for '{option}'" in result.stderr


def test_a_model_that_is_not_in_the_file(binary: Path) -> None:
    for command in ("perf", "infer", "model_info"):
        refused(hrt_model_exec.main, "HB0821", command, "--model_file", binary, "--model_name", "other")


@pytest.mark.parametrize(
    ("pipeline", "code"),
    [
        ("canonicalise", "HB0302"),
        ("quantize{", "HB0303"),
        ("quantize{bits=no}", "HB0304"),
        ("quantize{width=3}", "HB0304"),
    ],
)
def test_pipelines(tmp_path: Path, pipeline: str, code: str) -> None:
    refused(hbir_opt.main, code, small.build_model(tmp_path / "m.onnx"), "-p", pipeline)


def test_text_that_is_no_module(tmp_path: Path) -> None:
    (tmp_path / "m.mlir").write_text('"builtin.module"() ({')
    refused(hbir_opt.main, "HB0205", tmp_path / "m.mlir")
    refused(hb_compile.main, "HB0205", "-m", tmp_path / "m.mlir", "--march", "nash-e", "-o", tmp_path / "out")


def test_whole_processes(tmp_path: Path) -> None:
    """The same through the operating system: streams, status, no traceback from the interpreter's end."""
    cases = [
        ("HB0102", "tools.hb_compile", "-m", truncated(tmp_path), "--march", "nash-e", "-o", tmp_path / "out"),
        ("HB0822", "tools.hb_model_info", tmp_path / "none.hbm"),
    ]
    for code, module, *arguments in cases:
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, check=False
        )
        check(done.stdout, done.stderr, done.returncode, code)
