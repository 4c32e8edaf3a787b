"""Weights of sixteen bits, whatever the dtype of what the layer reads: what comes out is what the integers give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hbir.torch import March, set_march
from hbir.torch.dtype import qint8, qint16
from hbir.torch.preparing.prepare import choices_of
from hbir.torch.qconfig.qconfig import get_qconfig
from hbir.torch.qconfig.setters import QconfigSetter
from hbir.torch.qconfig.templates import ConvDtypeTemplate, ModuleNameTemplate, SensitivityTemplate
from hbir.torch.quantization import FakeQuantState, prepare, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
from hbir.torch.stubs import DeQuantStub, QuantStub
from passes import convert


class Layers(nn.Module):
    """Layers of all kinds behind an input of eight bits with a scale that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(1 / 128), DeQuantStub()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)
        self.turned, self.last = nn.ConvTranspose2d(4, 4, 2, 2), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.second(torch.relu(self.first(self.quant(x))))
        return self.dequant(self.last(self.turned(x)))


WIDE_WEIGHTS: dict[str, tuple[Any, set[str]]] = {
    "sixteen on a stub of eight": ((get_qconfig(), [ConvDtypeTemplate(qint16, qint16)]), {"first"}),
    "eight and sixteen": ((get_qconfig(), [ConvDtypeTemplate(qint8, qint16)]), {"first", "second", "turned", "last"}),
    "of a qconfig": ((get_qconfig(weight_dtype=qint16),), {"first", "second", "turned", "last"}),
    "with in_dtype": ((get_qconfig(in_dtype=qint8, weight_dtype=qint16),), {"first", "second", "turned", "last"}),
    "by name": ((get_qconfig(), [ModuleNameTemplate({"second": {"weight": qint16}})]), {"second"}),
    "by sensitivity": ((get_qconfig(), [SensitivityTemplate(["first"], 1, "weight")]), {"first"}),
    "on sixteen": ((get_qconfig(weight_dtype=qint16, out_dtype=qint16),), set[str]()),
}


@pytest.mark.parametrize("name", WIDE_WEIGHTS)
def test_wide_weights_read_wide_values(name: str) -> None:
    settings, held = WIDE_WEIGHTS[name]
    torch.manual_seed(0)
    set_march(March.NASH_E)
    model, x = Layers().eval(), torch.randn(2, 3, 8, 8) * 0.3
    prepared = prepare(model, x, QconfigSetter(*settings)).eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        expected = model(x)
        prepared(x)
        prepared.eval()
        set_fake_quantize(prepared, FakeQuantState.VALIDATION)
        y = prepared(x)
    integers: Any = convert(export(prepared, x), March.NASH_E)[0](x.numpy())[0]
    assert (integers == y.numpy()).all()
    assert torch.cosine_similarity(y.flatten(), expected.flatten(), 0) > 0.999
    inputs = {key[0]: each.inputs for key, each in choices_of(prepared).items() if each.inputs}
    assert set(inputs) == held and all(each[0].dtype == qint16 for each in inputs.values())
