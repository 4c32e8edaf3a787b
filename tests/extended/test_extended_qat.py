"""Training in two processes by `torchrun`: one model, and observers that saw what both saw."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.examples.test_qat import FEW, ROOT, SHORT, write_fashion_mnist
from tools.examples.qat import fx_mode, mobilenet

TWO = """
import sys, torch, torch.distributed
from torch.optim import SGD
from tools.examples.qat import fx_mode, mobilenet
mobilenet._STAGES = ((1, 8, 1, 1), (3, 8, 2, 2))
torch.set_num_threads(1)
scales = []
def keep(model, job, stage):
    train(model, job, stage)
    scales.append(torch.cat([value.reshape(-1) for key, value in model.state_dict().items() if key.endswith("scale")]))
    scales.append(torch.cat([value.reshape(-1) for value in model.parameters()]))
train, fx_mode.train = fx_mode.train, keep
stages, leave = sys.argv[1].split(","), fx_mode.Processes.leave
fx_mode.Processes.leave = lambda self: None
for stage in stages:
    code = fx_mode.main(["--stage", stage, *sys.argv[2:]])
    assert code == 0
for mine in scales:
    all_of_them = [torch.empty_like(mine) for _ in range(2)]
    torch.distributed.all_gather(all_of_them, mine)
    assert len(mine) > 50 and (all_of_them[0] == all_of_them[1]).all()
if torch.distributed.get_rank() == 0:
    print("the same", len(scales))
torch.distributed.destroy_process_group()
"""


def test_two_processes_train_one_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mobilenet, "_STAGES", SHORT)
    folder, model_path = write_fashion_mnist(tmp_path / "f"), tmp_path / "model"
    options = ["--data-path", str(folder), "--model-path", str(model_path), *FEW, "--scales", "moving"]
    assert fx_mode.main(["--stage", "float", *options, "--epoch-num", "8"]) == 0
    script = tmp_path / "two.py"
    script.write_text(TWO, encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(script),
        "calib,qat",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        [*command, *options], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "the same 2" in result.stdout and result.stdout.count("Qat epoch 0") == 1
