"""Operations that move values: no number changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from tests.hbir.torch.operations.runs import exact

Y = exact(2, 4, 6, 8)
FORMS: dict[str, Callable[..., Any]] = {
    "flatten": lambda v: torch.flatten(v, 1),
    "flatten method": lambda v: v.flatten(2),
    "view": lambda v: v.view(v.size(0), -1),
    "view of a list": lambda v: v.view([2, 4, 48]),
    "view_as": lambda v: v.view_as(v.flatten(1).view(2, 24, 8)),
    "reshape": lambda v: v.reshape(2, v.shape[1], 48),
    "reshape keyword": lambda v: torch.reshape(v, shape=(8, -1)),
    "squeeze": lambda v: v[:, :1].squeeze(1),
    "squeeze all": lambda v: v[:, :1].squeeze(),
    "unsqueeze": lambda v: torch.unsqueeze(v, -1),
    "unflatten": lambda v: v.unflatten(1, (2, 2)),
    "permute": lambda v: v.permute(0, 2, 3, 1),
    "permute function": lambda v: torch.permute(v, (0, -1, 1, 2)),
    "permute keyword": lambda v: v.permute(dims=(3, 2, 1, 0)),
    "transpose": lambda v: v.transpose(1, -1),
    "swapaxes": lambda v: v.swapaxes(0, 1),
    "T": lambda v: v[0, 0].T,
    "mT": lambda v: v.mT,
    "t": lambda v: v[0, 0].t(),
    "movedim": lambda v: v.movedim(1, -1),
    "movedim of several": lambda v: torch.movedim(v, (0, 1), (-1, 0)),
    "chunk": lambda v: v.chunk(2, 1),
    "chunk uneven": lambda v: v.chunk(4, 2),
    "split": lambda v: v.split(3, 1),
    "split sizes": lambda v: torch.split(v, [1, 3], dim=1),
    "tensor_split": lambda v: torch.tensor_split(v, 3, 2),
    "unbind": lambda v: v.unbind(1),
    "iteration": lambda v: list(v),
    "unpacking": lambda v: (lambda a, b: (b, a))(*v),
    "cat": lambda v: torch.cat([v, v * 2], 1),
    "cat with a constant": lambda v: torch.cat((Y, v), dim=-1),
    "cat axis": lambda v: torch.cat([v, v], axis=1),
    "concat": lambda v: torch.concat([v, v], 0),
    "stack": lambda v: torch.stack([v, v + 1], 1),
    "stack last": lambda v: torch.stack([v, v], -1),
    "expand": lambda v: v[:, :1].expand(-1, 4, -1, -1),
    "expand with a new axis": lambda v: v.expand(3, 2, 4, 6, 8),
    "expand_as": lambda v: v[:1].expand_as(v),
    "broadcast_to": lambda v: torch.broadcast_to(v[:, :1], (2, 3, 6, 8)),
    "repeat": lambda v: v.repeat(1, 2, 1, 1),
    "repeat with a new axis": lambda v: v.repeat(3, 1, 2, 1, 1),
    "tile": lambda v: torch.tile(v, (2, 1)),
    "repeat_interleave": lambda v: v.repeat_interleave(2, 1),
    "repeat_interleave flat": lambda v: torch.repeat_interleave(v, 3),
    "flip": lambda v: v.flip(-1),
    "flip of two": lambda v: torch.flip(v, [1, 2]),
    "roll": lambda v: torch.roll(v, shifts=(-1, 2), dims=(2, 3)),
    "roll flat": lambda v: v.roll(5),
    "pad": lambda v: F.pad(v, (1, 2)),
    "pad crop": lambda v: F.pad(v, (1, 0, -1, 2)),
    "pad with a number": lambda v: F.pad(v, (1, 2, 0, 1), value=3.0),
    "pad reflect": lambda v: F.pad(v, (1, 1, 2, 0), mode="reflect"),
    "pad replicate": lambda v: F.pad(v, (1, 2, 0, 3), mode="replicate"),
    "pad circular": lambda v: F.pad(v, (1, 2, 0, 1), mode="circular"),
    "pixel_shuffle": lambda v: F.pixel_shuffle(v, 2),
    "pixel_unshuffle": lambda v: F.pixel_unshuffle(v, 2),
    "channel_shuffle": lambda v: F.channel_shuffle(v, 2),
    "channel shuffle by hand": lambda v: v.view(2, 2, 2, 6, 8).transpose(1, 2).contiguous().view(2, 4, 6, 8),
    "focus": lambda v: torch.cat([v[..., ::2, ::2], v[..., 1::2, ::2], v[..., ::2, 1::2], v[..., 1::2, 1::2]], 1),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms(name: str, same: Callable[..., Any]) -> None:
    # Constants and values lie on grids that hold them: nothing is rounded, except a sum and a product by a power of two.
    run = same(FORMS[name], Y.roll(7))
    assert all((got == expected).all() for got, expected in zip(run.got, run.expected, strict=True))


def test_refused(same: Callable[..., Any], x: torch.Tensor) -> None:
    with pytest.raises(TrainingError, match=r"HB0953.*-?inf"):
        same(lambda v: F.pad(v, (1, 1), value=float("-inf")), x)
    with pytest.raises(TrainingError, match=r"HB0920.*test_movement\.py:\d+"):
        same(lambda v: v.view(torch.float32), x)


def test_names_are_those_of_modules(same: Callable[..., Any], x: torch.Tensor) -> None:
    calls = same(nn.Sequential(nn.PixelShuffle(2), nn.ReLU()), x).calls
    assert [call.name for call in calls] == ["quants.0", "body.0", "body.1", "dequants.0"]
