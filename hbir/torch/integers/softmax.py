"""Integer softmax, the chain of base operations that the operation is defined as, in int64."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from hbir.dialects import quantized as q
from hbir.dialects.base import Array
from hbir.dialects.quant import quantized_element
from hbir.dialects.quantized.softmax import FRACTION_BITS
from hbir.torch.integers.elementwise import requantise
from hbir.torch.integers.registry import Prepared, builds
from hbir.torch.integers.tables import interpolated
from hbir.torch.integers.values import torch_dtype

__all__: list[str] = []

_OFFSET = 98304
"""What brings t >> 14, from 65536 to 131071, to the codes of the reciprocal table."""


def _exponentials(difference: torch.Tensor, table: torch.Tensor, bits: int) -> torch.Tensor:
    """round(exp(scale * d) * 32767) for d <= 0: one entry for each int8 difference, lines between 513 for int16."""
    if bits == 8:
        return table[difference + 255]
    halved = ((difference * 2 + 2) >> 2).clamp(min=-32768)  # half of d, rounded half up
    return (interpolated(table, halved) + 64) >> 7


@builds(q.SoftmaxOp)
def softmax(op: q.SoftmaxOp, _: Sequence[Array | None], device: torch.device) -> Prepared:
    """Largest, exponentials, sum, reciprocal, product, rescale."""
    bits, axis = quantized_element(op.input.type).bits, op.values["axis"]
    # e is at most 32767, S at least that, and their quotient at most 1: 2^29, and one for each of two roundings.
    last, dtype = requantise(op, 2 << FRACTION_BITS, device), torch_dtype(op.output.type)

    def run(x: torch.Tensor, exponentials: torch.Tensor, reciprocals: torch.Tensor) -> torch.Tensor:
        codes = x.to(torch.int64)
        e = _exponentials(codes - codes.amax(axis, keepdim=True), exponentials.to(torch.int64), bits)
        total = e.sum(axis, keepdim=True)
        # frexp of an exact integer: total = f * 2^length with f in [1/2, 1).
        zeros = 32 - torch.frexp(total.to(torch.float64)).exponent.to(torch.int64)
        normal = total << (zeros - 1)
        r = interpolated(reciprocals.to(torch.int64), (normal >> 14) - _OFFSET)
        p = (e * r + 64) >> 7  # 15 + 22 bits
        right = 17 - zeros
        half = (torch.ones_like(right) << right) >> 1  # 0 for a shift of 0, which rounds nothing
        out = torch.empty(x.shape, dtype=dtype, device=device)
        last(out, (p + half) >> right)
        return out

    return Prepared(run)
