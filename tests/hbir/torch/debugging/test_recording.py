"""What is recorded, and that nothing of the model changes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hbir.errors import TrainingError
from hbir.torch.debugging.recording import (
    aligned,
    checked_prepared,
    integers_for,
    layer_values,
    ready,
    record,
    switched,
    value_of,
    weight_of,
)
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, set_fake_quantize
from hbir.torch.preparing.prepare import PrepareMethod, prepare
from tests.hbir.torch.debugging.models import Chain, Fragile, calibrated, chain, images

PLACES = ["quant", "conv1", "bn", "act", "conv2", "act2", "head"]


def test_float_and_prepared_have_the_same_places(pair: tuple[Chain, nn.Module]) -> None:
    assert [list(record(ready(model), images()).features) for model in pair] == [PLACES, PLACES]


def test_without_grids_a_prepared_model_is_the_float_one(pair: tuple[Chain, nn.Module]) -> None:
    model, prepared = pair
    found = record(prepared, images(), on=lambda fake: False)
    expected = record(ready(model), images())
    # Folding the batch norm rounds each weight once more in float32, sums of 27 and 72 products twice over.
    for name in PLACES:
        torch.testing.assert_close(found.features[name].value, expected.features[name].value, rtol=1e-4, atol=1e-5)
    assert torch.equal(expected.outputs[0], model(images()).detach())


def test_values_lie_on_their_grids(pair: tuple[Chain, nn.Module]) -> None:
    feature = record(pair[1], images()).features["act"]
    fake = feature.call.fake_quant
    assert fake is not None
    steps = feature.value / fake.scale
    assert torch.equal(steps.round() * fake.scale, feature.value)
    assert not torch.equal(feature.before, feature.value)


def test_modes_and_states_come_back() -> None:
    prepared = calibrated(chain())
    prepared.train()
    set_fake_quantize(prepared, FakeQuantState.QAT)
    before = [(module, module.training) for module in prepared.modules()]
    scales = [fake.scale.clone() for fake in prepared.modules() if isinstance(fake, FakeQuantize)]
    mean = prepared.bn.running_mean.clone()
    record(prepared, images())
    with pytest.raises(RuntimeError), switched(prepared, lambda fake: False):
        raise RuntimeError
    fakes = [fake for fake in prepared.modules() if isinstance(fake, FakeQuantize)]
    assert all(module.training is mode for module, mode in before)
    assert {fake.state for fake in fakes} == {FakeQuantState.QAT}
    assert all(torch.equal(a, fake.scale) for a, fake in zip(scales, fakes, strict=True))
    assert torch.equal(mean, prepared.bn.running_mean)


def test_a_float_model_gets_no_hooks() -> None:
    model = chain()
    record(ready(model), images())
    assert not any(module._forward_hooks for module in model.modules())


def test_weight_has_its_batch_norm(pair: tuple[Chain, nn.Module]) -> None:
    model, prepared = pair
    call = record(prepared, images()).features["conv1"].call
    factor = model.bn.weight / torch.sqrt(model.bn.running_var + model.bn.eps)
    torch.testing.assert_close(weight_of(call), (model.conv1.weight * factor[:, None, None, None]).detach())


def test_integers_are_fake_quantisation_where_both_exist(pair: tuple[Chain, nn.Module]) -> None:
    found = record(pair[1], images())
    function, arrays = integers_for(pair[1], images())
    values, outputs = layer_values(function, arrays)
    assert set(values) == {"quant", "act", "act2", "head"}
    for name in ("quant", "act", "act2"):
        feature = found.features[name]
        got = aligned(values[name][-1], feature.value)
        fake = feature.call.fake_quant
        assert got is not None and fake is not None
        # Sums are exact in the integers and rounded in float32: ties may fall on the other side, one step away.
        assert float((got - feature.value).abs().max()) <= 1.001 * float(fake.scale)
    assert torch.equal(outputs[0], pair[1](images()))


def test_each_run_of_a_shared_module_has_its_value() -> None:
    prepared = calibrated(Fragile())
    found = record(prepared, images())
    assert {"twice", "twice(2)"} <= set(found.features)
    function, arrays = integers_for(prepared, images())
    values = layer_values(function, arrays)[0]
    for name in ("late", "add_1"):
        feature = found.features[name]
        got = value_of(values, feature, 1)
        assert got is not None and (lined := aligned(got, feature.value)) is not None
        assert feature.call.fake_quant is not None
        assert float((lined - feature.value).abs().max()) <= 1.001 * float(feature.call.fake_quant.scale)
    feature = found.features["twice"]
    assert value_of({"twice": [torch.zeros(1)]}, feature, 2) is None
    assert value_of({"twice": [torch.zeros(1), torch.ones(1)]}, found.features["twice(2)"], 2) == 1


def test_axes_that_fit_twice_are_told_apart() -> None:
    like = torch.arange(8.0).reshape(1, 2, 2, 2)
    last = like.movedim(1, -1).contiguous()
    assert torch.equal(aligned(last, like), like) and torch.equal(aligned(like, like), like)
    assert aligned(torch.zeros(3), like) is None


def test_what_is_not_prepared_is_told() -> None:
    with pytest.raises(TrainingError, match="HB0970.*is not prepared"):
        checked_prepared(chain(), "a tool")
    waiting = prepare(chain(), method=PrepareMethod.EAGER)
    with pytest.raises(TrainingError, match="HB0970.*has not run"):
        checked_prepared(waiting, "a tool")
    with pytest.raises(TrainingError, match="HB0970"):
        ready("model")
