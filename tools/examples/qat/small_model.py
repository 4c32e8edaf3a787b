"""High-precision outputs of linear layers, and a value that leaves and is read again.

    python -m tools.examples.qat.small_model [--folder small_model]

A linear layer that ends in a DeQuantStub hands out its accumulator, in int32. So does one whose value leaves in the middle
of the network, through a DeQuantStub and a QuantStub behind it, which become one rescale. On nash-p and nash-h such layers
give float32, unless the exported module says `_integer_conv = True`. The script shows what `linear2` and `linear3` give.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from hbir import save, visualize
from hbir.dialects.quantized import Conv2dOp, MatmulOp, QuantizeOp, RescaleOp
from hbir.errors import HbError
from hbir.ir.locations import layer_name
from hbir.module import ArgumentType, Module
from hbir.torch import March, set_march
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, prepare, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
from hbir.torch.quantization.qconfig_template import default_calibration_qconfig_setter
from passes import convert

__all__ = ["InAndOutModel", "SmallModel", "accumulators", "calibrated", "counts", "main"]


class SmallModel(nn.Module):
    """Three linear layers; the last one's values leave. Input (2, 100, 256), output (2, 100, 60)."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(256, 256)
        self.layernorm = nn.LayerNorm(256)
        self.relu = nn.ReLU()
        self.linear2 = nn.Linear(256, 60)
        self.linear3 = nn.Linear(60, 60)
        self.quant = QuantStub()
        self.dequant = DeQuantStub()

    def first_half(self, x: torch.Tensor) -> torch.Tensor:
        """Up to the second linear layer."""
        x = self.quant(x)
        x = self.linear1(x)
        x = self.layernorm(x)
        return self.linear2(self.relu(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Float32 rows (N, L, 256) to results of 60."""
        return self.dequant(self.linear3(self.first_half(x)))


class InAndOutModel(SmallModel):
    """The second layer's values leave, too, and are read again."""

    def __init__(self) -> None:
        super().__init__()
        self.quant_out = QuantStub()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Float32 rows (N, L, 256) to results of 60."""
        # The pair of stubs says that what leaves is to be precise: without it linear2 would give the int8 that linear3 reads.
        y_out = self.dequant(self.first_half(x))
        z = self.linear3(self.quant_out(y_out))
        return self.dequant(z), y_out


def calibrated(model: nn.Module, march: March, example_input: torch.Tensor) -> nn.Module:
    """The model prepared for a march, and calibrated on one batch; in the state VALIDATION."""
    set_march(march)
    calib_model = prepare(model.eval(), example_input, qconfig_setter=(default_calibration_qconfig_setter,))
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    calib_model(example_input)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    return calib_model


def accumulators(module: Module, layer: str) -> list[str]:
    """The element types, `i32` or `f32` or `i8`, that the products of a layer have in a converted module."""
    found = [op for op in module[0].operations if isinstance(op, Conv2dOp | MatmulOp)]
    kinds = [ArgumentType(op.results[0].type) for op in found if layer in layer_name(op).split("+")]
    return ["f32" if kind.quant_info is None else str(kind.quant_info.storage) for kind in kinds]


def counts(module: Module) -> dict[str, int]:
    """How many operations change grids, and how many make integers of floats."""
    kinds = {"rescale": RescaleOp, "quantize": QuantizeOp}
    return {name: sum(isinstance(op, kind) for op in module[0].operations) for name, kind in kinds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when it worked."""
    parser = argparse.ArgumentParser("small_model", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--folder", type=Path, default=Path("small_model"), help="where modules and graphs go")
    folder: Path = parser.parse_args(arguments).folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, kind, march, integer in (
            ("quantized_single", SmallModel, March.NASH_M, False),
            ("quantized", InAndOutModel, March.NASH_M, False),
            ("float_outputs", InAndOutModel, March.NASH_H, False),
            ("integer_conv", InAndOutModel, March.NASH_H, True),
        ):
            torch.manual_seed(42)
            example_input = torch.randn(2, 100, 256)
            qat_bc = export(calibrated(kind(), march, example_input), example_input)
            if integer:
                qat_bc._integer_conv = True
            quantized = convert(qat_bc, march)
            save(quantized, folder / f"{name}.bc")
            visualize(quantized, folder / f"{name}.onnx")
            layers = ", ".join(
                f"{layer} {' '.join(accumulators(quantized, layer))}" for layer in ("linear2", "linear3")
            )
            print(f"{name} on {march}: {layers}; {counts(quantized)}")
    except HbError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
