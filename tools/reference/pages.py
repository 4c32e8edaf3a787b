"""Puts the reference together: collects, gives every name its place, renders the pages and writes them into one folder."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from itertools import groupby
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hbir.error_codes import error_codes, family_of
from hbir.ir.files import write_text
from tools.reference.commands import CommandPage, command_pages
from tools.reference.dialects import DialectPage, dialect_pages
from tools.reference.names import USER_PACKAGES, Entry, Package, Token, public_packages
from tools.reference.pipelines import PassPage, pass_pages
from tools.reference.raised import RaiseSite, raise_sites
from tools.reference.text import Names, Text, anchor

__all__ = ["Reference", "build_reference", "collect_reference", "names_of", "render_reference", "title_of"]


@dataclass(frozen=True)
class Reference:
    """Everything that the pages tell."""

    packages: tuple[Package, ...]
    dialects: tuple[DialectPage, ...]
    passes: tuple[PassPage, ...]
    commands: tuple[CommandPage, ...]
    sites: tuple[RaiseSite, ...]
    guides: tuple[tuple[str, str], ...]
    """(name, Markdown) of the texts beside the examples, and of the instruction set."""

    @property
    def entries(self) -> Iterator[Entry]:
        """All public names."""
        return (entry for package in self.packages for entry in package.entries)

    @cached_property
    def listed(self) -> dict[str, Entry]:
        """What is described, by where it is defined."""
        return {entry.home: entry for entry in self.entries if not entry.see}

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each kind."""
        return {
            "names": sum(1 for _ in self.entries),
            "operations": sum(len(dialect.operations) for dialect in self.dialects),
            "types and attributes": sum(len(dialect.attributes) for dialect in self.dialects),
            "passes": len(self.passes),
            "error codes": len(error_codes()),
            "commands": len(self.commands),
        }


def _guides() -> tuple[tuple[str, str], ...]:
    from backends.nash.isa.reference import reference_page

    examples = sorted(Path(__file__).parents[1].joinpath("examples").glob("*/README.md"))
    return (*((path.parent.name, path.read_text(encoding="utf-8")) for path in examples), ("isa", reference_page()))


def collect_reference() -> Reference:
    """Read the source, the registries and the tables."""
    packages = public_packages()
    entries = [entry for package in packages for entry in package.entries if not entry.see]
    homes = {entry.home: entry for entry in entries}
    # The functions that make properties say what such a property holds; those of `base` say only its type.
    helpers = {e.name: e.doc for e in entries if e.kind == "function" and e.file == "hbir/dialects/quantized/common.py"}
    return Reference(
        packages, dialect_pages(homes, helpers), pass_pages(homes), command_pages(), raise_sites()[0], _guides()
    )


def _package_file(package: Package) -> str:
    return f"api.{package.path}.html"


def _dialect_file(dialect: DialectPage) -> str:
    return f"dialect.{dialect.name}.html"


def names_of(reference: Reference) -> Names:
    """The place of everything that has one. What users call comes first: a short name that is taken stays theirs."""
    names = Names()
    for dialect in reference.dialects:
        for operation in dialect.operations:
            names.add(operation.name, f"{_dialect_file(dialect)}#{operation.name}")
        for attribute in dialect.attributes:
            names.add(attribute.name, f"types.html#{attribute.name}")
    for each in reference.passes:
        names.add(each.name, f"passes.html#{each.name}")
    for command in reference.commands:
        names.add(command.name, f"commands.html#{anchor(command.name)}")
    for code in error_codes():
        names.add(code, f"errors.html#{code}")
    for package in reference.packages:
        page = _package_file(package)
        for entry in package.entries:
            place = f"{page}#{entry.path}"
            names.add(entry.path, place, is_path=not entry.see, is_first=package.path in USER_PACKAGES)
            names.add(entry.home, place)
            for member in entry.members:
                names.add(member.path, f"{page}#{member.path}")
                names.add(f"{entry.home}.{member.name}", f"{page}#{member.path}")
    for package in reference.packages:
        for module in package.modules:
            names.add(module.path, f"{_package_file(package)}#module-{module.path}")
        names.add(package.path, _package_file(package))
    return names


def _first_sentence(doc: str) -> str:
    line = " ".join(doc.split("\n\n")[0].split())
    return line if len(line) <= 110 else f"{line[:109].rpartition(' ')[0]} …"


def _index(reference: Reference, names: Names) -> list[tuple[str, str, str, str]]:
    """(name, kind, place, summary) of everything that the search box finds; what users call comes first."""
    rows: list[tuple[str, str, str, str]] = []
    for package in reference.packages[: len(USER_PACKAGES)]:
        rows += _package_rows(package, names)
    for dialect in reference.dialects:
        rows += [(o.name, "operation", names.places[o.name], _first_sentence(o.doc)) for o in dialect.operations]
        rows += [(a.name, "type", names.places[a.name], _first_sentence(a.doc)) for a in dialect.attributes]
    rows += [(p.name, "pass", names.places[p.name], _first_sentence(p.doc)) for p in reference.passes]
    rows += [(c.name, "command", names.places[c.name], _first_sentence(c.doc)) for c in reference.commands]
    rows += [(row.code, "error", names.places[row.code], row.meaning) for row in error_codes().values()]
    for package in reference.packages[len(USER_PACKAGES) :]:
        rows += _package_rows(package, names)
    return rows


