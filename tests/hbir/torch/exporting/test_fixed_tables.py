"""The tables of a model's functions, as `pre_export` shows them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.qconfig.presets import (
    calibration_8bit_weight_16bit_act_qconfig_setter,
    default_calibration_qconfig_setter,
)
from hbir.torch.quantization import DeQuantStub, FakeQuantState, QuantStub, hbdk4, prepare, set_fake_quantize
from passes import convert
from tests.hbir.torch.states import validated

X = torch.linspace(-3, 3, 32).reshape(4, 8)


def model(rule: object) -> nn.Module:
    set_march(March.NASH_M)
    torch.manual_seed(0)
    net = nn.Sequential(QuantStub(), nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 8), nn.GELU(), DeQuantStub()).eval()
    prepared = prepare(net, X, rule)  # pyright: ignore[reportArgumentType] - a rule
    return validated(prepared, X)


def test_eight_bits_have_an_entry_for_each_input() -> None:
    tables = hbdk4.fixed_tables(model(default_calibration_qconfig_setter), X)
    assert [(each.layer, each.function, each.form, each.entries, each.worst_error) for each in tables] == [
        ("2", "sigmoid", "table", 256, 0.0),
        ("4", "gelu", "table", 256, 0.0),
    ]


def test_sixteen_bits_say_how_far_off_they_are() -> None:
    tables = hbdk4.fixed_tables(model(calibration_8bit_weight_16bit_act_qconfig_setter), X)
    assert [each.layer for each in tables] == ["2", "4"]
    for each in tables:
        assert each.form in ("interpolate", "segmented") and each.input_bits == each.output_bits == 16
        assert 0 < each.worst_error < 16 and each.entries >= 64


@pytest.mark.parametrize("inplace", [False, True])
def test_pre_export_gives_what_export_gives(inplace: bool) -> None:
    prepared = model(calibration_8bit_weight_16bit_act_qconfig_setter)
    shown = hbdk4.pre_export(prepared, inplace)
    assert (shown is prepared) == inplace
    found = shown(X).detach().numpy()
    assert shown.fixed_tables == hbdk4.fixed_tables(prepared, X)
    exported = convert(hbdk4.export(prepared, X), March.NASH_M)
    assert (found == exported[0](X.numpy())[0]).all()


def test_only_a_model_that_could_be_exported() -> None:
    prepared = model(default_calibration_qconfig_setter)
    set_fake_quantize(prepared, FakeQuantState.QAT)
    with pytest.raises(TrainingError, match="HB0922"):
        hbdk4.pre_export(prepared)
