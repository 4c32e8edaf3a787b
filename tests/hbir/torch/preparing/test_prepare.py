"""`prepare`: what is refused with which words, what is fused, and state dicts that move between models."""

from __future__ import annotations

import copy
import warnings
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import March, set_march
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.quantization import (
    DeQuantStub,
    FakeQuantState,
    PrepareMethod,
    QuantStub,
    fuse_known_modules,
    hbdk4,
    prepare,
    set_fake_quantize,
)
from hbir.torch.quantization.qconfig_template import default_calibration_qconfig_setter, default_qat_qconfig_setter
from passes import convert
from tests.hbir.torch.states import validated

X = (1, 3, 6, 6)


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.quant, self.dequant = QuantStub(), DeQuantStub()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.head = nn.Conv2d(4, 2, 1)

    def body(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.bn(self.conv(x))))

    def forward(self, x: torch.Tensor) -> Any:
        return self.dequant(self.body(self.quant(x)))


@pytest.fixture(autouse=True)
def march() -> None:
    set_march(March.NASH_E)


def refused(code: str, model: nn.Module, **options: Any) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        prepare(model.eval(), torch.randn(X), **options)
    assert caught.value.code == code, caught.value
    assert caught.value.lever
    return caught.value


def test_operations_without_a_form_name_the_users_line() -> None:
    class Fft(Base):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svdvals(super().body(x))

    error = refused("HB0910", Fft())
    assert "svd" in error.what and "test_prepare.py:" in error.where


def test_stubs_that_are_missing() -> None:
    class NoQuant(Base):
        def forward(self, x: torch.Tensor) -> Any:
            return self.dequant(self.body(x))

    class NoDeQuant(Base):
        def forward(self, x: torch.Tensor) -> Any:
            y = self.body(self.quant(x))
            return self.dequant(y), y

    class OneBranch(Base):
        def forward(self, x: torch.Tensor) -> Any:
            return self.dequant(self.conv(self.quant(x)) + F.avg_pool2d(x, 1)[:, :1])

    refused("HB0930", NoQuant())
    assert "output 1" in refused("HB0931", NoDeQuant()).what
    assert "test_prepare.py:" in refused("HB0911", OneBranch()).where


def test_a_loss_inside_the_stubs_is_refused() -> None:
    class Loss(Base):
        def forward(self, x: torch.Tensor) -> Any:
            y = self.body(self.quant(x))
            return self.dequant(F.mse_loss(y, torch.zeros_like(y)))

    refused("HB0910", Loss())


def test_what_has_no_form_is_told_before_training() -> None:
    class Dilated(Base):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            return F.max_pool2d(super().body(x), 3, 1, 1, 2)

    error = refused("HB0920", Dilated())
    assert error.where.startswith("layer 'max_pool2d_0', test_prepare.py:")


def test_wrong_arguments() -> None:
    for code, options in (
        ("HB0936", {"qconfig_setter": "default"}),
        ("HB0937", {"method": "jit"}),
    ):
        refused(code, Base(), **options)
    with pytest.raises(TrainingError, match="HB0935"):
        prepare(Base().eval())
    with pytest.raises(TrainingError, match="HB0933"):
        prepare(cast(Any, "model"), torch.randn(X))
    prepared = prepare(Base().eval(), torch.randn(X))
    refused("HB0934", prepared)
    with pytest.raises(TrainingError, match="HB0932"):
        prepare(Base().eval(), (torch.randn(X), torch.randn(X)))


def test_control_flow_that_depends_on_data() -> None:
    class Branch(Base):
        long = False

        def body(self, x: torch.Tensor) -> torch.Tensor:
            y = super().body(x)
            return torch.sigmoid(y) if self.long else torch.relu(y)

    prepared = prepare(Branch().eval(), torch.randn(X))
    prepared.long = True
    with pytest.raises(TrainingError, match="HB0912") as caught:
        prepared(torch.randn(X))
    assert "relu" in caught.value.why and "behind prepare" in caught.value.lever


def test_a_layer_that_runs_in_training_alone_is_told() -> None:
    class Aided(Base):
        def __init__(self) -> None:
            super().__init__()
            self.aid = nn.Conv2d(2, 2, 1)

        def body(self, x: torch.Tensor) -> torch.Tensor:
            y = super().body(x)
            return self.aid(y) if self.training else y

    prepared = prepare(Aided().eval(), torch.randn(X)).train()
    set_fake_quantize(prepared, FakeQuantState.QAT)
    with pytest.warns(TrainingWarning, match="HB0916 at layer 'aid', test_prepare.py:") as told:
        prepared(torch.randn(X))
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        prepared(torch.randn(X))
    assert "DeQuantStub" in cast(TrainingWarning, told[0].message).lever


def test_export_wants_a_validated_model() -> None:
    x = torch.randn(X)
    with pytest.raises(TrainingError, match="HB0922"):
        hbdk4.export(Base().eval(), x)
    prepared = prepare(Base().eval(), x)
    with pytest.raises(TrainingError, match="HB0922.*QAT"):
        hbdk4.export(prepared, x)
    validated(prepared, x).train()
    with pytest.raises(TrainingError, match="HB0922.*training"):
        hbdk4.export(prepared, x)
    with pytest.raises(TrainingError, match="HB0962"):
        prepared(x)
    prepared.eval()
    next(iter(m for m in prepared.modules() if hasattr(m, "quant_min"))).state = FakeQuantState.QAT
    with pytest.raises(TrainingError, match="HB0965"):
        prepared(x)


def test_misuse_of_states_is_named() -> None:
    x = torch.randn(X)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        prepare(Base().eval(), x)(x)  # evaluated, and no state set: scales stay 1
        late = prepare(Base().eval(), x)
        set_fake_quantize(late, FakeQuantState.CALIBRATION)
        late.eval()
        late(x)
    codes = {warning.message.code for warning in told if isinstance(warning.message, TrainingWarning)}
    assert codes == {"HB0947", "HB0948"}


