"""What must hold for every operation class: a generator, a round trip, MLIR's agreement, inference, and refusals."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, StringAttr, TensorType, f64, i64
from xdsl.ir import Attribute, Block, Operation
from xdsl.utils.exceptions import VerifyException

from hbir.dialects import all_dialects
from hbir.dialects.base import HbOperation, shape_of, tensor, tensor_type
from hbir.dialects.hbir import ConstantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.dialects.quantized import ResizeBilinearOp
from hbir.errors import HbError, IrError
from hbir.module import Module
from hbir.testing import GENERATORS, assert_round_trips, assert_same_semantics, example_feeds, modules, operations
from hbir.testing.checks import through_tosa_opt

EVERY = [op for dialect in all_dialects() for op in dialect.operations if issubclass(op, HbOperation)]


def test_every_operation_has_a_generator() -> None:
    assert set(EVERY) == set(GENERATORS)


def _collected(strategy: st.SearchStrategy[Module], count: int) -> list[Module]:
    """A fixed set of examples of a strategy."""
    found: list[Module] = []

    @settings(max_examples=count)
    @given(strategy)
    def collect(module: Module) -> None:
        found.append(module)

    collect()
    return found


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_operation(kind: type[HbOperation]) -> None:
    """Text round trips; results have the inferred types; the clone means the same."""

    @settings(max_examples=15)
    @given(operations(kind))
    def check(module: Module) -> None:
        assert any(isinstance(op, kind) for op in module[0].operations)
        assert_round_trips(module)
        function = module[0]
        before = str(module)
        outputs = function.feed(example_feeds(function))
        for argument in function.flatten_outputs:
            got = outputs[argument.name]
            assert (got.shape, got.dtype) == (argument.type.shape, argument.type.np_dtype)
        assert_same_semantics(module, module.clone())
        assert str(module) == before == str(module.clone())

    check()


def test_tosa_opt_reads_every_operation_and_gives_it_back() -> None:
    examples = [module for kind in EVERY for module in _collected(operations(kind), 3)]
    assert len(examples) >= len(EVERY)
    for quant in (False, True):
        texts = through_tosa_opt(examples, quant=quant)
        assert len(texts) == len(examples)
        for module, text in zip(examples, texts, strict=True):
            assert str(Module.parse(text, module.constants)) == str(module)


def test_tosa_opt_reads_whole_graphs() -> None:
    examples = _collected(modules(("hbir", "qat", "quantized"), 8), 40)
    for module, text in zip(examples, through_tosa_opt(examples), strict=True):
        again = Module.parse(text, module.constants)
        assert str(again) == str(module)
        assert_same_semantics(module, again)


# Verifier negatives: an operation of every class is changed in one place, at random; either the change is legal, and the
# operation then still has a meaning for its types, or the verifier says what is wrong, as an IrError.


def _changed(value: Attribute, rng: random.Random) -> Attribute:
    match value:
        case IntegerAttr():
            wide = value.type == i64
            return IntegerAttr(rng.choice([-1, 0, 1, 2, 5, 99]) if wide else rng.randint(0, 1), value.type)
        case DenseArrayBase() if value.elt_type == i64:
            items = list(value.get_values())
            at = rng.randrange(len(items) + 1)
            return DenseArrayBase.from_list(
                i64, rng.choice([items[:-1], [*items, 1], [*items[:at], -1, *items[at + 1 :]]])
            )
        case DenseArrayBase() if value.elt_type == f64:
            return DenseArrayBase.from_list(f64, [1.0] * rng.randrange(5))
        case DenseArrayBase():
            return DenseArrayBase.from_list(value.elt_type, rng.choice([[], [1], [0, 3], [-1], [7, 7, 7]]))
        case UniformQuantizedType():
            return UniformQuantizedType.get(rng.choice([4, 8, 16, 32]), rng.choice([0.5, 7.0, 1e-9]))
        case StringAttr():
            return StringAttr("nonsense")
        case _:
            return value


def _changed_type(type_: Attribute, rng: random.Random) -> TensorType[Any]:
    shape = list(tensor_type(type_).get_shape())
    element = tensor_type(type_).element_type
    kind = rng.randrange(4)
    if kind == 0:
        return tensor([*shape, 2], element)
    if kind == 1:
        return tensor(shape[1:], element)
    if kind == 2 and shape:
        at = rng.randrange(len(shape))
        return tensor([*shape[:at], shape[at] + rng.choice([1, 4]), *shape[at + 1 :]], element)
    return tensor(shape, rng.choice([i64, f64, UniformQuantizedType.get(8, [0.1, 0.2], axis=0)]))


def _damage(op: Operation, rng: random.Random) -> None:
    properties = [name for name in op.properties if name != "operandSegmentSizes"]
    choice = rng.randrange(3)
    if choice == 0 and properties:
        name = rng.choice(properties)
        op.properties[name] = _changed(op.properties[name], rng)
    elif choice == 1 and properties:
        del op.properties[rng.choice(properties)]
    else:
        value = rng.choice([*op.operands, *op.results])
        value._type = _changed_type(value.type, rng)  # the damage itself: no public way makes an ill-typed value


@pytest.mark.parametrize("kind", EVERY, ids=lambda kind: kind.name)
def test_damaged_operations_are_refused_or_still_mean_something(kind: type[HbOperation]) -> None:
    refused = 0
    for number, module in enumerate(_collected(operations(kind), 25)):
        rng = random.Random(number)
        op = next(op for op in module[0].operations if isinstance(op, kind))
        _damage(op, rng)
        module[0].update_type()
        try:
            module.verify()
        except IrError as error:
            assert error.code == "HB0204" and error.why
            refused += 1
            continue
        try:
            outputs = module[0].feed(example_feeds(module[0]))
        except HbError:
            continue  # a value that no type rules out, such as a reduction of nothing
        for argument in module[0].flatten_outputs:
            assert outputs[argument.name].shape == argument.type.shape, str(module)
    assert refused >= 5


def test_results_that_do_not_follow_are_refused() -> None:
    module = find(operations(GENERATORS_BY_NAME["hbir.transpose"]), lambda m: True)
    op = module[0].operations[-1]
    op.results[0]._type = tensor((7,), tensor_type(op.results[0].type).element_type)
    module[0].update_type()
    with pytest.raises(IrError, match="HB0204.*follow from its operands"):
        module.verify()


GENERATORS_BY_NAME = {kind.name: kind for kind in EVERY}


def test_every_operation_says_what_it_is() -> None:
    for kind in EVERY:
        assert kind.__doc__, kind.name


def test_evaluate_does_not_change_its_operands() -> None:
    for kind in EVERY:
        for module in _collected(operations(kind), 3):
            feeds = example_feeds(module[0])
            kept = {name: array.copy() for name, array in feeds.items()}
            first = {name: array.copy() for name, array in module[0].feed(feeds).items()}
            for name, array in kept.items():
                np.testing.assert_array_equal(array, feeds[name])
            for name, array in module[0].feed(feeds).items():
                np.testing.assert_array_equal(array, first[name])


def test_constants_are_read_only_views() -> None:
    module = _collected(operations(ConstantOp), 1)[0]
    op = next(op for op in module[0].operations if isinstance(op, ConstantOp))
    array = op.array(module.constants)
    assert not array.flags.writeable
    assert np.shares_memory(array, op.array(module.constants))


def test_a_resize_that_ends_between_two_rows_is_refused() -> None:
    """The kernel has no result for it: what cannot be run is not to verify."""
    grid = UniformQuantizedType.get(8, 0.5)
    x = Block(arg_types=[tensor((1, 5, 5, 2), grid)]).args[0]
    ratio = {"multiplier": np.array([1 << 14], np.int32), "shift": np.array([14], np.int8)}
    rest = {**ratio, "offset": [0, 0], "low": -128, "high": 127, "grid": grid}
    op = ResizeBilinearOp.make(x, scale=[1, 2, 1, 2], border=[0, 2], **rest)
    assert shape_of(op.output.type) == (1, 3, 4, 2)
    for border in ([1, 0], [0, 1]):
        with pytest.raises(VerifyException, match="ends between two rows"):
            ResizeBilinearOp.make(x, scale=[1, 2, 1, 2], border=border, **rest)
