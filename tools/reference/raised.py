"""Where each error code is raised, read from the source: every call that makes an error, and the number it is given.

The number stands there as a literal (`PassError(5, …)`), as a member of an enumeration (`Refusal.FILE`), or comes in through a
parameter of a helper (`def _damaged(number, why): return FileFormatError(number, …)`), whose calls are then the places. A
number that cannot be read this way is an `Unread`: the tests allow none.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

__all__ = ["RaiseSite", "Unread", "raise_sites", "sources"]

_PACKAGES = ("hbir", "passes", "backends", "tools")


@dataclass(frozen=True, order=True)
class RaiseSite:
    """One place that makes an error."""

    code: str
    """Such as `HB0305`."""
    file: str
    """The file's path from the folder that holds the packages, with forward slashes."""
    line: int
    what: str
    """What happened, as the source spells it: an expression in braces stands for its value."""
    lever: str
    """What to change, spelled likewise; empty when the place gives none."""


@dataclass(frozen=True, order=True)
class Unread:
    """A call that makes an error with a number that the source does not tell."""

    file: str
    line: int
    text: str


def sources(root: Path | None = None) -> dict[str, str]:
    """The Python files of the project below `root`: path from there, with forward slashes, and text."""
    if root is None:
        import hbir

        root = Path(hbir.__path__[0]).parent
    files = sorted(path for package in _PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files}


_Definition = ast.FunctionDef | ast.AsyncFunctionDef
_Scope = _Definition | ast.Lambda | ast.ClassDef

# Most nodes of a tree are these, and nothing is made inside them.
_LEAVES = (ast.Name, ast.Constant, ast.expr_context, ast.operator, ast.alias)


@dataclass
class _File:
    name: str
    tree: ast.Module
    around: dict[ast.AST, tuple[_Scope, ...]] = field(default_factory=dict[ast.AST, tuple[_Scope, ...]])
    """For each call, function and class, the functions and classes that it stands in, from the inside."""
    calls: dict[str, list[ast.Call]] = field(default_factory=dict[str, list[ast.Call]])
    """The calls by the last part of what is called."""
    imports: dict[str, str] = field(default_factory=dict[str, str])
    """The module that a name is imported from."""

    def __post_init__(self) -> None:
        todo: list[tuple[ast.AST, tuple[_Scope, ...]]] = [(self.tree, ())]
        while todo:
            node, around = todo.pop()
            if isinstance(node, ast.Call | _Scope):
                self.around[node] = around
                if isinstance(node, ast.Call):
                    self.calls.setdefault(_name(node.func), []).append(node)
                else:
                    around = (node, *around)
            elif isinstance(node, ast.ImportFrom):
                self.imports |= {alias.asname or alias.name: node.module or "" for alias in node.names}
            for name in node._fields:
                value = getattr(node, name, None)
                parts = cast(list[object], value) if isinstance(value, list) else [value]
                todo += [(p, around) for p in parts if isinstance(p, ast.AST) and not isinstance(p, _LEAVES)]