def test_state_dicts_move_between_float_calib_and_qat_models() -> None:
    x, float_model = torch.randn(X), Base().eval()
    calib = validated(prepare(float_model, x, default_calibration_qconfig_setter), x)
    qat = prepare(Base().eval(), x, default_qat_qconfig_setter)
    qat.load_state_dict(calib.state_dict())
    set_fake_quantize(qat.eval(), FakeQuantState.VALIDATION)
    assert torch.equal(qat(x), calib(x))
    weights = {key: value for key, value in calib.state_dict().items() if key in float_model.state_dict()}
    copy.deepcopy(float_model).load_state_dict(weights, strict=True)
    waiting = prepare(Base().eval(), method=PrepareMethod.SYMBOLIC)
    waiting.load_state_dict(calib.state_dict())
    waiting.eval()
    with torch.no_grad():
        waiting(x)
    set_fake_quantize(waiting, FakeQuantState.VALIDATION)
    assert torch.equal(waiting(x), calib(x))


SEQUENCES: dict[str, list[str]] = {
    "conv+bn": ["bn"],
    "conv+relu": ["relu"],
    "conv+add": ["add"],
    "conv+bn+relu": ["bn", "relu"],
    "conv+bn+add": ["bn", "add"],
    "conv+add+relu": ["add", "relu"],
    "conv+bn+add+relu": ["bn", "add", "relu"],
    "conv+bn+relu6": ["bn", "relu6"],
    "conv+bn+add+relu6": ["bn", "add", "relu6"],
}


class Sequence(nn.Module):
    """A layer and what follows it, in the order of one of the published sequences."""

    def __init__(self, layer: str, parts: list[str]) -> None:
        super().__init__()
        self.quant, self.other, self.dequant = QuantStub(), QuantStub(), DeQuantStub()
        kinds: dict[str, nn.Module] = {
            "conv": nn.Conv2d(3, 3, 3, padding=1),
            "transposed": nn.ConvTranspose2d(3, 3, 3, padding=1),
            "linear": nn.Linear(6, 6),
        }
        self.layer, self.parts = kinds[layer], parts
        self.bn: nn.Module = nn.BatchNorm2d(3) if layer != "linear" else nn.BatchNorm1d(5)
        self.relu, self.relu6, self.add = nn.ReLU(), nn.ReLU6(), nn.quantized.FloatFunctional()
        self.last = nn.Conv2d(3, 2, 1) if layer != "linear" else nn.Linear(6, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        x, y = self.layer(self.quant(x)), self.other(y)
        for part in self.parts:
            x = self.add.add(x, y) if part == "add" else getattr(self, part)(x)
        return self.dequant(self.last(x))


@pytest.mark.parametrize("method", [PrepareMethod.JIT_STRIP, PrepareMethod.EAGER])
@pytest.mark.parametrize("layer", ["conv", "transposed", "linear"])
@pytest.mark.parametrize("name", SEQUENCES)
def test_published_sequences_are_fused_and_exact(name: str, layer: str, method: PrepareMethod) -> None:
    parts = SEQUENCES[name]
    if layer == "linear" and "bn" in parts:
        parts = [part for part in parts if part != "bn"]  # it takes (N, C), or channels in front of rows
    if layer == "transposed":
        parts = [part for part in parts if part != "add"]  # several convolutions: the sum is an operation of its own
    torch.manual_seed(1)
    model = Sequence(layer, parts).eval()
    if method is PrepareMethod.EAGER and parts:
        names = ["layer", *parts]
        torch.ao.quantization.fuse_modules(model, names, inplace=True, fuser_func=fuse_known_modules)
    shape = X if layer != "linear" else (2, 5, 6)
    inputs = torch.randn(shape), torch.randn(shape)
    example = inputs if method is not PrepareMethod.EAGER else None
    prepared = prepare(model, example, default_calibration_qconfig_setter, method)
    if example is None:
        with torch.no_grad():
            prepared(*inputs)
    validated(prepared, *inputs)
    grids = [key for key in prepared.state_dict() if key.endswith("activation_post_process.scale")]
    assert len(grids) == 3, "two inputs and the group; the last layer hands out its accumulator"
    integers = convert(hbdk4.export(prepared, inputs), March.NASH_E)
    floats = [op.name for op in integers[0].operations if op.name in ("hbir.add", "hbir.conv2d", "hbir.clip")]
    assert not floats
    assert (integers[0](*(x.numpy() for x in inputs))[0] == prepared(*inputs).detach().numpy()).all()


def test_a_shared_layer_keeps_its_batch_norms_apart() -> None:
    class Shared(Base):
        def body(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.relu(self.bn(self.conv(x)) + self.conv(x)))

    x = torch.randn(X)
    prepared = validated(prepare(Shared().eval(), x), x)
    integers = convert(hbdk4.export(prepared, x), March.NASH_E)
    assert (integers[0](x.numpy())[0] == prepared(x).detach().numpy()).all()


def test_a_part_of_a_model_validates_by_itself() -> None:
    x = torch.randn(X)

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Base()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.inner(x)

    prepared = validated(prepare(Outer().eval(), x), x)
    assert torch.equal(prepared.get_submodule("inner")(x), prepared(x))


def test_gradients_go_straight_through_in_validation() -> None:
    x = torch.randn(X)
    prepared = validated(prepare(Base().eval(), x), x)
    result = prepared(x)
    result.square().sum().backward()
    gradient = prepared.get_submodule("conv").weight.grad
    assert gradient is not None and gradient.abs().sum() > 0
