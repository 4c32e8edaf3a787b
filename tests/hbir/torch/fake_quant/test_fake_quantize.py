"""Fake quants: states, state dicts, learned and frozen scales, and the misuses that are warned of."""

from __future__ import annotations

import copy
import io
import warnings
from typing import Any, cast

import numpy as np
import pytest
import torch

from hbir.errors import TrainingError
from hbir.torch.dtype import qint8, qint16
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, fake_quants, set_fake_quantize
from hbir.torch.fake_quant.histograms import HistogramObserver, MSEObserver
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.fake_quant.observers import (
    FixedScaleObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    MovingAveragePerChannelMinMaxObserver,
)

X = torch.linspace(-3, 4, 64)


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        yield


def calibrated(fake: FakeQuantize, x: torch.Tensor = X) -> FakeQuantize:
    fake.eval()
    set_fake_quantize(fake, FakeQuantState.CALIBRATION)
    assert fake(x) is x
    return fake


def test_states() -> None:
    fake = calibrated(FakeQuantize(MinMaxObserver))
    assert fake.scale.tolist() == [float(np.float32(4 / 127))] and fake.grid.bits == 8
    set_fake_quantize(fake, FakeQuantState.VALIDATION)
    scale = fake.scale.clone()
    y = fake(X * 5)
    assert torch.equal(y, torch.clamp(torch.round(X * 5 / scale), -128, 127) * scale) and torch.equal(fake.scale, scale)
    set_fake_quantize(fake, FakeQuantState._FLOAT)
    assert fake(X) is X
    fake.train()
    set_fake_quantize(fake, FakeQuantState.QAT)
    fake(X * 5)
    assert fake.scale > scale and {each.state for each in fake_quants(fake)} == {FakeQuantState.QAT}
    with pytest.raises(TrainingError, match="HB0904"):
        set_fake_quantize(fake, cast(Any, "qat"))
    with pytest.raises(TrainingError, match="HB0905"):
        set_fake_quantize(torch.nn.ReLU(), FakeQuantState.QAT)


def test_published_arguments() -> None:
    weight = FakeQuantize.with_args(
        observer=MinMaxObserver, averaging_constant=0.01, dtype=qint8, qscheme=torch.per_channel_symmetric, ch_axis=0
    )(channels=3)
    assert weight.axis == 0 and weight.scale.shape == (3,)
    made = FakeQuantize.with_args(
        observer=MSEObserver, dtype=qint16, qscheme=torch.per_tensor_symmetric, ch_axis=-1, quant_min=-32768
    )()
    assert made.channel_axis is None and made.dtype == qint16
    fixed = FakeQuantize.with_args(observer=FixedScaleObserver, dtype=qint16, scale=60 / 32767)()
    assert fixed.fixed and fixed.scale.tolist() == [float(np.float32(60 / 32767))]
    assert FakeQuantize(MovingAveragePerChannelMinMaxObserver).axis == 0
    assert FakeQuantize(dtype="qint16").dtype == qint16
    for given in ({"qscheme": torch.per_tensor_affine}, {"quant_max": 255}):
        with pytest.raises(TrainingError, match="HB0941"):
            FakeQuantize(MinMaxObserver, **given)
    assert fixed.axis == 0


def test_the_number_of_channels_may_come_with_the_first_values() -> None:
    fake = calibrated(FakeQuantize(MinMaxObserver, axis=0), torch.randn(5, 4))
    assert fake.scale.shape == fake.zero_point.shape == (5,)


def test_scales_of_histograms_are_there_whenever_they_are_asked_for() -> None:
    for ask in (
        lambda fake: fake.scale,
        lambda fake: fake.state_dict()["scale"],
        lambda fake: torch.tensor([fake.grid.scale]),
        lambda fake: copy.deepcopy(fake).scale,
    ):
        fake = calibrated(FakeQuantize(MSEObserver))
        assert 0 < float(ask(fake)[0]) <= float(np.float32(4 / 127))


def saved(fake: FakeQuantize) -> dict[str, torch.Tensor]:
    file = io.BytesIO()
    torch.save(fake.state_dict(), file)
    file.seek(0)
    return torch.load(file)


