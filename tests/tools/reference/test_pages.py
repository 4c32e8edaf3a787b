"""The pages: every name, operation, pass, code, command and number has its place, its words, and links that lead somewhere."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import click
import pytest

from hbir.error_codes import error_codes
from hbir.march import MARCHES, sources
from tools.reference.commands import commands
from tools.reference.names import Package, public_packages
from tools.reference.pages import Reference, collect_reference, names_of, render_reference
from tools.reference.text import Text

ROOT = Path(__file__).parents[3]


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.ids: Counter[str] = Counter()
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id":
                self.ids[value or ""] += 1
            elif key in ("href", "src"):
                self.targets.append(value or "")


@cache
def collected() -> Reference:
    return collect_reference()


@cache
def rendered() -> dict[str, str]:
    return render_reference(collected())


@cache
def parsed() -> dict[str, _Links]:
    found: dict[str, _Links] = {}
    for name, page in rendered().items():
        if name.endswith(".html"):
            found[name] = _Links()
            found[name].feed(page)
    return found


def anchors(prefix: str = "") -> set[str]:
    return {each for name, page in parsed().items() if name.startswith(prefix) for each in page.ids}


@cache
def product_files() -> dict[str, ast.Module]:
    """Every module of the product by name, read without the help of what is tested."""
    files = [path for top in ("hbir", "passes", "backends", "tools") for path in (ROOT / top).rglob("*.py")]
    # A folder without __init__ is not part of the product: the examples for users bring packages of their own.
    kept = [p for p in files if all((f / "__init__.py").is_file() for f in p.parents if ROOT in f.parents)]
    names = {".".join(p.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): p for p in kept}
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in names.items()}


def listed_names(tree: ast.Module) -> list[str]:
    given = [n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "__all__"]
    return [name for value in given for name in ast.literal_eval(value)]


def undocumented(packages: tuple[Package, ...]) -> list[str]:
    """Names, methods and properties that have no docstring."""
    entries = [entry for package in packages for entry in package.entries]
    return [each.path for entry in entries for each in (entry, *entry.members) if not each.doc and not each.see]


def test_every_public_name_has_a_place() -> None:
    expected = {f"{module}.{name}" for module, tree in product_files().items() for name in listed_names(tree)}
    assert len(expected) > 1000 and expected - anchors("api.") == set()


def test_every_public_name_has_a_docstring() -> None:
    assert undocumented(collected().packages) == []


def test_a_name_without_docstring_is_found(tmp_path: Path) -> None:
    package = tmp_path / "fake"
    package.mkdir()
    (package / "__init__.py").write_text('"""Fake."""\nfrom fake.it import told\n__all__ = ["told"]\n')
    (package / "it.py").write_text(
        '"""It."""\n__all__ = ["HIGH", "LOW", "SIZE", "Kind", "silent", "told"]\n'
        'SIZE = 4\nLOW, HIGH = 0, 9\n"""The ends."""\n'
        'def told():\n    """Told."""\ndef silent(): ...\n'
        'class Kind:\n    """A kind."""\n    def run(self): ...\n    def _own(self): ...\n'
    )
    found = public_packages(tmp_path, ["fake"])
    assert undocumented(found) == ["fake.it.SIZE", "fake.it.Kind.run", "fake.it.silent"]
    by_path = {entry.path: entry for package in found for entry in package.entries}
    assert by_path["fake.it.told"].see == "fake.told" and by_path["fake.it.HIGH"].doc == "The ends."


def test_every_operation_and_type_has_a_place_and_its_properties_a_meaning() -> None:
    classes = [
        node
        for module, tree in product_files().items()
        for node in ast.walk(tree)
        if module.startswith("hbir.") and isinstance(node, ast.ClassDef)
    ]
    made = [
        c for c in classes if {"irdl_op_definition", "irdl_attr_definition"} & set(map(ast.unparse, c.decorator_list))
    ]
    lines = [line for each in made for line in each.body if isinstance(line, ast.Assign)]
    defined = {ast.literal_eval(line.value) for line in lines if ast.unparse(line.targets[0]) == "name"}
    assert len(defined) > 45 and defined - (anchors("dialect.") | anchors("types.")) == set()
    for dialect in collected().dialects:
        for operation in dialect.operations:
            assert operation.doc and [p.name for p in operation.properties if not p.doc] == [], operation.name


def test_every_pass_has_a_place_and_its_options_a_meaning() -> None:
    named = re.compile(r'^    name: ClassVar\[str\] = "([\w-]+)"', re.MULTILINE)
    expected = {name for path in (ROOT / "passes").glob("*.py") for name in named.findall(path.read_text("utf-8"))}
    assert len(expected) > 20 and expected <= anchors("passes.")
    for each in collected().passes:
        assert each.doc and each.about and [option.name for option in each.options if not option.doc] == [], each.name
    stock = {each.name for each in collected().passes if "passes.convert" in each.pipelines}
    assert {"quantize", "fix-lut", "prove-intervals"} <= stock and "insert-fake-quant" not in stock


def test_every_code_has_a_place() -> None:
    assert set(error_codes()) <= anchors("errors.")


def test_every_command_and_option_has_a_place() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert set(scripts) == set(commands())
    page = rendered()["commands.html"]
    for name, command in commands().items():
        assert name in anchors("commands.")
        inner = command.commands if isinstance(command, click.Group) else {}
        assert {f"{name}-{each}" for each in inner} <= anchors("commands.")
        for parameter in command.params:
            assert not isinstance(parameter, click.Option) or parameter.hidden or parameter.opts[-1] in page
    for each in collected().commands:
        assert each.doc and [o.name for o in each.options if o.name.startswith("-") and not o.doc] == [], each.name


def test_every_number_of_every_march_is_told_with_its_source() -> None:
    page = rendered()["marches.html"]
    assert [field.name for field in collected().listed["hbir.march.March"].fields if not field.doc] == []
    for march in MARCHES:
        for row in sources(march):
            if row.key != "name":
                assert row.key in anchors("marches.") and row.confidence in page


def test_guides_are_pages() -> None:
    texts = [path.parent.name for path in (ROOT / "tools" / "examples").glob("*/README.md")]
    assert {f"guide.{name}.html" for name in [*texts, "isa"]} <= set(rendered())
    assert "CONV" in rendered()["guide.isa.html"]


def test_no_link_is_dead_and_no_anchor_is_given_twice() -> None:
    pages = parsed()
    for name, page in pages.items():
        assert [each for each, count in page.ids.items() if count > 1] == [], name
        for target in page.targets:
            if not re.match(r"https?://", target):
                file, _, place = target.partition("#")
                assert (file or name) in rendered(), f"{name} -> {target}"
                assert not place or pages[file or name].ids[place], f"{name} -> {target}"
    index = json.loads(rendered()["search.js"].split("\n")[0].removeprefix("const INDEX = ").removesuffix(";"))
    for _, _, target, _ in index:
        file, _, place = target.partition("#")
        assert not place or pages[file].ids[place], target


def test_pages_need_no_network_and_name_no_machine() -> None:
    for name, page in rendered().items():
        assert str(ROOT) not in page, name
        assert not re.search(r'(src|@import|<link[^>]*href)\s*=?\s*["\']?(https?:)?//', page), name


@pytest.mark.parametrize("name", ["`Function.feed`", "`canonicalize`", "HB0232", "IrError"])
def test_names_in_docstrings_are_links(name: str) -> None:
    found = Text(names_of(collected())).docstring(f"See {name}.")
    assert "<a href=" in found


def test_names_that_docstrings_spell_out_exist() -> None:
    names = names_of(collected())
    spelt = re.compile(r"`((?:hbir|passes|backends|tools)(?:\.\w+)+)(?:\(\))?`")
    entry_points = {"hbir.passes", "hbir.dialects"}
    for entry in collected().entries:
        for each in (entry, *entry.members):
            for name in spelt.findall(each.doc):
                assert name in entry_points or names.find(name, each.home), f"{each.home}: there is no {name}"


def test_the_command_writes_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(ROOT), "COLUMNS": "50"}
    command = [sys.executable, "-m", "tools.hbir_docs", "--json", "-q", "-o", str(tmp_path / "pages")]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == collected().counts and done.stderr == ""
    written = {path.name: path.read_text(encoding="utf-8") for path in (tmp_path / "pages").iterdir()}
    assert set(written) == set(rendered())
    assert [name for name, page in rendered().items() if written[name] != page] == []
