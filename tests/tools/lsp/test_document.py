"""What an editor is told over a text: pages, definitions, an outline, completion, renaming."""

from __future__ import annotations

import pytest

from hbir.errors import ConfigError
from hbir.module import Module
from tests.tools.lsp.texts import MODULE, SHORT, pair_network
from tools.lsp.document import Document


def test_an_operation_shows_its_documentation_and_its_layer() -> None:
    document = Document(MODULE)
    found = document.hover(MODULE.index("quantized.clamp"))
    assert found is not None
    span, page = found
    assert MODULE[span.start : span.end] == "quantized.clamp"
    assert "Values held between `low` and `high`" in page and "layer `stage1/conv`" in page
    assert "- `low`: integer i64" in page and "Operands: `input`. Results: `output`." in page and "Pure" in page
    assert "`bias?`" in _completion(Document('"quantized.conv2'), "quantized.conv2d")


def _completion(document: Document, name: str) -> str:
    (one,) = (each for each in document.complete(len(document.text)) if each.name == name)
    return one.page


def test_a_value_shows_its_type_scale_and_layer() -> None:
    document = Document(MODULE)
    found = document.hover(MODULE.index("(%1)") + 1)
    assert found is not None
    assert "1x4x4x8 int8, scale 0.05, zero point 3" in found[1] and "layer `stage1/conv`" in found[1]
    argument = document.hover(MODULE.index("%arg0"))
    assert argument is not None and "1x4x4x8 f32" in argument[1] and "an input of its function" in argument[1]
    type_ = document.hover(MODULE.index("!quant.uniform"))
    assert type_ is not None and "axis is -1" in type_[1]
    fused = document.hover(MODULE.index("(%2)") + 2)
    assert fused is not None and "stage1/out+stage1/relu" in fused[1]


def test_aliases_stand_for_layers() -> None:
    document = Document(SHORT)
    found = document.hover(SHORT.index("%0"))
    assert found is not None and "layer `conv1`" in found[1]
    alias = document.hover(SHORT.index("#layer)"))
    assert alias is not None and 'loc("conv1")' in alias[1]
    symbol = document.hover(SHORT.index("@net") + 1)
    assert symbol is not None and "func.func, 2 operations" in symbol[1]


def test_definitions_and_references_stay_in_their_function() -> None:
    document = Document(MODULE)
    use = MODULE.index("(%0)") + 1
    definition = document.definition(use)
    assert definition is not None and definition.start == MODULE.index("%0 =")
    assert [span.start for span in document.references(use)] == [MODULE.index("%0 ="), use]
    assert [span.start for span in document.references(use, definition=False)] == [use]
    label = document.definition(MODULE.index("^bb0") + 1)
    assert label is not None and label.start == MODULE.index("^bb0")
    alias = Document(SHORT).definition(SHORT.index("#layer)"))
    assert alias is not None and alias.start == 0
    assert document.definition(0) is None and document.references(MODULE.index("quantized.clamp")) == []


def test_the_outline_has_functions_layers_and_operations() -> None:
    first, second = Document(MODULE).outline()
    assert (first.name, second.name) == ("@first", "@second")
    assert [(e.name, e.detail) for e in first.children][:2] == [
        ("stage1/conv", "2 operations"),
        ("stage1/out+stage1/relu", "quantized.dequantize"),
    ]
    assert [each.name for each in first.children[0].children] == ["quantized.quantize", "quantized.clamp"]
    assert second.children[0].name == "größe"
    (large,) = Document(pair_network(6000)).outline()
    assert len(large.children) == 601 and not any(each.children for each in large.children)


def test_names_are_completed_where_they_may_stand() -> None:
    text = MODULE.replace('    "func.return"(%2)', '    %3 = "quantized.de\n    "func.return"(%2)')
    offset = text.index('"quantized.de\n') + len('"quantized.de')
    found = Document(text).complete(offset)
    assert [each.name for each in found] == ["quantized.dequantize"]
    assert text[found[0].span.start : found[0].span.end] == "quantized.de"
    values = Document(MODULE).complete(MODULE.index("(%1)") + 2)
    assert [each.name for each in values][:2] == ["%1", "%0"] and "%2" not in [each.name for each in values]
    assert Document(MODULE).complete(MODULE.index("low =") + 3) == []


def test_renaming_changes_one_thing_everywhere() -> None:
    document = Document(MODULE)
    edits = document.rename(MODULE.index("(%0)") + 1, "quantised")
    text = MODULE
    for span, name in sorted(edits, reverse=True):
        text = text[: span.start] + name + text[span.end :]
    assert text.count("%quantised") == 2 and str(Module.parse(text)) == str(Module.parse(MODULE))
    (symbol,) = document.rename(MODULE.index('"first"') + 2, "@net")
    assert symbol[1] == "net"
    for wrong in ("%1", "a b", ""):
        with pytest.raises(ConfigError, match="HB0813"):
            document.rename(MODULE.index("(%0)") + 1, wrong)
    with pytest.raises(ConfigError, match="HB0813"):
        document.rename(MODULE.index("quantized.clamp"), "x")


def test_a_broken_text_still_answers() -> None:
    text = MODULE.replace("<{low = -100 : i64, high", "<{low = -100 : i64, {((")
    document = Document(text)
    assert document.check()
    found = document.hover(text.index("(%1)") + 1)
    assert found is not None and "quantized.clamp" in found[1]
    assert document.definition(text.index("(%2)") + 1) is not None and len(document.outline()) == 2


def test_no_offset_makes_it_fail() -> None:
    for text in (MODULE[: len(MODULE) // 3], SHORT, pair_network(4), "", "%", '"', "loc(", "^bb0(%a: "):
        document = Document(text)
        for offset in range(0, len(text) + 1, 7 if len(text) > 100 else 1):
            document.hover(offset)
            document.definition(offset)
            document.complete(offset)
            document.references(offset)
        document.outline()
        assert isinstance(document.check(), list)
