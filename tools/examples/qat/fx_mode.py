"""Quantisation-aware training from a float network to a binary, stage by stage:

    python -m tools.examples.qat.fx_mode --stage float|calib|qat|int_infer|compile|visualize

`float` trains MobileNetV2, `calib` finds scales, `qat` trains on with fake quantisation, `int_infer` evaluates the integers,
`compile` writes the binary and estimates its speed, `visualize` writes a graph for Netron. Each stage reads what those before
it left in `--model-path`. `all` (the default) runs them in this order, runs the binary on the simulator, and prints a table.
`torchrun --nproc_per_node=2 -m tools.examples.qat.fx_mode --stage qat` trains in two processes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from backends import Hbm, hbm_perf
from backends import compile as compile_module
from hbir import save
from hbir import visualize as write_graph
from hbir.errors import ConfigError, HbError
from hbir.module import Module
from hbir.torch import March, get_march, set_march
from hbir.torch.quantization import FakeQuantState, prepare, set_fake_quantize
from hbir.torch.quantization import hbdk4 as hb4
from hbir.torch.quantization.qconfig_template import (
    default_calibration_qconfig_setter,
    default_qat_fixed_act_qconfig_setter,
    default_qat_qconfig_setter,
)
from passes import convert
from tools.examples.qat.common import BinaryModule, HbirModule, Processes, Scores, evaluate
from tools.examples.qat.data import SIZE, Pictures, batches, load_pictures, split
from tools.examples.qat.mobilenet import PRETRAINED, MobileNetV2, QATReadyMobileNetV2, load_pretrain

__all__ = ["STAGES", "get_args", "get_model_fx", "main"]

STAGES = ("float", "calib", "qat", "int_infer", "compile", "visualize")
"""The stages of the script, in their order."""
DEFAULT_EPOCHS = {"float": 10, "qat": 1}
SETTERS = {"fixed": default_qat_fixed_act_qconfig_setter, "moving": default_qat_qconfig_setter}
"""How the scales of activations are trained: as calibrated, which is right where calibration is good, or with their ranges."""
BINARY = "model.hbm"

Optimisation = tuple[torch.optim.Optimizer, Any]


@dataclass(frozen=True)
class Job:
    """What all stages know: the options, the pictures, the device and the processes."""

    args: argparse.Namespace
    train: Pictures
    held_out: Pictures
    test: Pictures
    device: torch.device
    processes: Processes

    @property
    def folder(self) -> Path:
        """Where the stages keep their files."""
        return self.args.model_path

    def checkpoint(self, stage: str) -> Path:
        """The file of a stage's parameters."""
        return self.folder / f"{stage}-checkpoint.ckpt"

    def say(self, text: str) -> None:
        """Print, once for all processes."""
        if self.processes.first:
            print(text, flush=True)

    def evaluate(self, model: nn.Module, pictures: Pictures | None = None) -> Scores:
        """The scores of the test pictures, or of others."""
        return evaluate(model, pictures or self.test, self.args.eval_batch_size, self.device)


def get_model_fx(stage: str, job: Job) -> nn.Module:
    """The model that a stage begins with: float, or prepared and with the parameters of the stages before.

    Raises ConfigError HB0894 when these are not there.
    """
    classes = int(job.train.labels.max()) + 1
    options: dict[str, Any] = {"num_classes": classes, "width_mult": job.args.width}
    if stage == "float":
        float_model = MobileNetV2(**options)
        pretrained = job.args.pretrained or job.folder / PRETRAINED
        if job.args.pretrained or (pretrained.exists() and job.args.width == 1):
            load_pretrain(float_model, pretrained)
        return float_model.to(job.device)

    float_model = QATReadyMobileNetV2(**options).to(job.device)
    float_model.load_state_dict(_load(job, "float"))
    set_march(job.args.march)
    setter = default_calibration_qconfig_setter if stage == "calib" else SETTERS[job.args.scales]
    # The graph is that of evaluation; fusion is a part of `prepare`.
    model = prepare(float_model.eval(), torch.rand(1, 3, SIZE, SIZE, device=job.device), setter)
    if stage == "calib":
        return model
    before = "calib" if stage == "qat" or not job.checkpoint("qat").exists() else "qat"
    model.load_state_dict(_load(job, before))
    return model


def _load(job: Job, stage: str) -> dict[str, Any]:
    path = job.checkpoint(stage)
    if not path.exists():
        raise ConfigError(94, f"{path.name} is not there", where=str(path.parent), lever=f"run --stage {stage} first")
    return torch.load(path, map_location=job.device, weights_only=True)


def get_integers(model: nn.Module, job: Job, batch: int = 1) -> tuple[Module, Module]:
    """The exported module of a prepared model and its integers, for batches of `batch` pictures."""
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    exported = hb4.export(model, torch.rand(batch, 3, SIZE, SIZE, device=job.device))
    return exported, convert(exported, get_march())


