"""The published names of the tools for a bad model."""

from __future__ import annotations

from hbir.torch.debugging.advice import Advice
from hbir.torch.debugging.check import ModelCheck, check_qat_model
from hbir.torch.debugging.device import DeviceRow, check_deploy_device
from hbir.torch.debugging.fusion import (
    CalledModule,
    UnfusedOperation,
    check_unfused_operations,
    get_module_called_count,
)
from hbir.torch.debugging.model_profiler import ProfileReport, model_profiler
from hbir.torch.debugging.qconfig_report import QconfigRow, check_qconfig
from hbir.torch.debugging.quant_analysis import BadCase, QuantAnalysis
from hbir.torch.debugging.similarity import (
    LayerSimilarity,
    WeightSimilarity,
    compare_weights,
    featuremap_similarity,
)
from hbir.torch.debugging.statistics import LayerStatistics, profile_featuremap
from hbir.torch.debugging.stepwise import SensitivityRow, StepRow, entries, sensitivity, stepwise

__all__ = [
    "Advice",
    "BadCase",
    "CalledModule",
    "DeviceRow",
    "LayerSimilarity",
    "LayerStatistics",
    "ModelCheck",
    "ProfileReport",
    "QconfigRow",
    "QuantAnalysis",
    "SensitivityRow",
    "StepRow",
    "UnfusedOperation",
    "WeightSimilarity",
    "check_deploy_device",
    "check_qat_model",
    "check_qconfig",
    "check_unfused_operations",
    "compare_weights",
    "entries",
    "featuremap_similarity",
    "get_module_called_count",
    "model_profiler",
    "profile_featuremap",
    "sensitivity",
    "stepwise",
]
