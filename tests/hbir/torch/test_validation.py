"""What the state VALIDATION notices: the integers are made once, and the model may be another one by the next run."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march, validation
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.quantization import (
    DeQuantStub,
    FakeQuantState,
    QuantStub,
    explain,
    hbdk4,
    prepare,
    set_fake_quantize,
)
from hbir.torch.quantization.qconfig_template import calibration_8bit_weight_16bit_act_qconfig_setter
from passes import convert
from tests.hbir.torch import states


class Net(nn.Module):
    """A layer, a function, and a factor that is no parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.layer, self.act, self.factor = nn.Linear(8, 4), nn.LeakyReLU(0.1), 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.act(self.layer(self.quant(x))) * self.factor)


@pytest.fixture(autouse=True)
def march() -> None:
    set_march(March.NASH_M)
    torch.manual_seed(0)


def validated(model: nn.Module, *args: torch.Tensor, rule: Any = None) -> nn.Module:
    """The model, calibrated on one call and in the state VALIDATION."""
    return states.validated(prepare(model.eval(), args, rule), *args)


def agrees(model: nn.Module, x: torch.Tensor) -> bool:
    """Whether the model's result is that of its exported and converted module, bit for bit."""
    quantized = convert(hbdk4.export(model, x), March.NASH_M)
    expected = quantized[0](x.numpy())[0]
    return bool(np.array_equal(model(x).detach().numpy(), expected))


X = torch.linspace(-2, 2, 16).reshape(2, 8)


def test_weights_that_are_written_through_data_are_noticed() -> None:
    model = validated(Net(), X)
    before = model(X)
    model.layer.weight.data.mul_(0.5)
    model.layer.bias.data.fill_(1.0)
    assert not torch.equal(model(X), before) and agrees(model, X)


def test_attributes_that_change_are_refused_once() -> None:
    model: Any = validated(Net(), X)
    before = model(X)
    model.factor = 0.5
    with pytest.raises(TrainingError, match="HB0963 at layer 'mul_0', test_validation.py:"):
        model(X)
    assert not torch.equal(model(X), before) and agrees(model, X)
    model.act.negative_slope = 0.3
    with pytest.raises(TrainingError, match="HB0963"):
        model(X)
    assert agrees(model, X)
    # A copy has its own integers.
    other = copy.deepcopy(model)
    other.act.negative_slope = 0.1
    assert agrees(other, X) and agrees(model, X)


def test_large_constants_that_change_are_refused_once() -> None:
    model: Any = Net().eval()
    model.factor = torch.ones(70_000, 4)
    x = X[:1]
    model = validated(model, x)
    model(x)
    model.factor = model.factor * 0.5
    with pytest.raises(TrainingError, match="HB0963"):
        model(x)
    assert agrees(model, x)


def test_calibration_in_training_mode_is_told() -> None:
    model = prepare(Net().eval(), X).train()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with pytest.warns(TrainingWarning, match="HB0966.*batch norm"):
        model(X)
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        model(X)


class Deciding(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positive = x.mean() > 0
        y = self.layer(self.quant(x))
        return self.dequant(self.act(y) if positive else y)


def test_a_decision_by_the_input_is_warned_of_and_another_path_refused() -> None:
    with pytest.warns(TrainingWarning, match="HB0914 at test_validation.py:"):
        model = validated(Deciding(), X.abs())
    with pytest.warns(TrainingWarning, match="HB0914"):
        model(X.abs())
    with pytest.raises(TrainingError, match="HB0963 at layer 'dequant'"):
        model(-X.abs())


class Factor(Net):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.layer(self.quant(x)) * int(x.max().item() * 4))


@pytest.mark.filterwarnings("ignore:HB0914")
def test_a_number_out_of_the_input_is_refused_when_it_is_another_one() -> None:
    model = validated(Factor(), X)
    model(X)
    with pytest.raises(TrainingError, match="HB0963"):
        model(X / 2)


class Counting(nn.Module):
    """It remembers, and counts its runs."""

    memory: torch.Tensor
    runs: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.again, self.dequant = QuantStub(1 / 32), QuantStub(1 / 32), DeQuantStub()
        self.register_buffer("memory", torch.zeros(1, 4))
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result = self.dequant(self.quant(x) + self.again(self.memory))
        self.memory = result.detach()
        self.runs += 1
        return result