def float_optim_config(model: nn.Module, steps: int) -> Optimisation:
    """Adam, with a learning rate that rises and falls over all steps."""
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3, weight_decay=2e-4)
    return optimizer, torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)


def qat_optim_config(model: nn.Module, _steps: int) -> Optimisation:
    """Fine tuning: parameters are to settle on the grids, so that the learning rate is small."""
    return torch.optim.SGD(model.parameters(), lr=1e-4, weight_decay=2e-4), None


def train(model: nn.Module, job: Job, stage: str) -> None:
    """Train a float or a prepared model, and keep the parameters of the best epoch on the held-out pictures.

    Epoch 0 of a prepared model, or when there is no other, is what training begins with.
    """
    epochs = DEFAULT_EPOCHS[stage] if job.args.epoch_num is None else job.args.epoch_num
    ranks = job.processes.ranks
    size = job.args.train_batch_size
    steps = max(1, len(job.train) // ranks // min(size, len(job.train) // ranks))
    # Depthwise convolutions are fastest with the channels last.
    cast(Any, model).to(memory_format=torch.channels_last)
    optimizer, scheduler = (float_optim_config if stage == "float" else qat_optim_config)(model, steps * max(1, epochs))
    together = job.processes.together(model, job.device)
    best = -1.0
    for epoch in range(1 if stage == "float" and epochs else 0, epochs + 1):
        begin = time.monotonic()
        if epoch:
            # The mode is set first, the state of fake quantisation last.
            together.train()
            if stage == "qat":
                set_fake_quantize(model, FakeQuantState.QAT)
            for images, labels in batches(
                *(job.train, size, job.device),
                seed=job.args.seed + epoch,
                rank=job.processes.rank,
                ranks=ranks,
            ):
                loss = nn.functional.cross_entropy(together(images), labels)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 10.0)
                optimizer.step()
                if scheduler is not None:
                    scheduler.step()
        if job.processes.first:
            model.eval()
            if stage == "qat":
                set_fake_quantize(model, FakeQuantState.VALIDATION)
            scores = job.evaluate(model, job.held_out)
            took = time.monotonic() - begin
            job.say(f"{stage.capitalize()} epoch {epoch}: {took:.0f} s, held-out pictures {scores}")
            if scores.accuracy() >= best:
                best = scores.accuracy()
                torch.save(model.state_dict(), job.checkpoint(stage))
    job.processes.wait()


def calibrate(model: nn.Module, job: Job) -> None:
    """Run training pictures through the prepared model, as they are, and save the scales that they give."""
    # In evaluation mode, so that batch norm computes what it will compute; the state comes behind it.
    model.eval()
    set_fake_quantize(model, FakeQuantState.CALIBRATION)
    chosen = job.train.part(0, job.args.calib_pictures)
    with torch.no_grad():
        for images, _ in batches(
            *(chosen, job.args.train_batch_size, job.device), rank=job.processes.rank, ranks=job.processes.ranks
        ):
            model(images)
    model.eval()
    set_fake_quantize(model, FakeQuantState.VALIDATION)
    if job.processes.first:
        torch.save(model.state_dict(), job.checkpoint("calib"))
        job.say(f"Calibration: held-out pictures {job.evaluate(model, job.held_out)}")
    job.processes.wait()


def int_infer(model: nn.Module, job: Job) -> Scores:
    """Evaluate the integers on the test pictures, a whole batch at a time."""
    _, integers = get_integers(model, job, job.args.eval_batch_size)
    scores = job.evaluate(HbirModule(integers))
    job.say(f"Quantized: test pictures {scores}")
    return scores


def save_integers(model: nn.Module, job: Job) -> Module:
    """Write both modules, for single pictures, and hand out the integers."""
    exported, integers = get_integers(model, job)
    save(exported, job.folder / "qat_hbir_model.bc")
    save(integers, job.folder / "quantized_hbir_model.bc")
    return integers


def write_binary(integers: Module, job: Job) -> Hbm:
    """Write the binary, and reports of its estimated speed."""
    path = job.folder / BINARY
    binary = compile_module(integers, path, get_march(), job.args.opt)
    hbm_perf(path, job.folder / "perf")
    job.say(f"{path} for {get_march()}; reports of its speed are in {job.folder / 'perf'}")
    return binary


def visualize(integers: Module, job: Job) -> None:
    """Write the graph of the integers for Netron."""
    job.say(f"{write_graph(integers, job.folder / 'quantized_hbir_model.onnx')} can be opened in Netron")