def _name(node: ast.expr) -> str:
    """The last part of a dotted name, or nothing for another expression."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _text(node: ast.expr | None) -> str:
    """A message as a reader wants it: the text of strings, values in braces."""
    match node:
        case None:
            return ""
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(_text(part) for part in node.values)
        case ast.FormattedValue():
            return "{" + ast.unparse(node.value) + "}"
        case ast.IfExp():
            return " | ".join(part for part in (_text(node.body), _text(node.orelse)) if part)
        case _:
            return "{" + ast.unparse(node) + "}"


def _positional(function: _Definition) -> list[str]:
    return [each.arg for each in (*function.args.posonlyargs, *function.args.args)]


def _arguments(call: ast.Call) -> list[ast.expr]:
    """Positional arguments, those of a starred tuple among them."""
    flat: list[ast.expr] = []
    for argument in call.args:
        inner = argument.value if isinstance(argument, ast.Starred) else None
        flat += inner.elts if isinstance(inner, ast.Tuple | ast.List) else [argument]
    return flat


def _argument(call: ast.Call, position: int, name: str) -> ast.expr | None:
    given = next((keyword.value for keyword in call.keywords if keyword.arg == name), None)
    flat = _arguments(call)
    return given if given is not None else flat[position] if position < len(flat) else None


@dataclass(frozen=True)
class _Maker:
    """Something whose call makes an error: an error class, or a helper that passes a number on."""

    family: int
    number: tuple[int, str] | None
    """Position and name of the parameter that takes the number; None for a helper that has its own."""
    numbers: tuple[int, ...] = ()
    """The numbers of a helper that has its own."""
    what: tuple[int, str] | str = (1, "what")
    """The parameter that takes the message, or the message of a helper that has its own."""
    lever: tuple[int, str] | str = (99, "lever")
    scope: ast.AST | None = None
    """What alone knows the helper by its bare name: a file, or the function that it is defined in."""
    is_method: bool = False


class _Reader:
    def __init__(self, files: Mapping[str, str]) -> None:
        self.texts = files
        self.parsed: dict[str, _File] = {}
        self.sites: set[RaiseSite] = set()
        self.unread: set[Unread] = set()
        self.makers: dict[str, _Maker] = {}
        self.enums: dict[str, dict[str, dict[str, int]]] = {}
        # Where each helper makes its error, as a place of its own; that of a helper which is called nowhere counts.
        self.helpers: dict[tuple[str, _Maker], RaiseSite | Unread] = {}
        self.met: set[tuple[str, _Maker]] = set()
        for file in self._files_with("HbError", "IntEnum"):
            for node in file.around:
                if isinstance(node, ast.ClassDef):
                    self._class(file, node)

    def _files_with(self, *words: str) -> Iterator[_File]:
        """The files whose text holds one of the words; most hold none, and are not parsed."""
        for name, text in self.texts.items():
            if any(word in text for word in words):
                if name not in self.parsed:
                    self.parsed[name] = _File(name, ast.parse(text))
                yield self.parsed[name]

    def _class(self, file: _File, node: ast.ClassDef) -> None:
        assigned = {
            _name(line.targets[0]): line.value.value
            for line in node.body
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant)
        }
        numbers = {name: value for name, value in assigned.items() if isinstance(value, int)}
        bases = [_name(base) for base in node.bases]
        if "HbError" in bases and "family" in numbers:
            self.makers[node.name] = _Maker(numbers["family"], (0, "number"))
        elif "IntEnum" in bases:
            self.enums.setdefault(file.name, {})[node.name] = numbers

    def read(self) -> None:
        """Find the calls of error classes, then those of the helpers that these turn out to stand in, and so on."""
        todo = list(self.makers.items())
        while todo:
            name, maker = todo.pop()
            for file in self._files_with(name):
                for call in file.calls.get(name, ()):
                    # A method is reached through its object; what is called by its bare name is none.
                    through_object = isinstance(call.func, ast.Attribute)
                    if maker.scope is None:
                        is_meant = through_object or not maker.is_method
                    else:
                        is_meant = not through_object and maker.scope in (*file.around[call], file.tree)
                    if is_meant:
                        self.helpers.pop((name, maker), None)
                        todo += self._call(file, call, maker)
        self.sites.update(each for each in self.helpers.values() if isinstance(each, RaiseSite))
        self.unread.update(each for each in self.helpers.values() if isinstance(each, Unread))

    def _call(self, file: _File, call: ast.Call, maker: _Maker) -> list[tuple[str, _Maker]]:
        """Note the places that a call is, or the helper that it stands in, which is to be looked for."""
        what, lever = (
            ast.Constant(at) if isinstance(at, str) else _argument(call, *at) for at in (maker.what, maker.lever)
        )
        number = None if maker.number is None else _argument(call, *maker.number)
        unread = Unread(file.name, call.lineno, ast.unparse(call))
        helper = self._passing_on(file, call, number)
        if helper is not None and number is not None:
            found = self._helper(file, helper, maker.family, _name(number), (), what, lever)
            return self._new(found, unread)
        values = list(maker.numbers) if maker.number is None else number and self._values(file, call, number)
        if values is None:
            self.unread.add(unread)
            return []
        codes = [f"HB{maker.family + value:04d}" for value in values]
        texts = [self._spelt(file, call, part) for part in (what, lever)]
        sites = [RaiseSite(code, file.name, call.lineno, *texts) for code in codes]
        helper = self._passing_on(file, call, what)
        if helper is not None and len(sites) == 1:
            return self._new(self._helper(file, helper, maker.family, "", tuple(values), what, lever), sites[0])
        self.sites.update(sites)
        return []

    def _new(self, found: tuple[str, _Maker], place: RaiseSite | Unread) -> list[tuple[str, _Maker]]:
        """A helper, if it was not met before."""
        if found in self.met:
            return []
        self.met.add(found)
        self.helpers[found] = place
        return [found]

    def _passing_on(self, file: _File, call: ast.Call, value: ast.expr | None) -> _Definition | None:
        """The function around a call whose parameter `value` is."""
        if isinstance(value, ast.Name):
            for function in file.around[call]:
                if isinstance(function, _Definition) and value.id in _positional(function):
                    return function
        return None

    def _helper(
        self, file: _File, function: _Definition, family: int, number: str, numbers: tuple[int, ...],
        what: ast.expr | None, lever: ast.expr | None,
    ) -> tuple[str, _Maker]:  # fmt: skip
        """The maker that a helper is: where its own parameters go."""
        parameters = _positional(function)
        home = next(iter(file.around[function]), file.tree)
        is_method = isinstance(home, ast.ClassDef)
        named = parameters[1:] if is_method else parameters

        def place(value: ast.expr | None) -> tuple[int, str] | str:
            name = _name(value) if isinstance(value, ast.Name) else ""
            if name in named:
                return named.index(name), name
            return (99, name) if name in [each.arg for each in function.args.kwonlyargs] else _text(value)

        scope = None if is_method or (home is file.tree and not function.name.startswith("_")) else home
        taken = (named.index(number), number) if number else None
        return function.name, _Maker(family, taken, numbers, place(what), place(lever), scope, is_method)

    def _values(self, file: _File, call: ast.Call, node: ast.expr) -> list[int] | None:
        """The numbers that an expression can have, None when the source does not tell.

        A number taken from the `code` of another error adds none: it belongs to the place that made that error.
        """
        match node:
            case ast.Constant(value=int(value)):
                return [value]
            case ast.IfExp():
                parts = [self._values(file, call, part) for part in (node.body, node.orelse)]
                return None if None in parts else [value for part in parts for value in part or ()]
            case ast.Name():
                given = self._assigned(file, call, node.id)
                parts = [self._values(file, call, value) for value in given]
                return None if None in parts or not parts else [value for part in parts for value in part or ()]
            case ast.Attribute():
                member = self._member(file, _name(node.value), node.attr)
                return None if member is None else [member]
            case _:
                return [] if any(isinstance(x, ast.Attribute) and x.attr == "code" for x in ast.walk(node)) else None

    def _assigned(self, file: _File, call: ast.Call, name: str) -> list[ast.expr]:
        """What is assigned to a name in the function around a call, or else at the top of the file."""
        for lines in (*map(ast.walk, file.around[call]), file.tree.body):
            assigned = [line for line in lines if isinstance(line, ast.Assign)]
            found = [a.value for a in assigned if [_name(target) for target in a.targets] == [name]]
            if found:
                return found
        return []

    def _spelt(self, file: _File, call: ast.Call, node: ast.expr | None) -> str:
        """A message, or the messages that the variable which holds it can have."""
        given = self._assigned(file, call, node.id) if isinstance(node, ast.Name) else []
        return " | ".join(dict.fromkeys(map(_text, given))) or _text(node)

    def _member(self, file: _File, enum: str, member: str) -> int | None:
        """The value of a member of an enumeration that the file defines or imports."""
        home = file.imports.get(enum, "").replace(".", "/")
        homes = (file.name, f"{home}.py", f"{home}/__init__.py")
        return next(
            (found for h in homes if (found := self.enums.get(h, {}).get(enum, {}).get(member)) is not None), None
        )


def raise_sites(files: Mapping[str, str] | None = None) -> tuple[tuple[RaiseSite, ...], tuple[Unread, ...]]:
    """Every place of `files` (by default the project's) that makes an error with a code, and those whose code is not told."""
    reader = _Reader(sources() if files is None else files)
    reader.read()
    return tuple(sorted(reader.sites)), tuple(sorted(reader.unread))
