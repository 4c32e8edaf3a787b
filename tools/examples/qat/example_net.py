"""The older interface on a small network: modules for every operation, fused by hand, with attributes `qconfig`.

    python -m tools.examples.qat.example_net [--hbm example_net.hbm]

prepares, calibrates, trains a few steps, converts, compiles, and compares the binary with the model, bit for bit.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.ao.nn.quantized import FloatFunctional
from torch.ao.quantization import fuse_modules

from hbir.errors import HbError
from hbir.torch import March, set_march
from hbir.torch.quantization import (
    DeQuantStub,
    FakeQuantState,
    QuantStub,
    compile_model,
    convert,
    fuse_known_modules,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    prepare_qat,
    set_fake_quantize,
)

__all__ = ["ExampleNet", "main"]


class ExampleNet(nn.Module):
    """Convolution, batch norm, sum with a second input, relu, and a convolution whose accumulator leaves.

    Inputs (N, 1, 28, 28) and (N, 1, 26, 26), output (N, 1, 24, 24).
    """

    def __init__(self) -> None:
        super().__init__()
        # One stub for each input branch.
        self.quant = QuantStub()
        self.quant_y = QuantStub()
        self.conv = nn.Conv2d(in_channels=1, out_channels=1, kernel_size=3)
        self.bn = nn.BatchNorm2d(num_features=1)
        self.add = FloatFunctional()
        self.act = nn.ReLU()
        self.out_conv = nn.Conv2d(in_channels=1, out_channels=1, kernel_size=3)
        self.dequant = DeQuantStub()

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Two float32 pictures (N, 1, H, W) to one map."""
        x = self.quant(x)
        y = self.quant_y(y)
        x = self.bn(self.conv(x))
        # The first operand of a fused sum is what comes from the convolution. A FloatFunctional has methods, no forward.
        x = self.add.add(x, y)
        x = self.act(x)
        return self.dequant(self.out_conv(x))

    def fuse_model(self) -> None:
        """Say what is one operation for the integers."""
        fuse_modules(self, ["conv", "bn", "add", "act"], inplace=True, fuser_func=fuse_known_modules)

    def set_qconfig(self) -> None:
        """One for all modules, and one for the last convolution, which keeps its accumulator."""
        self.qconfig = get_default_qat_qconfig()
        self.out_conv.qconfig = get_default_qat_out_qconfig()


def inputs(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Random inputs, `count` of each."""
    return torch.randn(count, 1, 28, 28, generator=generator), torch.randn(count, 1, 26, 26, generator=generator)


def trained(march: March, steps: int = 20) -> nn.Module:
    """The network calibrated, and trained to give the mean of both inputs, as far as it can."""
    set_march(march)
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = ExampleNet().eval()
    model.fuse_model()
    model.set_qconfig()
    calib_model = prepare_qat(model)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        for _ in range(4):
            calib_model(*inputs(8, generator))

    qat_model = prepare_qat(model)
    qat_model.load_state_dict(calib_model.state_dict())
    qat_model.train()
    set_fake_quantize(qat_model, FakeQuantState.QAT)
    optimizer = torch.optim.SGD(qat_model.parameters(), lr=0.02)
    for _ in range(steps):
        x, y = inputs(8, generator)
        loss = (qat_model(x, y) - (x[..., 2:-2, 2:-2] + y[..., 1:-1, 1:-1]) / 2).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return qat_model


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when the binary computes what the model does."""
    parser = argparse.ArgumentParser("example_net", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--hbm", type=Path, default=Path("example_net.hbm"), help="the binary")
    parser.add_argument("--march", choices=[each.value for each in March], default=March.NASH_E.value)
    args = parser.parse_args(arguments)
    try:
        quantized_model = convert(trained(March(args.march)).eval())
        example_inputs = inputs(1, torch.Generator().manual_seed(1))
        expected = quantized_model(*example_inputs).detach().numpy()
        binary = compile_model(quantized_model, list(example_inputs), hbm=args.hbm, opt=0)
        found = binary[0](*(np.asarray(each) for each in example_inputs))[0]
    except HbError as error:
        print(error, file=sys.stderr)
        return 1
    same = int((found == expected).sum())
    print(f"{args.hbm} for {args.march}: {same} of {expected.size} values are those of the model")
    return int(same != expected.size)


if __name__ == "__main__":
    sys.exit(main())