def _package_rows(package: Package, names: Names) -> Iterator[tuple[str, str, str, str]]:
    for entry in package.entries:
        if not entry.see:
            yield entry.path, entry.kind, names.places[entry.path], _first_sentence(entry.doc)
            for member in entry.members:
                yield member.path, member.kind, names.places[member.path], ""


def _marches() -> list[dict[str, Any]]:
    """For each number of a march: its key, and value, source and confidence on every march."""
    from hbir.march import MARCHES, sources

    tables = {name: {row.key: row for row in sources(name)} for name in MARCHES}
    keys = list(next(iter(tables.values())))
    return [{"key": key, "rows": [(name, tables[name][key]) for name in MARCHES]} for key in keys if key != "name"]


def _errors(reference: Reference) -> list[dict[str, Any]]:
    """The families, each with its codes and the places that raise them."""
    sites = {code: list(found) for code, found in groupby(reference.sites, key=lambda site: site.code)}
    families = groupby(error_codes().values(), key=lambda row: family_of(row.code))
    return [{"family": family, "codes": [(row, sites.get(row.code, [])) for row in rows]} for family, rows in families]


def _navigation(reference: Reference) -> list[tuple[str, list[tuple[str, str]]]]:
    users = [p for p in reference.packages if p.path in USER_PACKAGES]
    rooms = [p for p in reference.packages if p.path not in USER_PACKAGES]
    guides = [(title_of(text), f"guide.{name}.html") for name, text in reference.guides]
    return [
        ("For users", [(p.path, _package_file(p)) for p in users] + [("Commands", "commands.html")]),
        (
            "The language",
            [(f"{d.name} operations", _dialect_file(d)) for d in reference.dialects if d.operations]
            + [("Types and attributes", "types.html"), ("Passes", "passes.html")],
        ),
        ("Tables", [("Error codes", "errors.html"), ("Marches", "marches.html")]),
        ("Guides", guides),
        ("Rooms of the compiler", [(p.path, _package_file(p)) for p in rooms]),
    ]


def title_of(markdown: str) -> str:
    """The first heading of a Markdown text."""
    return next((line.lstrip("# ").strip() for line in markdown.splitlines() if line.startswith("#")), "")


def _environment(text: Text, renamed: Mapping[str, str]) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    # Docstrings, help and messages are text of the project; all of it is escaped or rendered without raw HTML.
    environment = Environment(
        loader=PackageLoader("tools.reference", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip

    def signature(tokens: tuple[Token, ...]) -> Markup:
        return text.signature(tokens, renamed)

    environment.filters.update(
        doc=text.docstring,
        line=text.inline,
        known=text.known,
        anchor=anchor,
        sentence=_first_sentence,
        signature=signature,
    )
    return environment


def render_reference(reference: Reference) -> dict[str, str]:
    """All pages, by the names of their files."""
    names = names_of(reference)
    text = Text(names)
    renamed = {entry.home: entry.path for entry in reference.entries if not entry.see}
    environment = _environment(text, renamed)
    operations = {o.home: o.name for d in reference.dialects for o in d.operations}
    passes = {each.home: each.name for each in reference.passes}
    shared = {"navigation": _navigation(reference), "counts": reference.counts}
    pages: dict[str, str] = {}

    def add(name: str, title: str, template: str, **values: Any) -> None:
        pages[name] = environment.get_template(template).render(title=title, here=name, **shared, **values)

    first = next(package for package in reference.packages if package.path == "hbir")
    add("index.html", "Reference", "index.html.j2", about=first.doc, user_packages=USER_PACKAGES)
    for package in reference.packages:
        add(
            *(_package_file(package), package.path, "package.html.j2"),
            package=package,
            described={**operations, **passes},
        )
    for dialect in reference.dialects:
        if dialect.operations:
            add(_dialect_file(dialect), f"{dialect.name} operations", "dialect.html.j2", dialect=dialect)
    add("types.html", "Types and attributes", "types.html.j2", dialects=reference.dialects)
    add("passes.html", "Passes", "passes.html.j2", passes=reference.passes)
    add("errors.html", "Error codes", "errors.html.j2", families=_errors(reference))
    add("commands.html", "Commands", "commands.html.j2", commands=reference.commands)
    march = reference.listed.get("hbir.march.March")
    meanings = {field.name: field.doc for field in march.fields} if march else {}
    add("marches.html", "Marches", "marches.html.j2", numbers=_marches(), meanings=meanings)
    for name, markdown in reference.guides:
        body, headings = text.page(markdown)
        add(f"guide.{name}.html", title_of(markdown), "guide.html.j2", body=body, headings=headings)
    rows = json.dumps(_index(reference, names), ensure_ascii=False, separators=(",", ":"))
    beside = files("tools.reference")
    pages["search.js"] = f"const INDEX = {rows};\n{beside.joinpath('search.js').read_text(encoding='utf-8')}"
    pages["style.css"] = beside.joinpath("style.css").read_text(encoding="utf-8")
    return pages


def build_reference(folder: Path) -> dict[str, int]:
    """Write the pages into `folder` (made if missing); how many there are of each kind.

    Raises ConfigError HB0801 when a file cannot be written.
    """
    # The style first: a folder that cannot be written is refused before the work.
    write_text(folder / "style.css", files("tools.reference").joinpath("style.css").read_text(encoding="utf-8"))
    reference = collect_reference()
    for name, page in render_reference(reference).items():
        write_text(folder / name, page)
    return reference.counts
