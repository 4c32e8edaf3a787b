"""The article's script with its stages, import lines changed, on pictures that a rule draws.

What the article leaves out (data loaders, meters, one epoch) is written as its comments say; where a name is misspelt (what
`get_model_fx` returns for `calib`, and loads for `int_infer`) it is the one that was meant. The network has two blocks.
"""

from __future__ import annotations

# ruff: noqa: A001, A004, C408, I001, PTH103, PTH110, PTH118, PTH208, UP004, UP032
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils import data

from hbir import save
from hbir import visualize as visualize_graph
from passes import convert
from torch.quantization import DeQuantStub
from tools.examples.qat.mobilenet import MobileNetV2
from hbir.torch.march import March, set_march
from hbir.torch import get_march
from hbir.torch.quantization import QuantStub, prepare
from hbir.torch.quantization import FakeQuantState
from hbir.torch.quantization import hbdk4 as hb4
from hbir.torch.quantization import set_fake_quantize
from hbir.torch.quantization.qconfig_template import (
    default_calibration_qconfig_setter,
    default_qat_qconfig_setter,
)
from backends import Hbm
from hbir.module import load

example_input = torch.rand(1, 3, 32, 32)
SETTING = [[1, 8, 1, 1], [3, 8, 2, 2]]


class FxQATReadyMobileNetV2(MobileNetV2):
    def __init__(self, num_classes=10, width_mult=0.5, inverted_residual_setting=None, round_nearest=8):
        super().__init__(num_classes, width_mult, inverted_residual_setting, round_nearest)
        self.quant = QuantStub(scale=1 / 128)
        self.dequant = DeQuantStub()

    def forward(self, x: Tensor) -> Tensor:
        x = self.quant(x)
        x = super().forward(x)
        x = self.dequant(x)
        return x


def get_model_fx(stage, model_path, device, march=March.NASH_E):
    model_kwargs = dict(num_classes=10, width_mult=0.25, inverted_residual_setting=SETTING)
    float_model = FxQATReadyMobileNetV2(**model_kwargs).to(device)
    if stage == "float":
        float_model = MobileNetV2(**model_kwargs).to(device)
        return float_model
    float_ckpt_path = os.path.join(model_path, "float-checkpoint.ckpt")
    assert os.path.exists(float_ckpt_path)
    float_state_dict = torch.load(float_ckpt_path, map_location=device)
    set_march(march)
    float_model.load_state_dict(float_state_dict)
    if stage == "calib":
        qconfig_setter = default_calibration_qconfig_setter
    else:
        qconfig_setter = default_qat_qconfig_setter
    qat_calib_model = prepare(
        float_model.eval(),
        example_input.to(device),
        qconfig_setter,
    )
    if stage == "calib":
        return qat_calib_model
    calib_ckpt_path = os.path.join(model_path, "calib-checkpoint.ckpt")
    if stage == "qat":
        if os.path.exists(calib_ckpt_path):
            calib_state_dict = torch.load(calib_ckpt_path, map_location=device)
            float_state_dict = None
        else:
            calib_state_dict = None
        if calib_state_dict is not None:
            qat_calib_model.load_state_dict(calib_state_dict)
        return qat_calib_model
    qat_ckpt_path = os.path.join(model_path, "qat-checkpoint.ckpt")
    if os.path.exists(qat_ckpt_path):
        qat_calib_model.load_state_dict(torch.load(qat_ckpt_path, map_location=device))
    elif os.path.exists(calib_ckpt_path):
        qat_calib_model.load_state_dict(torch.load(calib_ckpt_path, map_location=device))
    else:
        raise FileNotFoundError("Do not find saved calib_model or qat_model ckpt to do int inference.")
    qat_hbir_model = hb4.export(qat_calib_model, example_input.to(device))
    quantized_hbir_model = convert(qat_hbir_model, march)
    save(qat_hbir_model, os.path.join(model_path, "qat_hbir_model.bc"))
    save(quantized_hbir_model, os.path.join(model_path, "quantized_hbir_model.bc"))
    return quantized_hbir_model


