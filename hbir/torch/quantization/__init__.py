"""The published names of the workflow."""

from __future__ import annotations

from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, set_fake_quantize
from hbir.torch.preparing.fuse import fuse_known_modules, fuse_modules
from hbir.torch.preparing.older import check_model, compile_model, convert, prepare_qat, prepare_qat_fx
from hbir.torch.preparing.prepare import PrepareMethod, explain, prepare
from hbir.torch.quantization import hbdk4
from hbir.torch.quantization.qconfig import (
    QConfig,
    default_calib_8bit_fake_quant_qconfig,
    default_calib_16bit_fake_quant_qconfig,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_16bit_fake_quant_qconfig,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    get_qconfig,
)
from hbir.torch.stubs import DeQuantStub, QuantStub

__all__ = [
    "DeQuantStub",
    "FakeQuantState",
    "FakeQuantize",
    "PrepareMethod",
    "QConfig",
    "QuantStub",
    "check_model",
    "compile_model",
    "convert",
    "default_calib_16bit_fake_quant_qconfig",
    "default_calib_8bit_fake_quant_qconfig",
    "default_qat_16bit_fake_quant_qconfig",
    "default_qat_8bit_fake_quant_qconfig",
    "explain",
    "fuse_known_modules",
    "fuse_modules",
    "get_default_qat_out_qconfig",
    "get_default_qat_qconfig",
    "get_qconfig",
    "hbdk4",
    "prepare",
    "prepare_qat",
    "prepare_qat_fx",
    "set_fake_quantize",
]
