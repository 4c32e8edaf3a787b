"""Attention, put together from linear layers, matrix products and softmax, each with a grid of its own."""

from __future__ import annotations

import math
from typing import Any

import torch

from hbir.torch.operations.common import F, in_region, region_error
from hbir.torch.operations.registry import composite

__all__ = ["MASKED"]

MASKED = -64.0
"""Stands for minus infinity in front of a softmax: exp(-64) is below 2^-92, and a grid still reaches that far."""


def _mask(mask: Any) -> Any:
    """What is added to the products: zero, or `MASKED` for what a constant mask hides."""
    if not isinstance(mask, torch.Tensor) or in_region(mask):
        return mask
    if mask.dtype == torch.bool:
        return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, MASKED)
    return mask.clamp(min=MASKED)


def _attend(query: Any, key: Any, mask: Any, dropout: float, training: bool, scale: float | None = None) -> Any:
    """The weights of attention, of (..., queries, channels) and (..., keys, channels)."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query * factor, key.transpose(-2, -1))
    scores = scores if mask is None else scores + _mask(mask)
    weights = torch.softmax(scores, -1)
    return F.dropout(weights, dropout, training) if dropout and training else weights


@composite(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """`softmax(q @ k.T * scale + mask) @ v`: scores, weights and result have grids of their own."""
    if is_causal:
        rows, columns = query.shape[-2], key.shape[-2]
        attn_mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    return torch.matmul(_attend(query, key, attn_mask, dropout_p, dropout_p > 0, scale), value)


def _projections(query: Any, key: Any, value: Any, weight: Any, bias: Any, separate: Any) -> list[Any]:
    """Query, key and value behind their linear layers."""
    weights = list(separate) if weight is None else list(weight.chunk(3))
    biases = [None] * 3 if bias is None else list(bias.chunk(3))
    return [F.linear(x, w, b) for x, w, b in zip((query, key, value), weights, biases, strict=True)]


def _merged_mask(attn_mask: Any, padding: Any, batch: int, heads: int) -> Any:
    """One mask, in PyTorch's module form (True hides), as what is added to (batch, heads, queries, keys)."""
    masks: list[Any] = []
    for mask in (attn_mask, padding):
        if mask is None:
            continue
        if in_region(mask):
            raise region_error(55, "a mask of attention is of the region", lever="use a constant mask")
        masks.append(_mask(~mask if mask.dtype == torch.bool else mask))
    if attn_mask is not None and attn_mask.dim() == 3:
        masks[0] = masks[0].reshape(batch, heads, *attn_mask.shape[1:])
    if padding is not None:
        masks[-1] = masks[-1].reshape(batch, 1, 1, -1)
    return None if not masks else masks[0] if len(masks) == 1 else (masks[0] + masks[1]).clamp(min=MASKED)


@composite(F.multi_head_attention_forward)
def multi_head_attention_forward(
    query: Any,
    key: Any,
    value: Any,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Any,
    in_proj_bias: Any,
    bias_k: Any,
    bias_v: Any,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Any,
    out_proj_bias: Any,
    training: bool = True,
    key_padding_mask: Any = None,
    need_weights: bool = True,
    attn_mask: Any = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None,
    k_proj_weight: Any = None,
    v_proj_weight: Any = None,
    static_k: Any = None,
    static_v: Any = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> Any:
    """Three linear layers, attention in each head, one more layer: every part has a grid of its own."""
    given = {"bias_k": bias_k, "bias_v": bias_v, "static_k": static_k, "static_v": static_v}
    odd = [name for name, each in given.items() if each is not None] + (["add_zero_attn"] if add_zero_attn else [])
    if odd:
        raise region_error(53, f"attention with {odd[0]} has no form", lever="create the layer without it")
    single = query.dim() == 2
    if single:
        query, key, value = (x.unsqueeze(1) for x in (query, key, value))
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    weight = None if use_separate_proj_weight else in_proj_weight
    q, k, v = _projections(query, key, value, weight, in_proj_bias, separate)
    length, batch, width = q.shape
    # (length, batch, heads * channels) to (batch, heads, length, channels).
    q, k, v = (x.reshape(x.shape[0], batch, num_heads, -1).permute(1, 2, 0, 3) for x in (q, k, v))
    mask = _merged_mask(attn_mask, key_padding_mask, batch, num_heads)
    weights = _attend(q, k, mask, dropout_p, training)
    joined = torch.matmul(weights, v).permute(2, 0, 1, 3).reshape(length, batch, width)
    y = F.linear(joined, out_proj_weight, out_proj_bias)
    y = y.squeeze(1) if single else y
    if not need_weights:
        return y, None
    weights = torch.mean(weights, 1) if average_attn_weights else weights
    return y, weights.squeeze(0) if single else weights