KINDS = {
    "mse": lambda: FakeQuantize(MSEObserver),
    "moving average": lambda: FakeQuantize(MovingAverageMinMaxObserver),
    "learned": lambda: FakeQuantize(MinMaxObserver, learned=True),
    "frozen": lambda: FakeQuantize(MinMaxObserver, freeze=True),
}


@pytest.mark.parametrize("first", KINDS)
@pytest.mark.parametrize("second", KINDS)
def test_state_dicts_fit_whatever_the_observers(first: str, second: str) -> None:
    before, after = calibrated(KINDS[first]()), KINDS[second]()
    state = saved(before)
    assert set(state) == {"scale", "zero_point"}
    assert str(after.load_state_dict(state)) == "<All keys matched successfully>"
    assert torch.equal(after.scale, before.scale) and after.calibrated
    set_fake_quantize(after, FakeQuantState.QAT)
    y = after(X)
    # One step of training moves the scale by at most a hundredth.
    assert after.scale.item() == pytest.approx(before.scale.item(), rel=0.02) and not torch.equal(y, X)


def test_a_scale_is_loaded_with_its_range() -> None:
    eight = calibrated(FakeQuantize(MinMaxObserver, qint8))
    sixteen = FakeQuantize(MinMaxObserver, qint16)
    sixteen.load_state_dict(saved(eight))
    assert float(sixteen.scale) * 32767 == pytest.approx(4, rel=2**-22)
    channels = FakeQuantize(MinMaxObserver, axis=0, channels=3)
    channels.load_state_dict(saved(eight))
    assert channels.scale.tolist() == [float(eight.scale)] * 3
    back = FakeQuantize(MinMaxObserver)
    back.load_state_dict(saved(calibrated(channels, torch.tensor([[1.0], [5.0], [2.0]]))))
    assert back.scale.tolist() == [float(np.float32(5 / 127))]


def test_a_given_scale_stays_and_old_keys_are_read_over() -> None:
    fake = FakeQuantize(scale=1 / 128)
    state = {"scale": torch.tensor([0.5]), "zero_point": torch.tensor([0])}
    fake.load_state_dict(state)
    assert fake.scale.tolist() == [1 / 128]
    other = FakeQuantize(MinMaxObserver)
    other.load_state_dict(
        {**state, "activation_post_process.min_val": torch.tensor([]), "activation_post_process.max_val": torch.ones(1)}
    )
    assert other.scale.tolist() == [0.5] and other.calibrated


def test_frozen_scales_stay_through_training_and_calibrate() -> None:
    fake = calibrated(FakeQuantize(MinMaxObserver, freeze=True))
    before = fake.scale.clone()
    fake.train()
    set_fake_quantize(fake, FakeQuantState.QAT)
    fake(X * 100)
    assert torch.equal(fake.scale, before)
    calibrated(fake, X * 100)
    assert fake.scale > before


def test_learned_scales_begin_with_the_calibration_and_have_gradients() -> None:
    fake = calibrated(FakeQuantize(MSEObserver, learned=True))
    assert dict(fake.named_parameters()).keys() == {"scale"}
    before = fake.scale.detach().clone()
    set_fake_quantize(fake, FakeQuantState.QAT)
    optimizer = torch.optim.SGD(fake.parameters(), lr=1.0)
    loss = (fake(X) - X * 3).square().sum()
    loss.backward()
    optimizer.step()
    assert fake.scale > 0 and not torch.equal(fake.scale, before)
    # A step that would leave the scale at 0 or below halves it, wherever it is read next.
    for read in (
        lambda: fake(X),
        fake.state_dict,
        lambda: fake.grid,
        lambda: set_fake_quantize(fake, FakeQuantState.VALIDATION),
    ):
        set_fake_quantize(fake, FakeQuantState.QAT)
        before = fake.scale.detach().clone()
        fake.scale.data.fill_(-1)
        read()
        assert torch.equal(fake.scale, before / 2)
    set_fake_quantize(fake, FakeQuantState.QAT)
    fake.scale.data.fill_(float("nan"))
    with pytest.raises(TrainingError, match="HB0940"):
        fake(X)


@pytest.mark.parametrize("learned", [False, True])
def test_a_fake_quant_may_run_twice_in_a_step(learned: bool) -> None:
    fake = calibrated(FakeQuantize(MovingAverageMinMaxObserver, learned=learned))
    set_fake_quantize(fake, FakeQuantState.QAT)
    x = X.clone().requires_grad_()
    (fake(x) + fake(fake(x * 0.5) * 3)).sum().backward()
    assert x.grad is not None and bool(torch.isfinite(x.grad).all())


