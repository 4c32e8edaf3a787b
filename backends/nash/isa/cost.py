"""Cycles of one instruction on one core, as pure functions of shapes, types and the march.

The tiler's cost model and the timing simulator use the same functions, so that what the tiler minimises is what the
simulator reports. They are coarse: a rate per unit and a fixed issue cost, with the padding of the tensor engine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from hbir.march import March

__all__ = [
    "conv_cycles",
    "conv_padded_macs",
    "dma_cycles",
    "host_cycles",
    "matmul_cycles",
    "pool_cycles",
    "resize_cycles",
    "softmax_cycles",
    "spu_cycles",
    "trans_cycles",
    "vector_cycles",
    "vpu_cycles",
]


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _tae_rate(march: March, x_bits: int, w_bits: int) -> float:
    """Padded multiply-accumulates per cycle for the two widths."""
    if x_bits > 8 and w_bits > 8:
        return march.tae_macs_per_cycle * march.tae_int16_int16_ratio
    if x_bits > 8 or w_bits > 8:
        return march.tae_macs_per_cycle * march.tae_int16_int8_ratio
    return march.tae_macs_per_cycle


def conv_padded_macs(
    march: March, out_shape: Sequence[int], kernel: Sequence[int], cin_per_group: int, groups: int = 1
) -> int:
    """Multiply-accumulates of an NHWC convolution after padding W, Cin and Cout to what the array works in.

    Groups are packed block-diagonally: as many share a pass as fit both channel paddings.
    """
    n, height, width, cout = out_shape
    cout_per_group = cout // groups
    fit = min(march.tae_input_channels // cin_per_group, march.tae_output_channels // cout_per_group, groups)
    packed = max(fit, 1)
    passes = -(-groups // packed)
    block = _up(packed * cin_per_group, march.tae_input_channels) * _up(
        packed * cout_per_group, march.tae_output_channels
    )
    return n * height * _up(width, march.tae_width) * kernel[0] * kernel[1] * passes * block


def conv_cycles(
    march: March,
    out_shape: Sequence[int],
    kernel: Sequence[int],
    cin_per_group: int,
    groups: int = 1,
    x_bits: int = 8,
    w_bits: int = 8,
    *,
    more_reads: int = 0,
) -> int:
    """Cycles of a convolution tile: accumulation, then the epilogue over every output, once more for each
    of `more_reads` tensors of its shape (residual, partial sums)."""
    macs = conv_padded_macs(march, out_shape, kernel, cin_per_group, groups)
    if groups > 1:
        macs /= march.tae_depthwise_gain
    epilogue = math.prod(out_shape) * (1 + more_reads) / march.tae_output_elements_per_cycle
    return march.issue_cycles + math.ceil(macs / _tae_rate(march, x_bits, w_bits) + epilogue)


def matmul_cycles(march: March, out_shape: Sequence[int], depth: int, a_bits: int = 8, b_bits: int = 8) -> int:
    """Cycles of a batched matrix product (…, M, N) summed over `depth`: M padded as W, depth as Cin, N as Cout."""
    *batch, m, n = out_shape
    macs = (
        math.prod(batch)
        * _up(m, march.tae_width)
        * _up(depth, march.tae_input_channels)
        * _up(n, march.tae_output_channels)
    )
    epilogue = math.prod(out_shape) / march.tae_output_elements_per_cycle
    return march.issue_cycles + math.ceil(macs / _tae_rate(march, a_bits, b_bits) + epilogue)


def vector_cycles(march: March, elements: int, bits: int = 8, passes: int = 1) -> int:
    """Cycles of an elementwise operation, a table or a reduction over `elements` of the widest operand type."""
    rate = (
        march.vector_int8_elements_per_cycle
        if bits <= 8
        else march.vector_int16_elements_per_cycle / max(1, bits // 16)
    )
    return march.issue_cycles + math.ceil(elements * passes / rate)


def softmax_cycles(march: March, elements: int, bits: int = 8) -> int:
    """Cycles of a softmax: maximum, subtraction, exponential, sum and product, each a pass at int16."""
    return vector_cycles(march, elements, max(bits, 16), passes=5)


def pool_cycles(march: March, out_shape: Sequence[int], kernel: Sequence[int]) -> int:
    """Cycles of a pooling tile: every output reads its window."""
    return march.issue_cycles + math.ceil(math.prod(out_shape) * kernel[0] * kernel[1] / march.aae_elements_per_cycle)


def resize_cycles(march: March, out_shape: Sequence[int], taps: int) -> int:
    """Cycles of a resize: 1 tap per output for nearest, 4 for bilinear."""
    return march.issue_cycles + math.ceil(math.prod(out_shape) * taps / march.aae_elements_per_cycle)


def trans_cycles(march: March, size: int) -> int:
    """Cycles to move `size` bytes within L1M."""
    return march.issue_cycles + math.ceil(size / march.trans_bytes_per_cycle)


def vpu_cycles(march: March, elements: int) -> int:
    """Cycles of a float operation over `elements`."""
    return march.issue_cycles + math.ceil(elements / march.vpu_elements_per_cycle)


def spu_cycles(march: March, elements: int) -> int:
    """Cycles of scalar work over `elements`."""
    return march.issue_cycles + math.ceil(elements / march.spu_elements_per_cycle)


def dma_cycles(march: March, size: int, *, l2m: bool = False) -> int:
    """Cycles of a transfer of `size` bytes that has the memory to itself."""
    rate = march.l2m_bytes_per_cycle if l2m else march.ddr_bytes_per_cycle
    return march.issue_cycles + march.dma_latency_cycles + math.ceil(size / rate)


def host_cycles(march: March, size: int) -> int:
    """Device cycles that pass while the host works through `size` bytes of operands."""
    return march.issue_cycles + math.ceil(size / march.host_bytes_per_second * march.clock_hz)