class HbirModule(nn.Module):
    def __init__(self, hbir_module) -> None:
        super().__init__()
        self.hbir_module = hbir_module
        self.input_flattener = hb4.get_hbir_input_flattener(hbir_module)
        self.output_unflattener = hb4.get_hbir_output_unflattener(hbir_module)

    def forward(self, input):
        flat_input = self.input_flattener(input)
        hbir_rets = self.hbir_module[0](*flat_input)
        rets = self.output_unflattener(hbir_rets)
        return rets


def pictures(count: int, seed: int) -> data.TensorDataset:
    """A bright bar in one of ten rows, on noise: the row is the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 10, (count,), generator=generator)
    images = torch.randint(-128, -64, (count, 3, 32, 32), generator=generator)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * int(label) + 1 : 3 * int(label) + 3] += 160
    return data.TensorDataset(images / 128, labels)


def prepare_data_loaders(data_path, train_batch_size, eval_batch_size):
    train = data.DataLoader(pictures(96, 0), train_batch_size, shuffle=True)
    return train, data.DataLoader(pictures(20, 1), eval_batch_size)


class AverageMeter(object):
    def __init__(self):
        self.sum, self.count = 0.0, 0

    def update(self, value, count):
        self.sum, self.count = self.sum + value * count, self.count + count

    @property
    def avg(self):
        return self.sum / self.count


def accuracy(output, target, topk=(1,)):
    return [100 * (output.topk(k, 1).indices == target[:, None]).any(1).float().mean() for k in topk]


def train_one_epoch(model, criterion, optimizer, scheduler, data_loader, device):
    for image, target in data_loader:
        loss = criterion(model(image.to(device)), target.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def evaluate(model, data_loader, device):
    top1, top5 = AverageMeter(), AverageMeter()
    with torch.no_grad():
        for image, target in data_loader:
            found = accuracy(model(image.to(device)), target.to(device), topk=(1, 5))
            for meter, value in zip((top1, top5), found, strict=True):
                meter.update(value.item(), image.size(0))
    return top1, top5


def train(model, data_path, model_path, train_batch_size, eval_batch_size, epoch_num, device, optim_config, stage):
    train_data_loader, eval_data_loader = prepare_data_loaders(data_path, train_batch_size, eval_batch_size)
    optimizer, scheduler = optim_config(model)
    best_acc = 0
    for nepoch in range(epoch_num):
        model.train()
        if stage == "qat":
            set_fake_quantize(model, FakeQuantState.QAT)
        train_one_epoch(model, nn.CrossEntropyLoss(), optimizer, scheduler, train_data_loader, device)
        model.eval()
        if stage == "qat":
            set_fake_quantize(model, FakeQuantState.VALIDATION)
        top1, top5 = evaluate(model, eval_data_loader, device)
        print(
            "{} Epoch {}: evaluation Acc@1 {:.3f} Acc@5 {:.3f}".format(stage.capitalize(), nepoch, top1.avg, top5.avg)
        )
        if top1.avg > best_acc:
            best_acc = top1.avg
            torch.save(model.state_dict(), os.path.join(model_path, "{}-checkpoint.ckpt".format(stage)))
    print("Best Acc@1 {:.3f}".format(best_acc))
    return model


def calibrate(calib_model, data_path, model_path, calib_batch_size, eval_batch_size, device, num_examples=float("inf")):
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.CALIBRATION)
    train_data_loader, eval_data_loader = prepare_data_loaders(data_path, calib_batch_size, eval_batch_size)
    with torch.no_grad():
        cnt = 0
        for image, target in train_data_loader:
            image, target = image.to(device), target.to(device)
            calib_model(image)
            print(".", end="", flush=True)
            cnt += image.size(0)
            if cnt >= num_examples:
                break
        print()
    calib_model.eval()
    set_fake_quantize(calib_model, FakeQuantState.VALIDATION)
    top1, top5 = evaluate(calib_model, eval_data_loader, device)
    print("Calibration: evaluation Acc@1 {:.3f} Acc@5 {:.3f}".format(top1.avg, top5.avg))
    torch.save(calib_model.state_dict(), os.path.join(model_path, "calib-checkpoint.ckpt"))
    return calib_model


def int_infer(quantized_model, data_path, eval_batch_size, device):
    eval_batch_size = 1
    device = torch.device("cpu")
    quantized_model = HbirModule(quantized_model)
    _, eval_data_loader = prepare_data_loaders(data_path, eval_batch_size, eval_batch_size)
    top1, top5 = evaluate(quantized_model, eval_data_loader, device)
    print("Quantized: evaluation Acc@1 {:.3f} Acc@5 {:.3f}".format(top1.avg, top5.avg))
    return quantized_model


def compile(quantized_model, model_path, compile_opt=0):
    from backends import compile, hbm_perf

    hbm_path = os.path.join(model_path, "model.hbm")
    perf_dir = os.path.join(model_path, "perf")
    compile(quantized_model, hbm_path, get_march(), compile_opt)
    hbm_perf(hbm_path, perf_dir)


def main(model, stage, data_path, model_path, train_batch_size, eval_batch_size, epoch_num, device_id=0, compile_opt=0):
    assert stage in ("float", "calib", "qat", "int_infer", "compile", "visualize")
    device = torch.device("cuda:{}".format(device_id) if device_id >= 0 else "cpu")
    if not os.path.exists(model_path):
        os.makedirs(model_path, exist_ok=True)

    def float_optim_config(model: nn.Module):
        optimizer = torch.optim.Adam(model.parameters(), weight_decay=2e-4)
        return optimizer, None

    def qat_optim_config(model: nn.Module):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0001, weight_decay=2e-4)
        return optimizer, None

    default_epoch_num = {"float": 20, "qat": 2}
    if stage in ("float", "qat"):
        if epoch_num is None:
            epoch_num = default_epoch_num[stage]
        train(
            model, data_path, model_path, train_batch_size, eval_batch_size, epoch_num, device,
            float_optim_config if stage == "float" else qat_optim_config, stage,
        )  # fmt: skip
    elif stage == "calib":
        calibrate(model, data_path, model_path, train_batch_size, eval_batch_size, device)
    elif stage == "int_infer":
        int_infer(model, data_path, eval_batch_size, device)
    elif stage == "compile":
        compile(model, model_path, compile_opt)
    else:
        visualize_graph(model, os.path.join(model_path, "quantized_hbir_model.onnx"))


def shown(printed: str, line: str) -> float:
    """The accuracy on the last line that begins so."""
    return float([each for each in printed.splitlines() if each.startswith(line)][-1].split("Acc@1 ")[1].split()[0])


def test_the_script_runs_through_its_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    path = str(tmp_path / "model")
    for stage, files in (
        ("float", {"float-checkpoint.ckpt"}),
        ("calib", {"calib-checkpoint.ckpt"}),
        ("qat", {"qat-checkpoint.ckpt"}),
        ("int_infer", {"qat_hbir_model.bc", "quantized_hbir_model.bc"}),
        ("compile", {"model.hbm", "perf"}),
        ("visualize", {"quantized_hbir_model.onnx"}),
    ):
        before = set(os.listdir(path)) if os.path.exists(path) else set()
        model = get_model_fx(stage, path, torch.device("cpu"))
        main(model, stage, "", path, 16, 10, 10 if stage == "float" else None, device_id=-1)
        assert set(os.listdir(path)) - before == files, stage
    assert "model.html" in os.listdir(os.path.join(path, "perf"))

    printed = capsys.readouterr().out
    # One class in ten is chance, and 20 pictures have steps of five points.
    assert shown(printed, "Float") > 60
    assert abs(shown(printed, "Calibration") - shown(printed, "Float")) <= 10
    assert shown(printed, "Quantized") == shown(printed, "Best") > 60

    set_march(March.NASH_E)
    float_model = FxQATReadyMobileNetV2(10, 0.25, SETTING).eval()
    qat_model = prepare(float_model, example_input, default_qat_qconfig_setter)
    qat_model.load_state_dict(torch.load(os.path.join(path, "qat-checkpoint.ckpt")))
    qat_model.eval()
    set_fake_quantize(qat_model, FakeQuantState.VALIDATION)
    integers = HbirModule(load(os.path.join(path, "quantized_hbir_model.bc")))
    binary = Hbm(os.path.join(path, "model.hbm"))[0]
    for image, _ in data.DataLoader(pictures(20, 1), 1):
        expected = qat_model(image).detach()
        assert expected.std() > 0
        assert (integers(image) == expected).all()
        assert (torch.from_numpy(binary(image.numpy())[0]) == expected).all()
