"""What hands its operand on, constants, and FloatFunctional."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.stubs import QuantStub
from hbir.torch.tracing.qtensor import plain
from tests.hbir.torch.operations.runs import exact

Y = exact(2, 4, 6, 8)


def test_identities_leave_no_trace(same: Callable[..., Any], x: torch.Tensor) -> None:
    modules = nn.Sequential(nn.Dropout(), nn.Dropout2d(), nn.Identity(), nn.AlphaDropout())
    assert same(modules.eval(), x).kinds == []
    assert same(lambda v: v.to("cpu").float().contiguous().clone().detach().to(v.dtype).type_as(v), x).kinds == []
    assert same(lambda v: F.dropout(v, 0.5, False, True).data, x).kinds == []


def test_dropout_acts_in_training() -> None:
    stub = QuantStub()
    stub.activation_post_process = FakeQuantize(scale=1 / 64)
    v = F.dropout(stub(torch.ones(1000)), 0.5, training=True)
    assert 300 < int((plain(v) == 0).sum()) < 700


def test_other_dtypes_are_refused(same: Callable[..., Any], x: torch.Tensor) -> None:
    for function, code in (
        (lambda v: v.to(torch.float16).float(), "HB0953"),
        (lambda v: v.type(torch.int32).float(), "HB0953"),
        (lambda v: v.half().float(), "HB0910"),
    ):
        with pytest.raises(TrainingError, match=rf"{code} at .*test_identity\.py:\d+"):
            same(function, x)


def test_constants_take_shape_and_place(same: Callable[..., Any], x: torch.Tensor) -> None:
    run = same(lambda v: v + torch.zeros_like(v) + v.new_ones(8) + v.new_tensor([2.0]) + torch.full_like(v, 2.0), x)
    assert run.kinds == ["add"] * 4


METHODS: dict[str, Callable[..., Any]] = {
    "add": lambda f, v: f.add(v, v),
    "mul": lambda f, v: f.mul(v, Y),
    "cat": lambda f, v: f.cat([v, v], 1),
    "add_scalar": lambda f, v: f.add_scalar(v, 2.0),
    "mul_scalar": lambda f, v: f.mul_scalar(v, 2.0),
    "add_relu": lambda f, v: f.add_relu(v, v),
    "matmul": lambda f, v: f.matmul(v, v.mT),
}


@pytest.mark.parametrize("name", METHODS)
def test_float_functional(name: str, same: Callable[..., Any], x: torch.Tensor) -> None:
    functional = torch.ao.nn.quantized.FloatFunctional()
    same(lambda v: METHODS[name](functional, v), x)
