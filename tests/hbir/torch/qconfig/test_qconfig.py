"""QConfigs: PyTorch's named tuple, the factories in it, and those that scripts name."""

from __future__ import annotations

import copy
import functools
import pickle

import pytest
import torch
from torch.ao.quantization import FakeQuantize as TorchFakeQuantize
from torch.ao.quantization import QConfig as TorchQConfig

from hbir.errors import TrainingError
from hbir.torch import quantization
from hbir.torch.dtype import qint8, qint16
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState
from hbir.torch.fake_quant.histograms import MSEObserver, PercentileObserver
from hbir.torch.fake_quant.observers import MinMaxObserver, MovingAverageMinMaxObserver
from hbir.torch.qconfig import qconfig as room
from hbir.torch.qconfig.qconfig import (
    QConfig,
    as_qconfig,
    default_calib_8bit_fake_quant_qconfig,
    default_qat_16bit_fake_quant_qconfig,
    dtype_of,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    get_qconfig,
    made_by,
)


def test_it_is_pytorchs_tuple_with_inputs() -> None:
    qconfig = get_qconfig(in_dtype=qint16)
    assert isinstance(qconfig, TorchQConfig) and qconfig.activation is qconfig.output
    assert qconfig() is qconfig and tuple(qconfig) == (qconfig.activation, qconfig.weight)
    assert qconfig == get_qconfig(in_dtype=qint16) and qconfig != get_qconfig()
    for other in (copy.deepcopy(qconfig), pickle.loads(pickle.dumps(qconfig))):
        assert other == qconfig and dtype_of(other.input) == qint16
    with pytest.raises(TrainingError, match="HB0941"):
        QConfig(activation=MinMaxObserver, output=MinMaxObserver)
    with pytest.raises(TrainingError, match="HB0941"):
        as_qconfig("qint8")


def test_get_qconfig() -> None:
    qconfig = get_qconfig(MinMaxObserver, None, qint16, qint16, fix_scale=True)
    activation, weight = made_by(qconfig.activation), made_by(qconfig.weight, channels=5)
    assert activation.dtype == weight.dtype == qint16 and activation.frozen and not weight.frozen
    assert type(activation.activation_post_process) is MinMaxObserver and activation.scale.shape == (1,)
    assert weight.scale.shape == (5,) and weight.activation_post_process.averaging_constant == 1.0
    assert get_qconfig(out_dtype=None).activation is None
    assert type(made_by(get_qconfig().activation).activation_post_process) is MSEObserver
    given = PercentileObserver.with_args(percentile=0.9)
    assert made_by(get_qconfig(given).activation).activation_post_process.request.percentile == 0.9
    for arguments in ({"observer": "mean"}, {"observer": torch.nn.ReLU}):
        with pytest.raises(TrainingError, match="HB0941"):
            get_qconfig(**arguments)
    with pytest.raises(TrainingError, match="HB0901"):
        get_qconfig(out_dtype="int8")


def test_those_of_training() -> None:
    activation = made_by(get_default_qat_qconfig().activation)
    assert type(activation.activation_post_process) is MovingAverageMinMaxObserver
    assert activation.activation_post_process.averaging_constant == 0.01 and activation.intended is FakeQuantState.QAT
    assert made_by(get_default_qat_qconfig("qint16").activation).dtype == qint16
    assert get_default_qat_out_qconfig().activation is None and get_default_qat_out_qconfig().weight is not None
    learned = get_default_qat_qconfig(
        weight_fake_quant="lsq", activation_observer="mse", activation_qkwargs={"freeze": True}
    )
    assert made_by(learned.weight).learned and made_by(learned.activation).frozen
    assert dtype_of(default_qat_16bit_fake_quant_qconfig().activation) == qint16
    assert made_by(default_calib_8bit_fake_quant_qconfig.activation).intended is FakeQuantState.CALIBRATION
    with pytest.raises(TrainingError, match="HB0941"):
        get_default_qat_qconfig(activation_fake_quant="pact")


def test_factories_of_others() -> None:
    assert made_by(MinMaxObserver, dtype=qint16).dtype == qint16
    assert type(made_by(MSEObserver.with_args(averaging_constant=0.5)).activation_post_process) is MSEObserver
    assert made_by(functools.partial(FakeQuantize, observer=MSEObserver), dtype=qint16).dtype == qint16
    assert made_by(lambda: FakeQuantize(scale=0.5)).fixed
    assert as_qconfig(TorchQConfig(MinMaxObserver, MSEObserver)).weight is MSEObserver
    with pytest.raises(TrainingError, match=r"HB0941.*torch\.ao"):
        made_by(TorchFakeQuantize.with_args(dtype=torch.qint8, quant_min=-128, quant_max=127))


def test_published_names_are_there() -> None:
    from hbir.torch.quantization import fake_quantize, observers, qconfig, qconfig_template

    for module in (fake_quantize, observers, qconfig, qconfig_template):
        assert all(getattr(module, name) is not None for name in module.__all__)
    assert set(room.__all__) <= set(qconfig.__all__)
    assert quantization.FakeQuantize is fake_quantize.FakeQuantize and qint8 == fake_quantize.FakeQuantize().dtype
