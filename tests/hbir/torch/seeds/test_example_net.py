"""The manual's network with its ways to fuse and to set `qconfig`, import lines changed, from preparation to binary.

Its `forward` names a second operand `y` of the sum and does not say where it comes from: here it is a second input.
"""

from __future__ import annotations

# ruff: noqa: I001, UP008
from pathlib import Path

import torch
import torch.nn.quantized as nnq
import hbir.torch as horizon
from torch.quantization import DeQuantStub
from torch import nn
from hbir.dialects.quantized import Conv2dOp
from hbir.torch import March, set_march
from hbir.torch.quantization import FakeQuantize, FakeQuantState, QuantStub
from hbir.torch.quantization import check_model, compile_model, convert, prepare_qat, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
import passes


class ExampleNet(nn.Module):
    def __init__(self):
        super(ExampleNet, self).__init__()
        self.quant = QuantStub()
        self.quant_y = QuantStub()
        self.conv = nn.Conv2d(in_channels=1, out_channels=1, kernel_size=3)
        self.bn = nn.BatchNorm2d(num_features=1)
        self.add = nn.quantized.FloatFunctional()
        self.act = nn.ReLU()
        self.out_conv = nn.Conv2d(in_channels=1, out_channels=1, kernel_size=3)
        self.dequant = DeQuantStub()

    def forward(self, x, y):
        x = self.quant(x)
        y = self.quant_y(y)
        x = self.conv(x)
        x = self.bn(x)
        x = self.add.add(x, y)
        x = self.act(x)
        x = self.out_conv(x)
        x = self.dequant(x)
        return x

    def fuse_model(self):
        from hbir.torch import quantization

        torch.quantization.fuse_modules(
            self,
            ["conv", "bn", "add", "act"],
            inplace=True,
            fuser_func=quantization.fuse_known_modules,
        )

    def set_qconfig(self):
        self.qconfig = horizon.quantization.get_default_qat_qconfig()
        self.out_conv.qconfig = horizon.quantization.get_default_qat_out_qconfig()


def inputs(seed: int, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 1, 8, 8, generator=generator), torch.randn(count, 1, 6, 6, generator=generator)


def calibrated(fused: bool) -> nn.Module:
    """The network through `fuse_model`, `set_qconfig`, `prepare_qat` and a calibration."""
    torch.manual_seed(3)
    set_march(March.NASH_E)
    model = ExampleNet().eval()
    if fused:
        model.fuse_model()
    model.set_qconfig()
    calib_model = prepare_qat(model)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    calib_model(*inputs(0, 8))
    qat_model = prepare_qat(model)
    qat_model.load_state_dict(calib_model.state_dict())
    return qat_model


def test_the_fused_network_is_two_convolutions(tmp_path: Path) -> None:
    assert nnq.FloatFunctional is nn.quantized.FloatFunctional
    qat_model = calibrated(fused=True)
    qat_model.train()
    set_fake_quantize(qat_model, FakeQuantState.QAT)
    optimizer = torch.optim.SGD(qat_model.parameters(), lr=0.01)
    before = qat_model.conv.weight.detach().clone()
    for step in range(3):
        loss = qat_model(*inputs(step + 1, 4)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (qat_model.conv.weight != before).any()

    quantized_model = convert(qat_model.eval())
    x = inputs(9)
    expected = quantized_model(*x).detach()
    integers = passes.convert(export(quantized_model, x), March.NASH_E)
    operations = integers[0].operations
    convolutions = [op for op in operations if isinstance(op, Conv2dOp)]
    assert len(convolutions) == 2 and "i32" in str(convolutions[1].results[0].type)
    assert (torch.from_numpy(integers[0](*(each.numpy() for each in x))[0]) == expected).all()

    assert check_model(quantized_model, x, advice=1) == 0
    binary = compile_model(quantized_model, list(x), hbm=tmp_path / "model.hbm", opt=0)
    assert (torch.from_numpy(binary[0](*(each.numpy() for each in x))[0]) == expected).all()
    assert expected.std() > 0


def test_without_fuse_model_each_module_has_its_grid() -> None:
    # A FloatFunctional that is fused with nothing holds its fake quant itself.
    qat_model = calibrated(fused=False).eval()
    quantized_model = convert(qat_model)
    x = inputs(9)
    expected = quantized_model(*x).detach()
    names = {name for name, module in quantized_model.named_modules() if isinstance(module, FakeQuantize)}
    outputs = {
        name.removesuffix(".activation_post_process") for name in names if not name.endswith("weight_fake_quant")
    }
    assert {"conv", "bn", "add", "act"} <= outputs
    integers = passes.convert(export(quantized_model, x), March.NASH_E)
    assert (torch.from_numpy(integers[0](*(each.numpy() for each in x))[0]) == expected).all()
