"""Quantisation in steps and sensitivity, and what becomes of the table."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch.debugging.metrics import METRICS
from hbir.torch.debugging.recording import ready, run
from hbir.torch.debugging.stepwise import entries, sensitivity, stepwise
from hbir.torch.dtype import qint8
from hbir.torch.qconfig.presets import sensitive_op_calibration_8bit_weight_16bit_act_qconfig_setter as sensitive_ops
from hbir.torch.qconfig.qconfig import get_qconfig
from hbir.torch.qconfig.setters import QconfigSetter
from hbir.torch.qconfig.templates import ModuleNameTemplate, SensitivityTemplate
from hbir.torch.quantization.observers import MinMaxObserver
from hbir.torch.stubs import DeQuantStub, QuantStub
from tests.hbir.torch.debugging.models import Chain, calibrated, chain, images, wide_chain

WHOLE_RANGE = QconfigSetter(get_qconfig(observer=MinMaxObserver))


def _error(prepared: nn.Module, model: nn.Module) -> float:
    return METRICS["L1"](model(images()), prepared(images()))


def test_steps(pair: tuple[Chain, nn.Module]) -> None:
    steps = {row.step: row.values[0] for row in stepwise(pair[1], images())}
    assert list(steps) == ["inputs alone", "weights alone", "activations alone", "all"]
    assert (
        steps["all"] < min(steps["weights alone"], steps["activations alone"]) and steps["inputs alone"] > steps["all"]
    )
    whole = run(pair[1], images())[1][0]
    nothing = run(pair[1], images(), on=lambda fake: False)[1][0]
    assert steps["all"] == METRICS["SQNR"](nothing, whole)


def test_the_huge_layer_is_first_and_sixteen_bits_mend_it() -> None:
    model = wide_chain()
    prepared = calibrated(model, WHOLE_RANGE)
    (rows,) = sensitivity(prepared, images())
    assert (rows[0].name, rows[0].sensitive_type) == ("act2", "activation") and rows[0].value > 5 * rows[1].value
    template = SensitivityTemplate(rows, 1)
    assert template.rows == SensitivityTemplate(entries(rows), 1).rows
    assert template.rows[0] == ("act2", "activation")
    with pytest.raises(TrainingError, match=r"HB0944.*several tables"):
        SensitivityTemplate([rows], 1)
    mended = calibrated(model, QconfigSetter(get_qconfig(observer=MinMaxObserver), [template]))
    assert _error(mended, model) < _error(prepared, model) / 5
    for table in (rows, entries(rows)):
        by_setter = calibrated(model, (sensitive_ops(table, topk=1), WHOLE_RANGE))
        assert _error(by_setter, model) < _error(prepared, model) / 5


@pytest.mark.parametrize("metric", list(METRICS))
def test_every_metric_finds_it(metric: str) -> None:
    (rows,) = sensitivity(calibrated(wide_chain(), WHOLE_RANGE), images(), metric, "activation")
    assert rows[0].name == "act2" and {row.sensitive_type for row in rows} == {"activation"}


def test_left_out_it_helps_most() -> None:
    told: list[float] = []
    prepared = calibrated(wide_chain(), WHOLE_RANGE)
    (rows,) = sensitivity(prepared, images(), leave_out=True, progress=lambda what, share: told.append(share))
    assert rows[0].name == "act2" and rows[0].value < rows[1].value / 5
    assert told == sorted(told) and told[-1] == 1.0


def test_weights() -> None:
    (rows,) = sensitivity(calibrated(chain()), images(), sensitive_type="weight")
    assert {row.name for row in rows} == {"conv1", "conv2", "head"}


def test_a_table_for_each_output() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.quants = nn.Linear(4, 4), nn.Linear(4, 4), nn.ModuleList([QuantStub(), QuantStub()])
            self.dequant, self.dequant2 = DeQuantStub(), DeQuantStub()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, Any]:
            p, q = torch.relu(self.a(self.quants[0](x))), torch.relu(self.b(self.quants[1](y)))
            return {"p": self.dequant(p), "q": self.dequant2(q), "index": q.argmax(-1)}

    args = torch.randn(2, 4), torch.randn(2, 4)
    rules = QconfigSetter(
        templates=[ModuleNameTemplate({"b": {"dtype": {"output": qint8}, "threshold": {"output": 0.01}}})]
    )
    first, second = sensitivity(calibrated(Two(), rules, args), args)
    assert {row.value for row in first if row.name in ("b", "quants.1")} == {0.0}
    assert second[0].kind == "relu" and second[0].value > 0


def test_what_is_refused(pair: tuple[Chain, nn.Module]) -> None:
    with pytest.raises(TrainingError, match="HB0970"):
        stepwise(ready(pair[0]), images())
    with pytest.raises(TrainingError, match="HB0971"):
        sensitivity(pair[1], images(), sensitive_type="input")

    class Index(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant = QuantStub()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.quant(x).argmax(1)

    with pytest.raises(TrainingError, match="HB0973"):
        stepwise(calibrated(Index()), images())
