"""What the checks find, where, and that they agree with the reader of modules."""

from __future__ import annotations

import random
import re
from functools import partial

import numpy as np
import pytest

from hbir import export
from hbir.errors import HbError
from hbir.ir import limits
from hbir.module import Module
from passes import available_passes, calibrate, convert
from tests.tools.lsp.texts import MODULE, SHORT, pair_network
from tools.lsp import checks
from tools.lsp.assemble import judged_by_types
from tools.lsp.checks import Checker, Problem
from tools.lsp.describe import layers_of
from tools.lsp.index import build_index


def problems(text: str) -> list[Problem]:
    return Checker().check(build_index(text))


def refused(text: str) -> bool:
    try:
        Module.parse(text)
    except HbError:
        return True
    return False


@pytest.mark.parametrize("text", [MODULE, SHORT, pair_network(20)])
def test_what_the_reader_takes_has_no_problem(text: str) -> None:
    assert not refused(text) and problems(text) == []


@pytest.mark.parametrize(
    ("old", "new", "code", "where", "said"),
    [
        ("quantized.clamp", "quantized.clam", "HB0205", '"quantized.clam"', "Change: write quantized.clamp"),
        ("low = -100 : i64", "low = -1000 : i64", "HB0204", '"quantized.clamp"', "leaves the storage range"),
        ("low = -100 : i64, ", "", "HB0204", '"quantized.clamp"', "property 'low' expected"),
        ("(%1) <{grid", "(%7) <{grid", "HB0205", "%7", "%7 is not defined"),
        ("%1 = ", "%0 = ", "HB0205", "%0", "already defined in line 5"),
        ("high = 100 : i64", "high = 100 : i6x", "HB0205", "i6x", "type expected"),
        ('"second"', "second", "HB0205", "second", ""),
        ('sym_name = "second", ', "", "HB0204", '"func.func"', "sym_name"),
        ('"stage1/conv")\n    %1', '"stage1/conv)\n    %1', "HB0205", '"stage1/conv)', "a string does not end"),
        ("function_type = (tensor<1x4x4x8xf32>)", "function_type = (tensor<9xf32>)", "HB0204", "first", "same types"),
        (
            '  "func.func"() <{sym_name = "second"',
            '  "hbir.constant"() <{value = #hbir.blob<"00", 4>}> : () -> tensor<1xf32>\n  "func.func"() <{sym_name = "second"',
            "HB0208",
            '"hbir.constant"',
            "a module holds functions",
        ),
        (f'"func.return"(%0) : ({"tensor<1x4x4x8xf32>"})', '"func.return"() : ()', "HB0204", "second", ""),
    ],
)
def test_a_problem_stands_where_it_is(old: str, new: str, code: str, where: str, said: str) -> None:
    assert old in MODULE
    text = MODULE.replace(old, new, 1)
    assert refused(text)
    found = problems(text)
    assert [(each.code, text[each.span.start : each.span.end]) for each in found][:1] == [(code, where)], found
    assert said in found[0].message


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "quant.uniform<i8:f32, 5.000000e-02:3>>) -> tensor<1x4x4x8x",
            "quant.uniform<i8:f32, 5.000000e-02:3>>,) -> tensor<1x4x4x8x",
        ),
        ('-> tensor<1x4x4x8xf32> loc("größe")', '-> (tensor<1x4x4x8xf32>) i8 loc("größe")'),
        ('-> tensor<1x4x4x8xf32> loc("größe")', '-> (tensor<1x4x4x8xf32>,) loc("größe")'),
        ('%0 = "hbir.clip"', '%0:2 = "hbir.clip"'),
        ('%0 = "hbir.clip"', '%0 = i8 "hbir.clip"'),
        ("<{min = 0.0 : f64, ", "<{min = 0.0 : f64, min = 0.0 : f64, "),
        ("<{min = 0.0 : f64, ", "<{min = 0.0 : f64,, "),
        ('loc("größe")', "loc(nonsense)"),
        ('loc("größe")', 'loc("größe") nonsense'),
    ],
)
def test_what_is_put_together_is_as_strict_as_the_reader(old: str, new: str) -> None:
    assert old in MODULE
    text = MODULE.replace(old, new, 1)
    assert refused(text) and problems(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("high = 100 : i64", "high = 100 : i32"),
        ("high = 100 : i64", "high = 100.0 : f64"),
        ("high = 100 : i64", "high = -101 : i64"),
        ("high = 100 : i64", "high = 1000 : i64"),
        ("high = 100 : i64", "height = 100 : i64"),
        (", high = 100 : i64", ""),
        ("high = 100 : i64", "high = 100 : i64, more = 1 : i64"),
        ("min = 0.0 : f64", "min = 0.0 : f32"),
        ("min = 0.0 : f64", "min = 9.0 : f64"),
        ("grid = !quant.uniform<i8:f32, 5.000000e-02:3>", "grid = !quant.uniform<i8:f32, 6.000000e-02:3>"),
        ("grid = !quant.uniform<i8:f32, 5.000000e-02:3>", "grid = f32"),
        ("-> tensor<1x4x4x8xf32> loc(fused", "-> tensor<1x4x4x9xf32> loc(fused"),
        ("-> tensor<1x4x4x8xf32> loc(fused", "-> f32 loc(fused"),
    ],
)
def test_what_was_learnt_of_an_operation_hides_no_mistake_in_another(old: str, new: str) -> None:
    assert old in MODULE
    checker = Checker()
    assert checker.check(build_index(MODULE)) == []
    text = MODULE.replace(old, new, 1)
    assert refused(text) and checker.check(build_index(text)) == problems(text) != []


