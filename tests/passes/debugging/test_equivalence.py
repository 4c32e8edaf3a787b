"""Inputs are generated for every element type that a function may take."""

from __future__ import annotations

import numpy as np
import pytest
from xdsl.dialects.builtin import FunctionType, IntegerType, ModuleOp, f32, i8, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region

from hbir.dialects.base import element_dtype, tensor
from hbir.dialects.hbir import ReshapeOp
from hbir.ir.constants import ConstantStore
from hbir.module import Module
from passes import Pipeline
from passes.debugging.equivalence import generated_inputs


@pytest.mark.parametrize("element", [f32, i8, i64, IntegerType(1)], ids=str)
def test_every_type_of_input(element: Attribute) -> None:
    kind = tensor((64,), element)
    block = Block(arg_types=[kind])
    block.add_op(made := ReshapeOp.make(block.args[0], shape=(64,)))
    block.add_op(ReturnOp(made.output))
    module = Module(ModuleOp([FuncOp("m", FunctionType.from_lists([kind], [kind]), Region(block))]), ConstantStore())
    (array,) = generated_inputs(module[0]).values()
    assert array.dtype == element_dtype(element) and array.shape == (64,) and len(np.unique(array)) > 1
    assert not Pipeline("canonicalize", verify="exec").run(module)[0].operations
