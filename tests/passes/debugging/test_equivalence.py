"""Inputs are generated for every element type that a function may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from xdsl.dialects.builtin import FunctionType, IntegerType, ModuleOp, f32, i8, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region

from hbir import export
from hbir.dialects.base import element_dtype, tensor
from hbir.dialects.hbir import MulOp, ReshapeOp, constant
from hbir.errors import PassError
from hbir.ir.constants import ConstantStore
from hbir.module import Module
from passes import Pass, Pipeline, Promise
from passes.common.rewriting import insert_before
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


def test_a_pass_that_rounds_is_held_to_a_share_on_real_inputs() -> None:
    module = export("tests/data/tiny.onnx")
    feed = generated_inputs(module[0])
    loud = Loud(by=1.1), Loud(by=2.0)
    Pipeline([loud[0]], verify="exec", feeds=[feed]).run(module)
    with pytest.raises(PassError, match=r"HB0305.*NUMERIC"):
        Pipeline([loud[1]], verify="exec", feeds=[feed]).run(module)
    Pipeline([loud[1]], verify="exec").run(module)  # nothing is known of what the inputs of a module may be


@dataclass(frozen=True)
class Loud(Pass):
    """Multiplies the first output."""

    name: ClassVar[str] = "loud"
    promise: ClassVar[Promise] = Promise.NUMERIC

    by: float = 1.0

    def run(self, module: Module) -> None:
        last = module[0].return_op
        factor = insert_before(last, constant(np.array(self.by, np.float32), module.constants, f32)).output
        last.operands[0] = insert_before(last, MulOp.make(last.operands[0], factor)).output
