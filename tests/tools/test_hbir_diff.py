"""hbir-diff: two files, or the passes of a pipeline; its exit status is diff's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hbir import export, save
from passes import Pipeline
from tests.tools.small import build_model
from tools.hbir_diff import main


@pytest.fixture(name="model", scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model") / "small.onnx")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_module_is_what_its_files_hold(model: Path, tmp_path: Path) -> None:
    module = export(model)
    for name in ("m.bc", "m.mlir"):
        save(module, tmp_path / name)
    for other in (tmp_path / "m.mlir", model):
        result = run(tmp_path / "m.bc", other)
        assert result.exit_code == 0 and result.stdout.startswith("no difference"), result.output


def test_changes_are_told_in_text_and_json(model: Path, tmp_path: Path) -> None:
    module = export(model)
    save(module, tmp_path / "before.bc")
    save(Pipeline("canonicalize,cancel-transposes,fuse-activations").run(module), tmp_path / "after.bc")
    result = run(tmp_path / "before.bc", tmp_path / "after.bc")
    assert result.exit_code == 1
    assert "- hbir.transpose" in result.stdout and "@small" in result.stdout
    found = json.loads(run(tmp_path / "before.bc", tmp_path / "after.bc", "--json").stdout)
    assert {change["kind"] for change in found["changes"]} >= {"removed", "changed"}
    one = found["changes"][0]["layer"]
    only = json.loads(run(tmp_path / "before.bc", tmp_path / "after.bc", "--json", "--only", one).stdout)
    assert all(one in change["layer"] for change in only["changes"]) and only["changes"]
    assert run(tmp_path / "before.bc", tmp_path / "after.bc", "-q").stdout == ""


def test_each_pass_tells_what_it_did(model: Path) -> None:
    result = run(model, "-p", "dead-code,canonicalize,cancel-transposes", "--json")
    assert result.exit_code == 0
    steps = json.loads(result.stdout)
    assert [step["pass"] for step in steps] == ["cancel-transposes"]
    assert "cancel-transposes: " in run(model, "-p", "cancel-transposes").stdout


def test_mistakes_have_a_status_of_their_own(model: Path, tmp_path: Path) -> None:
    for arguments, code in (((), "HB0814"), ((model,), "HB0814"), ((model, tmp_path / "none.bc"), "HB0822")):
        result = run(*arguments)
        assert result.exit_code == 2 and code in result.stderr
    assert run(model, model, "-p", "dead-code").exit_code == 2