def test_learned_scales_without_calibration_begin_with_the_first_batch() -> None:
    fake = FakeQuantize(MinMaxObserver, learned=True)
    fake(X)
    assert fake.scale.item() == float(np.float32(4 / 127))


class Two(torch.nn.Module):
    def __init__(self, intended: FakeQuantState | None = None) -> None:
        super().__init__()
        self.first = FakeQuantize(MinMaxObserver, intended=intended)
        self.second = FakeQuantize(MSEObserver, intended=intended)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


def twice(fake: FakeQuantize) -> None:
    fake(X)
    fake(X)


def codes(found: Any) -> list[str]:
    return [each.message.code for each in found if isinstance(each.message, TrainingWarning)]


def test_calibration_in_train_without_a_state_is_warned_of() -> None:
    fake = FakeQuantize(MinMaxObserver)
    fake.train()
    with pytest.warns(TrainingWarning, match="HB0946") as found, torch.no_grad():
        twice(fake)
    assert codes(found) == ["HB0946"] and "set_fake_quantize" in found[0].message.lever
    # With gradients it is training, which begins in the state QAT; not so where the settings are those of a calibration.
    FakeQuantize(MinMaxObserver)(X)
    with pytest.warns(TrainingWarning, match="HB0946"):
        FakeQuantize(MinMaxObserver, intended=FakeQuantState.CALIBRATION)(X)


@pytest.mark.parametrize("given", [None, FakeQuantState.VALIDATION])
def test_scales_that_were_never_calibrated_are_warned_of(given: FakeQuantState | None) -> None:
    fake = FakeQuantize(MinMaxObserver)
    fake.eval()
    if given is not None:
        set_fake_quantize(fake, given)
    with pytest.warns(TrainingWarning, match="HB0947") as found:
        twice(fake)
    assert codes(found) == ["HB0947"] and fake.scale.tolist() == [1]
    fake.load_state_dict(FakeQuantize(MinMaxObserver).state_dict())
    set_fake_quantize(fake, FakeQuantState.VALIDATION)
    with pytest.warns(TrainingWarning, match="HB0947"):
        fake(X)


def test_frozen_scales_that_were_never_calibrated_are_warned_of() -> None:
    with pytest.warns(TrainingWarning, match="HB0947"):
        FakeQuantize(MinMaxObserver, freeze=True)(X)


def test_eval_behind_calibration_is_warned_of() -> None:
    model = Two()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model.eval()
    with pytest.warns(TrainingWarning, match="HB0948"):
        assert model(X) is X
    assert model.first.scale.tolist() == [1]
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(X)
    assert model.first.scale.tolist() != [1]


def test_the_published_order_warns_of_nothing() -> None:
    model = Two(FakeQuantState.CALIBRATION)
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        model(X)
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    model(X)
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(X)
    model.eval()
    model(X)


def test_scales_are_chosen_anew_from_histograms() -> None:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.ab = FakeQuantize(HistogramObserver), FakeQuantize(HistogramObserver, qint16)
            self.b = FakeQuantize(MinMaxObserver)

        def forward(self, x: torch.Tensor) -> None:
            for fake in (self.a, self.ab, self.b):
                fake(x)

    model = Model()
    with pytest.raises(TrainingError, match="HB0945"):
        HistogramObserver.reset_scale(model)
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(torch.randn(10000, generator=torch.Generator().manual_seed(0)))
    before = model.state_dict()
    assert set(HistogramObserver.reset_scale(model, "max")) == {"a", "ab"}
    assert float(model.a.scale) == float(model.b.scale)
    found = HistogramObserver.reset_scale(model, "percentile", {"percentile": 0.99}, prefix="a")
    # The 99th percentile of |x| of a normal distribution is 2.576; 10000 samples are within 3 % of it, a bin is 0.002.
    assert set(found) == {"a"} and found["a"] * 127 == pytest.approx(2.576, rel=0.03)
    assert set(HistogramObserver.reset_scale(model, "mse", dtype=qint16)) == {"ab"}
    HistogramObserver.reset_scale(model, "mse")
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())
    with pytest.raises(TrainingError, match="HB0943"):
        HistogramObserver.reset_scale(model, "median")
