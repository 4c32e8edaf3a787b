"""Draws models, and compares PyTorch in the state VALIDATION, the interpreter and the simulator of the decoded binary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backends import Hbm
from backends import compile as compile_module
from hbir.errors import BackendError
from hbir.torch import March, set_march
from hbir.torch.quantization import FakeQuantState, prepare, set_fake_quantize
from hbir.torch.quantization.hbdk4 import export
from hbir.torch.quantization.qconfig_template import (
    calibration_8bit_weight_16bit_act_qconfig_setter,
    default_calibration_qconfig_setter,
)
from passes import convert
from tests.hbir.torch.drawn_models import Drawn, drawn_models
from tests.reporting import Figures

__all__ = ["three_implementations_agree"]

SETTERS = {8: default_calibration_qconfig_setter, 16: calibration_8bit_weight_16bit_act_qconfig_setter}
"""By the width of activations."""


@dataclass
class Tally:
    """How much was compared."""

    models: int = 0
    outputs: int = 0
    binaries: int = 0


def three_implementations_agree(bits: int, examples: int, path: Path, figures: Figures) -> None:
    """Draw `examples` models and compare all outputs with `==`; `path` is where binaries are written, `figures` are told the
    counts."""
    tally = Tally()

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(drawn_models(), st.sampled_from(tuple(March)), st.integers(0, 99))
    def check(model: Drawn, march: March, seed: int) -> None:
        _agree(model, march, seed, bits, path, tally)

    check()
    said = f"{tally.models} models, {tally.outputs} outputs, {tally.binaries} binaries"
    figures(f"torch == interpreter == simulator, int{bits} activations: {said}")
    assert tally.models >= examples and tally.binaries > 0.9 * tally.models


def _agree(model: Drawn, march: March, seed: int, bits: int, path: Path, tally: Tally) -> None:
    torch.manual_seed(seed)
    set_march(march)
    prepared = prepare(model, torch.randn(model.shape), SETTERS[bits])
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.CALIBRATION)
    with torch.no_grad():
        prepared(torch.randn(model.shape))
    prepared.eval()
    set_fake_quantize(prepared, FakeQuantState.VALIDATION)
    x = torch.randn(model.shape) * 1.5
    with torch.no_grad():
        expected = [each.numpy() for each in prepared(x)]
    integers = convert(export(prepared, x), march)
    interpreted = integers[0](x.numpy())
    assert len(expected) == len(interpreted)
    for one, two in zip(expected, interpreted, strict=True):
        assert one.dtype == two.dtype and one.shape == two.shape and (one == two).all()
    tally.models, tally.outputs = tally.models + 1, tally.outputs + len(expected)
    try:
        compile_module(integers, path, march, opt=0)
    except BackendError as refusal:
        assert refusal.lever, "a network that a march does not run is told so, with a way out"
        return
    simulated = Hbm(path)[0].feed({integers[0].flatten_inputs[0].name: x.numpy()})
    for one, two in zip(expected, simulated.values(), strict=True):
        assert (one == two).all()
    tally.binaries += 1
