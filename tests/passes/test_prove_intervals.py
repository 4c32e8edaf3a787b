"""Accumulators that could overflow are refused with the numbers; those that cannot are accepted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import FunctionType, ModuleOp, i32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, tensor
from hbir.dialects.hbir import constant
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import PassError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import name_location
from hbir.module import Module
from hbir.numerics import quantize_multiplier
from passes import Pipeline

Grid = UniformQuantizedType
GRID = Grid.get(8, 0.5)
FULL = {"low": -128, "high": 127, "grid": GRID}


def _multiplier(ratio: float, bits: int = 15) -> tuple[Any, Any]:
    m, s = quantize_multiplier(np.array([ratio]), bits)
    return m.astype(np.int32), s.astype(np.int8)


def _module(store: ConstantStore, block: Block, *ops: HbOperation) -> Module:
    ops[-1].location = name_location("layer")
    block.add_ops([*ops, ReturnOp(ops[-1].results[0])])
    kind = FunctionType.from_lists(list(block.arg_types), [ops[-1].results[0].type])
    return Module(ModuleOp([FuncOp("main", kind, Region(block))]), store)


def _conv(weight: Any, bias: Any, source: Grid = GRID) -> Module:
    store = ConstantStore()
    block = Block(arg_types=[tensor((1, 1, 1, weight.shape[3]), source)])
    kernel, offset = constant(weight, store, Grid.get(8, 0.5, narrow=True)), constant(bias, store, i32)
    m, s = _multiplier(source.scale * 0.5 / GRID.scale)
    names = ("common_scale", "residual_multiplier", "residual_shift", "output_multiplier", "output_shift")
    geometry = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1, **dict.fromkeys(names)}
    conv = q.Conv2dOp.make(block.args[0], kernel.output, offset.output, None, **geometry, multiplier=m, shift=s, **FULL)
    return _module(store, block, kernel, offset, conv)


@pytest.mark.parametrize("slack", [0, 1])
def test_convolution_to_the_last_unit(slack: int) -> None:
    weight = np.full((1, 1, 1, 100), 127, np.int8)
    most = 100 * 127 * 128
    bias = np.array([-(2**31 - 1 - most) - slack], np.int32)
    module = _conv(weight, bias)
    if not slack:
        Pipeline("prove-intervals").run(module)
        return
    message = r"HB0321 at layer 'layer': the accumulator can reach 2,147,483,648, the accumulator holds 2,147,483,647; .*by 1 "
    with pytest.raises(PassError, match=message):
        Pipeline("prove-intervals").run(module)


def test_zero_points_count() -> None:
    weight = np.full((1, 1, 1, 64), 127, np.int8)
    bias = np.array([2**31 - 1 - 64 * 127 * 255], np.int32)
    Pipeline("prove-intervals").run(_conv(weight, np.array([0], np.int32), Grid.get(8, 0.5, -128)))
    with pytest.raises(PassError, match="HB0321"):
        Pipeline("prove-intervals").run(_conv(weight, bias + np.int32(1), Grid.get(8, 0.5, -128)))


def test_matrix_products_and_sums_of_too_many() -> None:
    for depth, fits in ((131071, True), (131072, False)):
        block = Block(arg_types=[tensor((1, depth), GRID), tensor((depth, 1), GRID)])
        m, s = _multiplier(0.5)
        module = _module(ConstantStore(), block, q.MatmulOp.make(*block.args, multiplier=m, shift=s, **FULL))
        if fits:
            Pipeline("prove-intervals").run(module)
        else:
            with pytest.raises(PassError, match="HB0321.*split the inner axis"):
                Pipeline("prove-intervals").run(module)


def test_products_sums_and_resizes() -> None:
    wide = Grid.get(16, 0.5)
    m, s = _multiplier(0.5)
    block = Block(arg_types=[tensor((2,), wide)] * 2)
    Pipeline("prove-intervals").run(
        _module(ConstantStore(), block, q.MulOp.make(*block.args, multiplier=m, shift=s, **FULL))
    )
    odd = Grid.get(16, 0.5, -32000)
    block = Block(arg_types=[tensor((2,), odd)] * 2)
    with pytest.raises(PassError, match="HB0321.*the product"):
        Pipeline("prove-intervals").run(
            _module(ConstantStore(), block, q.MulOp.make(*block.args, multiplier=m, shift=s, **FULL))
        )

    common = 2.0**-25
    (am, a_s), (m, s) = _multiplier(0.5 / common, 31), _multiplier(common / GRID.scale)
    block = Block(arg_types=[tensor((2,), GRID)] * 2)
    rescales = {"lhs_multiplier": am, "lhs_shift": a_s, "rhs_multiplier": am, "rhs_shift": a_s}
    op = q.AddOp.make(*block.args, common_scale=common, **rescales, multiplier=m, shift=s, **FULL)
    with pytest.raises(PassError, match="HB0321.*the sum can reach"):
        Pipeline("prove-intervals").run(_module(ConstantStore(), block, op))

    for scale, fits in (((16, 1, 16, 1), True), ((300, 1, 300, 1), False)):
        block = Block(arg_types=[tensor((1, 2, 2, 1), wide)])
        m, s = _multiplier(1 / (scale[0] * scale[2]))
        op = q.ResizeBilinearOp.make(
            block.args[0], scale=scale, offset=(0, 0), border=(0, 0), multiplier=m, shift=s, **FULL
        )
        module = _module(ConstantStore(), block, op)
        if fits:
            Pipeline("prove-intervals").run(module)
        else:
            with pytest.raises(PassError, match="HB0321.*the interpolated value"):
                Pipeline("prove-intervals").run(module)