def test_a_model_that_changes_its_buffers_runs_once() -> None:
    one = torch.ones(1, 4)
    model: Any = prepare(Counting().eval(), one)
    assert model.runs == 0
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    for _ in range(3):
        model(one)
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    model.memory, model.runs = torch.zeros(1, 4), torch.zeros(())
    found = [model(one)[0, 0].item() for _ in range(3)]
    assert model.runs == 3 and np.allclose(found, [1, 2, 3], atol=3 / 127)


def test_a_model_in_train_keeps_its_statistics_through_prepare() -> None:
    model = nn.Sequential(QuantStub(), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), DeQuantStub()).train()
    prepared: Any = prepare(model, torch.randn(2, 3, 8, 8))
    assert prepared[2].num_batches_tracked == 0 and not prepared[2].running_mean.any()


def test_integers_that_depend_on_inputs_are_refused() -> None:
    class Masked(Net):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:  # pyright: ignore[reportIncompatibleMethodOverride] - a network of its own
            return self.dequant(self.layer(self.quant(x)) * mask)

    for mask in (torch.ones(2, 1, dtype=torch.int64), torch.ones(2, 1, dtype=torch.bool)):
        with pytest.raises(TrainingError, match="HB0911 at layer 'mul_0'.*has no grid"):
            prepare(Masked().eval(), (X, mask))


@pytest.mark.parametrize("name", ["act", "layer"])
def test_a_module_that_was_replaced_is_named(name: str) -> None:
    model = validated(Net(), X)
    setattr(model, name, nn.Identity())
    with pytest.raises(TrainingError, match=f"HB0915: module '{name}'"):
        model(X)
    with pytest.raises(TrainingError, match=f"HB0915: module '{name}'"):
        hbdk4.export(model, X)


def test_inference_mode_leaves_nothing_behind() -> None:
    with torch.inference_mode():
        model = prepare(Net().eval(), X)
        model.eval()
        set_fake_quantize(model, FakeQuantState.CALIBRATION)
        model(X)
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(X).sum().backward()
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    with torch.inference_mode():
        found = model(X)
    assert torch.equal(found, model(X)) and agrees(model, X)


def test_autocast_does_not_round_what_leaves() -> None:
    model = validated(Net(), X)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(X)
    assert found.dtype == torch.float32 and torch.equal(found, model(X))


def test_few_sets_of_shapes_are_kept() -> None:
    model = validated(Net(), X)
    for rows in range(1, 14):
        model(torch.randn(rows, 8))
    assert len(validation._converted[model]) == validation._KEPT


def test_accumulators_of_sixteen_bits_leave_in_qint16() -> None:
    class Last(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.dequant(self.layer(self.quant(x)))

    model = validated(Last(), X, rule=calibration_8bit_weight_16bit_act_qconfig_setter)
    assert "wider than int32: qint16" in explain(model, "layer")
    operations = convert(hbdk4.export(model, X), March.NASH_M)[0].operations
    assert not any(op.name == "hbir.linear" for op in operations) and agrees(model, X)
    # Where the engine gives floats, it hands those out.
    set_march(March.NASH_P)
    wide = validated(Last(), X, rule=calibration_8bit_weight_16bit_act_qconfig_setter)
    assert "hands out its accumulator" in explain(wide, "layer")


def test_an_export_without_any_calibration_is_refused() -> None:
    model = prepare(Net().eval(), X)
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    with pytest.raises(TrainingError, match="HB0925"):
        hbdk4.export(model, X)


@pytest.mark.parametrize("given", [[X], X.numpy(), X.int(), {"x": X}], ids=["list", "array", "integers", "dict"])
def test_a_stub_takes_float_tensors(given: Any) -> None:
    with pytest.raises(TrainingError, match="HB0907 at layer 'quant'"):
        prepare(Net().eval(), given)


def test_each_model_warns_for_itself(recwarn: pytest.WarningsRecorder) -> None:
    for _ in range(2):
        model = prepare(Net().eval(), X)
        model.eval()
        set_fake_quantize(model, FakeQuantState.VALIDATION)
        model(X)
    assert [str(each.message)[:6] for each in recwarn] == ["HB0947", "HB0947"]
