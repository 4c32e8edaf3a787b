"""Every family reaches integers: behind `convert` nothing computes on floats, and VALIDATION gives what the integers give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from xdsl.dialects.builtin import Float32Type

from hbir.dialects.base import tensor_type
from hbir.torch.exporting.export import export
from hbir.torch.fake_quant.fake_quantize import FakeQuantState, set_fake_quantize
from hbir.torch.march import March, set_march
from hbir.torch.preparing.prepare import prepare
from passes import convert
from tests.hbir.torch.operations.runs import Between, exact

MOVES = {"hbir.constant", "hbir.reshape", "hbir.transpose", "hbir.slice"}
"""What may hand floats on: the accumulator of a last layer is dequantised in front of them."""

GRU = nn.GRU(8, 5)
CASES: dict[str, Callable[..., Any]] = {
    "conv1d": lambda v: F.conv1d(v.flatten(2), exact(6, 4, 3), padding=1),
    "transpose groups": nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2),
    "transpose1d": lambda v: F.conv_transpose1d(v.flatten(2), exact(4, 3, 4), stride=2),
    "batch norm": nn.BatchNorm2d(4),
    "vector": lambda v: v @ exact(8),
    "matmul": lambda v: v @ v.mT,
    "einsum": lambda v: torch.einsum("bchw,bdhw->bcd", v, v),
    "arithmetic": lambda v: (1 - v * 2 + exact(8)) / 3 - v,
    "division": lambda v: v / (v.abs() + 1),
    "extremes": lambda v: torch.maximum(v, -v) + torch.minimum(v, exact(8)),
    "where": lambda v: torch.where(exact(8) > 0, v, 0.5),
    "tables": lambda v: F.gelu(v) + F.silu(v) + torch.tanh(v) + torch.exp(-v.abs()) + F.leaky_relu(v),
    "prelu": nn.PReLU(4),
    "glu": nn.GLU(1),
    "cat": lambda v: torch.cat([v, torch.sigmoid(v), exact(2, 4, 6, 8)], 1),
    "moves": lambda v: F.pad(v, (1, 1, 1, 0), mode="reflect").roll(1, 1).flip(1)[:, [0, 2]].unflatten(2, (7, 1)),
    "pad": lambda v: F.pad(v, (1, 1), value=0.5),
    "average": nn.AvgPool2d(3, 2, 1),
    "adaptive": nn.AdaptiveAvgPool2d((4, 3)),
    "maximum": nn.AdaptiveMaxPool2d((4, 5)),
    "nearest": nn.Upsample(size=(9, 5)),
    "bilinear": nn.Upsample(scale_factor=1.5, mode="bilinear"),
    "sampling": lambda v: F.grid_sample(v, v.permute(0, 2, 3, 1)[..., :2], align_corners=False),
    "reductions": lambda v: v.sum(1) + v.mean((1, 2), keepdim=True)[:, 0] + v.amax(1),
    "variance": lambda v: v.std(1),
    "normalize": lambda v: F.normalize(v),
    "layer norm": nn.LayerNorm(8),
    "group norm": nn.GroupNorm(2, 4),
    "log softmax": lambda v: F.log_softmax(v, 1),
    "attention": lambda v: F.scaled_dot_product_attention(v, v, v, is_causal=True),
    "gru": lambda v: GRU(v.flatten(1, 2)[:, :3])[0],
}


@pytest.mark.parametrize("name", CASES)
def test_integers(name: str, x: torch.Tensor) -> None:
    set_march(March.NASH_E)
    prepared = prepare(Between(CASES[name], 1).eval(), (x,))
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        prepared(x)
        prepared.eval()
        set_fake_quantize(prepared, FakeQuantState.VALIDATION)
        given: list[Any] = [y.numpy() for y in prepared(x)]
    integers = convert(export(prepared, (x,)), "nash-e")
    for op in integers[0].operations:
        values = (*op.operands, *op.results) if op.name.startswith("hbir.") and op.name not in MOVES else ()
        assert not any(isinstance(tensor_type(value.type).element_type, Float32Type) for value in values), op
    found = integers[0].feed({integers[0].flatten_inputs[0].name: x.numpy()})
    assert all((np.asarray(a) == b).all() for a, b in zip(found.values(), given, strict=True))
