"""The scripts of the article on high-precision outputs of linear layers, with their import lines changed."""

from __future__ import annotations

from pathlib import Path

import pytest

# ruff: noqa: A004, I001, UP008
import torch
import torch.nn as nn
from hbir import save, visualize
from hbir.dialects import quantized as q
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.torch import March, set_march
from hbir.torch.quantization import FakeQuantState, prepare, set_fake_quantize
from hbir.torch.quantization import QuantStub
from hbir.torch.quantization.hbdk4 import export
from hbir.torch.quantization.qconfig_template import default_calibration_qconfig_setter
from torch.quantization import DeQuantStub
from passes import convert
from backends import Hbm, compile


class SmallModel(nn.Module):
    def __init__(self):
        super(SmallModel, self).__init__()
        self.linear1 = nn.Linear(256, 256)
        self.layernorm = nn.LayerNorm(256)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(256, 60)
        self.linear3 = nn.Linear(60, 60)
        self.quant = QuantStub()
        self.dequant = DeQuantStub()

    def forward(self, x):
        x = self.quant(x)
        x = self.linear1(x)
        x = self.layernorm(x)
        x = self.relu(x)
        y = self.linear2(x)
        z = self.linear3(y)
        z = self.dequant(z)
        return z


class InAndOut(SmallModel):
    def __init__(self):
        super(InAndOut, self).__init__()
        self.quant_out = QuantStub()

    def forward(self, x):
        x = self.quant(x)
        x = self.linear1(x)
        x = self.layernorm(x)
        x = self.relu(x)
        y = self.linear2(x)
        y_out = self.dequant(y)
        y = self.quant_out(y_out)
        z = self.linear3(y)
        z = self.dequant(z)
        return z, y_out


def run(model: nn.Module, march: March) -> tuple[nn.Module, Module, torch.Tensor]:
    """The script up to `qat.bc`: prepare, calibrate, validate, export."""
    set_march(march)
    torch.manual_seed(42)
    example_input = torch.randn(2, 100, 256)
    calib_model = prepare(model.eval(), example_input, qconfig_setter=(default_calibration_qconfig_setter,))

    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    calib_model(example_input)

    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    return calib_model, export(calib_model, example_input), example_input


def results(value: torch.Tensor | tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [value] if isinstance(value, torch.Tensor) else list(value)


def agree(calib_model: nn.Module, quantized: Module, x: torch.Tensor, path: Path) -> None:
    """PyTorch, the interpreter and the simulator of the decoded binary, bit for bit."""
    expected = [each.detach().numpy() for each in results(calib_model(x))]
    interpreted = quantized[0](x.numpy())
    compile(quantized, path, quantized.march, opt=0)
    simulated = Hbm(path)[0].feed({quantized[0].flatten_inputs[0].name: x.numpy()}).values()
    for one, two, three in zip(expected, interpreted, simulated, strict=True):
        assert one.dtype == two.dtype == three.dtype and (one == two).all() and (two == three).all()


def accumulators(module: Module, layer: str) -> list[object]:
    found = [
        op
        for op in module[0].operations
        if layer in layer_name(op).split("+") and isinstance(op, q.Conv2dOp | q.MatmulOp)
    ]
    return [op.results[0].type for op in found]


def test_the_last_linear_is_an_int32_output(tmp_path: Path) -> None:
    calib_model, qat_bc, x = run(SmallModel(), March.NASH_M)
    float_out = SmallModel.forward(calib_model, x)
    assert float_out.shape == (2, 100, 60)
    save(qat_bc, str(tmp_path / "qat.bc"))
    visualize(qat_bc, str(tmp_path / "qat.onnx"))
    hb_quantized_model = convert(qat_bc, March.NASH_M)
    save(hb_quantized_model, str(tmp_path / "quantized.bc"))
    visualize(hb_quantized_model, str(tmp_path / "quantized_single.onnx"))
    assert all("i32" in str(kind) for kind in accumulators(hb_quantized_model, "linear3"))
    assert accumulators(hb_quantized_model, "linear3")
    agree(calib_model, hb_quantized_model, x, tmp_path / "m.hbm")


def test_an_output_that_is_read_again_is_rescaled_once(tmp_path: Path) -> None:
    calib_model, qat_bc, x = run(InAndOut(), March.NASH_M)
    hb_quantized_model = convert(qat_bc, March.NASH_M)
    assert all("i32" in str(kind) for kind in accumulators(hb_quantized_model, "linear2"))
    operations = hb_quantized_model[0].operations
    rescales = [op for op in operations if isinstance(op, q.RescaleOp) and "i32" in str(op.input.type)]
    assert len(rescales) == 1
    quantizes = [op for op in operations if isinstance(op, q.QuantizeOp)]
    assert len(quantizes) == 1, "the input alone; the added dequant and quant are the rescale"
    agree(calib_model, hb_quantized_model, x, tmp_path / "m.hbm")


@pytest.mark.parametrize("integer", [False, True])
def test_float_outputs_on_nash_h(tmp_path: Path, integer: bool) -> None:
    calib_model, qat_bc, x = run(InAndOut(), March.NASH_H)
    if integer:
        qat_bc._integer_conv = True
    hb_quantized_model = convert(qat_bc, "nash-h")
    kinds = accumulators(hb_quantized_model, "linear2")
    assert kinds and all(("i32" in str(kind)) == integer for kind in kinds)
    quantizes = [op for op in hb_quantized_model[0].operations if isinstance(op, q.QuantizeOp)]
    assert len(quantizes) == (1 if integer else 2), "a value that leaves as float32 meets a quantize on its way on"
    if not integer:
        agree(calib_model, hb_quantized_model, x, tmp_path / "m.hbm")
