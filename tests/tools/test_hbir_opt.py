"""hbir-opt: imports, runs pipelines, shows what changed, and what it writes is read back."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hbir.module import Module, load
from passes.manager import available_passes
from tests.tools.small import build_model
from tools.hbir_opt import main


@pytest.fixture(name="model")
def small_model(tmp_path: Path) -> Path:
    return build_model(tmp_path / "small.onnx")


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def test_a_model_is_imported_and_printed(model: Path) -> None:
    text = run(model).stdout
    assert '"hbir.conv2d"' in text and 'loc("conv1")' in text
    assert "// -----" not in text


def test_the_pipeline_is_applied_and_written(model: Path, tmp_path: Path) -> None:
    pipeline = "fold-constants,canonicalize,cancel-transposes,canonicalize,fuse-conv-add-relu,dead-code"
    assert run(model, "-p", pipeline, "-o", tmp_path / "m.mlir").stdout == ""
    module = load(tmp_path / "m.mlir")
    counts = dict(module[0].statistics())
    assert "hbir.clip" not in counts and counts["hbir.conv2d"] == 1
    assert str(Module.parse(run(tmp_path / "m.mlir").stdout.strip())) == str(module)


def test_print_after_change_skips_passes_that_do_nothing(model: Path) -> None:
    text = run(model, "-p", "dead-code,fuse-conv-add-relu", "--print-after-change").stderr
    assert "after dead-code: no change" in text
    assert text.count('"builtin.module"') == text.count("operations -----") >= 0
    text = run(model, "-p", "cancel-transposes,fuse-conv-add-relu", "--print-after", "fuse-conv-add-relu").stderr
    assert "after cancel-transposes" not in text and text.count('"builtin.module"') == 1


def test_timing_and_its_json(model: Path) -> None:
    text = run(model, "-p", "canonicalize,dead-code", "--timing").stderr
    assert "canonicalize" in text and "dead-code" in text
    rows = json.loads(run(model, "-p", "canonicalize,dead-code", "--timing", "--json").stderr)
    assert [row["name"] for row in rows] == ["canonicalize", "dead-code"]
    assert rows[0]["after"] == rows[1]["before"]


def test_statistics_and_snapshots(model: Path, tmp_path: Path) -> None:
    steps = "fold-constants,canonicalize,cancel-transposes,fuse-conv-add-relu,dead-code,dead-code"
    table = run(model, "-p", steps, "--statistics", "--snapshots", tmp_path / "s").stderr
    assert "fuse-conv-add-relu" in table and "hbir.clip -1" in table and "all passes" in table
    rows = json.loads(run(model, "-p", steps, "--statistics", "--json").stderr)
    assert [row["name"] for row in rows] == steps.split(",") and {"hbir.clip": -1} in [row["kinds"] for row in rows]
    saved = sorted((tmp_path / "s").iterdir())
    assert saved[0].name == "01-fold-constants.bc" and "06-dead-code.bc" not in [path.name for path in saved]
    assert str(load(saved[-1])) == str(Module.parse(run(model, "-p", steps).stdout.strip(), load(saved[-1]).constants))


def test_timing_and_statistics_are_one_document(model: Path) -> None:
    rows = json.loads(run(model, "-p", "canonicalize,dead-code", "--timing", "--statistics", "--json").stderr)
    assert [row["name"] for row in rows] == ["canonicalize", "dead-code"]
    assert all(set(row) == {"name", "seconds", "before", "after", "kinds"} for row in rows)
    alone = json.loads(run(model, "-p", "canonicalize", "--timing", "--json").stderr)
    assert [set(row) for row in alone] == [{"name", "seconds", "before", "after"}]
    alone = json.loads(run(model, "-p", "canonicalize", "--statistics", "--json").stderr)
    assert [set(row) for row in alone] == [{"name", "kinds"}]
    assert run(model, "-p", "canonicalize", "--json").stderr == ""


@pytest.mark.parametrize("level", ["structure", "exec", "none"])
def test_levels_of_verification(model: Path, level: str) -> None:
    run(model, "-p", "fold-constants,canonicalize", "--verify", level)


def test_every_pass_is_listed_with_its_options() -> None:
    rows = json.loads(run("--list-passes", "--json").stdout)
    assert [row["name"] for row in rows] == sorted(available_passes())
    options = {row["name"]: row["options"] for row in rows}
    assert options["quantize"] == {"multiplier-bits": 15, "high-multiplier-bits": 31, "float-results": False}
    assert all(row["about"] for row in rows)
    table = run("--list-passes").stdout
    assert all(row["name"] in table for row in rows)


def test_a_failing_pass_leaves_a_reproducer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "repro"
    # A table of a function needs ranges; a bound that no table meets is refused.
    quantised = "fold-constants,canonicalize,insert-fake-quant,quantize,fix-lut{bound=0.0}"
    sigmoid = build_model(tmp_path / "s.onnx", op="Sigmoid")
    result = CliRunner().invoke(
        main,
        [str(sigmoid), "-p", quantised.replace("quant,", "quant{activation-bits=16},"), "--reproducer", str(folder)],
    )
    assert result.exit_code == 1 and result.stderr.startswith("HB03")
    command = (folder / "command.txt").read_text()
    assert command.startswith("hbir-opt module.bc -p") and "fix-lut" in command
    monkeypatch.chdir(folder)
    again = CliRunner().invoke(main, shlex.split(command)[1:])
    assert again.exit_code == 1 and again.stderr == result.stderr
    assert (folder / "error.txt").read_text() == f"PassError: {result.stderr}"
