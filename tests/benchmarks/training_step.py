"""Paired measurement of a training step: float, this project's QAT and torch.ao's FX QAT of one network, in turns, as ratios.

Run `python -m tests.benchmarks.training_step`. torch.ao has two mappings: `x86`, its default here, and `qnnpack`, both with
their observers and fake quants as published. Processor time of the process, so that a busy machine counts little; the median of
the rounds. Nothing here passes or fails; the target is 1.6 times torch.ao.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.ao.quantization import get_default_qat_qconfig_mapping
from torch.ao.quantization.quantize_fx import prepare_qat_fx

from hbir.torch import March, set_march
from hbir.torch.quantization import FakeQuantState, prepare, set_fake_quantize
from tests.benchmarks.__main__ import conditions
from tools.examples.qat.mobilenet import MobileNetV2, QATReadyMobileNetV2

SHAPES = ((16, 32), (16, 96), (2, 224))
"""Pictures in a batch, and their height and width."""


def steps(size: int, batch: int, width: float) -> dict[str, Callable[[], None]]:
    """One training step of each, ready to run."""
    x = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
    set_march(March.NASH_E)
    own = prepare(QATReadyMobileNetV2(10, width).eval(), x[:1])
    own.train()
    set_fake_quantize(own, FakeQuantState.QAT)
    models: dict[str, nn.Module] = {"float": MobileNetV2(10, width).train(), "hbir": own}
    for backend in ("x86", "qnnpack"):
        mapping = get_default_qat_qconfig_mapping(backend)
        models[f"ao {backend}"] = prepare_qat_fx(MobileNetV2(10, width).train(), mapping, (x[:1],))
    return {name: _step(model, x) for name, model in models.items()}


def _step(model: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 1e-4)

    def run() -> None:
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()

    return run


def measure(size: int, batch: int, width: float, rounds: int) -> dict[str, float]:
    """Milliseconds of a step of each."""
    ready = steps(size, batch, width)
    found: dict[str, list[float]] = {name: [] for name in ready}
    for number in range(rounds + 2):
        for name, run in ready.items():
            begin = time.process_time()
            run()
            if number >= 2:  # the first ones allocate
                found[name].append(1000 * (time.process_time() - begin))
    return {name: statistics.median(values) for name, values in found.items()}


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--width", type=float, default=1.0, help="width of the MobileNetV2")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    rows: list[dict[str, Any]] = []
    for batch, size in SHAPES:
        found = measure(size, batch, args.width, args.rounds)
        rows.append({"input": f"{batch}x3x{size}x{size}", **{name: round(value, 1) for name, value in found.items()}})
    about = {**conditions(), "torch": torch.__version__, "threads": args.threads, "width": args.width}
    if args.json:
        print(json.dumps({"conditions": about, "rows": rows}, indent=2))
        return
    names = [name for name in rows[0] if name != "input"]
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"{'ms a step':>14s}"
        + "".join(f"{name:>12s}" for name in names)
        + f"{'/ x86':>8s}{'/ qnnp.':>8s}{'/ float':>8s}"
    )
    for row in rows:
        ratios = [row["hbir"] / row[name] for name in ("ao x86", "ao qnnpack", "float")]
        print(f"{row['input']:>14s}" + "".join(f"{row[n]:12.1f}" for n in names) + "".join(f"{r:8.2f}" for r in ratios))


if __name__ == "__main__":
    main()
