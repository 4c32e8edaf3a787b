"""`reduce`: what is left is small, verifies, and is what the predicate asked for; its inputs bear the values' names."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytest
from xdsl.dialects.builtin import FunctionType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, Region, SSAValue

from hbir.dialects import hbir as f
from hbir.dialects.base import HbOperation, tensor
from hbir.dialects.hbir import ConstantOp, constant
from hbir.errors import IrError, PassError
from hbir.ir.constants import ConstantStore
from hbir.ir.locations import layer_name, name_location
from hbir.module import Module
from passes.debugging.reduce import Predicate, reduce, value_names

SHAPE = (2, 3)
STORE = ConstantStore()


def function(name: str, operations: list[HbOperation], block: Block, results: list[SSAValue]) -> FuncOp:
    for number, op in enumerate(operations):
        op.location = name_location(f"{name}{number}")
        block.add_op(op)
    block.add_op(ReturnOp(*results))
    kind = FunctionType.from_lists(list(block.arg_types), [value.type for value in results])
    return FuncOp(name, kind, Region(block))


def chain(length: int) -> Module:
    """x + 1.5, then `length` links that add the last two values."""
    block = Block(arg_types=[tensor(SHAPE, f32), tensor(SHAPE, f32)])
    bias = constant(np.full(SHAPE, 1.5), STORE, f32)
    operations: list[HbOperation] = [bias, f.AddOp.make(block.args[0], bias.output)]
    for _ in range(length):
        before = operations[-2].results[0] if len(operations) > 2 else block.args[0]
        operations.append(f.AddOp.make(operations[-1].results[0], before))
    return Module(ModuleOp([function("main", operations, block, [operations[-1].results[0]])]), STORE)


def layers(module: Module) -> set[str]:
    return {layer_name(op) for fn in module for op in fn.operations}


def test_a_long_chain_is_cut_to_what_is_asked_for() -> None:
    module = chain(300)
    tests: list[int] = []
    seen: list[int] = []
    wanted = {"main100", "main101", "main277"}

    def holds(candidate: Module) -> bool:
        candidate.verify()
        tests.append(len(candidate[0].operations))
        return wanted <= layers(candidate)

    small = reduce(module, holds, progress=lambda found, count: seen.append(len(found[0].operations)))
    assert layers(small) == wanted and len(small[0].operations) == 3
    assert len(tests) < 100 and seen == sorted(seen, reverse=True) and seen[-1] == 3
    assert len(module[0].operations) == 302, "the argument stays as it is"
    assert str(reduce(module, lambda candidate: wanted <= layers(candidate))) == str(small), "deterministic"
    # 101 reads 100 and 99, which reads 98; 277 alone is a piece of its own.
    assert {a.name for a in small[0].flatten_inputs} == {"main99", "main98", "main276", "main275"}
    assert len(small[0].flatten_outputs) == 1
    names = list(value_names(module[0]).values())
    assert {a.name for a in small[0].flatten_inputs} <= set(names)


def test_the_piece_computes_what_the_network_does() -> None:
    module = chain(6)
    names = value_names(module[0])
    feeds = {name: np.arange(6, dtype=np.float32).reshape(SHAPE) for name in ("_input_0", "_input_1")}
    values = dict(feeds)

    def keep(op: Operation, results: object) -> None:
        values[names[op.results[0]]] = np.array(results)[0]

    module[0].feed(feeds, keep)
    piece = reduce(module, lambda candidate: {"main3", "main5"} <= layers(candidate), simplify=False)
    got = piece[0].feed({a.name: values[a.name] for a in piece[0].flatten_inputs})
    assert set(got) & set(values) and len(piece[0].operations) == 2
    for name, array in got.items():
        np.testing.assert_array_equal(array, values[name])


def test_links_go_and_constants_become_simple_only_when_asked() -> None:
    module = chain(3)

    def holds(candidate: Module) -> bool:
        """A constant that reaches the output by way of one addition or more."""
        made = candidate[0].return_op.operands[0].owner
        constants = [op for op in candidate[0].operations if isinstance(op, ConstantOp)]
        ones = all(op.array(candidate.constants).all() for op in constants)
        return isinstance(made, f.AddOp) and len(constants) == 1 and ones

    small = reduce(module, holds)
    (bias,) = (op for op in small[0].operations if isinstance(op, ConstantOp))
    assert (bias.array(small.constants) == 1).all(), "zeros do not do, ones do"
    assert len(small[0].operations) == 2
    plain = reduce(module, holds, simplify=False)
    (bias,) = (op for op in plain[0].operations if isinstance(op, ConstantOp))
    assert (bias.array(plain.constants) == 1.5).all()


def test_other_functions_inputs_and_outputs_go() -> None:
    parts: list[FuncOp] = []
    for name in ("one", "two", "three"):
        block = Block(arg_types=[tensor(SHAPE, f32)] * 3)
        ops: list[HbOperation] = [
            f.AddOp.make(block.args[0], block.args[1]),
            f.MulOp.make(block.args[0], block.args[2]),
        ]
        parts.append(function(name, ops, block, [op.results[0] for op in ops]))
    small = reduce(Module(ModuleOp(parts), STORE), lambda candidate: "two1" in layers(candidate))
    assert [fn.name for fn in small] == ["two"]
    assert [a.name for a in small[0].flatten_inputs] == ["_input_0", "_input_2"], "names outlive their places"
    assert [a.name for a in small[0].flatten_outputs] == ["_output_1"]


def test_a_second_reader_is_kept_as_an_output_while_it_matters() -> None:
    block = Block(arg_types=[tensor(SHAPE, f32)])
    shared = f.AddOp.make(block.args[0], block.args[0])
    ops: list[HbOperation] = [
        shared,
        f.MulOp.make(shared.output, shared.output),
        f.SubOp.make(shared.output, block.args[0]),
    ]
    module = Module(ModuleOp([function("m", ops, block, [op.results[0] for op in ops[1:]])]), STORE)

    def holds(candidate: Module) -> bool:
        return any(
            layer_name(op) == "m0" and len(list(op.results[0].uses)) >= 3 for op in candidate[0].operations
        )  # fmt: skip

    small = reduce(module, holds)
    assert layers(small) == {"m0", "m1"} and "m0" in {a.name for a in small[0].flatten_outputs}


def test_the_predicate_may_change_what_it_gets() -> None:
    def holds(candidate: Module) -> bool:
        found = "main3" in layers(candidate)
        for op in reversed(candidate[0].operations):
            op.detach()
        return found

    assert layers(reduce(chain(5), holds)) == {"main3"}


def test_mistakes_are_told() -> None:
    with pytest.raises(PassError) as told:
        reduce(chain(2), lambda candidate: False)
    assert told.value.code == "HB0350"
    with pytest.raises(PassError) as told:
        reduce(chain(2), cast(Predicate, "grep"))
    assert told.value.code == "HB0351"
    with pytest.raises(IrError) as given:
        reduce(cast(Module, "module"), lambda candidate: True)
    assert given.value.code == "HB0236"
    with pytest.raises(ZeroDivisionError):
        reduce(chain(2), lambda candidate: bool(1 // 0))
