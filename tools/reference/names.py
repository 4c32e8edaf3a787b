"""The public names of the project, read from its source: every name in the `__all__` of every module, with its documentation.

They are read with `griffe`, which knows the docstrings of fields and constants (at run time there are none) and imports
nothing, so that the pages are the same whatever optional packages are installed.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import griffe

__all__ = ["Entry", "Field", "Package", "PublicModule", "Token", "public_packages"]

PACKAGES = ("hbir", "passes", "backends", "tools")

# The rooms whose names users call; all others are for those who work on the compiler.
USER_PACKAGES = ("hbir", "passes", "backends", "hbir.testing")

_LINE = 96

Token = tuple[str, str]
"""A piece of a signature: its text, and the full name of what it names (empty for punctuation)."""


@dataclass(frozen=True)
class Field:
    """One field of a dataclass, or member of an enumeration."""

    name: str
    type: tuple[Token, ...]
    default: str
    doc: str


@dataclass(frozen=True)
class Entry:
    """A documented thing: a class, function, constant, method or property."""

    kind: str
    name: str
    path: str
    """Where it is listed: `hbir.Module`."""
    home: str
    """Where it is defined: `hbir.module.Module`."""
    signature: tuple[Token, ...]
    doc: str
    file: str
    """Path of its source from the folder that holds the packages."""
    line: int
    bases: tuple[Token, ...] = ()
    fields: tuple[Field, ...] = ()
    members: tuple[Entry, ...] = ()
    see: str = ""
    """The listed name under which the same thing is described; empty where it is described here."""


@dataclass(frozen=True)
class PublicModule:
    """A module with its public names."""

    path: str
    doc: str
    file: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Package:
    """A package: what makes one page. Its own names come first, then those of its modules."""

    path: str
    doc: str
    modules: tuple[PublicModule, ...]

    @property
    def entries(self) -> Iterator[Entry]:
        """All entries of all modules."""
        return (entry for module in self.modules for entry in module.entries)


def public_packages(root: Path | None = None, names: Iterable[str] = PACKAGES) -> tuple[Package, ...]:
    """Every package below `root` (by default the project's) that has public names, those for users first."""
    if root is None:
        import hbir

        root = Path(hbir.__path__[0]).parent
    loader = griffe.GriffeLoader(search_paths=[root], allow_inspection=False)
    for name in names:
        loader.load(name)
    loader.resolve_aliases(implicit=True)
    found = [package for name in names for package in _packages(loader.modules_collection[name])]
    rank = {path: at for at, path in enumerate(USER_PACKAGES)}
    found.sort(key=lambda package: rank.get(package.path, len(rank)))
    reader = _Reader(root)
    read = [reader.package(package) for package in found]
    return tuple(package for package in read if any(package.entries))


def _packages(package: griffe.Module) -> Iterator[griffe.Module]:
    yield package
    for module in _submodules(package):
        if module.is_package or module.is_subpackage:
            yield from _packages(module)


def _submodules(package: griffe.Module) -> list[griffe.Module]:
    return sorted(package.modules.values(), key=lambda module: module.path)


def _doc(thing: griffe.Object) -> str:
    return thing.docstring.value.strip() if thing.docstring else ""


def _tokens(expression: griffe.Expr | str | None) -> tuple[Token, ...]:
    """An annotation as pieces, names with what they stand for."""
    if expression is None:
        return ()
    if isinstance(expression, str):
        return ((expression, ""),)
    return tuple(
        (each.name, each.canonical_path) if isinstance(each, griffe.ExprName) else (str(each), "")
        for each in expression.iterate(flat=True)
    )


_STARS: dict[griffe.ParameterKind | None, str] = {
    griffe.ParameterKind.var_positional: "*",
    griffe.ParameterKind.var_keyword: "**",
}


def _signature(function: griffe.Function, name: str, *, is_method: bool) -> tuple[Token, ...]:
    """`name(parameters) -> result`; one parameter a line when it would be long."""
    parts: list[tuple[Token, ...]] = []
    starred = slashed = False
    parameters = list(function.parameters)
    if is_method and "staticmethod" not in function.labels:
        parameters = parameters[1:]
    for parameter in parameters:
        if parameter.kind is griffe.ParameterKind.positional_only:
            slashed = True
        elif slashed:
            parts.append((("/", ""),))
            slashed = False
        if parameter.kind is griffe.ParameterKind.keyword_only and not starred:
            parts.append((("*", ""),))
        starred |= parameter.kind in (griffe.ParameterKind.var_positional, griffe.ParameterKind.keyword_only)
        annotation = _tokens(parameter.annotation)
        default = "" if parameter.default is None or parameter.kind in _STARS else str(parameter.default)
        spaced = f" = {default}" if annotation else f"={default}"
        part: list[Token] = [(_STARS.get(parameter.kind, "") + parameter.name, "")]
        if annotation:
            part += [(": ", ""), *annotation]
        if default:
            part.append((spaced, ""))
        parts.append(tuple(part))
    result = () if function.name == "__init__" else _tokens(function.returns)
    arrow: tuple[Token, ...] = ((" -> ", ""), *result) if result else ()
    length = len(name) + sum(len(text) for part in (*parts, arrow) for text, _ in part) + 2 * len(parts)
    if length <= _LINE:
        inner = [token for part in parts for token in ((", ", ""), *part)][1:]
        return ((f"{name}(", ""), *inner, (")", ""), *arrow)
    inner = [token for part in parts for token in (("    ", ""), *part, (",\n", ""))]
    return ((f"{name}(\n", ""), *inner, (")", ""), *arrow)


class _Reader:
    def __init__(self, root: Path) -> None:
        self.root = root
        # What is described already: the place of its definition, and the name under which it is described.
        self.described: dict[str, str] = {}

    def package(self, package: griffe.Module) -> Package:
        own = [m for m in _submodules(package) if not (m.is_package or m.is_subpackage)]
        modules = [self.module(module) for module in (package, *own)]
        return Package(package.path, _doc(package), tuple(m for m in modules if m.entries))

    def module(self, module: griffe.Module) -> PublicModule:
        names = [str(name) for name in module.exports or ()]
        entries = [self.entry(module, name) for name in names if not name.startswith("__")]
        return PublicModule(module.path, _doc(module), self.file(module), tuple(entries))

    def file(self, thing: griffe.Object) -> str:
        """The path of a thing's source from the root, with forward slashes."""
        path = thing.filepath
        return path.relative_to(self.root).as_posix() if isinstance(path, Path) else ""

    def entry(self, module: griffe.Module, name: str) -> Entry:
        path = f"{module.path}.{name}"
        member = module.members.get(name)
        try:
            thing = member.final_target if isinstance(member, griffe.Alias) else member
        except griffe.AliasResolutionError:
            thing = None
        if thing is None:
            home = member.target_path if isinstance(member, griffe.Alias) else path
            see = self.described.setdefault(home, path)
            return (
                self.unpacked(home, name, path)
                if see == path
                else Entry("constant", name, path, home, (), "", "", 0, see=see)
            )
        see = self.described.setdefault(thing.path, path)
        if see != path:
            return Entry(thing.kind.value, name, path, thing.path, (), _doc(thing), self.file(thing), 0, see=see)
        if isinstance(thing, griffe.Class):
            return self.class_entry(thing, name, path)
        return self.plain(thing, name, path, is_method=False)

    def unpacked(self, home: str, name: str, path: str) -> Entry:
        """The entry of a constant that is assigned together with others (`LOW, HIGH = 0, 9`); they share their docstring."""
        file = self.root / f"{home.rpartition('.')[0].replace('.', '/')}.py"
        body = ast.parse(file.read_text(encoding="utf-8")).body if file.is_file() else []
        for line, after in pairwise([*body, ast.Pass()]):
            targets = line.targets[0] if isinstance(line, ast.Assign) else None
            if isinstance(targets, ast.Tuple) and name in [ast.unparse(target) for target in targets.elts]:
                said = after.value if isinstance(after, ast.Expr) else None
                doc = inspect.cleandoc(str(said.value)) if isinstance(said, ast.Constant) else ""
                text = ast.unparse(line)
                shown = text if len(text) <= _LINE else name
                place = file.relative_to(self.root).as_posix()
                return Entry("constant", name, path, home, ((shown, ""),), doc, place, line.lineno)
        return Entry("constant", name, path, home, ((name, ""),), "", "", 0)

    def plain(self, thing: griffe.Object, name: str, path: str, *, is_method: bool, doc: str = "") -> Entry:
        """The entry of a function, a constant, a module or a property."""
        kind, tokens = thing.kind.value, ((name, ""),)
        if isinstance(thing, griffe.Function):
            kind = "method" if is_method else "function"
            tokens = _signature(thing, name, is_method=is_method)
        elif isinstance(thing, griffe.Attribute):
            kind = "property" if "property" in thing.labels else "attribute" if is_method else "constant"
            annotation = _tokens(thing.annotation)
            tokens = ((name, ""), *([(": ", ""), *annotation] if annotation else []))
            value = str(thing.value or "")
            if kind == "constant" and value and len(value) + len(name) < _LINE and "\n" not in value:
                tokens = (*tokens, (f" = {value}", ""))
        return Entry(kind, name, path, thing.path, tokens, doc or _doc(thing), self.file(thing), thing.lineno or 0)

    def class_entry(self, thing: griffe.Class, name: str, path: str) -> Entry:
        is_dataclass = "dataclass" in thing.labels
        bases = tuple(_tokens(base) for base in thing.bases)
        names = {text for base in bases for text, _ in base}
        is_enum = bool(names & {"Enum", "IntEnum", "StrEnum", "Flag", "IntFlag"})
        is_error = name.endswith("Error")
        kind = "dataclass" if is_dataclass else "enumeration" if is_enum else "exception" if is_error else "class"
        chosen = [
            member
            for key, member in thing.members.items()
            if not key.startswith("_") and isinstance(member, griffe.Object)
        ]
        fields = self.fields(thing, is_dataclass=is_dataclass, is_enum=is_enum)
        callables = [m for m in chosen if m.is_function or "property" in m.labels]
        members = [
            self.plain(m, m.name, f"{path}.{m.name}", is_method=True, doc=self.inherited(thing, m)) for m in callables
        ]
        constructor = thing.members.get("__init__")
        signature: tuple[Token, ...] = ((f"class {name}", ""),)
        if isinstance(constructor, griffe.Function) and not is_enum:
            signature = _signature(constructor, name, is_method=True)
        lists = [token for base in bases for token in ((", ", ""), *base)][1:]
        return Entry(
            kind, name, path, thing.path, signature, _doc(thing), self.file(thing), thing.lineno or 0, tuple(lists),
            tuple(fields), tuple(members),
        )  # fmt: skip

    def fields(self, thing: griffe.Class, *, is_dataclass: bool, is_enum: bool) -> list[Field]:
        """The fields of a class and of what it derives from; of plain attributes, those that have a docstring."""
        found: dict[str, Field] = {}
        for owner in reversed([thing, *thing.mro()]):
            for key, member in owner.members.items():
                if key.startswith("_") or not isinstance(member, griffe.Attribute) or "property" in member.labels:
                    continue
                annotation = str(member.annotation or "")
                if is_dataclass and annotation.startswith("ClassVar"):
                    continue
                if is_enum or annotation or "class-attribute" in member.labels or member.docstring:
                    found[key] = self.field(member)
        return list(found.values())

    def field(self, attribute: griffe.Attribute) -> Field:
        value = str(attribute.value) if attribute.value is not None else ""
        return Field(attribute.name, _tokens(attribute.annotation), value, _doc(attribute))

    def inherited(self, thing: griffe.Class, member: griffe.Object) -> str:
        """The docstring of a member, or that of the method which it overrides."""
        if member.docstring:
            return _doc(member)
        for base in thing.mro():
            above = base.members.get(member.name)
            if isinstance(above, griffe.Object) and above.docstring:
                return _doc(above)
        return ""
