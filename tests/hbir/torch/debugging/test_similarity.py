"""Two models layer by layer, their weights, and the advice for planted defects."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch.debugging.advice import advise
from hbir.torch.debugging.recording import ready, record
from hbir.torch.debugging.similarity import (
    compare_recordings,
    compare_weights,
    featuremap_similarity,
    similarity_table,
    weight_table,
)
from hbir.torch.dtype import qint8
from hbir.torch.exporting.export import export
from hbir.torch.qconfig.qconfig import get_qconfig
from hbir.torch.qconfig.setters import QconfigSetter
from hbir.torch.qconfig.templates import ModuleNameTemplate
from hbir.torch.quantization.observers import MinMaxObserver
from hbir.torch.stubs import DeQuantStub, QuantStub
from passes import convert
from tests.hbir.torch.debugging.models import Chain, calibrated, chain, images, wide_chain


def _advised(model: nn.Module, rules: Any = None) -> list[Any]:
    base, other = record(ready(model), images()), record(calibrated(model, rules), images())
    return advise(compare_recordings(base, other), base, other)


def test_a_model_is_like_itself(pair: tuple[Chain, nn.Module]) -> None:
    rows = featuremap_similarity(pair[0], pair[0], images())
    assert len(rows) == 7
    assert all(row.atol == 0 and row.mse == 0 and row.cosine == pytest.approx(1) for row in rows)


def test_rows_are_in_order_and_in_steps(pair: tuple[Chain, nn.Module]) -> None:
    rows = featuremap_similarity(pair[0], pair[1], images())
    assert [row.name for row in rows] == ["quant", "conv1", "bn", "act", "conv2", "act2", "head"]
    first = rows[0]
    # Holding to a grid moves no value inside it by more than half a step; the search for a scale may clip more.
    assert first.steps is not None and first.scale is not None and first.steps == first.atol / first.scale
    assert all(0.99 < row.cosine <= 1 and row.sqnr > 20 for row in rows)
    assert rows[3].drop == pytest.approx(rows[2].cosine - rows[3].cosine)


def test_exported_and_converted_modules(pair: tuple[Chain, nn.Module]) -> None:
    module = export(pair[1], images())
    exact = {row.name: row for row in featuremap_similarity(pair[1], convert(module.clone(), "nash-e"), images())}
    assert set(exact) == {"quant", "act", "act2", "head"}
    assert all(row.steps is not None and row.steps <= 1.001 for name, row in exact.items() if name != "head")
    exported = {row.name for row in featuremap_similarity(pair[1], module, images())}
    assert {"quant", "conv1", "act", "conv2", "act2", "head"} <= exported


def test_other_models_are_refused(pair: tuple[Chain, nn.Module]) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.leave = QuantStub(), DeQuantStub()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.leave(self.enter(x))

    with pytest.raises(TrainingError, match="HB0972"):
        featuremap_similarity(pair[0], Other(), images())


def test_weights(pair: tuple[Chain, nn.Module]) -> None:
    rows = {row.name: row for row in compare_weights(pair[0], pair[1], images())}
    assert set(rows) == {"conv1", "conv2", "head"}
    for row in rows.values():
        # Half a step of the largest scale, and the float32 rounding of the folded weight.
        assert row.scale_maximum is not None and 0 < row.atol <= 0.5001 * row.scale_maximum
        assert row.cosine > 0.999


def test_a_changed_weight_is_marked(pair: tuple[Chain, nn.Module]) -> None:
    changed = chain()
    with torch.no_grad():
        changed.conv2.weight.neg_()
    rows = compare_weights(changed, pair[1], images())
    assert {rows[i].name for i in weight_table(rows).marked} == {"conv2"}


def test_truncation_is_named_with_a_scale_that_fits() -> None:
    rules = QconfigSetter(
        templates=[ModuleNameTemplate({"act": {"dtype": {"output": qint8}, "threshold": {"output": 0.05}}})]
    )
    first = next(each for each in _advised(chain(), rules) if each.cause != "carried")
    assert (first.name, first.cause) == ("act", "truncation") and first.clipped > 0.3
    peak = float(record(ready(chain()), images()).features["act"].value.max())
    assert first.fixed_scale == pytest.approx(peak / 127) and "fixed scale is too small" in first.lever


def test_rounding_asks_for_sixteen_bits() -> None:
    # One channel is a thousand times as large as the others, and the whole range is kept: a step swallows the others.
    rules = QconfigSetter(get_qconfig(observer=MinMaxObserver))
    base, other = record(ready(wide_chain()), images()), record(calibrated(wide_chain(), rules), images())
    rows = compare_recordings(base, other)
    assert next(row for row in rows if row.name == "act2").cosine > 0.999
    assert next(row for row in rows if row.name == "head").cosine < 0.95
    found = {each.name: each for each in advise(rows, base, other)}
    # The large channel hides the loss at the place itself; the layer behind has lost its values.
    assert set(found) == {"head"} and found["head"].cause in ("weight", "carried")

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.quant, self.dequant, self.conv = QuantStub(), DeQuantStub(), nn.Conv2d(3, 3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dequant(torch.relu(self.conv(self.quant(x)) * 0.01))

    coarse = QconfigSetter(
        templates=[ModuleNameTemplate({"conv": {"dtype": {"output": qint8}, "threshold": {"output": 400.0}}})]
    )
    first = next(each for each in _advised(Small(), coarse) if each.cause != "carried")
    assert (first.name, first.cause) == ("conv", "rounding") and "qint16" in first.lever


def test_values_below_the_smallest_scale_are_told() -> None:
    model = chain()
    with torch.no_grad():
        model.conv2.weight.mul_(1e-9)
        model.conv2.bias.zero_()
    assert "check the float model" in next(each.lever for each in _advised(model) if each.name == "act2")


def test_a_good_model_has_no_advice(pair: tuple[Chain, nn.Module]) -> None:
    rows = featuremap_similarity(pair[0], pair[1], images())
    assert _advised(chain()) == [] and not similarity_table(rows).marked
