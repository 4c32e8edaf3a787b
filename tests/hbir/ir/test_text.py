"""Reading and printing `.mlir`: hostile text, positions in errors, names, locations."""

from __future__ import annotations

import ast
import random
import time
import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import CallSiteLoc, FileLineColLoc, FusedLoc, IntAttr, NoneAttr, StringAttr, UnknownLoc, f32
from xdsl.ir import Operation
from xdsl.rewriter import Rewriter

from hbir import dialects
from hbir.dialects.base import tensor
from hbir.dialects.hbir import ClipOp
from hbir.dialects.hbir.elementwise import AddOp
from hbir.errors import IrError
from hbir.ir import limits
from hbir.ir.locations import fuse_locations, layer_name, location_names, name_location
from hbir.ir.text import print_module, verify_module
from hbir.module import Module
from hbir.testing import assert_round_trips, modules
from hbir.testing.checks import through_tosa_opt

RELU = """\
"builtin.module"() ({
  "func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "main"}> ({
  ^bb0(%arg0: tensor<2xf32> loc("x")):
    %0 = "hbir.clip"(%arg0) <{min = 0.000000e+00 : f64}> : (tensor<2xf32>) -> tensor<2xf32> loc("relu")
    "func.return"(%0) : (tensor<2xf32>) -> () loc(unknown)
  }) : () -> () loc(unknown)
}) : () -> () loc(unknown)
"""


def test_the_text_is_what_it_was() -> None:
    assert str(Module.parse(RELU)) == RELU
    assert through_tosa_opt([Module.parse(RELU)]) == [RELU]
    assert "loc(" not in print_module(Module.parse(RELU).op, locations=False)


def test_names_of_a_text_do_not_matter() -> None:
    renamed = RELU.replace("%arg0", "%image").replace("%0", "%activation")
    assert str(Module.parse(renamed)) == RELU


def test_errors_name_the_line() -> None:
    broken = RELU.replace('"hbir.clip"', '"hbir.clap"')
    with pytest.raises(IrError, match=r"HB0205 at net.mlir, line 4: .*hbir.clap") as caught:
        Module.parse(broken, source="net.mlir")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('"func.return"(%0)', '"func.return"(%1)', "HB0205"),
        ("tensor<2xf32> loc(", "tensor<2xf33> loc(", "HB0205"),
        (" -> tensor<2xf32> loc", " -> tensor<3xf32> loc", "HB0205"),
        ("min = 0.000000e+00 : f64", "min = 0 : i64", "HB0204"),
        ("min = 0.000000e+00 : f64", "minimum = 0.0 : f64", "HB0204"),
        ("min = 0.000000e+00", "max = -1.0 : f64, min = 0.0", "HB0204"),
        ("tensor<2xf32>", "f32", "HB0204"),
        ('"func.return"(%0) : (tensor<2xf32>) -> ()', '"func.return"() : () -> ()', "HB0204"),
        ("}) : () -> () loc(unknown)\n})", "})", "HB0205"),
    ],
)
def test_damaged_text_is_refused_in_one_paragraph(old: str, new: str, code: str) -> None:
    assert old in RELU
    with pytest.raises(IrError) as caught:
        Module.parse(RELU.replace(old, new))
    assert caught.value.code == code
    assert "\n" not in str(caught.value)


def test_what_is_no_network_is_refused() -> None:
    declaration = (
        '"builtin.module"() ({ "func.func"() <{sym_name = "f", sym_visibility = "private", '
        "function_type = () -> ()}> ({}) : () -> () }) : () -> ()"
    )
    nested = '"builtin.module"() ({ "builtin.module"() ({ ^bb0: }) : () -> () }) : () -> ()'
    for text in (declaration, nested):
        with pytest.raises(IrError, match="HB0208"):
            Module.parse(text)
    with pytest.raises(IrError, match="HB0205"):
        Module.parse("")
    with pytest.raises(IrError, match="HB0205"):
        Module.parse("(" * 5000)


