"""Takes the mean error of rounded inputs and weights out of each convolution's bias, which costs nothing at run time.

A grid rounds some values one way only: where its step is wide, all the small negative results of a swish become 0, and every
channel of the next convolution is off by the sum of what was lost. Only the error of a layer's own operands is corrected.
The error that has piled up before it is not: its mean is that of the background, and objects would pay for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import f32
from xdsl.ir import Block

from hbir.dialects.hbir import Conv2dOp, LinearOp, constant
from hbir.dialects.qat import FakeQuantOp, fake_quantize
from hbir.ir.constants import ConstantStore
from hbir.module import Module
from passes.common.analysis import grid_sources
from passes.common.rewriting import blocks, constant_of, insert_before
from passes.manager import Pass, Promise

__all__ = ["CorrectBias", "InputSamples", "weighted_ops"]

Floats = npt.NDArray[np.float32]

POSITIONS = 64
"""Positions that are kept of each input of a convolution for each calibration sample."""

MOST_SAMPLES = 64
"""Calibration samples after which no more positions are kept: 4096 values of a channel fix its mean error well enough."""

_GOLDEN, _SILVER = (5**0.5 - 1) / 2, 2**0.5 - 1


def weighted_ops(block: Block) -> Iterator[Conv2dOp | LinearOp]:
    """The convolutions and linear layers of a block, in order."""
    for op in block.ops:
        if isinstance(op, Conv2dOp | LinearOp):
            yield op


@dataclass
class InputSamples:
    """Values of a tensor [..., channels] at a few positions of each sample."""

    kept: list[Floats] = field(default_factory=list[Floats])

    def add(self, x: npt.NDArray[Any]) -> None:
        """Keep `POSITIONS` positions of a sample. They are spread without rows or columns in common and do not depend on
        the values, so that the same data gives the same bias everywhere."""
        if len(self.kept) >= MOST_SAMPLES or not x.size:
            return
        rows = x.reshape(-1, x.shape[-1])
        if len(rows) > POSITIONS:
            # Multiples of the golden ratio fill an interval evenly; each sample starts elsewhere.
            places = (np.arange(POSITIONS) * _GOLDEN + len(self.kept) * _SILVER) % 1.0
            rows = rows[(places * len(rows)).astype(np.int64)]
        self.kept.append(np.array(rows, np.float32))

    @property
    def values(self) -> Floats:
        """float32 [positions, channels]."""
        return np.concatenate(self.kept)


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Add to each bias the mean of `conv(x, w) - conv(quantised x, quantised w)` over the kept positions of its input.

    `samples` maps (function, number of the convolution or linear layer among them) to values of its float input; layers
    without samples, without a constant bias or without one grid at their input stay as they are. The mean is taken channel by
    channel, as if no position were padding (Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
    Correction", section 4.2, with measured means).
    """

    name: ClassVar[str] = "correct-bias"
    promise: ClassVar[Promise] = Promise.NUMERIC

    samples: Mapping[tuple[str, int], InputSamples] = field(
        default_factory=dict[tuple[str, int], InputSamples], repr=False
    )

    def run(self, module: Module) -> None:
        for function, block in blocks(module):
            for number, op in enumerate(list(weighted_ops(block))):
                kept = self.samples.get((function.name, number))
                if kept is not None and kept.kept:
                    _correct(op, kept.values, module.constants)


def _correct(op: Conv2dOp | LinearOp, x: Floats, store: ConstantStore) -> None:
    bias = None if op.bias is None else constant_of(op.bias, store)
    weight_quant, sources = op.weight.owner, grid_sources(op.input)
    if bias is None or op.bias is None or not isinstance(weight_quant, FakeQuantOp) or not sources:
        return
    weight = constant_of(weight_quant.input, store)
    if weight is None or any(source.grid != sources[0].grid for source in sources):
        return
    rounded_weight = fake_quantize(weight, weight_quant.grid)
    before, after = (v.mean(axis=0, dtype=np.float64) for v in (x, fake_quantize(x, sources[0].grid)))
    groups = op.values["groups"] if isinstance(op, Conv2dOp) else 1
    error = _response(rounded_weight, after, groups) - _response(weight, before, groups)
    corrected = (bias.astype(np.float64) - error).astype(np.float32)
    operand = list(op.operands).index(op.bias)
    op.operands[operand] = insert_before(op, constant(corrected, store, f32, op.location), [op]).results[0]


def _response(weight: Floats, mean: npt.NDArray[np.float64], groups: int) -> npt.NDArray[np.float64]:
    """What a layer makes of an input that has the same value for each channel at all positions."""
    taps = weight.reshape(weight.shape[0], -1, weight.shape[-1]).sum(axis=1, dtype=np.float64)
    inputs = mean.reshape(groups, -1)
    return (taps.reshape(groups, -1, taps.shape[-1]) * inputs[:, None, :]).sum(axis=2).reshape(-1)
