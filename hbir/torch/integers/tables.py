"""Functions of one code: whatever form the table has, its results for every code are computed once, and looked up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from hbir.dialects import quantized as q
from hbir.dialects.base import Array
from hbir.dialects.quant import quantized_element
from hbir.dialects.quantized.table import ideal_results
from hbir.torch.integers.elementwise import requantise
from hbir.torch.integers.registry import Prepared, builds
from hbir.torch.integers.values import torch_dtype

__all__ = ["interpolated"]

_ENTRIES = 64


def _looked_up(
    op: Any, constants: Sequence[Array | None], device: torch.device, results: Callable[..., torch.Tensor]
) -> Prepared:
    """`results(codes, *tables)` for all codes of the input, smallest first, then one lookup for each element."""
    bits = quantized_element(op.input.type).bits
    offset, dtype = 1 << (bits - 1), torch_dtype(op.output.type)
    codes = torch.arange(-offset, offset, device=device)

    def look_up(every: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        index = x.reshape(-1).to(torch.int32).add_(offset)
        return every.index_select(0, index).view(x.shape)

    tables = constants[1:]
    if all(table is not None for table in tables):
        whole = [torch.as_tensor(np.asarray(table, np.int64), device=device) for table in tables]
        known = results(codes, *whole).to(dtype)

        def known_table(x: torch.Tensor, *_: None) -> torch.Tensor:
            return look_up(known, x)

        return Prepared(known_table, absorbed=tuple(range(1, len(constants))))

    def given_table(x: torch.Tensor, *given: torch.Tensor) -> torch.Tensor:
        return look_up(results(codes, *(table.to(torch.int64) for table in given)).to(dtype), x)

    return Prepared(given_table)


@builds(q.TableOp)
def table(op: q.TableOp, constants: Sequence[Array | None], device: torch.device) -> Prepared:
    """`table[x + 128]`."""

    def results(codes: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        return entries[codes + 128]

    return _looked_up(op, constants, device, results)


@builds(q.FunctionOp)
def function(op: q.FunctionOp, constants: Sequence[Array | None], device: torch.device) -> Prepared:
    """The exactly rounded results, which are what the operation means."""
    values, source = op.values, quantized_element(op.input.type)
    ideal = ideal_results(values["function"], values["parameters"], source, values["grid"])
    every = torch.as_tensor(np.asarray(ideal, np.int64), device=device)

    def results(codes: torch.Tensor) -> torch.Tensor:
        return every.view(codes.shape)

    return _looked_up(op, constants, device, results)


def interpolated(entries: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """TOSA's TABLE of int16 codes with 513 entries, int64: the value between two entries, with seven bits of fraction."""
    at, fraction = (x >> 7) + 256, x & 127
    base = entries[at]
    return (base << 7) + (entries[at + 1] - base) * fraction


@builds(q.InterpolateOp)
def interpolate(op: q.InterpolateOp, constants: Sequence[Array | None], device: torch.device) -> Prepared:
    """513 entries with straight lines between them, rescaled. A raw value is one of 16 bits times 128: at most 2^22."""
    last, dtype = requantise(op, 1 << 22, device), torch_dtype(op.output.type)

    def results(codes: torch.Tensor, entries: torch.Tensor) -> torch.Tensor:
        out = torch.empty(codes.shape, dtype=dtype, device=device)
        last(out, interpolated(entries, codes))
        return out

    return _looked_up(op, constants, device, results)


@builds(q.SegmentedOp)
def segmented(op: q.SegmentedOp, constants: Sequence[Array | None], device: torch.device) -> Prepared:
    """Segments of 64 entries: the last one that starts at or before x, and a straight line between two of its entries."""

    def results(
        codes: torch.Tensor, starts: torch.Tensor, spacings: torch.Tensor, entries: torch.Tensor
    ) -> torch.Tensor:
        segment = torch.searchsorted(starts.contiguous(), codes, right=True) - 1
        shift, distance = spacings[segment], codes - starts[segment]
        index = distance >> shift
        rest = distance - (index << shift)
        base = entries[segment, index]
        slope = entries[segment, (index + 1).clamp(max=_ENTRIES - 1)] - base
        half = (torch.ones_like(shift) << shift) >> 1
        return ((base << shift) + slope * rest + half) >> shift

    return _looked_up(op, constants, device, results)