def test_use_before_definition_is_refused() -> None:
    swapped = RELU.replace(
        '    "func.return"',
        '    %2 = "hbir.clip"(%3) : (tensor<2xf32>) -> tensor<2xf32> loc("early")\n'
        '    %3 = "hbir.clip"(%0) : (tensor<2xf32>) -> tensor<2xf32>\n    "func.return"',
    )
    with pytest.raises(IrError, match="HB0203 at layer 'early': operand 0 of hbir.clip"):
        Module.parse(swapped)


@given(modules(("hbir", "qat", "quantized"), 3), st.integers(0, 2**32 - 1))
def test_mutated_text_never_escapes_as_another_error(module: Module, seed: int) -> None:
    rng, text = random.Random(seed), str(module)
    for _ in range(8):
        at, length = rng.randrange(len(text)), rng.randrange(1, 12)
        other = rng.randrange(len(text))
        piece = rng.choice(
            ["", text[other : other + length], "-", "0", "99999999999", '"', "{", ">", "1.0e400", "x", "\0"]
        )
        damaged = text[:at] + piece + text[at + length :]
        try:
            assert_round_trips(Module.parse(damaged, module.constants))
        except IrError as error:
            # HB0201: the name of a constant is damaged, and the round trip saves it.
            assert error.code in {"HB0201", "HB0203", "HB0204", "HB0205", "HB0208"}


@given(st.text(max_size=20))
def test_any_layer_name_survives(name: str) -> None:
    module = Module.parse(RELU)
    op = module[0].operations[0]
    op.location = name_location(name)
    again = Module.parse(str(module))
    assert location_names(again[0].operations[0]) == (name,)
    assert str(again) == str(module)


def test_odd_layer_names_survive_tosa_opt() -> None:
    for name in ("layer/1:0", 'with "quotes"', "new\nline", "größe", "back\\slash", "%1", "层"):
        module = Module.parse(RELU)
        module[0].operations[0].location = name_location(name)
        module[0].flatten_inputs[0].name = name
        (text,) = through_tosa_opt([module])
        again = Module.parse(text)
        assert (layer_name(again[0].operations[0]), again[0].flatten_inputs[0].name) == (name, name)


def test_locations_are_fused_without_repetition() -> None:
    a, b = name_location("a"), name_location("b")
    assert fuse_locations([]) == UnknownLoc()
    assert fuse_locations([a, UnknownLoc(), a]) == a
    both = fuse_locations([a, b])
    assert both == FusedLoc((a, b), NoneAttr())
    assert fuse_locations([both, name_location("c"), b]) == FusedLoc((a, b, name_location("c")), NoneAttr())
    op = Module.parse(RELU)[0].operations[0]
    op.location = CallSiteLoc(both, FileLineColLoc(StringAttr("f.py"), IntAttr(3), IntAttr(4)))
    assert layer_name(op) == "a+b"
    op.location = FileLineColLoc(StringAttr("f.py"), IntAttr(3), IntAttr(4))
    assert location_names(op) == ("f.py:3",)
    op.location = UnknownLoc()
    assert layer_name(op) == "hbir.clip"


