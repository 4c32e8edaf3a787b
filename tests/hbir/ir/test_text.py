"""Reading and printing `.mlir`: hostile text, positions in errors, names, locations."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import CallSiteLoc, FileLineColLoc, FusedLoc, IntAttr, NoneAttr, StringAttr, UnknownLoc

from hbir.errors import IrError
from hbir.ir.locations import fuse_locations, layer_name, location_names, name_location
from hbir.ir.text import print_module
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
            assert error.code in {"HB0203", "HB0204", "HB0205", "HB0208"}


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
