"""hbir-view: one command from a module to files that Netron and Model Explorer open."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from backends import compile as compile_module
from backends import hbm_perf
from hbir import export, save
from hbir.errors import ConfigError
from passes import calibrate, convert
from tests.tools.small import SHAPE, build_model
from tools.hbir_view import main
from tools.overlays import read_overlay


@pytest.fixture(name="folder", scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """small.onnx, quantised as q.bc, compiled as q.hbm, with its report q.json and a sample x.npz."""
    folder = tmp_path_factory.mktemp("view")
    module = export(build_model(folder / "small.onnx"))
    sample = np.random.default_rng(0).normal(0, 1, SHAPE).astype(np.float32)
    quantized = convert(calibrate(module, [{"x": sample}]), "nash-e")
    save(quantized, folder / "q.bc")
    compile_module(quantized, folder / "q.hbm", "nash-e")
    hbm_perf(folder / "q.hbm", folder)
    np.savez(folder / "x.npz", x=sample)
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def values(path: Path) -> dict[str, float]:
    return {key: each["value"] for key, each in json.loads(path.read_text())["small"]["results"].items()}


def test_cycles_bytes_and_error_of_each_layer(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.json"
    against = ("--against", folder / "small.onnx", "--feeds", folder / "x.npz")
    result = run(folder / "q.bc", "-o", out, "--hbm", folder / "q.hbm", *against, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert [Path(name).name for name in told["files"]] == ["v.json", "v.cycles.json", "v.bytes.json", "v.error.json"]
    assert {row["overlay"]: row["not in the module"] for row in told["overlays"]} == {
        "cycles": 0,
        "bytes": 0,
        "error": 0,
    }
    report = json.loads((folder / "q.json").read_text())["extensions"]["layers"]
    assert sorted(values(tmp_path / "v.cycles.json").values()) == sorted(row["cycles"] for row in report)
    assert sum(values(tmp_path / "v.bytes.json").values()) == sum(
        row["ddr_loaded_bytes"] + row["ddr_stored_bytes"] for row in report
    )
    errors = values(tmp_path / "v.error.json")
    assert errors and all(0 <= value < 0.05 for value in errors.values())
    nodes = {node["id"] for node in json.loads(out.read_text())["graphs"][0]["nodes"]}
    assert set(errors) <= nodes


def test_a_report_gives_the_same_overlays_as_its_binary(folder: Path, tmp_path: Path) -> None:
    run(folder / "q.bc", "-o", tmp_path / "a.json", "--hbm", folder / "q.hbm")
    files = [f"--overlay={name}={folder / 'q.json'}" for name in ("cycles", "bytes")]
    result = run(folder / "q.bc", "-o", tmp_path / "b.json", *files)
    assert result.exit_code == 0 and "b.bytes.json" in result.stdout
    for name in ("cycles", "bytes"):
        assert (tmp_path / f"a.{name}.json").read_bytes() == (tmp_path / f"b.{name}.json").read_bytes()
    (tmp_path / "mine.json").write_text('{"conv1+act1": 2.5, "no such layer": 1}')
    result = run(folder / "q.bc", "-o", tmp_path / "c.json", "--overlay", f"mine={tmp_path / 'mine.json'}")
    assert result.exit_code == 0 and list(values(tmp_path / "c.mine.json").values()) == [2.5]


def test_values_of_another_network_are_refused(folder: Path, tmp_path: Path) -> None:
    """Both networks have an input x, and nothing else in common."""
    tiny = export(Path("tests/data/tiny.onnx"))
    feed = {"x": np.zeros(tiny[0].flatten_inputs[0].type.shape, np.float32)}
    save(convert(calibrate(tiny, [feed]), "nash-e"), tmp_path / "t.bc")
    out = tmp_path / "v.json"
    (tmp_path / "mine.json").write_text('{"x": 1, "no such layer": 1}')
    for options in (
        ("--hbm", folder / "q.hbm"),
        ("--overlay", f"cycles={folder / 'q.json'}"),
        ("--overlay", f"cycles={tmp_path / 'mine.json'}"),
    ):
        result = run(tmp_path / "t.bc", "-o", out, *options)
        assert result.exit_code == 1 and "HB0825: overlay 'cycles'" in result.stderr, result.output
        assert "and the module has " in result.stderr and "the layers x, " in result.stderr
    assert not out.exists()
    # A layer of this module is enough: what else there is, is counted.
    (tmp_path / "mine.json").write_text('{"x": 1, "stem+stem_relu": 1}')
    assert run(tmp_path / "t.bc", "-o", out, "--overlay", f"mine={tmp_path / 'mine.json'}").exit_code == 0


def test_onnx_for_netron(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(folder / "q.bc").exit_code == 0
    onnx.checker.check_model(str(tmp_path / "q_view.onnx"))
    assert run(folder / "small.onnx", "--external-data").exit_code == 0
    assert (tmp_path / "small_view.onnx.data").is_file()
    seen: list[object] = []
    fake = SimpleNamespace(start=lambda path, address: seen.append((path, address)), wait=lambda: seen.append("wait"))
    monkeypatch.setitem(sys.modules, "netron", fake)
    assert run(folder / "q.bc", "--netron", "--port", 8081).exit_code == 0
    assert seen == [("q_view.onnx", ("localhost", 8081)), "wait"]


def test_mistakes_are_one_line(folder: Path, tmp_path: Path) -> None:
    q, cycles = folder / "q.bc", f"cycles={folder / 'q.json'}"
    for arguments, code in (
        ((), "HB0814"),
        ((q, "-o", "x.txt"), "HB0817"),
        ((folder / "small.onnx", "-o", folder / "small.onnx"), "HB0816"),
        ((q, "-o", "x.onnx", "--overlay", cycles), "HB0816"),
        ((q, "-o", "x.json", "--netron"), "HB0816"),
        ((q, "-o", "x.json", "--external-data"), "HB0816"),
        ((q, "-o", tmp_path / "x.json", "--overlay", cycles, "--hbm", folder / "q.hbm"), "HB0816"),
        ((q, "--overlay", "cycles"), "HB0813"),
        ((q, "--against", folder / "small.onnx"), "HB0814"),
        ((q, "--against", folder / "small.onnx", "--feeds", q), "HB0414"),
        ((folder / "none.bc",), "HB0822"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and code in result.stderr and "Traceback" not in result.output, (
            arguments,
            result.output,
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[1]",
        "{}",
        '{"a": true}',
        '{"a": "b"}',
        "[" * 100_000,
        '{"a": 1e999}',
        '{"extensions": {"layers": [1, {}]}}',
        "\xff",
    ],
)
def test_files_that_hold_no_values_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "o.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match="HB0813"):
        read_overlay("cycles", path)
    with pytest.raises(ConfigError, match="HB0822"):
        read_overlay("cycles", tmp_path / "none.json")
