"""What the stages share: evaluation, processes of a distributed training, and modules of integers called like models."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from backends import HbmFunction
from hbir.module import Module
from hbir.torch.quantization import hbdk4 as hb4
from tools.examples.qat.data import Pictures, batches

__all__ = ["BinaryModule", "HbirModule", "Processes", "Scores", "evaluate"]

_distributed: Any = torch.distributed


@dataclass(frozen=True)
class Processes:
    """The processes that train together: one, or those that `torchrun` started."""

    rank: int = 0
    ranks: int = 1

    @staticmethod
    def join(device: torch.device) -> Processes:
        """This process among those of `torchrun`, which tells it by environment variables."""
        if "RANK" not in os.environ:
            return Processes()
        if not _distributed.is_initialized():
            _distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Processes(_distributed.get_rank(), _distributed.get_world_size())

    @property
    def first(self) -> bool:
        """Whether this is the process that evaluates, saves and prints."""
        return self.rank == 0

    def together(self, model: nn.Module, device: torch.device) -> nn.Module:
        """The model whose gradients are those of all processes."""
        if self.ranks == 1:
            return model
        return DistributedDataParallel(model, [device.index] if device.type == "cuda" else None)

    def wait(self) -> None:
        """Until all processes are here: files that the first one writes are there then."""
        if self.ranks > 1:
            _distributed.barrier()

    def leave(self) -> None:
        """The end of the training."""
        if self.ranks > 1:
            _distributed.destroy_process_group()


@dataclass(frozen=True)
class Scores:
    """What a model gives for pictures, float32 (N, classes), and the right classes."""

    values: torch.Tensor
    labels: torch.Tensor

    def accuracy(self, k: int = 1) -> float:
        """The share of pictures, in percent, whose class is among the `k` highest scores."""
        best = self.values.topk(min(k, self.values.shape[1]), 1).indices
        return 100 * float((best == self.labels[:, None]).any(1).float().mean())

    def same(self, other: Scores) -> int:
        """For how many pictures all scores are those of `other`, bit for bit; of the first ones, where it has fewer."""
        count = min(len(self.values), len(other.values))
        return int((self.values[:count] == other.values[:count]).all(1).sum())

    def __str__(self) -> str:
        return f"Acc@1 {self.accuracy():.3f} Acc@5 {self.accuracy(5):.3f}"


def evaluate(model: Callable[[torch.Tensor], Any], pictures: Pictures, size: int, device: torch.device) -> Scores:
    """The scores of all pictures, `size` at a time."""
    with torch.no_grad():
        found = [cast(torch.Tensor, model(images)).cpu() for images, _ in batches(pictures, size, device)]
    return Scores(torch.cat(found), pictures.labels)


def _in_batches(run: Callable[[torch.Tensor], torch.Tensor], size: int, x: torch.Tensor) -> torch.Tensor:
    """`run`, which takes exactly `size` pictures, on any number of them: zeros fill the last batch up."""
    results: list[torch.Tensor] = []
    for first in range(0, len(x), size):
        part = x[first : first + size]
        filled = torch.cat([part, part.new_zeros(size - len(part), *part.shape[1:])])
        results.append(run(filled.contiguous())[: len(part)])
    return torch.cat(results)


class HbirModule(nn.Module):
    """A module of hbir called like the model it was exported from: a batch of pictures of any size, in float32."""

    def __init__(self, hbir_module: Module) -> None:
        super().__init__()
        self.hbir_module = hbir_module
        self.size = hbir_module[0].flatten_inputs[0].type.shape[0]
        self.input_flattener = hb4.get_hbir_input_flattener(hbir_module)
        self.output_unflattener = hb4.get_hbir_output_unflattener(hbir_module)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 pictures (N, 3, H, W) to scores (N, classes)."""
        return _in_batches(self._whole, self.size, x.cpu())

    def _whole(self, x: torch.Tensor) -> torch.Tensor:
        flat: Sequence[torch.Tensor] = self.input_flattener(x)
        return self.output_unflattener(self.hbir_module[0](*(np.asarray(each) for each in flat)))


class BinaryModule(nn.Module):
    """A model of a binary on the simulator, called the same way."""

    def __init__(self, function: HbmFunction) -> None:
        super().__init__()
        self.function = function
        self.size = function.flatten_inputs[0].shape[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Float32 pictures (N, 3, H, W) to scores (N, classes)."""
        return _in_batches(lambda part: torch.from_numpy(self.function(np.asarray(part))[0]), self.size, x.cpu())