def test_operations_with_a_verifier_of_their_own_are_built_each_time() -> None:
    quick = {op.name for op in Checker().operations if judged_by_types(op)}
    assert {"quantized.quantize", "quantized.clamp", "hbir.clip"} <= quick
    assert not {"hbir.constant", "hbir.add", "hbir.conv2d", "func.return"} & quick


def test_names_beyond_ascii_do_not_shift_the_place() -> None:
    text = MODULE.replace('loc("größe")', 'loc("größe" nonsense)')
    (found,) = problems(text)
    assert text[found.span.start : found.span.end] == "nonsense"


def test_several_problems_are_told_at_once() -> None:
    text = MODULE.replace("quantized.clamp", "quantized.clam").replace("min = 0.0", "min = 9.0").replace("(%2)", "(%9)")
    assert {each.code for each in problems(text)} == {"HB0205", "HB0204"} and len(problems(text)) == 3


def test_a_use_before_its_definition_and_a_wrong_type_are_told_at_the_operand() -> None:
    lines = MODULE.splitlines(keepends=True)
    lines[4], lines[5] = lines[5], lines[4]
    text = "".join(lines)
    (found,) = problems(text)
    assert found.code == "HB0203" and text[found.span.start : found.span.end] == "%0" and refused(text)
    text = MODULE.replace("5.000000e-02:3>}>", "5.000000e-02:4>}>", 1).replace(
        "05.000000e-02:3>> loc", "05.000000e-02:4>> loc", 1
    )
    text = text.replace('5.000000e-02:3>> loc("stage1/conv")\n    %1', '5.000000e-02:4>> loc("stage1/conv")\n    %1')
    (found,) = problems(text)
    assert "%0 is used with type" in found.message and refused(text)


def test_aliases_are_known_from_their_definition_on() -> None:
    late = "\n".join([*SHORT.splitlines()[1:], SHORT.splitlines()[0], ""])
    (found,) = problems(late)
    assert late[found.span.start : found.span.end] == "#layer" and "--mlir-print-local-scope" in found.message
    assert problems(SHORT.replace("#layer = loc", "#layer = lo"))


