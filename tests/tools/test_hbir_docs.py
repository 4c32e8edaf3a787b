"""hbir-docs: what a code means, and what it refuses; `tests/tools/reference` looks at the pages."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hbir.error_codes import error_codes
from tools.hbir_docs import main


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_code_is_explained() -> None:
    row = error_codes()["HB0305"]
    for spelling in ("HB0305", "hb0305", "305"):
        result = run(spelling)
        assert result.exit_code == 0
        assert result.stdout == f"HB0305  PassError\n  {row.meaning}\n  Change: {row.remedy}\n"
    found = json.loads(run("HB0305", "HB0801", "--json").stdout)
    assert [each["family"] for each in found] == ["PassError", "ConfigError"]
    assert found[0]["meaning"] == row.meaning and found[0]["remedy"] == row.remedy


def test_mistakes_are_told() -> None:
    for arguments, code in (
        ((), "HB0814"),
        (("HB0305", "-o", "x"), "HB0816"),
        (("HB0399",), "HB0813"),
        (("x",), "HB0813"),
    ):
        result = run(*arguments)
        assert result.exit_code == 1 and result.stderr.startswith(code), result.output
    assert "HB0305" in run("HB0399").stderr


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = run("-o", tmp_path / "file", "-q")
    assert refused.exit_code == 1 and refused.stderr.startswith("HB0801") and refused.stdout == ""


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr("tools.hbir_docs.find_spec", lambda name: None if name == "griffe" else real(name))
    result = run("-o", tmp_path)
    assert result.exit_code == 1 and "griffelib" in result.stderr and "hbir[docs]" in result.stderr
    assert not any(tmp_path.iterdir())
