"""State dicts move, strictly, between models that other rules prepared."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.dtype import qint8, qint16
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.qconfig.qconfig import get_qconfig
from hbir.torch.qconfig.setters import QconfigSetter
from hbir.torch.quantization import (
    DeQuantStub,
    FakeQuantState,
    PrepareMethod,
    QuantStub,
    hbdk4,
    prepare,
    set_fake_quantize,
)
from hbir.torch.quantization.qconfig_template import (
    ModuleNameTemplate,
    default_calibration_qconfig_setter,
    default_qat_fixed_act_qconfig_setter,
    default_qat_learned_scale_qconfig_setter,
    default_qat_qconfig_setter,
    qat_8bit_weight_16bit_act_qconfig_setter,
)

OUTPUT = "fc.activation_post_process"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.quant(x)))
        return self.dequant(self.fc((x * 0.5 + x).mean((2, 3))))


RULES: dict[str, Any] = {
    "calibration": default_calibration_qconfig_setter,
    "qat": default_qat_qconfig_setter,
    "fixed": default_qat_fixed_act_qconfig_setter,
    "learned": default_qat_learned_scale_qconfig_setter,
    "sixteen": qat_8bit_weight_16bit_act_qconfig_setter,
    "named": QconfigSetter(get_qconfig(), [ModuleNameTemplate({"": qint8, "fc": {"output": qint16}})]),
    "float part": QconfigSetter(get_qconfig(), [ModuleNameTemplate({"conv": {"weight": qint8}, "relu": None})]),
    "inputs": QconfigSetter(get_qconfig(), [ModuleNameTemplate({"fc": {"input": qint16, "output": qint8}})]),
}


@pytest.fixture(autouse=True)
def march() -> Iterator[None]:
    set_march(March.NASH_M)
    yield
    set_march(March.NASH_E)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def prepared(x: torch.Tensor, rules: str) -> nn.Module:
    return prepare(Net().eval(), x, RULES[rules])


def in_state(model: nn.Module, state: FakeQuantState) -> nn.Module:
    model.eval()
    set_fake_quantize(model, state)
    return model


def calibrated(x: torch.Tensor, rules: str) -> nn.Module:
    model = in_state(prepared(x, rules), FakeQuantState.CALIBRATION)
    model(x)
    return model


def grids(model: nn.Module) -> dict[str, FakeQuantize]:
    return {name: each for name, each in model.named_modules() if isinstance(each, FakeQuantize)}


def codes(model: nn.Module, x: torch.Tensor) -> set[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model(x)
    return {str(each.message).partition(" ")[0].rstrip(":") for each in caught if each.category is TrainingWarning}


def same_range(one: FakeQuantize, other: FakeQuantize) -> bool:
    reached = [(fake.scale.detach() * fake.quant_max).max() for fake in (one, other)]
    return torch.allclose(*reached, rtol=1e-6)  # two roundings of a float32: the scale, and its product with the limit


def test_the_rules_place_different_fake_quants(x: torch.Tensor) -> None:
    # Otherwise the moves below would show nothing.
    names = {rules: frozenset(grids(prepared(x, rules))) for rules in RULES}
    assert OUTPUT not in names["calibration"] and OUTPUT in names["sixteen"] and OUTPUT in names["named"]
    assert len(set(names.values())) >= 3


@pytest.mark.parametrize(("one", "other"), list(itertools.permutations(RULES, 2)))
def test_moves(x: torch.Tensor, one: str, other: str) -> None:
    source, target = calibrated(x, one), prepared(x, other)
    state = source.state_dict()
    before = list(state)
    found = target.load_state_dict(state, strict=True)
    assert not found.missing_keys and not found.unexpected_keys and list(state) == before, "the dict stays as it was"
    had, has = grids(source), grids(target)
    assert all(same_range(had[name], has[name]) for name in had.keys() & has.keys() if not has[name].fixed)
    assert all(has[name].calibrated == (name in had) for name in has if not has[name].fixed)
    assert torch.equal(target.get_parameter("fc.weight"), source.get_parameter("fc.weight"))
    # Back again: what the way there left out is found as the source's own.
    source.load_state_dict(target.state_dict())


def test_what_was_never_found_is_told_and_calibration_finds_it(x: torch.Tensor) -> None:
    model = prepared(x, "sixteen")
    model.load_state_dict(calibrated(x, "calibration").state_dict())
    assert [name for name, fake in grids(model).items() if not fake.calibrated] == [OUTPUT]
    assert codes(in_state(model, FakeQuantState.VALIDATION), x) == {"HB0947"}
    in_state(model, FakeQuantState.CALIBRATION)(x)
    assert all(fake.calibrated for fake in grids(model).values())
    assert codes(in_state(model, FakeQuantState.VALIDATION), x) == set()
    integers = hbdk4.export(model, x)
    assert len(integers[0].flatten_outputs) == 1


def test_training_finds_it(x: torch.Tensor) -> None:
    model = prepared(x, "sixteen")
    model.load_state_dict(calibrated(x, "calibration").state_dict())
    model.train()
    set_fake_quantize(model, FakeQuantState.QAT)
    model(x).sum().backward()
    fake = grids(model)[OUTPUT]
    assert fake.calibrated and float(fake.scale) != 1


def test_what_holds_no_common_scale_is_not_exported(x: torch.Tensor) -> None:
    model, state = prepared(x, "sixteen"), Net().state_dict()
    state["relu.weight_fake_quant.scale"] = torch.ones(1)
    model.load_state_dict(state)
    assert codes(in_state(model, FakeQuantState.VALIDATION), x) == {"HB0947"}
    with pytest.raises(TrainingError, match="HB0925"):
        hbdk4.export(model, x)


def test_a_fake_quant_that_gets_nothing_stays_as_it_is(x: torch.Tensor) -> None:
    model = calibrated(x, "sixteen")
    fake = grids(model)[OUTPUT]
    scale = fake.scale.clone()
    model.load_state_dict(calibrated(x * 3, "calibration").state_dict())
    assert fake.calibrated and torch.equal(fake.scale, scale)
    # Its observer, too: it goes on from what it saw.
    in_state(model, FakeQuantState.CALIBRATION)(x / 8)
    assert float(fake.scale) > float(scale) / 8


@pytest.mark.parametrize(
    "change",
    [
        {"fc.weigth": "fc.weight"},
        {"fc.activation_post_process.scal": "fc.bias"},
        {"gone.activation_post_process.scale": "fc.bias"},
        {"relu.weight_fake_quant.weight": "fc.bias"},
        {"relu.input_fake_quant.scale": "fc.bias"},
        {"conv.weight_fake_quant.offset": "fc.bias"},
    ],
    ids=str,
)
def test_other_keys_are_refused(x: torch.Tensor, change: dict[str, str]) -> None:
    state = calibrated(x, "calibration").state_dict()
    ((key, like),) = change.items()
    state[key] = state[like]
    with pytest.raises(RuntimeError, match=f"Unexpected key.*{key}"):
        prepared(x, "sixteen").load_state_dict(state)


def test_missing_keys_are_refused(x: torch.Tensor) -> None:
    state = calibrated(x, "calibration").state_dict()
    for key in ("fc.weight", "conv.weight_fake_quant.zero_point"):
        less = OrderedDict((name, value) for name, value in state.items() if name != key)
        with pytest.raises(RuntimeError, match=f"Missing key.*{key}"):
            prepared(x, "sixteen").load_state_dict(less)


def test_a_float_dict_is_loaded_as_ever(x: torch.Tensor) -> None:
    model, state = calibrated(x, "sixteen"), Net().state_dict()
    with pytest.raises(RuntimeError, match="Missing key.*quant.activation_post_process.scale"):
        model.load_state_dict(state)
    scale = grids(model)[OUTPUT].scale.clone()
    found = model.load_state_dict(state, strict=False)
    assert f"{OUTPUT}.scale" in found.missing_keys and torch.equal(grids(model)[OUTPUT].scale, scale)


@pytest.mark.parametrize(
    "how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
def test_copies_load_too(x: torch.Tensor, how: Any) -> None:
    model = prepared(x, "sixteen")
    twin = how(model)
    twin.load_state_dict(calibrated(x, "calibration").state_dict())
    assert grids(twin)["conv.weight_fake_quant"].calibrated and not grids(model)["conv.weight_fake_quant"].calibrated


def test_a_prepared_model_within_another_module(x: torch.Tensor) -> None:
    outer, whole = nn.ModuleDict({"net": prepared(x, "sixteen")}), nn.ModuleDict({"net": calibrated(x, "calibration")})
    outer.load_state_dict(whole.state_dict())
    assert grids(outer)["net.conv.weight_fake_quant"].calibrated
    whole.load_state_dict(outer.state_dict())


@pytest.mark.parametrize(("one", "other"), [("calibration", "sixteen"), ("sixteen", "calibration")])
def test_a_model_that_waits_for_its_first_run(x: torch.Tensor, one: str, other: str) -> None:
    waiting = prepare(Net().eval(), qconfig_setter=RULES[other], method=PrepareMethod.SYMBOLIC)
    waiting.load_state_dict(calibrated(x, one).state_dict())
    waiting.eval()
    told = codes(waiting, x)
    left = [name for name, fake in grids(waiting).items() if not fake.calibrated]
    assert (left, told) == (([OUTPUT], {"HB0947"}) if other == "sixteen" else ([], set()))