ATTRIBUTE = '"builtin.module"() ({{ ^bb0: }}) {{a = {}}} : () -> ()'
TYPED = (
    '"builtin.module"() ({{"func.func"() <{{function_type = ({0}) -> (), sym_name = "m"}}> '
    '({{^bb0(%0: {0}): "func.return"() : () -> ()}}) : () -> ()}}) : () -> ()'
)
HOSTILE = {
    "an integer of a wide type": ATTRIBUTE.format("5 : i999999999"),
    "an integer of a type wider than memory": ATTRIBUTE.format("5 : i999999999999"),
    "a wide type": TYPED.format("tensor<2xi99999999999999999999>"),
    "an array of a wide type": ATTRIBUTE.format("array<i999999999: 1>"),
    "one value for many": ATTRIBUTE.format("dense<0> : tensor<9999999999xi8>"),
    "one value for many, in hex": ATTRIBUTE.format('dense<"0xFF"> : tensor<99999999xi8>'),
    "an extent": TYPED.format(f"tensor<{'9' * 30}xi8>"),
    "a scale that is no float": ATTRIBUTE.format(f"!quant.uniform<i8:f32, {'9' * 400}>"),
    "a scale that is infinite": ATTRIBUTE.format("!quant.uniform<i8:f32, 1e400>"),
    "a storage type without bits": ATTRIBUTE.format("!quant.uniform<i0:f32, 1.0>"),
    "a storage type of many bits": ATTRIBUTE.format("!quant.uniform<i999999999:f32, 1.0>"),
    "a long number": ATTRIBUTE.format("9" * 5000 + " : i64"),
    "names that double": "".join(f"#a{i} = [#a{i - 1}, #a{i - 1}]\n" if i else "#a0 = [1]\n" for i in range(40))
    + ATTRIBUTE.format("#a39"),
    "types that double": "".join(f"!a{i} = tuple<!a{i - 1}, !a{i - 1}>\n" if i else "!a0 = i8\n" for i in range(40))
    + ATTRIBUTE.format("!a39"),
    "names that nest": "".join(f"#a{i} = [#a{i - 1}]\n" if i else "#a0 = [1]\n" for i in range(3000))
    + ATTRIBUTE.format('["é", #a2999]'),
    "locations that double": "".join(
        f"#a{i} = loc(fused[#a{i - 1}, #a{i - 1}])\n" if i else "#a0 = loc(unknown)\n" for i in range(40)
    )
    + '"builtin.module"() ({ ^bb0: }) : () -> () loc(#a39)',
    "axes": TYPED.format(f"tensor<{'1x' * 20000}xi8>"),
    "axes of a vector": ATTRIBUTE.format(f"dense<1> : vector<{'1x' * 20000}i8>"),
    "brackets": ATTRIBUTE.format("[" * 5000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_at_once(name: str) -> None:
    begin = time.process_time()
    with pytest.raises(IrError):
        Module.parse(HOSTILE[name])
    assert time.process_time() - begin < 1
    tracemalloc.start()  # which makes it several times slower
    try:
        with pytest.raises(IrError) as caught:
            Module.parse(HOSTILE[name])
        assert caught.value.code == "HB0205"
        assert len(str(caught.value)) < 1000
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()


def lines_of(piece: str) -> str:
    """A piece 500 times, each on a line of its own, with its number in place of N."""
    return ",\n".join(piece.replace("N", str(i)) for i in range(500))


BEYOND = {
    "elements of one dense": ATTRIBUTE.format(f"dense<[{lines_of('1')}]> : tensor<500xi64>"),
    "many dense": ATTRIBUTE.format(f"[{lines_of('dense<1> : tensor<i8>')}]"),
    "elements of many dense": ATTRIBUTE.format(f"[{lines_of('dense<1> : tensor<9xi8>')}]"),
    "a list": ATTRIBUTE.format(f"[{lines_of('1')}]"),
    "lists in lists": ATTRIBUTE.format(f"[{lines_of('[[]]')}]"),
    "entries": f'"builtin.module"() ({{ ^bb0: }}) {{{lines_of("aN = 1")}}} : () -> ()',
    "entries without a value": f'"builtin.module"() ({{ ^bb0: }}) {{{lines_of("aN")}}} : () -> ()',
    "properties": f'"builtin.module"() <{{{lines_of("aN = 1")}}}> ({{ ^bb0: }}) : () -> ()',
    "names": lines_of("#aN = 1").replace(",", "") + "\n" + ATTRIBUTE.format("#a0"),
    "types": ATTRIBUTE.format(f"tuple<{lines_of('i8')}>"),
    "parts of a location": f'"builtin.module"() ({{ ^bb0: }}) : () -> () loc(fused[{lines_of("unknown")}])',
    "operands": f'"builtin.module"() ({{ "func.return"({lines_of("%N")}) : () -> () }}) : () -> ()',
    "symbols": ATTRIBUTE.format("@a" + lines_of("::@a").replace(",", "")),
    "strides": ATTRIBUTE.format(f"strided<[{lines_of('1')}]>"),
    "odd numbers": ATTRIBUTE.format(f"array<i64: {lines_of('0x1')}>"),
    "odd numbers with a point": ATTRIBUTE.format(f"array<f16: {lines_of('1.0')}>"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_no_more_is_read_than_a_text_may_hold(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "Budget", partial(limits.Budget, attributes=150, dense=60, elements=300))
    with pytest.raises(IrError, match=r"HB0205 at net.mlir, line \d+: (more|dense)") as caught:
        Module.parse(BEYOND[name], source="net.mlir")
    line = int(caught.value.where.rsplit(" ", 1)[1])
    assert line < 400, "it was read to its end"


def test_each_operation_pays_for_what_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "Budget", partial(limits.Budget, attributes=100))
    text = str(clips(400))
    assert text.count("tensor<2xf32>") > 800 and str(Module.parse(text)) == text
    # Other tools print locations in front, or behind, one name for each operation.
    named = "".join(f'#loc{i} = loc("layer{i}")\n' for i in range(400))
    assert Module.parse(named + RELU)[0].operations
    assert Module.parse(RELU + named)[0].operations


def test_what_a_text_may_hold_is_more_than_networks_have() -> None:
    arguments = ", ".join(f"%{i}: tensor<2xf32>" for i in range(1000))
    types, names = ", ".join(["tensor<2xf32>"] * 1000), ", ".join(f'{{hbir.name = "x{i}"}}' for i in range(1000))
    kept = f'"func.return"({", ".join(f"%{i}" for i in range(1000))}) : ({types}) -> ()'
    function = f'<{{arg_attrs = [{names}], function_type = ({types}) -> ({types}), sym_name = "m"}}>'
    text = f'"builtin.module"() ({{"func.func"() {function} ({{^bb0({arguments}): {kept}}}) : () -> ()}}) : () -> ()'
    assert len(Module.parse(text)[0].flatten_inputs) == 1000


ARRAYS = {
    "i8": "-128, 127, 0",
    "i16": "-32768,32767",
    "i32": "-2147483648 , 2147483647",
    "i64": "999999999999999999, -999999999999999999",
    "f32": "1.500000e+00, -0.0, 3.4028235e38, 1.401298e-45",
    "f64": "0.1, 2.2250738585072014e-308, -1.7976931348623157e308",
}


@pytest.mark.parametrize("element", ARRAYS)
def test_numbers_of_an_array_are_read_as_one_piece_and_mean_the_same(
    element: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = ATTRIBUTE.format(f"array<{element}: {ARRAYS[element]}>")
    with monkeypatch.context() as patch:
        patch.setattr(limits, "_packed", lambda *_: None)
        slowly = str(Module.parse(text))
    monkeypatch.setattr(limits, "Budget", partial(limits.Budget, attributes=10))
    assert str(Module.parse(text)) == slowly and f"array<{element}: " in slowly
    many = ", ".join([ARRAYS[element]] * 500)
    assert str(Module.parse(ATTRIBUTE.format(f"array<{element}: {many}>"))).count(",") == many.count(",")


@pytest.mark.parametrize(
    "array", ["i8: 256", "i8: -129", f"i64: {1 << 64}", "f32: 1e39", "i32: 1.0", "i8: 1,", "i8: 1 2", "i8: --1"]
)
def test_numbers_that_an_array_cannot_hold_are_refused(array: str) -> None:
    with pytest.raises(IrError, match="HB0205"):
        Module.parse(ATTRIBUTE.format(f"array<{array}>"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the text is empty: it holds no module"),
        (" \n", "the text is empty: it holds no module"),
        ("123", "an operation is expected here"),
        ('% = "a"()', "a name is expected behind %"),
        ("#", "a name is expected behind #"),
    ],
)
def test_what_is_missing_is_said_in_words(text: str, said: str) -> None:
    with pytest.raises(IrError, match=f"HB0205 at net.mlir, line .: {said}"):
        Module.parse(text, source="net.mlir")


def test_a_mistake_of_our_own_is_not_taken_for_a_bad_text(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever it is, the innermost function is one of the project.
    monkeypatch.setattr(AddOp, "verify_", lambda _: layer_name(cast(Any, None)))
    module = (
        '"func.func"() <{function_type = (tensor<2xf32>) -> tensor<2xf32>, sym_name = "m"}> ({ ^bb0(%0: tensor<2xf32>):'
    )
    module += ' %1 = "hbir.add"(%0, %0) : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>'
    module += ' "func.return"(%1) : (tensor<2xf32>) -> () }) : () -> ()'
    with pytest.raises(AttributeError, match="NoneType"):
        Module.parse(f'"builtin.module"() ({{ {module} }}) : () -> ()')


def test_many_blocks_are_refused_at_once() -> None:
    blocks = "".join(f'^bb{i}: "func.return"() : () -> ()\n' for i in range(3000))
    function = f'"func.func"() <{{function_type = () -> (), sym_name = "m"}}> ({{{blocks}}}) : () -> ()'
    begin = time.process_time()
    with pytest.raises(IrError, match="one block") as caught:
        Module.parse(f'"builtin.module"() ({{{function}}}) : () -> ()')
    assert caught.value.code == "HB0208"
    assert time.process_time() - begin < 1


def test_shapes_of_some_axes_are_read() -> None:
    shapes = "tensor<1x?x3xf32>, tensor<2x2x2x2x2x2x2x2xi8>, tensor<f32>, tensor<" + "1x" * 64 + "i1>"
    text = ATTRIBUTE.format(f"[{shapes}, dense<1> : tensor<2x3xi8>]")
    assert str(Module.parse(text)) == str(Module.parse(str(Module.parse(text))))


def clips(count: int) -> Module:
    """Clips one behind the other, whose types and attributes are the same objects."""
    module = Module.parse(RELU)
    clip, end = module[0].operations[0], module[0].return_op
    for _ in range(count - 1):
        copy = clip.clone()
        copy.operands[0] = end.operands[0]
        module[0].op.body.block.insert_op_before(copy, end)
        end.operands[0] = copy.results[0]
    return module


def looked_at(module: Module) -> list[Operation]:
    """The operations that `verify_module` looks at; none is refused."""
    looked: list[Operation] = []

    def noting(op: Operation, verify_nested_ops: bool = True) -> None:
        assert not verify_nested_ops or not op.regions
        looked.append(op)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Operation, "verify", noting)
        verify_module(module.op)
    return looked


def test_what_is_like_an_operation_that_was_verified_is_not_looked_at_again() -> None:
    names = [op.name for op in looked_at(clips(50))]
    # The first one reads the argument, whose type is an object of its own.
    assert names == ["hbir.clip", "hbir.clip", "func.return", "func.func", "builtin.module"]


@pytest.mark.parametrize("where", ["property", "no property", "operand", "result", "operands"])
def test_what_differs_in_one_thing_is_looked_at(where: str) -> None:
    module = clips(5)
    last = module[0].operations[-1]
    other = tensor((3,), f32)
    match where:
        case "property":
            last.properties["min"] = StringAttr("low")
        case "no property":
            last.properties["minimum"] = last.properties.pop("min")
        case "operand":
            module[0].op.body.block.insert_op_before(made := ClipOp.make(last.operands[0], min=0.0, max=None), last)
            Rewriter.replace_value_with_new_type(made.output, other)
            last.operands[0] = made.output
        case "result":
            Rewriter.replace_value_with_new_type(last.results[0], other)
        case _:
            last.operands = [last.operands[0], last.operands[0]]
    assert last in looked_at(module)
    with pytest.raises(IrError, match="HB0204"):
        verify_module(module.op)


def test_operations_of_ours_verify_by_what_they_are() -> None:
    """What `verify_module` rests on: no verifier looks at what is around an operation, nor at its discardable attributes."""
    around = {"owner", "uses", "parent", "parent_op", "parent_block", "next_op", "prev_op", "attributes"}
    paths = list(Path(dialects.__file__).parent.rglob("*.py"))
    assert len(paths) > 10
    for path in paths:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        assert around.isdisjoint(node.attr for node in nodes if isinstance(node, ast.Attribute)), path
        assert {"attr_def", "opt_attr_def"}.isdisjoint(node.id for node in nodes if isinstance(node, ast.Name)), path


def test_an_operation_of_others_is_looked_at_each_time() -> None:
    class Picky(ClipOp):
        """One that may look around itself."""

    Picky.__module__ = "somebody.ops"
    module = clips(3)
    for op in module[0].operations:
        op.__class__ = Picky
    assert [op.name for op in looked_at(module)].count("hbir.clip") == 3
