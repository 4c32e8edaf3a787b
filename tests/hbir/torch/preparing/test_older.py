"""The older interface: what a qconfig_dict says of which modules, and what is refused with which words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.fake_quant.fake_quantize import FakeQuantize
from hbir.torch.quantization import (
    DeQuantStub,
    QuantStub,
    check_model,
    compile_model,
    convert,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_16bit_fake_quant_qconfig,
    prepare_qat,
    prepare_qat_fx,
)
from tests.hbir.torch.states import calibrated

EIGHT, SIXTEEN = default_qat_8bit_fake_quant_qconfig, default_qat_16bit_fake_quant_qconfig
END = ".activation_post_process"
X = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())
        self.second, self.act = nn.Conv2d(4, 4, 1), nn.Sigmoid()
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dequant(self.head(self.act(self.second(self.first(self.quant(x))))))


@pytest.fixture(autouse=True)
def march() -> None:
    set_march(March.NASH_E)


def bits(model: nn.Module) -> dict[str, int]:
    """The width of what each module hands out; an int16 head's has one where a march has no float results."""
    found = {name: each for name, each in model.named_modules() if isinstance(each, FakeQuantize)}
    outputs = {name: each for name, each in found.items() if name.endswith(END)}
    return {name.removesuffix(END): each.dtype.bits for name, each in outputs.items()}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"": EIGHT}, {"quant": 8, "first.2": 8, "second": 8, "act": 8}),
        ({"": SIXTEEN}, {"quant": 16, "first.2": 16, "second": 16, "act": 16, "head": 16}),
        ({"": EIGHT, "module_type": {nn.Sequential: SIXTEEN}}, {"quant": 8, "first.2": 16, "second": 8, "act": 8}),
        (
            {"": EIGHT, "module_type": [(nn.Sigmoid, SIXTEEN)]},
            {"quant": 8, "first.2": 8, "second": 8, "act": 16, "head": 16},
        ),
        (
            {"": SIXTEEN, "module_type": [(nn.Conv2d, SIXTEEN)], "module_name": [("second", EIGHT)]},
            {"quant": 16, "first.2": 16, "second": 8, "act": 16, "head": 16},
        ),
        ({"": EIGHT, "module_name": {"first": SIXTEEN}}, {"quant": 8, "first.2": 16, "second": 8, "act": 8}),
    ],
)
def test_a_qconfig_dict_says_what_is_quantised_how(given: Mapping[str, Any], expected: dict[str, int]) -> None:
    assert bits(prepare_qat_fx(Net().eval(), given, X)) == expected


def test_an_attribute_overrides_the_dictionary_and_the_model_stays_as_it_was() -> None:
    model: Any = Net().eval()
    model.second.qconfig = SIXTEEN
    found = bits(prepare_qat_fx(model, {"": EIGHT, "module_name": {"second": EIGHT, "act": EIGHT}}, X))
    assert found["second"] == 16 and found["act"] == 8
    assert "qconfig" not in model.__dict__ and "qconfig" not in model.act.__dict__


def test_none_takes_a_layer_out() -> None:
    found = prepare_qat_fx(Net().eval(), {"": EIGHT, "module_name": {"act": None}}, X)
    assert set(bits(found)) == {"quant", "first.2", "second"}
    assert torch.equal(found.act(X), torch.sigmoid(X))


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"module_name": {"third": EIGHT}}, "'third', which the model does not have"),
        ({"object_type": {}}, "the key 'object_type'"),
        ({"module_name": [EIGHT]}, "module_name of qconfig_dict is"),
        ({"module_type": 5}, "module_type of qconfig_dict is 5"),
    ],
)
def test_other_dictionaries_are_refused(given: Mapping[str, Any], what: str) -> None:
    with pytest.raises(TrainingError, match="HB0982") as found:
        prepare_qat_fx(Net(), given)
    assert what in str(found.value)


def test_options_that_are_not_there_are_refused() -> None:
    with pytest.raises(TrainingError, match="HB0983.*'hybrid'"):
        prepare_qat_fx(Net(), {}, hybrid=True)
    with pytest.raises(TrainingError, match="HB0983.*'mapping'"):
        prepare_qat(Net(), {nn.Conv2d: nn.Conv2d})
    with pytest.raises(TrainingError, match="HB0984"):
        convert(Net())


def test_prepare_and_convert_in_place_change_the_model_that_they_are_given(tmp_path: Path) -> None:
    model: Any = Net()
    model.qconfig = EIGHT
    assert prepare_qat(model, inplace=True) is model
    calibrated(model, X)
    copied = convert(model)
    assert convert(model, inplace=True) is model and copied is not model
    assert torch.equal(copied(X), model(X))
    assert check_model(model, X) == 0
    binary = compile_model(model, (X,), tmp_path / "m.hbm", opt=0)
    assert torch.equal(torch.from_numpy(binary[0](X.numpy())[0]), model(X))


def test_a_model_that_was_prepared_in_place_loads_scales_before_and_behind_its_first_run() -> None:
    model: Any = Net()
    model.qconfig = EIGHT
    scales = calibrated(prepare_qat(model), X).state_dict()
    assert prepare_qat(model, inplace=True) is model
    model.load_state_dict(scales)
    expected = convert(model)(X)
    model.load_state_dict(scales)
    assert torch.equal(convert(model)(X), expected)


def test_check_model_lists_what_is_left_to_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    model: Any = Net()
    model.qconfig, model.act.qconfig = EIGHT, None
    assert check_model(convert(calibrated(prepare_qat(model), X)), X) == 1
    assert "act: hbir.function runs on the host CPU" in capsys.readouterr().out


def test_check_model_needs_a_quantised_region() -> None:
    traced = torch.jit.trace(nn.ReLU(), X)
    with pytest.raises(TrainingError, match="HB0985"):
        check_model(traced, X)
