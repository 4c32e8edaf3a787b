"""Rescales fold only where exhaustion proves it: every code of the input, before and after."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import FunctionType, IntegerType, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import tensor
from hbir.dialects.hbir import constant
from hbir.dialects.quant import UniformQuantizedType
from hbir.ir.constants import ConstantStore
from hbir.module import Module
from hbir.numerics import quantize_multiplier
from hbir.testing import quant_params
from passes import Pipeline

Grid = UniformQuantizedType


def _rescale(x: SSAValue, source: Grid, target: Grid) -> q.RescaleOp:
    m, s = quantize_multiplier(np.array([source.scale / target.scale]), 15 if target.bits == 8 else 31)
    return q.RescaleOp.make(x, multiplier=m.astype(np.int32), shift=s.astype(np.int8), grid=target)


def _module(grids: list[Grid], table_at: int | None = None) -> Module:
    """A chain of rescales through grids; at one place an int8 table instead."""
    store, first = ConstantStore(), grids[0]
    block = Block(arg_types=[tensor((1 << first.bits,), first)])
    ops: list[Operation] = []
    value: SSAValue = block.args[0]
    for number, (source, target) in enumerate(pairwise(grids)):
        if number == table_at and source.bits == target.bits == 8:
            entries = constant(np.random.default_rng(0).integers(-128, 128, 256).astype(np.int8), store, IntegerType(8))
            op: q.TableOp | q.RescaleOp = q.TableOp.make(value, entries.output, function=None, grid=target)
            ops.append(entries)
        else:
            op = _rescale(value, source, target)
        ops.append(op)
        value = op.output
    block.add_ops([*ops, ReturnOp(value)])
    kind = FunctionType.from_lists(list(block.arg_types), [value.type])
    return Module(ModuleOp([FuncOp("main", kind, Region(block))]), store)


def _every_code(grid: Grid) -> np.ndarray:
    half = 1 << (grid.bits - 1)
    return np.arange(-half, half).astype(np.int8 if grid.bits == 8 else np.int16)


def _kinds(module: Module) -> list[str]:
    return [op.name for op in module[0].operations if op.operands]


@settings(max_examples=80)
@given(st.lists(quant_params(scales=(0.1, 0.05, 0.2, 0.1000001, 1.0, 12.8)), min_size=2, max_size=4), st.integers(0, 3))
def test_every_code_keeps_its_result(grids: list[Grid], table_at: int) -> None:
    module = _module(grids, table_at)
    folded = Pipeline("fold-requantize").run(module)
    assert len(_kinds(folded)) <= len(_kinds(module))
    codes = _every_code(grids[0])
    np.testing.assert_array_equal(folded[0](codes)[0], module[0](codes)[0], strict=True)


def test_identities_go() -> None:
    grid = Grid.get(8, 0.1, 5)
    assert _kinds(Pipeline("fold-requantize").run(_module([grid, grid, grid]))) == []


def test_a_rescale_that_saturates_stays() -> None:
    wide, narrow = Grid.get(8, 0.1), Grid.get(8, 0.01)
    kept = Pipeline("fold-requantize").run(_module([wide, narrow, wide]))
    assert _kinds(kept) == ["quantized.rescale"] * 2


def test_a_rescale_that_rounds_stays() -> None:
    fine, coarse = Grid.get(8, 0.1), Grid.get(8, 0.3)
    kept = Pipeline("fold-requantize").run(_module([fine, coarse, fine]))
    assert _kinds(kept) == ["quantized.rescale"] * 2


def test_a_detour_over_more_bits_folds() -> None:
    narrow, wide = Grid.get(8, 0.1), Grid.get(16, 0.1 / 256)
    assert _kinds(Pipeline("fold-requantize").run(_module([narrow, wide, narrow]))) in ([], ["quantized.rescale"])


@pytest.mark.parametrize("table_at", [0, 1, 2])
def test_tables_absorb_rescales_on_both_sides(table_at: int) -> None:
    grids = [Grid.get(8, 0.1), Grid.get(8, 0.23, 4), Grid.get(8, 0.5, -9), Grid.get(8, 0.31)]
    module = _module(grids, table_at)
    folded = Pipeline("fold-requantize,dead-code").run(module)
    expected = {0: ["quantized.table"], 1: ["quantized.table"], 2: ["quantized.rescale", "quantized.table"]}[table_at]
    assert _kinds(folded) == expected or _kinds(folded) == ["quantized.table"]
    codes = _every_code(grids[0])
    np.testing.assert_array_equal(folded[0](codes)[0], module[0](codes)[0])
    constants = [op for op in folded[0].operations if op.name == "hbir.constant"]
    assert all(op.results[0].first_use is not None for op in constants)
