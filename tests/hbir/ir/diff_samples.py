"""Modules that the tests of comparison change, and small edits."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from xdsl.dialects import builtin as b
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from hbir.dialects.base import tensor
from hbir.dialects.hbir import AddOp, ClipOp, Conv2dOp, FunctionOp, MulOp, constant
from hbir.ir import ConstantStore
from hbir.ir.locations import layer_name, name_location
from hbir.module import Module


def without_locations(module: Module) -> Module:
    for function in module:
        for op in function.op.body.block.ops:
            op.location = b.UNKNOWN_LOC
    return module


def shuffle(block: Block, rng: random.Random) -> None:
    """Another order of the operations in which each still stands behind its operands."""
    waiting = list(block.ops)
    for op in waiting:
        op.detach()
    done: set[Operation] = set()
    while waiting:
        ready = [op for op in waiting if all(v.owner in done or isinstance(v.owner, Block) for v in op.operands)]
        ready = [op for op in ready if not isinstance(op, ReturnOp) or len(waiting) == 1]
        chosen = rng.choice(ready)
        block.add_op(chosen)
        done.add(chosen)
        waiting.remove(chosen)


def network(layers: int = 6) -> Module:
    """clip(conv(x)) again and again, each layer added to the one before it."""
    store, rng = ConstantStore(), np.random.default_rng(0)
    shape = tensor((1, 4, 4, 8), b.f32)
    block = Block(arg_types=[shape])
    value = block.args[0]
    for number in range(layers):
        weight = constant(rng.standard_normal((8, 1, 1, 8)).astype(np.float32), store, b.f32)
        conv = Conv2dOp.make(
            value, weight.output, None, None, stride=(1, 1), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1
        )
        clip = ClipOp.make(conv.output, min=0.0, max=None)
        total = AddOp.make(clip.output, value)
        for op, kind in ((weight, "weight"), (conv, "conv"), (clip, "clip"), (total, "add")):
            op.location = name_location(f"{kind}{number}")
            block.add_op(op)
        value = total.output
    block.add_op(ReturnOp(value))
    function = FuncOp("main", b.FunctionType.from_lists([shape], [value.type]), Region(block))
    return Module(b.ModuleOp([function]), store)


def named(module: Module, layer: str) -> Operation:
    return next(op for op in module[0].op.body.block.ops if layer_name(op) == layer)


def remove(op: Operation) -> None:
    """Take an operation out; its readers read its first operand."""
    for result in op.results:
        if op.operands:
            result.replace_all_uses_with(op.operands[0])
    op.detach()
    op.erase()


def many(copies: int) -> Module:
    """The network of one layer again and again, by cloning: 4 operations for each copy."""
    module = network(1)
    block = module[0].op.body.block
    body, end = list(block.ops)[:-1], module[0].return_op
    value = end.operands[0]
    for number in range(1, copies):
        mapping: dict[SSAValue, SSAValue] = {block.args[0]: value}
        for op in body:
            copied = op.clone(mapping)
            copied.location = name_location(f"{layer_name(op)[:-1]}{number}")
            block.insert_op_before(copied, end)
            value = copied.results[0]
    end.operands[0] = value
    return module


def branches(order: Sequence[float], *, low: float = 0.0) -> Module:
    """sum(tanh(clip(x)) * n for n in order): equal operations on equal inputs, each with a constant of its own."""
    store, shape = ConstantStore(), tensor((4,), b.f32)
    block = Block(arg_types=[shape])
    first = ClipOp.make(block.args[0], min=low, max=None)
    block.add_op(first)
    found: dict[float, SSAValue] = {}
    for number in order:
        act = FunctionOp.make(first.output, function="tanh")
        factor = constant(np.full(4, number, np.float32), store, b.f32)
        product = MulOp.make(act.output, factor.output)
        for op in (act, factor, product):
            block.add_op(op)
        found[number] = product.output
    total = found[min(order)]
    for number in sorted(order)[1:]:
        block.add_op(add := AddOp.make(total, found[number]))
        total = add.output
    block.add_op(ReturnOp(total))
    return Module(b.ModuleOp([FuncOp("main", b.FunctionType.from_lists([shape], [shape]), Region(block))]), store)
