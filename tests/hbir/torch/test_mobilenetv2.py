"""MobileNetV2 with the ImageNet weights, calibrated alone: its accuracy, and the same bits from PyTorch and the interpreter."""

from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from hbir.torch import March, set_march
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, prepare, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
from hbir.torch.quantization.qconfig_template import default_calibration_qconfig_setter
from passes import convert
from tests.networks import calibration_feeds, evaluation, member
from tests.reporting import Figures
from tools.examples.qat.mobilenet import MobileNetV2

ENOUGH = 17
"""Of 20 pictures; the float network has 18."""


class Stubbed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.quant, self.inner, self.dequant = QuantStub(), inner, DeQuantStub()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.inner(self.quant(x)))


@pytest.mark.xdist_group("mobilenetv2")
def test_calibration_alone_keeps_imagenet(figures: Figures) -> None:
    model = MobileNetV2()
    model.load_state_dict(torch.load(io.BytesIO(member("mobilenetv2_weights")), weights_only=True))
    set_march(March.NASH_E)
    pictures = evaluation("mobilenetv2")
    inputs = [torch.from_numpy(feed["input"]) for feed in pictures.inputs]
    prepared = prepare(Stubbed(model).eval(), inputs[0], default_calibration_qconfig_setter)
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        for feed in calibration_feeds("mobilenetv2"):
            prepared(torch.from_numpy(feed["input"]))
        floats = [int(Stubbed(model).eval()(x).argmax()) for x in inputs]
        prepared.eval()
        set_fake_quantize(prepared, FakeQuantState.VALIDATION)
        results = [prepared(x) for x in inputs]
    assert pictures.labels is not None
    right = sum(int(result.argmax()) == label for result, label in zip(results, pictures.labels, strict=True))
    kept = sum(found == label for found, label in zip(floats, pictures.labels, strict=True))
    figures(f"mobilenetv2 in PyTorch, calibrated: {right} of 20 ImageNet samples, float {kept}")
    assert right >= ENOUGH
    integers = convert(export(prepared, inputs[0]), March.NASH_E)
    for x, result in zip(inputs[:5], results, strict=False):
        assert (integers[0](x.numpy())[0] == result.numpy()).all()
