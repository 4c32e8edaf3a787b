"""The index finds statements, names and scopes, in a whole text and in a broken one."""

from __future__ import annotations

import time

import pytest

from tests.tools.lsp.texts import MODULE, SHORT, pair_network
from tools.lsp import index as index_module
from tools.lsp.index import build_index
from tools.lsp.positions import Lines


def test_statements_begin_and_end_where_they_do() -> None:
    index = build_index(MODULE)
    names = [statement.name for statement in index.statements]
    assert names[:4] == ["builtin.module", "func.func", "quantized.quantize", "quantized.clamp"]
    assert names.count("func.return") == 2 and len(names) == 9
    clamp = index.statements[3]
    text = MODULE[clamp.start : clamp.end]
    assert text.startswith('%1 = "quantized.clamp"') and text.endswith('loc("stage1/conv")')
    assert index.statements[clamp.parent].name == "func.func" and clamp.results == 1
    assert MODULE[index.statements[0].start : index.statements[0].end] == MODULE[MODULE.index('"b') :].rstrip()


def test_equal_names_in_two_functions_are_two_values() -> None:
    index = build_index(MODULE)
    uses = [each for each in index.occurrences if each.name == "%0" and not each.defines]
    first, second = (index.definition(use) for use in uses)
    assert first is not None and second is not None and first.start < second.start
    assert [each.start for each in index.references(uses[0])] == [first.start, uses[0].start]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"quantized.clamp"(%0)', '"quantized.clamp"(%0'),
        ("low = -100 : i64, high = 100 : i64}>", "low = -100 : i64, high = 100"),
        ('"stage1/conv")\n    %1', '"stage1/conv\n    %1'),
        ('"quantized.clamp"(%0) <{low', '"quantized.clamp"(%0) <{{{([low'),
        ('%1 = "quantized.clamp"', '%1 = "quantized.cl'),
    ],
)
def test_a_broken_statement_hides_no_other(old: str, new: str) -> None:
    assert old in MODULE
    index = build_index(MODULE.replace(old, new, 1))
    names = [statement.name for statement in index.statements]
    assert names.count("func.return") == 2 and "quantized.dequantize" in names and "hbir.clip" in names
    unknown = [o.name for o in index.occurrences if o.kind == "value" and index.definition(o) is None]
    assert not unknown


def test_the_short_form_and_aliases_are_read() -> None:
    index = build_index(SHORT)
    assert [s.name for s in index.statements] == ["builtin.module", "func.func", "hbir.clip", "func.return"]
    defined = {(each.kind, each.name) for each in index.occurrences if each.defines}
    assert defined == {("alias", "#layer"), ("symbol", "net"), ("value", "%arg0"), ("value", "%0")}
    assert all(index.definition(each) for each in index.occurrences if each.kind in ("value", "alias"))


def test_positions_count_units_of_the_encoding_and_know_every_line_end() -> None:
    text = "a\r\nb\U0001f600c\rd\u2028e\n"
    lines = Lines(text)
    at = text.index("c")
    assert lines.position(at) == (1, 3) and lines.offset(1, 3) == at
    assert Lines(text, "utf-8").position(at) == (1, 5) and Lines(text, "utf-32").position(at) == (1, 2)
    assert lines.position(text.index("e")) == (2, 2), "U+2028 ends no line of the protocol"
    assert lines.offset(1, 99) == text.index("\rd") and lines.offset(9, 0) == len(text)
    assert lines.edited((1, 1), (1, 3), "X") == text.replace("\U0001f600", "X")


@pytest.mark.parametrize(
    "text", ["(" * 200_000 + "}" * 200_000, '"' * 100_000, "%a = " * 50_000, "loc(" * 100_000, "{%" * 50_000]
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    begin = time.process_time()
    build_index(text)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize(
    "text",
    [
        "tensor<",
        "loc ",
        ":  ",
        "sym_name =",
        "1a",
        "/ ",
        "%a, ",
        "%a:1 ,",
        "%",
        "@",
        "^",
        "#",
        "!",
        "\n",
        '"a',
        "a.b ",
        "$a.b",
    ],
)
def test_the_tokens_of_a_text_leave_no_gap(text: str) -> None:
    """What lies before a gap would be passed over once more from each of its characters: quadratic."""
    for whole in (text * 50, f"{text * 50} x", f"{MODULE}{text * 50}"):
        at = 0
        for token in index_module._TOKEN.finditer(whole):
            assert token.start() == at
            at = token.end()
        assert at == len(whole)


def test_a_list_of_values_is_one_token() -> None:
    tokens = [token[0] for token in index_module._TOKEN.finditer("%a, %b:2 ,%c" * 50)]
    assert tokens[0].startswith("%a, %b:2 ,%c%a") or len(tokens) == 51
    uses = [each.name for each in build_index('"f"(%a, %b#1, %c) ').occurrences if each.kind == "value"]
    assert uses == ["%a", "%b", "%c"]


def test_regions_are_told_apart_to_a_depth() -> None:
    index = build_index('"f"() ({ %a = "g"() ' * 500)
    assert len(index.parents) < 100 and len(index.statements) >= 100


def test_arguments_of_functions_come_in_order() -> None:
    text = "".join(f'func.func @f{i}(%a: !t.x, %b: i8 loc(#l)) {{ %c = "g"(%a, %b) : () -> () }}\n' for i in range(3))
    starts = [each.start for each in build_index(text).occurrences]
    assert starts == sorted(starts)
    assert all(build_index(text).definition(each) for each in build_index(text).occurrences if each.kind == "value")


def test_a_large_text_is_indexed_at_once() -> None:
    index = build_index(pair_network(2000))
    assert len(index.statements) == 2003 and not index.again
