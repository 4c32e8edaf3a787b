"""Whatever only moves values moves the same integers when the quantisation around it changes places with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32

import backends
from backends.nash.simulator import simulate
from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, shape_of, tensor, tensor_type
from hbir.dialects.hbir import (
    ConcatOp,
    ConstantOp,
    ExpandOp,
    PadOp,
    ReshapeOp,
    ResizeNearestOp,
    SliceOp,
    TransposeOp,
)
from hbir.dialects.quant import UniformQuantizedType
from hbir.module import Module
from hbir.testing import assert_round_trips, assert_same_semantics, operations, quant_params
from passes import Pipeline

Grid = UniformQuantizedType
DOWN = (ConcatOp, ReshapeOp, SliceOp, TransposeOp)
UP = (ConcatOp, ExpandOp, PadOp, ReshapeOp, ResizeNearestOp, TransposeOp)


def _moves(module: Module) -> list[HbOperation]:
    return [op for op in module[0].operations if isinstance(op, (*DOWN, *UP))]


def _on_floats(module: Module) -> bool:
    function = module[0]
    values = [*function.op.body.block.args, *(result for op in function.operations for result in op.results)]
    return bool(function.flatten_inputs) and all(tensor_type(value.type).element_type == f32 for value in values)


def _dequantized_inputs(module: Module, grid: Grid) -> None:
    """Inputs on `grid`, dequantised: once for each reader, as a front end would."""
    block = module[0].op.body.block
    for argument in list(block.args):
        new = block.insert_arg(tensor(shape_of(argument.type), grid), argument.index)
        for use in list(argument.uses):
            floats = q.DequantizeOp.make(new, grid=grid)
            block.insert_op_before(floats, block.first_op or module[0].return_op)
            use.operation.operands[use.index] = floats.output
        block.erase_arg(argument)
    module[0].update_type()
    module.verify()


def _quantized_outputs(module: Module, grid: Grid) -> None:
    last = module[0].return_op
    for index, value in enumerate(last.operands):
        made = q.QuantizeOp.make(value, grid=grid)
        module[0].op.body.block.insert_op_before(made, last)
        last.operands[index] = made.output
    module[0].update_type()
    module.verify()


def _narrowed(module: Module, grid: Grid, put_on_grid: Callable[[Module, Grid], None]) -> Module:
    """The module behind the pass, which works on integers alone and computes what it did."""
    assume(_on_floats(module) and not any(isinstance(op, ConstantOp) for op in module[0].operations))
    put_on_grid(module, grid)
    narrow = Pipeline("narrow-movement", verify="exec").run(module)
    assert_same_semantics(module, narrow)
    assert all(tensor_type(op.results[0].type).element_type == grid for op in _moves(narrow))
    return narrow


@pytest.mark.parametrize("kind", DOWN, ids=lambda kind: kind.name)
def test_moves_of_dequantised_values(kind: type[HbOperation]) -> None:
    @settings(max_examples=25)
    @given(operations(kind), quant_params((8, 16)))
    def check(module: Module, grid: Grid) -> None:
        narrow = _narrowed(module, grid, _dequantized_inputs)
        assert_round_trips(narrow)
        assert str(Pipeline("narrow-movement").run(narrow)) == str(narrow)

    check()


@pytest.mark.parametrize("kind", UP, ids=lambda kind: kind.name)
def test_moves_of_values_to_be_quantised(kind: type[HbOperation]) -> None:
    @settings(max_examples=25)
    @given(operations(kind), quant_params((8, 16)))
    def check(module: Module, grid: Grid) -> None:
        _narrowed(module, grid, _quantized_outputs)

    check()


@settings(max_examples=25)
@given(st.permutations(range(3)), st.integers(0, 2), st.lists(quant_params((8, 16)), min_size=2, max_size=3))
def test_a_transposed_concat_of_several_grids(order: list[int], axis: int, grids: list[Grid]) -> None:
    module = _heads([(2, 3, 4)] * len(grids), grids, axis, order)
    narrow = Pipeline("narrow-movement", verify="exec").run(module)
    assert_same_semantics(module, narrow)
    transposes = [op for op in narrow[0].operations if isinstance(op, TransposeOp)]
    assert all(tensor_type(op.output.type).element_type != f32 for op in transposes)


def _heads(shapes: list[tuple[int, ...]], grids: list[Grid], axis: int, order: list[int]) -> Module:
    """Tensors on grids of their own, dequantised, joined, and transposed on the way out: boxes and scores of a detector."""
    types = [f"tensor<{'x'.join(map(str, shape))}x{grid}>" for shape, grid in zip(shapes, grids, strict=True)]
    floats = [f"tensor<{'x'.join(map(str, shape))}xf32>" for shape in shapes]
    joined = list(shapes[0])
    joined[axis] = sum(shape[axis] for shape in shapes)
    wide, out = (f"tensor<{'x'.join(map(str, s))}xf32>" for s in (joined, [joined[a] for a in order]))
    lines = [
        f'%f{i} = "quantized.dequantize"(%x{i}) <{{grid = {grid}}}> : ({types[i]}) -> {floats[i]} loc("deq{i}")'
        for i, grid in enumerate(grids)
    ]
    return Module.parse(f"""
"builtin.module"() ({{
  "func.func"() <{{sym_name = "main", function_type = ({", ".join(types)}) -> {out}}}> ({{
  ^bb0({", ".join(f"%x{i}: {t}" for i, t in enumerate(types))}):
    {chr(10).join(lines)}
    %c = "hbir.concat"({", ".join(f"%f{i}" for i in range(len(grids)))}) <{{axis = {axis} : i64}}>
      : ({", ".join(floats)}) -> {wide} loc("join")
    %t = "hbir.transpose"(%c) <{{permutation = array<i64: {", ".join(map(str, order))}>}}> : ({wide}) -> {out} loc("turn")
    "func.return"(%t) : ({out}) -> ()
  }}) : () -> ()
}}) : () -> ()
""")


def test_the_device_moves_fewer_bytes(tmp_path: Path) -> None:
    """The pass is there to save traffic: the simulator must see that, and the numbers must stay."""
    module = _heads([(1, 4, 2100), (1, 80, 2100)], [Grid.get(8, 0.5), Grid.get(8, 0.0625)], 1, [0, 2, 1])
    costs = []
    for number, each in enumerate((module, Pipeline("narrow-movement").run(module))):
        hbm = backends.compile(each, tmp_path / f"{number}.hbm", "nash-e")
        timing = simulate(hbm.models[0])
        costs.append((timing.cycles, timing.ddr_read + timing.ddr_written))
    assert costs[1][0] < costs[0][0] and costs[1][1] <= costs[0][1], costs
