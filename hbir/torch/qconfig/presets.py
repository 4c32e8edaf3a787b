"""The setters of the published workflow, by name; the eight- and sixteen-bit ones, for calibration and for training."""

from __future__ import annotations

from typing import Any

from hbir.errors import TrainingError
from hbir.torch.dtype import QuantDType, qint8, qint16
from hbir.torch.qconfig.qconfig import QConfig, get_default_calib_qconfig, get_default_qat_qconfig
from hbir.torch.qconfig.setters import QconfigSetter, SensitiveOpQconfigSetter
from hbir.torch.qconfig.templates import SensitivityTemplate

__all__ = [
    "calibration_8bit_weight_16bit_act_qconfig_setter",
    "default_calibration_qconfig_setter",
    "default_qat_fixed_act_qconfig_setter",
    "default_qat_learned_scale_qconfig_setter",
    "default_qat_qconfig_setter",
    "qat_8bit_weight_16bit_act_qconfig_setter",
    "qat_8bit_weight_16bit_fixed_act_qconfig_setter",
    "sensitive_op_calibration_8bit_weight_16bit_act_qconfig_setter",
    "sensitive_op_qat_8bit_weight_16bit_act_qconfig_setter",
    "sensitive_op_qat_8bit_weight_16bit_fixed_act_qconfig_setter",
]


def _calibration(dtype: QuantDType) -> QConfig:
    return get_default_calib_qconfig(dtype)


def _training(dtype: QuantDType, *, fixed: bool = False, learned: bool = False) -> QConfig:
    kind = "lsq" if learned else "fake_quant"
    return get_default_qat_qconfig(dtype, activation_fake_quant=kind, activation_qkwargs={"freeze": fixed})


default_calibration_qconfig_setter = QconfigSetter(_calibration(qint8), name="default_calibration_qconfig_setter")
"""Eight bits; scales that hold 99.995 % of the magnitudes."""

default_qat_qconfig_setter = QconfigSetter(_training(qint8), name="default_qat_qconfig_setter")
"""Eight bits; scales follow the moving average of the range."""

default_qat_fixed_act_qconfig_setter = QconfigSetter(
    _training(qint8, fixed=True), name="default_qat_fixed_act_qconfig_setter"
)
"""Eight bits; activations keep the scales of the calibration, which must be loaded."""

default_qat_learned_scale_qconfig_setter = QconfigSetter(
    _training(qint8, learned=True), name="default_qat_learned_scale_qconfig_setter"
)
"""Eight bits; the scales of activations are parameters (learned step size)."""

calibration_8bit_weight_16bit_act_qconfig_setter = QconfigSetter(
    _calibration(qint16), name="calibration_8bit_weight_16bit_act_qconfig_setter"
)
"""Weights in eight bits, activations in sixteen; scales that hold 99.995 % of the magnitudes."""
qat_8bit_weight_16bit_act_qconfig_setter = QconfigSetter(
    _training(qint16), name="qat_8bit_weight_16bit_act_qconfig_setter"
)
"""Weights in eight bits, activations in sixteen; scales follow the moving average of the range."""
qat_8bit_weight_16bit_fixed_act_qconfig_setter = QconfigSetter(
    _training(qint16, fixed=True), name="qat_8bit_weight_16bit_fixed_act_qconfig_setter"
)
"""Weights in eight bits, activations in sixteen, with the scales of the calibration."""


def _sensitive(
    name: str, qconfig: QConfig, table: Any, topk: int | None, ratio: float | None
) -> SensitiveOpQconfigSetter:
    if (topk is None) == (ratio is None):
        what = f"{name} is given {'both' if topk is not None else 'neither'} of topk and ratio"
        raise TrainingError(44, what, lever="give one: topk=20, or ratio=0.2")
    count: int | float = float(ratio) if ratio is not None else topk or 0
    return SensitiveOpQconfigSetter(qconfig, SensitivityTemplate(table, count, "activation"), name)


def sensitive_op_calibration_8bit_weight_16bit_act_qconfig_setter(
    table: Any, topk: int | None = None, ratio: float | None = None
) -> SensitiveOpQconfigSetter:
    """The `topk` most sensitive outputs of a table, or its share `ratio`, in sixteen bits; see SensitivityTemplate."""
    name = "sensitive_op_calibration_8bit_weight_16bit_act_qconfig_setter"
    return _sensitive(name, _calibration(qint8), table, topk, ratio)


def sensitive_op_qat_8bit_weight_16bit_act_qconfig_setter(
    table: Any, topk: int | None = None, ratio: float | None = None
) -> SensitiveOpQconfigSetter:
    """The same for training."""
    return _sensitive("sensitive_op_qat_8bit_weight_16bit_act_qconfig_setter", _training(qint8), table, topk, ratio)


def sensitive_op_qat_8bit_weight_16bit_fixed_act_qconfig_setter(
    table: Any, topk: int | None = None, ratio: float | None = None
) -> SensitiveOpQconfigSetter:
    """The same for training with the scales of the calibration."""
    name = "sensitive_op_qat_8bit_weight_16bit_fixed_act_qconfig_setter"
    return _sensitive(name, _training(qint8, fixed=True), table, topk, ratio)
