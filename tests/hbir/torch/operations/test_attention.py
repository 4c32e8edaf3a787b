"""Attention and transformers as composites."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hbir.errors import TrainingError
from hbir.torch import set_march
from hbir.torch.fake_quant.notices import TrainingWarning
from hbir.torch.quantization import DeQuantStub, QuantStub, prepare


class Attention(nn.Module):
    """Attention of one, or of three operands."""

    def __init__(self, options: dict[str, Any], call: dict[str, Any]) -> None:
        super().__init__()
        self.layer, self.call = nn.MultiheadAttention(16, 4, **options), call

    def forward(self, *operands: Any) -> Any:
        return self.layer(*(operands if len(operands) == 3 else operands * 3), **self.call)


HIDDEN = torch.triu(torch.ones(5, 5), 1).bool()
PADDING = torch.tensor([[False, False, False, False, True], [False] * 5])
LAYERS: dict[str, tuple[dict[str, Any], dict[str, Any], list[tuple[int, ...]]]] = {
    "plain": ({}, {}, [(5, 2, 16)]),
    "batch first": ({"batch_first": True}, {"need_weights": False}, [(2, 5, 16)]),
    "other widths": ({"kdim": 6, "vdim": 8}, {}, [(5, 2, 16), (7, 2, 6), (7, 2, 8)]),
    "unbatched": ({}, {}, [(5, 16)]),
    "no bias": ({"bias": False}, {"average_attn_weights": False}, [(5, 2, 16)]),
    "masks": ({}, {"attn_mask": HIDDEN, "key_padding_mask": PADDING}, [(5, 2, 16)]),
    "float mask": ({}, {"attn_mask": nn.Transformer.generate_square_subsequent_mask(5)}, [(5, 2, 16)]),
    "mask of heads": ({}, {"attn_mask": HIDDEN.expand(8, 5, 5)}, [(5, 2, 16)]),
}
# A mask is a constant of sixteen bits that reaches to -64, held exactly; zero stays zero.


@pytest.mark.parametrize("name", LAYERS)
def test_multihead_attention(name: str, same: Callable[..., Any]) -> None:
    options, call, shapes = LAYERS[name]
    run = same(Attention(options, call), *map(torch.randn, shapes))
    assert run.kinds.count("softmax") == 1 and run.kinds.count("linear") == 4


def test_scaled_dot_product_attention(same: Callable[..., Any]) -> None:
    q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8), torch.randn(2, 4, 5, 8)
    mask = torch.rand(5, 5) > 0.3
    mask[:, 0] = True
    attend = F.scaled_dot_product_attention
    same(attend, q, k, v)
    same(lambda *o: attend(*o, is_causal=True), q, k, v)
    same(lambda *o: attend(*o, attn_mask=mask), q, k, v)
    same(lambda *o: attend(*o, enable_gqa=True, scale=0.2), q, k[:, :2], v[:, :2])


def test_refused(same: Callable[..., Any]) -> None:
    for option in ("add_bias_kv", "add_zero_attn"):
        with pytest.raises(TrainingError, match=r"HB0953 at layer 'body\.layer'"):
            same(Attention({option: True}, {}), torch.randn(5, 2, 16))


def test_transformers(same: Callable[..., Any]) -> None:
    # Layer norms divide by standard deviations: what is rounded in front of them counts for more behind, layer by layer.
    encoder = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    same(nn.TransformerEncoder(encoder, 2, nn.LayerNorm(16)).eval(), torch.randn(2, 5, 16), terms=1024)
    gelu = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", norm_first=True)
    same(gelu.eval(), torch.randn(5, 2, 16), terms=1024)
    decoder = nn.TransformerDecoderLayer(16, 4, 32, batch_first=True)
    same(nn.TransformerDecoder(decoder, 1).eval(), torch.randn(2, 5, 16), torch.randn(2, 7, 16), terms=1024)


class Masked(nn.Module):
    """Attention by hand; `hide` takes the scores."""

    def __init__(self, hide: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.quant, self.dequant, self.linear, self.hide = QuantStub(), DeQuantStub(), nn.Linear(8, 8), hide

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.linear(self.quant(x))
        scores = self.hide(y @ y.transpose(-2, -1))
        return self.dequant(torch.softmax(scores, -1) @ y)


def additive(number: float) -> torch.Tensor:
    return torch.zeros(5, 5).masked_fill(HIDDEN, number)


@pytest.mark.parametrize(
    "hide",
    [
        lambda scores: scores + additive(-1e4),
        lambda scores: additive(-1e9) + scores,
        lambda scores: torch.add(scores, additive(-500), alpha=2),
        lambda scores: scores.masked_fill(HIDDEN, torch.finfo(torch.float32).min),
    ],
)
def test_masks_that_leave_no_grid_for_the_scores_are_told(hide: Callable[..., Any]) -> None:
    set_march("nash-m")
    with pytest.warns(TrainingWarning, match="HB0956 at layer 'add_[0-9]', test_attention.py:.*-64") as told:
        prepare(Masked(hide).eval(), torch.randn(2, 5, 8))
    assert len(told) == 1


def test_a_mask_of_infinity_is_refused_and_one_that_a_grid_reaches_is_not() -> None:
    set_march("nash-m")
    with pytest.raises(TrainingError, match="HB0920 at layer 'add_[0-9]', test_attention.py:.*-inf.*-64"):
        prepare(Masked(lambda scores: scores + additive(-torch.inf)).eval(), torch.randn(2, 5, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error", TrainingWarning)
        for hide in (lambda scores: scores + additive(-64), lambda scores: scores - 1e4 * 0.01):
            prepare(Masked(hide).eval(), torch.randn(2, 5, 8))
