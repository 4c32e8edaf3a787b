"""Observers of several processes: all have the same scales, those of one process that sees everything."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from hbir.errors import TrainingError
from hbir.torch.fake_quant.fake_quantize import FakeQuantize, FakeQuantState, set_fake_quantize
from hbir.torch.fake_quant.histograms import MSEObserver
from hbir.torch.fake_quant.observers import MinMaxObserver, MovingAverageMinMaxObserver

RANKS = 2
CALIBRATED, TRAINED = FakeQuantState.CALIBRATION, FakeQuantState.QAT


def fakes() -> list[FakeQuantize]:
    kinds = [MinMaxObserver, MovingAverageMinMaxObserver, MSEObserver]
    return [*(FakeQuantize(kind) for kind in kinds), FakeQuantize(MinMaxObserver, axis=0, channels=3)]


def batch(rank: int, step: int) -> torch.Tensor:
    x = torch.randn(3, 40, generator=torch.Generator().manual_seed(10 * rank + step)) * (1 + rank * 5)
    return x * 0 if (rank, step) == (1, 0) else x


def scales(several: list[FakeQuantize], inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for state in (CALIBRATED, TRAINED):
        for fake in several:
            set_fake_quantize(fake, state)
            for x in inputs:
                fake(x)
            found.append(fake.scale.clone())
    return found


def other(_: int, folder: str) -> None:
    torch.set_num_threads(1)
    work(1, folder)


def work(rank: int, folder: str) -> None:
    wait = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS, timeout=wait)
    found = scales(fakes(), [batch(rank, step) for step in range(3)])
    refused = FakeQuantize(MinMaxObserver)
    set_fake_quantize(refused, CALIBRATED)
    try:
        refused(torch.tensor([1.0, float("nan") if rank == 1 else 2.0]))
        code = ""
    except TrainingError as error:
        code = error.code
    torch.save((found, code), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_all_processes_have_the_scales_of_one(tmp_path: Path) -> None:
    # This process is the first.
    beside = mp.spawn(other, (str(tmp_path),), nprocs=RANKS - 1, join=False)
    work(0, str(tmp_path))
    assert beside.join()
    (first, one), (second, two) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(RANKS))
    alone = scales(fakes(), [torch.cat([batch(rank, step) for rank in range(RANKS)], dim=1) for step in range(3)])
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(first, second, alone, strict=True))
    # NaN in one process is found by all, so that none waits for another.
    assert (one, two) == ("HB0940", "HB0940")


def test_a_process_alone_waits_for_nobody() -> None:
    assert not dist.is_initialized()
    assert scales(fakes(), [batch(0, 0)])[0] == pytest.approx(float(batch(0, 0).abs().max()) / 127, rel=2**-22)
