"""Quantisation-aware training in PyTorch, under the names of the published workflow: float, calib, qat, export.

`prepare` finds what lies between the stubs of a model by running it, fuses, and places fake quantisation. In the state
VALIDATION the values that leave through a `DeQuantStub` are those of the integers that `convert` makes of the model, bit for
bit; in the states CALIBRATION and QAT the model is the usual float approximation of them, which is fast and has gradients.

This room stands above `passes` and `backends`: what a model computes is known once it is converted. Needs the extra `torch`.
"""

from __future__ import annotations

try:
    import torch as _torch
except ImportError as error:  # pragma: no cover - the extra is installed wherever the tests run
    raise ImportError("hbir.torch needs PyTorch: pip install 'hbir[torch]'") from error

from hbir.torch.dtype import QuantDType, qint8, qint16, qint32
from hbir.torch.march import March, get_march, set_march

del _torch

__all__ = ["March", "QuantDType", "get_march", "qint16", "qint32", "qint8", "set_march"]
