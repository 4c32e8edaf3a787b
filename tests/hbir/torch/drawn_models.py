"""Small PyTorch models for hypothesis: layers, pools, sums, concatenations and activations in any order, int8 and int16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import nn

from hbir.torch.quantization import DeQuantStub, QuantStub

__all__ = ["Drawn", "drawn_models"]

ACTIVATIONS: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    *(F.relu, F.relu6, torch.sigmoid, torch.tanh, F.silu, F.hardswish),
    *(F.gelu, lambda x: F.leaky_relu(x, 0.1), lambda x: torch.clamp(x, -0.7, 0.9)),
)


@dataclass
class Step:
    """A step of the forward pass: what it reads (numbers of values, the input is 0), and what it does with them."""

    reads: tuple[int, ...]
    run: Callable[..., torch.Tensor]


class Drawn(nn.Module):
    """A model of steps; every value that nothing reads leaves through a DeQuantStub."""

    def __init__(self, shape: tuple[int, ...], steps: list[Step], modules: dict[str, nn.Module], scale: float | None):
        super().__init__()
        self.shape, self.steps = shape, steps
        for name, module in modules.items():
            self.add_module(name, module)
        self.quant, self.dequant = QuantStub(scale=scale), DeQuantStub()
        read = {number for step in steps for number in step.reads}
        self.outputs = [number for number in range(1, len(steps) + 1) if number not in read] or [len(steps)]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        values = [self.quant(x)]
        for step in self.steps:
            values.append(step.run(self, *(values[number] for number in step.reads)))
        return tuple(self.dequant(values[number]) for number in self.outputs)


class _Builder:
    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw, self.steps, self.modules = draw, list[Step](), dict[str, nn.Module]()
        self.shapes: list[tuple[int, ...]] = []

    def integer(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, rank: int | None = None) -> int | None:
        found = [n for n, shape in enumerate(self.shapes) if rank is None or len(shape) == rank]
        return found[-1 - min(self.integer(0, 2), len(found) - 1)] if found else None

    def add(self, reads: tuple[int, ...], run: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> None:
        self.steps.append(Step(reads, run))
        self.shapes.append(shape)

    def module(self, module: nn.Module) -> str:
        name = f"m{len(self.modules)}"
        self.modules[name] = module
        return name


def _conv(b: _Builder) -> None:
    x = b.pick(4)
    if x is None:
        return
    n, c, h, w = b.shapes[x]
    kernel, stride = min(b.integer(1, 3), h, w), b.integer(1, 2)
    groups = c if b.integer(0, 3) == 3 else 1
    cout = groups * b.integer(1, 3)
    conv = nn.Conv2d(c, cout, kernel, stride, b.integer(0, kernel - 1), groups=groups, bias=bool(b.integer(0, 1)))
    layers: list[nn.Module] = [conv]
    if b.integer(0, 1):
        norm = nn.BatchNorm2d(cout)
        norm.running_mean.uniform_(-0.5, 0.5)
        norm.running_var.uniform_(0.3, 2.0)
        nn.init.uniform_(norm.weight, -1.5, 1.5)
        layers.append(norm)
    if b.integer(0, 1):
        layers.append(nn.ReLU(inplace=True))
    name = b.module(nn.Sequential(*layers))
    side = [(extent + 2 * conv.padding[0] - kernel) // stride + 1 for extent in (h, w)]
    b.add((x,), lambda model, v: model.get_submodule(name)(v), (n, cout, *side))


def _transposed(b: _Builder) -> None:
    x = b.pick(4)
    if x is None or max(b.shapes[x]) > 10:
        return
    n, c, h, w = b.shapes[x]
    cout, kernel = b.integer(1, 3), b.integer(2, 3)
    name = b.module(nn.ConvTranspose2d(c, cout, kernel, 2))
    b.add((x,), lambda model, v: model.get_submodule(name)(v), (n, cout, 2 * (h - 1) + kernel, 2 * (w - 1) + kernel))


def _linear(b: _Builder) -> None:
    x = b.pick()
    assert x is not None
    shape, outputs = b.shapes[x], b.integer(1, 5)
    name = b.module(nn.Linear(shape[-1], outputs, bias=bool(b.integer(0, 1))))
    b.add((x,), lambda model, v: model.get_submodule(name)(v), (*shape[:-1], outputs))


def _pool(b: _Builder) -> None:
    x = b.pick(4)
    if x is None or min(b.shapes[x][2:]) < 2:
        return
    n, c, h, w = b.shapes[x]
    kind: Any = (F.max_pool2d, F.avg_pool2d)[b.integer(0, 1)]
    if not b.integer(0, 3):
        b.add((x,), lambda _, v: F.adaptive_avg_pool2d(v, 1), (n, c, 1, 1))
        return
    b.add((x,), lambda _, v: kind(v, 2, 2), (n, c, h // 2, w // 2))


def _sum(b: _Builder) -> None:
    x = b.pick()
    assert x is not None
    same = [number for number, shape in enumerate(b.shapes) if shape == b.shapes[x]]
    y = same[b.integer(0, len(same) - 1)]
    kind: Any = (torch.add, torch.mul, torch.sub)[b.integer(0, 2)]
    b.add((x, y), lambda _, v, w: kind(v, w), b.shapes[x])


def _cat(b: _Builder) -> None:
    x = b.pick()
    assert x is not None
    same = [number for number, shape in enumerate(b.shapes) if shape == b.shapes[x]]
    y = same[b.integer(0, len(same) - 1)]
    shape = list(b.shapes[x])
    shape[1] *= 2
    b.add((x, y), lambda _, v, w: torch.cat([v, w], 1), tuple(shape))


def _activation(b: _Builder) -> None:
    x = b.pick()
    assert x is not None
    function = ACTIVATIONS[b.integer(0, len(ACTIVATIONS) - 1)]
    b.add((x,), lambda _, v: function(v), b.shapes[x])


def _move(b: _Builder) -> None:
    x = b.pick()
    assert x is not None
    shape = b.shapes[x]
    if len(shape) == 4 and b.integer(0, 1):
        b.add((x,), lambda _, v: v.permute(0, 2, 3, 1), (shape[0], *shape[2:], shape[1]))
    else:
        b.add((x,), lambda _, v: torch.flatten(v, 1), (shape[0], int(torch.tensor(shape[1:]).prod())))


STEPS = (_conv, _conv, _conv, _activation, _sum, _cat, _linear, _pool, _transposed, _move)


@st.composite
def drawn_models(draw: st.DrawFn, most: int = 6) -> Drawn:
    """A model of one to `most` steps with weights from a drawn seed, in evaluation mode."""
    torch.manual_seed(draw(st.integers(0, 999)))
    b = _Builder(draw)
    shape = (draw(st.integers(1, 2)), draw(st.integers(1, 4)), draw(st.integers(2, 7)), draw(st.integers(2, 7)))
    b.shapes.append(shape)
    for _ in range(draw(st.integers(1, most))):
        draw(st.sampled_from(STEPS))(b)
    if not b.steps:
        _activation(b)
    return Drawn(shape, b.steps, b.modules, draw(st.sampled_from((None, 1 / 128)))).eval()
