"""Cycle formulas: padding, packing of groups, widths."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from backends.nash.isa import cost
from hbir.march import load_march

MARCH = replace(load_march("nash-e"), issue_cycles=0)


def test_a_convolution_pads_width_and_channels() -> None:
    assert cost.conv_padded_macs(MARCH, (1, 10, 16, 64), (3, 3), 32) == 10 * 16 * 9 * 32 * 64
    assert cost.conv_padded_macs(MARCH, (1, 10, 1, 1), (3, 3), 3) == 10 * 16 * 9 * 32 * 64
    assert cost.conv_padded_macs(MARCH, (1, 10, 17, 65), (1, 1), 33) == 10 * 32 * 64 * 128


def test_groups_share_a_pass_as_far_as_they_fit() -> None:
    one = 8 * 16 * 9 * 32 * 64
    assert cost.conv_padded_macs(MARCH, (1, 8, 16, 32), (3, 3), 1, 32) == one
    assert cost.conv_padded_macs(MARCH, (1, 8, 16, 96), (3, 3), 1, 96) == 3 * one
    assert cost.conv_padded_macs(MARCH, (1, 8, 16, 64), (3, 3), 16, 4) == 2 * one
    assert cost.conv_padded_macs(MARCH, (1, 8, 16, 256), (3, 3), 64, 2) == 2 * 8 * 16 * 9 * 64 * 128


def test_wider_operands_are_slower_by_the_ratios_of_the_march() -> None:
    quiet = replace(MARCH, tae_output_elements_per_cycle=1e12)
    base = cost.conv_cycles(quiet, (1, 64, 64, 64), (3, 3), 64)
    for bits, ratio in (((16, 8), 0.5), ((8, 16), 0.5), ((16, 16), 0.25)):
        wide = cost.conv_cycles(quiet, (1, 64, 64, 64), (3, 3), 64, 1, *bits)
        assert wide == pytest.approx(base / ratio, rel=1e-3)


def test_the_epilogue_follows_the_accumulation() -> None:
    shape = (1, 32, 32, 64)
    plain, added = (cost.conv_cycles(MARCH, shape, (1, 1), 32, more_reads=r) for r in (0, 1))
    assert added - plain == pytest.approx(math.prod(shape) / MARCH.tae_output_elements_per_cycle, abs=1)


def test_costs_grow_with_the_work_and_never_go_below_the_issue() -> None:
    march = load_march("nash-p")
    for one, two in (
        (cost.vector_cycles(march, 1000), cost.vector_cycles(march, 100000)),
        (cost.vector_cycles(march, 100000, 8), cost.vector_cycles(march, 100000, 16)),
        (cost.vector_cycles(march, 100000, 16), cost.vector_cycles(march, 100000, 32)),
        (cost.vector_cycles(march, 100000), cost.softmax_cycles(march, 100000)),
        (cost.matmul_cycles(march, (1, 16, 64), 32), cost.matmul_cycles(march, (4, 64, 64), 64)),
        (cost.pool_cycles(march, (1, 8, 8, 8), (2, 2)), cost.pool_cycles(march, (1, 8, 8, 8), (30, 30))),
        (cost.resize_cycles(march, (1, 64, 64, 8), 1), cost.resize_cycles(march, (1, 64, 64, 8), 4)),
        (cost.trans_cycles(march, 100), cost.trans_cycles(march, 10000)),
        (cost.vpu_cycles(march, 100), cost.vpu_cycles(march, 10000)),
        (cost.spu_cycles(march, 100), cost.spu_cycles(march, 10000)),
        (cost.host_cycles(march, 100), cost.host_cycles(march, 10000)),
        (cost.dma_cycles(march, 100000, l2m=True), cost.dma_cycles(march, 100000)),
    ):
        assert march.issue_cycles <= one < two
