"""Docstrings as HTML: Markdown, links to what is known, and nothing of a docstring taken for markup."""

from __future__ import annotations

import pytest

from tools.reference.text import Names, Text


@pytest.fixture(name="text")
def with_names() -> Text:
    names = Names()
    for path in ("hbir.Module", "hbir.Module.clone", "hbir.save", "passes.open_file", "hbir.open_file", "passes.high"):
        names.add(path, f"api.html#{path}", is_path=path != "hbir.Module.clone")
    names.add("quantized.add", "dialect.html#quantized.add")
    names.add("HB0305", "errors.html#HB0305")
    return Text(names)


def test_known_names_are_links(text: Text) -> None:
    assert text.inline("`hbir.save`, `hbir.save()`, HB0305") == (
        '<a href="api.html#hbir.save"><code>hbir.save</code></a>, <a href="api.html#hbir.save"><code>hbir.save()</code></a>,'
        ' <a href="errors.html#HB0305">HB0305</a>'
    )
    for name in ("Module", "Module.clone", "quantized.add"):
        assert "<a href=" in text.inline(f"`{name}`"), name
    assert "#hbir.Module.clone" in text.inline("`clone`", "hbir.Module")
    assert "#passes.open_file" in text.inline("`open_file`", "passes.other")


def test_what_is_unknown_or_ambiguous_or_the_place_itself_is_no_link(text: Text) -> None:
    for name in ("`unknown`", "`open_file`", "`high`", "`clone`", "HB9999"):
        assert "<a" not in text.inline(name), name
    assert "<a" not in text.inline("`hbir.save`", place="api.html#hbir.save")


def test_a_docstring_is_text(text: Text) -> None:
    assert text.docstring("<b>bold</b> & `<i>`") == "<p>&lt;b&gt;bold&lt;/b&gt; &amp; <code>&lt;i&gt;</code></p>\n"
    assert text.docstring("a * b * c, *args and **kwargs") == "<p>a * b * c, *args and **kwargs</p>\n"
    assert text.docstring("Sums:\n\n    y = x\n    z = y") == "<p>Sums:</p>\n<pre><code>y = x\nz = y\n</code></pre>\n"
    assert "<script" not in text.docstring("[x](javascript:alert(1)) <script>alert(1)</script>")
    assert "javascript:" not in text.inline("![x](javascript:a) ").replace("![x](javascript:a)", "")


def test_a_page_has_tables_and_anchors(text: Text) -> None:
    body, headings = text.page("# The `set`\n\n## Ops\n\n*so*\n\n## Ops\n\n| a | b |\n|---|---|\n| 1 | `hbir.save` |\n")
    assert [name for name, _ in headings] == ["the-set", "ops", "ops"]
    assert '<h2 id="ops">' in body and '<h2 id="ops-2">' in body and "<em>so</em>" in body
    assert '<div class="scroll"><table>' in body and '<a href="api.html#hbir.save">' in body


def test_signatures_link_their_types(text: Text) -> None:
    tokens = (("save(module: ", ""), ("Module", "hbir.module.Module"), (") -> ", ""), ("dict", "dict"), ("<x>", ""))
    shown = text.signature(tokens, {"hbir.module.Module": "hbir.Module"})
    assert shown == 'save(module: <a href="api.html#hbir.Module">Module</a>) -&gt; dict&lt;x&gt;'
