"""`model_profiler` and `QuantAnalysis`: from two models to a folder."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

import hbir.torch.profiler
from hbir.errors import TrainingError
from hbir.torch.debugging.model_profiler import model_profiler
from hbir.torch.debugging.quant_analysis import QuantAnalysis
from hbir.torch.dtype import qint8
from hbir.torch.exporting.export import export
from hbir.torch.qconfig.setters import QconfigSetter
from hbir.torch.qconfig.templates import ModuleNameTemplate, SensitivityTemplate
from passes import convert
from tests.hbir.torch.debugging.models import Chain, Fragile, calibrated, chain, images

CLIPPED = QconfigSetter(
    templates=[ModuleNameTemplate({"act": {"dtype": {"output": qint8}, "threshold": {"output": 0.05}}})]
)


def test_the_folder(tmp_path: Path) -> None:
    told: list[float] = []
    model = Fragile().eval()
    found = model_profiler(
        model, calibrated(model), images(), out_dir=tmp_path, progress=lambda what, share: told.append(share)
    )
    for name in (
        "qconfig_info.txt",
        "model_check_result.txt",
        "model0_statistic.txt",
        "similarity.csv",
        "profiler.html",
    ):
        assert (tmp_path / name).stat().st_size > 100
    for path in tmp_path.glob("*.csv"):
        with path.open(newline="") as file:
            assert len({len(row) for row in csv.reader(file)}) == 1
    text = (tmp_path / "model0_statistic.txt").read_text()
    assert text.index("in model order") < text.index("by range, the largest first")
    page = (tmp_path / "profiler.html").read_text()
    assert found.page == tmp_path / "profiler.html" and "is read by" in page and "http" not in page
    assert told == sorted(told) and told[0] == 0.0 and told[-1] == 1.0
    assert [row.name for row in found.check.called if row.shared] == ["twice"]
    assert len(found.check.unfused) == 2 and not any(row.on_host for row in found.device)


def test_the_planted_layer_is_named_on_the_page(tmp_path: Path) -> None:
    model = chain()
    found = model_profiler(model, calibrated(model, CLIPPED), images(), "FvsQ", tmp_path)
    assert found.advice[0].name == "act" and found.sensitivity[0][0].name == "act"
    assert ("First layer astray", "act", "truncation") in found.facts()
    # Its integers do the same as its fake quantisation: the fault lies in the settings.
    assert all(row.steps is None or row.steps <= 1.001 for row in found.integers)


def test_two_quantised_models(pair: tuple[Chain, nn.Module]) -> None:
    other = calibrated(chain(), CLIPPED)
    found = model_profiler(pair[1], other, images(), "QvsQ", out_dir=None)
    assert found.folder is found.page is None and found.advice[0].name == "act"
    module = convert(export(pair[1], images()), "nash-e")
    found = model_profiler(pair[1], module, images(), "QvsQ", out_dir=None)
    assert [row.name for row in found.similarity] == ["quant", "act", "act2", "head"] and found.statistics == ()


def test_modes_that_do_not_fit(pair: tuple[Chain, nn.Module]) -> None:
    for arguments, code in (
        ((pair[0], pair[1], images(), "FvsF"), "HB0971"),
        ((pair[1], pair[1], images(), "FvsQ"), "HB0971"),
        ((pair[0], pair[1], images(), "QvsQ"), "HB0970"),
        ((pair[0], pair[0], images(), "FvsQ"), "HB0970"),
    ):
        with pytest.raises(TrainingError, match=code):
            model_profiler(*arguments, out_dir=None)


def test_from_a_bad_case_to_an_advice(tmp_path: Path) -> None:
    model = chain()
    analysis = QuantAnalysis(model, calibrated(model, CLIPPED), "fake_quant", out_dir=tmp_path)
    # The third item is the largest, and clipped most.
    cases = analysis.auto_find_bad_case((images(1, seed) * (10 if seed == 2 else 0.1) for seed in range(9)), 4)
    assert cases[0].index == 2 and len(cases) == 4
    assert torch.equal(analysis.bad_case, images(1, 2) * 10)
    analysis.run()
    rows, advice = analysis.compare_per_layer()
    assert "act" in [each.name for each in advice if each.cause == "truncation"]
    assert [row.name for row in analysis.compare_per_layer(prefixes=["conv"], types=["conv"])[0]] == ["conv1", "conv2"]
    (table,) = analysis.sensitivity("Cosine")
    saved = torch.load(tmp_path / "output_0_Cosine_sensitive_ops.pt")
    assert [(row.name, row.sensitive_type, row.value) for row in table] == saved
    assert SensitivityTemplate(saved, 2).sensitive()[0] == [row[:2] for row in saved[:2]]
    names = {path.name for path in tmp_path.iterdir()}
    assert {
        *("badcase.txt", "all_badcase_info.pt", "badcase_report.html", "compare_per_layer_out.txt", "statistic.txt"),
        *("compare_per_layer_out.csv", "abnormal_layer_advisor.csv", "profiler.html"),
        *("output_0_Cosine_sensitive_ops.txt", "output_0_Cosine_sensitive_ops.pt"),
    } <= names
    again = QuantAnalysis(model, calibrated(model), out_dir=tmp_path)
    again.load_bad_case()
    assert torch.equal(again.bad_case, images(1, 2) * 10) and len(rows) == 7


@pytest.mark.parametrize("kind", ["export", "convert"])
def test_modules_are_analysed(pair: tuple[Chain, nn.Module], kind: str, tmp_path: Path) -> None:
    module = export(pair[1], images())
    module = module if kind == "export" else convert(module, "nash-e")
    analysis = QuantAnalysis(pair[1], module, kind, out_dir=tmp_path)
    cases = analysis.auto_find_bad_case([images(), images(seed=2)], metric="ATOL")
    # Both are the same integers or their float form: one step of the head's accumulator each, times its reach.
    assert len(cases) == 2 and cases[0].values[0] < 0.05
    rows, advice = analysis.compare_per_layer()
    assert {"act", "act2"} <= {row.name for row in rows} and advice == []
    with pytest.raises(TrainingError, match="HB0970"):
        analysis.sensitivity()


def test_post_process_decides(pair: tuple[Chain, nn.Module], tmp_path: Path) -> None:
    classes = QuantAnalysis(*pair, post_process=lambda y: y.mean((2, 3)).argmax(1), out_dir=tmp_path)
    assert classes.auto_find_bad_case([images()])[0].values == (0.0,)


def test_misuse_is_named(pair: tuple[Chain, nn.Module], tmp_path: Path) -> None:
    analysis = QuantAnalysis(*pair, out_dir=tmp_path / "none")
    with pytest.raises(TrainingError, match="HB0975"):
        analysis.run()
    with pytest.raises(TrainingError, match="HB0975"):
        analysis.load_bad_case()
    with pytest.raises(TrainingError, match="HB0974"):
        analysis.auto_find_bad_case([])
    with pytest.raises(TrainingError, match="HB0971"):
        QuantAnalysis(*pair, "binary")
    with pytest.raises(TrainingError, match="HB0971"):
        QuantAnalysis(*pair, device_ids=[0])
    with pytest.raises(TrainingError, match="HB0970"):
        QuantAnalysis(*pair, "convert")
    uneven = QuantAnalysis(*pair, post_process=lambda y: [], out_dir=tmp_path)
    with pytest.raises(TrainingError, match="HB0972"):
        uneven.auto_find_bad_case([images()])


def test_published_names_exist() -> None:
    assert all(hasattr(hbir.torch.profiler, name) for name in hbir.torch.profiler.__all__)
    assert hbir.torch.profiler.__all__ == sorted(hbir.torch.profiler.__all__)