def run_stage(stage: str, job: Job) -> None:
    """One stage, from the files of those before it to its own."""
    if stage not in ("float", "calib", "qat") and not job.processes.first:
        return
    model = get_model_fx(stage, job)
    if stage in ("float", "qat"):
        train(model, job, stage)
    elif stage == "calib":
        calibrate(model, job)
    else:
        integers = save_integers(model, job)
        if stage == "int_infer":
            int_infer(model, job)
        elif stage == "compile":
            write_binary(integers, job)
        else:
            visualize(integers, job)


def run_all(job: Job) -> list[tuple[str, Scores]]:
    """All stages, and the scores of the test pictures of each model; the binary's of the first `--binary-pictures`."""
    for stage in ("float", "calib", "qat"):
        run_stage(stage, job)
    if not job.processes.first:
        return []
    found: list[tuple[str, Scores]] = []
    float_model = get_model_fx("float", job)
    float_model.load_state_dict(_load(job, "float"))
    found.append(("float", job.evaluate(float_model.eval())))
    for name, stage in (("calibrated", "qat"), ("qat", "int_infer")):
        model = get_model_fx(stage, job)
        model.eval()
        set_fake_quantize(model, FakeQuantState.VALIDATION)
        found.append((name, job.evaluate(model)))
    model = get_model_fx("compile", job)
    found.append(("integers", int_infer(model, job)))
    integers = save_integers(model, job)
    binary = write_binary(integers, job)
    visualize(integers, job)
    found.append(("binary", job.evaluate(BinaryModule(binary[0]), job.test.part(0, job.args.binary_pictures))))
    return found


def table(found: Sequence[tuple[str, Scores]]) -> str:
    """The accuracies, each with its distance to the float model's, and how many pictures have the scores of the qat model."""
    scores = dict(found)
    lines = [f"{'model':12}{'pictures':>10}{'Acc@1':>9}{'to float':>10}  equal to qat, bit for bit"]
    for name, each in found:
        count = len(each.labels)
        first = Scores(scores["float"].values[:count], each.labels)
        line = f"{name:12}{count:>10}{each.accuracy():>9.2f}{each.accuracy() - first.accuracy():>+10.2f}"
        if name in ("integers", "binary"):
            line += f"  {each.same(scores['qat'])} of {count}"
        lines.append(line)
    return "\n".join(lines)


def get_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        "fx_mode", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add: Callable[..., Any] = parser.add_argument
    add("--stage", choices=(*STAGES, "all"), default="all", help="what to do (default: all)")
    add("--data-path", type=Path, default=Path("data"), help="holds cifar-10-batches-py, or Fashion-MNIST's files")
    add("--model-path", type=Path, default=Path("model/mobilenetv2"), help="where stages leave their files")
    add("--train-batch-size", type=_count, default=128, help="pictures a step (default: 128)")
    add("--eval-batch-size", type=_count, default=256, help="pictures at once in evaluation (default: 256)")
    add("--epoch-num", type=int, help=f"epochs (default: {DEFAULT_EPOCHS}); 0 evaluates")
    add("--device-id", type=int, default=0 if torch.cuda.is_available() else -1, help="CUDA device; -1 is the CPU")
    add("--opt", type=int, default=0, choices=(0, 1, 2), help="how hard the compiler searches (default: 0)")
    add("--march", choices=[each.value for each in March], default=March.NASH_E.value, help="default: nash-e")
    add("--width", type=float, default=0.5, help="width of the network (default: 0.5)")
    add("--pretrained", type=Path, help=f"ImageNet weights, for --width 1 (default: {PRETRAINED} in the model path)")
    add("--pictures", type=_count, help="train on so many pictures alone (default: all)")
    add("--calib-pictures", type=_count, default=2048, help="pictures of the calibration (default: 2048)")
    add("--test-pictures", type=_count, help="evaluate on so many test pictures (default: all)")
    add("--binary-pictures", type=_count, help="of these, so many run on the simulator (default: all)")
    add(
        "--scales",
        choices=SETTERS,
        default="fixed",
        help="of activations in QAT: as calibrated (default), or moving on",
    )
    add("--seed", type=int, default=0, help="of the first parameters, and of the order of pictures")
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is no count")
    return number


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 when it worked, 1 with a message when it did not."""
    args = get_args(arguments)
    device = torch.device("cpu" if args.device_id < 0 else f"cuda:{args.device_id}")
    begin = time.monotonic()
    try:
        name, train_pictures, test = load_pictures(args.data_path)
        args.model_path.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(args.seed)
        first, held_out = split(train_pictures.part(0, args.pictures))
        job = Job(args, first, held_out, test.part(0, args.test_pictures), device, Processes.join(device))
        job.say(f"{name}: {len(first)} pictures to train, {len(held_out)} to choose by, {len(job.test)} to test")
        if args.stage != "all":
            run_stage(args.stage, job)
        elif found := run_all(job):
            print(f"\n{table(found)}\n{time.monotonic() - begin:.0f} s")
        job.processes.leave()
    except HbError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