def test_what_was_clean_is_not_read_again_but_stays_checked() -> None:
    checker = Checker()
    assert checker.check(build_index(MODULE)) == []
    broken = MODULE.replace("-100 : i64", "-1000 : i64")
    assert len(checker.check(build_index(broken))) == 1
    assert checker.check(build_index(MODULE)) == []
    assert checker.check(build_index(SHORT)) == []
    assert len(checker.check(build_index(SHORT.replace('loc("conv1")', '"conv1"')))) == 1


def test_the_checks_agree_with_the_reader_on_damaged_texts() -> None:
    rng = random.Random(7)
    tokens = {text: re.findall(r'"[^"]*"|[%@#^!]?[\w.$-]+|\s+|.', text) for text in (MODULE, SHORT)}
    spare = [
        "%",
        '"',
        "(",
        ")",
        "{",
        "}",
        "<",
        ">",
        ":",
        "=",
        ",",
        "loc(",
        "#",
        "@",
        "-1",
        "i8",
        "f32",
        "//",
        "%9",
        '"hbir.add"',
        "é",
    ]
    checker, outcomes = Checker(), {True: 0, False: 0}
    for trial in range(150):
        parts = list(tokens[MODULE if trial % 3 else SHORT])
        at, other = rng.randrange(len(parts)), rng.randrange(len(parts))
        parts[at] = rng.choice(["", rng.choice(spare), parts[at] + rng.choice(spare), parts[other]])
        text = "".join(parts)
        wrong = refused(text)
        outcomes[wrong] += 1
        assert bool(checker.check(build_index(text))) == wrong, text
    assert outcomes[True] > 50 and outcomes[False] > 5


def test_a_check_that_nobody_waits_for_stops_and_keeps_what_it_learnt() -> None:
    text = MODULE.replace("min = 0.0", "min = 9.0")
    checker, asked = Checker(), 0

    def wanted() -> bool:
        nonlocal asked
        asked += 1
        return asked < 4

    assert checker.check(build_index(text), wanted) == [] and asked >= 4
    assert len(checker.check(build_index(text))) == 1


def test_modules_that_passes_have_touched_have_no_problems() -> None:
    """Their locations name the passes, as metadata that is no layer."""
    module = calibrate(export("tests/data/tiny.onnx"), [{"x": np.zeros((1, 3, 16, 16), np.float32)}])
    text = str(convert(module, "nash-e"))
    assert "fused<" in text and problems(text) == []
    index = build_index(text)
    layers = {layer for statement in index.statements for layer in layers_of(index, statement)}
    assert "stem" in layers and not layers & set(available_passes())


@pytest.mark.parametrize(
    ("value", "first"), [("dense<1> : tensor<i8>", 60), ("[" + ", ".join(["1"] * 300) + "]", 0)], ids=["dense", "lists"]
)
def test_the_checks_read_no_more_than_the_reader(value: str, first: int, monkeypatch: pytest.MonkeyPatch) -> None:
    small = partial(limits.Budget, attributes=100, dense=60)
    for module in (limits, checks):
        monkeypatch.setattr(module, "Budget", small)
    place = SHORT.index("    func.return")
    type_ = "tensor<1x4x4x8xf32>"
    lines = [f'    %x{i} = "hbir.clip"(%0) {{a{i} = {value}}} : ({type_}) -> {type_}\n' for i in range(80)]
    text = SHORT[:place] + "".join(lines) + SHORT[place:]
    assert refused(text)
    found = problems(text)
    assert {problem.code for problem in found} == {"HB0205"} and "more" in found[0].message
    assert found[0].span.start in range(place + len("".join(lines[:first])), place + len("".join(lines[: first + 1])))


@pytest.mark.parametrize(("text", "said"), [("", "the text is empty"), ("%", "a name is expected behind %")])
def test_what_is_missing_is_said_in_words(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert problem.code == "HB0205" and said in problem.message
