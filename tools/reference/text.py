"""Docstrings as HTML: their Markdown rendered, and every name that has a place of its own made a link to it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markdown_it import MarkdownIt
from markupsafe import Markup

from tools.reference.names import Token

__all__ = ["Names", "Text", "anchor"]

# Names that a text speaks of without backticks: error codes and classes.
_LOUD = re.compile(r"\bHB\d{4}\b|\b(?:[A-Z][a-z]+)+Error\b")


def anchor(text: str) -> str:
    """The id of a heading in a Markdown page."""
    return re.sub(r"[^\w.]+", "-", text.lower()).strip("-")


@dataclass
class Names:
    """Where each name stands: the page and the anchor."""

    places: dict[str, str] = field(default_factory=dict[str, str])
    """Full names, such as `hbir.Module.clone`, `quantized.conv2d`, `fix-lut` or `HB0305`."""
    short: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Full names by their last part."""

    first: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Those of them that users call."""

    def add(self, name: str, place: str, *, is_path: bool = False, is_first: bool = False) -> None:
        """Note a name; the first place that it is given stays.

        A path is also found by its last part while that is unique, at least among those that come first.
        """
        self.places.setdefault(name, place)
        for table in (self.short, self.first) if is_first else (self.short,):
            if is_path:
                table.setdefault(name.rpartition(".")[2], set()).add(name)

    def find(self, text: str, scope: str = "") -> str:
        """The place of what a docstring of `scope` (the full name of a module or class) calls `text`, or nothing."""
        name = text.strip().removesuffix("()").lstrip("!@#")
        if not name or " " in name:
            return ""
        around = scope
        while around:
            if f"{around}.{name}" in self.places:
                return self.places[f"{around}.{name}"]
            around = around.rpartition(".")[0]
        if name in self.places:
            return self.places[name]
        # A name of its own alone: a word that happens to be some function's name is no link, nor one that means several.
        head, _, rest = name.partition(".")
        found = self.first.get(head) or self.short.get(head, set[str]())
        if len(found) != 1 or (head.islower() and "_" not in head):
            return ""
        (full,) = found
        return self.places.get(f"{full}.{rest}" if rest else full, "")


class Text:
    """Renders Markdown. Links are relative to one folder, in which all pages lie."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.scope = ""
        self.self_place = ""
        # Docstrings speak of `*args` and of products; emphasis is for whole pages.
        self._docstring = self._markdown().disable(["emphasis", "lheading", "heading"])
        self._page = self._markdown()

    def _markdown(self) -> Any:
        markdown: Any = MarkdownIt("commonmark", {"html": False}).enable("table")
        for rule in ("text", "code_inline", "heading_open", "table_open", "table_close"):
            markdown.renderer.rules[rule] = getattr(self, f"_{rule}")
        return markdown

    def _link(self, shown: str, place: str) -> str:
        return f'<a href="{html.escape(place)}">{shown}</a>' if place and place != self.self_place else shown

    def _text(self, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        del options, env
        inside = any(token.type == "link_open" for token in tokens[:index]) and not any(
            token.type == "link_close" for token in tokens[:index]
        )
        escaped = html.escape(tokens[index].content, quote=False)
        if inside:
            return escaped
        return _LOUD.sub(lambda word: self._link(word[0], self.names.find(word[0])), escaped)

    def _code_inline(self, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        del options, env
        content = tokens[index].content
        shown = f"<code>{html.escape(content, quote=False)}</code>"
        return self._link(shown, self.names.find(content, self.scope))

    def _heading_open(self, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        del options
        name = anchor(tokens[index + 1].content)
        seen: dict[str, int] = env.setdefault("headings", {})
        seen[name] = seen.get(name, 0) + 1
        unique = name if seen[name] == 1 else f"{name}-{seen[name]}"
        return f'<{tokens[index].tag} id="{html.escape(unique)}">'

    def _table_open(self, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        del tokens, index, options, env
        return '<div class="scroll"><table>'

    def _table_close(self, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
        del tokens, index, options, env
        return "</table></div>"

    def docstring(self, text: str, scope: str = "", place: str = "") -> Markup:
        """A docstring of the module or class `scope`; a link to `place`, where it stands itself, is left out."""
        self.scope, self.self_place = scope, place
        return Markup(self._docstring.render(text, {}))

    def inline(self, text: str, scope: str = "", place: str = "") -> Markup:
        """A line of a docstring, without a paragraph around it."""
        self.scope, self.self_place = scope, place
        return Markup(self._docstring.renderInline(text, {}))

    def page(self, text: str) -> tuple[Markup, tuple[tuple[str, str], ...]]:
        """A whole Markdown page, and the (anchor, text) of its headings."""
        self.scope = self.self_place = ""
        tokens = self._page.parse(text, {})
        headings = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
        return Markup(self._page.render(text, {})), tuple((anchor(h), h.replace("`", "")) for h in headings)

    def signature(self, tokens: Iterable[Token], renamed: Mapping[str, str]) -> Markup:
        """A signature, its types linked; `renamed` maps where something is defined to where it is listed."""
        parts: list[str] = []
        for text, path in tokens:
            place = self.names.places.get(renamed.get(path, path), "") if path else ""
            parts.append(f'<a href="{html.escape(place)}">{html.escape(text)}</a>' if place else html.escape(text))
        return Markup("".join(parts))

    def known(self, name: str) -> Markup:
        """A full name as a link, where it has a place."""
        shown = f"<code>{html.escape(name)}</code>"
        place = self.names.places.get(name, "")
        return Markup(f'<a href="{html.escape(place)}">{shown}</a>' if place else shown)
