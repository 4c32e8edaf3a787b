"""AdaRound: outputs come closer to the float layer's, weights lie on their grids, and the model stays an ordinary one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

import hbir.torch as ht
from hbir.errors import TrainingError
from hbir.torch.fake_quant.adaround import weight_reconstruction
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, fake_quants, set_fake_quantize
from hbir.torch.fake_quant.kernels import held
from hbir.torch.preparing.prepare import prepare
from hbir.torch.qconfig.presets import calibration_8bit_weight_16bit_act_qconfig_setter
from hbir.torch.stubs import DeQuantStub, QuantStub


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.bn, self.fc = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn(self.conv(self.quant(x))))
        return self.dequant(self.fc(torch.flatten(y, 1)))


@pytest.fixture(autouse=True)
def march() -> Iterator[None]:
    ht.set_march("nash-e")
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def correlated(count: int) -> torch.Tensor:
    """Inputs whose pixels go together, as those of images do: rounding errors of a filter then add up."""
    return torch.randn(count, 2, 1, 1) + 0.3 * torch.randn(count, 2, 6, 6)


def test_outputs_come_closer_and_weights_lie_on_their_grids() -> None:
    net = Net().eval()
    net.bn.running_var.uniform_(0.5, 2)
    nn.init.uniform_(net.bn.weight, 0.5, 2)
    model = prepare(net, correlated(1), calibration_8bit_weight_16bit_act_qconfig_setter)
    data = [correlated(32) for _ in range(4)]
    with pytest.raises(TrainingError, match="HB0945"):
        weight_reconstruction(model, data)
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    for x in data:
        model(x)
    keys, training = set(model.state_dict()), model.training
    seen: list[str] = []
    found = weight_reconstruction(model, data, iterations=200, progress=lambda name, _: seen.append(name))
    assert list(found) == seen == ["conv", "fc"]
    for name, each in found.items():
        assert each.changed > 0, name
        assert each.after < {"conv": 0.9, "fc": 0.8}[name] * each.before, name
    assert set(model.state_dict()) == keys and model.training == training
    assert {each.state for each in fake_quants(model)} == {FakeQuantState.CALIBRATION}
    for layer in (model.conv, model.fc):
        factor = torch.rsqrt(net.bn.running_var + net.bn.eps) * net.bn.weight if layer is model.conv else torch.ones(3)
        weight = (layer.weight * factor.reshape(-1, *[1] * (layer.weight.dim() - 1))).detach()
        fake = layer.weight_fake_quant
        assert isinstance(fake, FakeQuantize)
        # A weight is a product of two float32 roundings away from its grid.
        torch.testing.assert_close(held(weight, fake.scale, 0, fake.dtype.limits), weight, rtol=2**-21, atol=0)


def test_data_and_names_are_checked() -> None:
    model = prepare(Net().eval(), correlated(1))
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    model(correlated(4))
    for arguments in (([],), ([correlated(1)], ["bn"])):
        with pytest.raises(TrainingError, match="HB0945"):
            weight_reconstruction(model, arguments[0], layers=arguments[1] if len(arguments) > 1 else None)
    before = model.conv.weight.clone()
    assert list(weight_reconstruction(model, [correlated(4)], layers=["fc"], iterations=2)) == ["fc"]
    assert torch.equal(model.conv.weight, before)
    with pytest.raises(TrainingError, match="HB0945"):
        weight_reconstruction(nn.Linear(2, 2), [correlated(1)])
