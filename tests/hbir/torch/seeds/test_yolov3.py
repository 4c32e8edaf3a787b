"""The article's YOLOv3 in the manner it says: fused by hand, attributes `qconfig`, calibrated, trained, traced, compiled.

The detection library that it builds on is replaced by the example's plain modules; the network is narrow, its pictures small.
"""

from __future__ import annotations

# ruff: noqa: I001
from pathlib import Path

import torch

from hbir.dialects.quantized import Conv2dOp
from hbir.module import Module
from hbir.torch.march import March, set_march
from hbir.torch.quantization import (
    FakeQuantState,
    check_model,
    compile_model,
    convert,
    default_calib_8bit_fake_quant_qconfig,
    default_qat_8bit_fake_quant_qconfig,
    default_qat_16bit_fake_quant_qconfig,
    get_default_qat_out_qconfig,
    get_default_qat_qconfig,
    prepare_qat,
    prepare_qat_fx,
    set_fake_quantize,
)
from hbir.torch.quantization.hbdk4 import export
import passes
from tools.examples.qat.yolov3 import YOLOV3, Config, DeployModel, train_detector

CONFIG, SIZE = Config(num_classes=2, width=4, blocks=(1, 0, 1, 1, 1)), 32


def detector() -> YOLOV3:
    torch.manual_seed(0)
    return YOLOV3(CONFIG).eval()


def run(model: torch.nn.Module, steps: int, rate: float = 0.0) -> list[float]:
    """`train_detector` of the script; at the rate 0 it only looks."""
    return train_detector(model, CONFIG, SIZE, steps, torch.Generator().manual_seed(steps), rate=rate)


def test_the_eager_script(tmp_path: Path) -> None:
    model = detector()
    set_march(March.BAYES)
    model.backbone.fuse_modules()
    model.neck.fuse_modules()
    model.bbox_head.fuse_modules()
    model.qconfig = get_default_qat_qconfig()
    for m in model.bbox_head.convs_pred:
        m.qconfig = get_default_qat_out_qconfig()
    model.bbox_head.loss_cls.qconfig = None
    model.bbox_head.loss_conf.qconfig = None
    model.bbox_head.loss_xy.qconfig = None
    model.bbox_head.loss_wh.qconfig = None

    calib_model = prepare_qat(model)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    run(calib_model, 2)
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    run(calib_model, 1)

    qat_model = prepare_qat(model)
    qat_model.load_state_dict(calib_model.state_dict())
    qat_model.train()
    run(qat_model, 2, rate=0.001)

    quantized_model = convert(qat_model.eval())
    deploy_model = DeployModel(quantized_model.backbone, quantized_model.neck, quantized_model.bbox_head)
    example_input = torch.randn(size=(2, 3, SIZE, SIZE), generator=torch.Generator().manual_seed(5))
    traced_model = torch.jit.trace(deploy_model.eval(), example_input, check_trace=False)
    assert check_model(traced_model, example_input, advice=1) == 0
    binary = compile_model(traced_model, [example_input], opt=0, hbm=str(tmp_path / "model.hbm"))

    expected = quantized_model(example_input)
    assert [tuple(each.shape) for each in expected] == [(2, 21, 1, 1), (2, 21, 2, 2), (2, 21, 4, 4)]
    assert binary.march_name == "bayes"
    for one, two in zip(expected, binary[0](example_input.numpy()), strict=True):
        assert one.std() > 0 and (torch.from_numpy(two) == one).all()
    integers = passes.convert(export(quantized_model, example_input), March.BAYES)
    for one, two in zip(expected, integers[0](example_input.numpy()), strict=True):
        assert (torch.from_numpy(two) == one).all()
    _check_fusion(integers)


def _check_fusion(integers: Module) -> None:
    """Each ConvModule is one convolution; the three that predict hand out their accumulators."""
    convolutions = [op for op in integers[0].operations if isinstance(op, Conv2dOp)]
    wide = [op for op in convolutions if "i32" in str(op.results[0].type).split(":")[0]]
    modules = [each for each in detector().modules() if isinstance(each, torch.nn.Conv2d)]
    assert len(convolutions) == len(modules) and len(wide) == 3


def test_the_fx_script_takes_scales_from_calibration_to_training() -> None:
    model = detector()
    set_march(March.BAYES)
    calib_model = prepare_qat_fx(model, {"": default_calib_8bit_fake_quant_qconfig, "module_name": {}})
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    run(calib_model, 1)
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    found = run(calib_model, 1)

    names = {"module_name": {"neck.detect.0": default_qat_16bit_fake_quant_qconfig}}
    qat_model = prepare_qat_fx(model, {"": default_qat_8bit_fake_quant_qconfig, **names})
    qat_model.load_state_dict(calib_model.state_dict())
    qat_model.train()
    assert run(qat_model, 1, rate=0.001) != found
    block = qat_model.neck.detect[0][1]
    assert block.activate.activation_post_process.dtype.bits == 16
    assert block.conv.weight_fake_quant.dtype.bits == 8
    other = qat_model.neck.detect[1][1].activate.activation_post_process
    assert other.dtype.bits == 8 and other.calibrated
