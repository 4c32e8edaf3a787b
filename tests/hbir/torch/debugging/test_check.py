"""Settings: qconfig_info.txt, model_check_result.txt, and operations on the host."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from hbir.errors import TrainingError
from hbir.torch.debugging.check import check_qat_model
from hbir.torch.debugging.device import check_deploy_device, device_table
from hbir.torch.debugging.qconfig_report import check_qconfig, expectations
from hbir.torch.debugging.recording import integers_for
from hbir.torch.dtype import qint8, qint16
from hbir.torch.march import set_march
from hbir.torch.preparing.prepare import prepare
from hbir.torch.qconfig.setters import ModuleNameQconfigSetter, QconfigSetter
from hbir.torch.qconfig.templates import ModuleNameTemplate
from tests.hbir.torch.debugging.models import Chain, Fragile, calibrated, chain, images

TITLES = (
    "Fusable modules are listed below:",
    "Each module called times:",
    "Each layer out qconfig:",
    "Weight qconfig:",
    "input/output dtype statistics:",
    "Please check if these OPs qconfigs are expected.",
)


def test_rows(pair: tuple[Chain, nn.Module]) -> None:
    rows = {row.name: row for row in check_qconfig(pair[1], images())}
    assert {name: row.output for name, row in rows.items()} == {
        **dict.fromkeys(("quant", "act", "act2"), "qint8"),
        **dict.fromkeys(("conv1", "bn", "conv2"), "fused"),
        "head": "qint32 (accumulator)",
    }
    act, conv = rows["act"], rows["conv1"]
    assert act.grid is not None and act.grid.limit == pytest.approx(act.grid.scale * 127)
    assert act.grid.how == "observed" and act.grid.observer == "MSEObserver" and act.rules
    assert conv.weight is not None and conv.weight.channels == 8 and conv.inputs == ("qint8",)
    assert rows["head"].high_precision and not rows["act2"].leaves


def test_a_head_in_eight_bits_is_told() -> None:
    rules = QconfigSetter(templates=[ModuleNameTemplate({"head": {"output": qint8}, "act": {"output": qint16}})])
    prepared = calibrated(chain(), rules)
    rows = {row.name: row for row in check_qconfig(prepared, images())}
    assert rows["head"].leaves and not rows["head"].high_precision and rows["act"].output == "qint16"
    assert ("head", "it leaves in qint8") in [row[:2] for row in expectations(list(rows.values())).rows]


def test_files_have_the_published_sections(tmp_path: Path) -> None:
    found = check_qat_model(calibrated(Fragile()), images(), tmp_path / "new")
    text = (tmp_path / "new" / "model_check_result.txt").read_text()
    places = [text.index(title) for title in TITLES]
    assert places == sorted(places)
    assert len(found.unfused) == 2 and "twice (2)" in text
    settings = (tmp_path / "new" / "qconfig_info.txt").read_text()
    assert (
        "twice (2)" in settings and "rounded; a plain layer there" in settings and "the default: reference" in settings
    )


def test_what_was_never_calibrated_is_told() -> None:
    set_march("nash-e")
    prepared = prepare(chain(), images())
    with pytest.warns(UserWarning, match="HB0947"):
        found = check_qat_model(prepared, images())
    rows = [row for row in expectations(found.qconfig).rows if "never calibrated" in row[1]]
    assert {"quant", "act", "act2"} <= {row[0] for row in rows}


def test_an_operation_on_the_host_is_named() -> None:
    prepared = calibrated(Fragile(), ModuleNameQconfigSetter({"late": None}))
    rows = check_deploy_device(prepared, images())
    host = [row for row in rows if row.on_host]
    assert host and any("late" in row.layer for row in host) and all(row.reason for row in host)
    assert {rows[i].layer for i in device_table(rows).marked} == {row.layer for row in host}
    assert ("late", "it is not quantised") in [row[:2] for row in expectations(check_qconfig(prepared, images())).rows]


def test_all_units(pair: tuple[Chain, nn.Module]) -> None:
    rows = check_deploy_device(pair[1], images())
    assert rows and not any(row.on_host for row in rows) and {"TAE", "VPU"} <= {row.unit for row in rows}
    assert check_deploy_device(integers_for(pair[1], images())[0]) == rows


def test_a_float_model_is_refused() -> None:
    for tool in (check_qconfig, check_qat_model, check_deploy_device):
        with pytest.raises(TrainingError, match="HB0970"):
            tool(chain(), images())
