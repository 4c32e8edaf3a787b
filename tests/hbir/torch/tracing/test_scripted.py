"""Models under `torch.jit.trace`: they give what the integers give, and lead back to the calls they came from."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.quantization import (
    DeQuantStub,
    FakeQuantState,
    QuantStub,
    check_model,
    compile_model,
    convert,
    prepare,
    set_fake_quantize,
)
from hbir.torch.tracing import scripted
from tests.hbir.torch.states import calibrated

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(2))


class TwoHeads(nn.Module):
    """Two values leave through one stub, one of them of another shape."""

    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.stem, self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), nn.Conv2d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> Any:
        y = torch.relu(self.stem(self.quant(x)))
        return self.dequant(self.first(y)), self.dequant(self.second(y).flatten(1))


def converted() -> nn.Module:
    set_march(March.BAYES)
    torch.manual_seed(0)
    return convert(calibrated(prepare(TwoHeads().eval(), X), X))


def traced(model: nn.Module, x: torch.Tensor = X) -> Any:
    """Traced and checked by PyTorch, which is not to find anything to warn of."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        return torch.jit.trace(model, x)


def same(found: Any, expected: Any) -> bool:
    return len(found) == len(expected) and all(map(torch.equal, map(torch.as_tensor, found), expected))


def test_a_traced_model_gives_the_integers_and_compiles(tmp_path: Path) -> None:
    model = converted()
    script = traced(model)
    other = torch.flip(X, (0, 3))
    assert same(script(X), model(X)) and same(script(other), model(other))
    binary = compile_model(script, [X], tmp_path / "m.hbm", opt=0)
    assert same(binary[0](other.numpy()), model(other))


def test_traces_of_other_shapes_and_of_copies_leave_a_trace_as_it_is(tmp_path: Path) -> None:
    model = converted()
    script, expected = traced(model), model(X)
    alone = traced(model, X[:1])
    assert same(alone(X[:1]), model(X[:1]))
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.get_parameter("first.weight").mul_(2)
    assert not same(traced(changed)(X), expected)
    assert same(script(X), expected)
    assert same(compile_model(script, [X], tmp_path / "m.hbm", opt=0)[0](X.numpy()), expected)


def test_a_traced_model_follows_its_weights() -> None:
    model = converted()
    script, before = traced(model), model(X)
    with torch.no_grad():
        model.get_parameter("first.weight").mul_(2)
    assert not same(script(X), before) and same(script(X), model(X))


def test_inputs_of_another_shape_are_refused() -> None:
    script = traced(converted())
    with pytest.raises(Exception, match="HB0960.*of shape .1, 3, 8, 8"):
        script(X[:1])


def test_a_trace_of_another_process_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    script = traced(converted())
    monkeypatch.setattr(scripted, "_left", {})
    with pytest.raises(TrainingError, match="HB0985.*another process"):
        check_model(script, X)
    with pytest.raises(Exception, match="HB0985.*another process"):
        script(X)


def test_in_training_a_trace_is_of_the_float_approximation() -> None:
    model = converted()
    set_fake_quantize(model, FakeQuantState.QAT)
    model.eval()
    expected = model(X)
    script: Any = torch.jit.trace(model, X, check_trace=False)
    assert same([each.detach() for each in script(X)], [each.detach() for each in expected])
