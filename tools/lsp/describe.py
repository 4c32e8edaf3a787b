"""What an editor shows of a module: documentation of operations, types for reading, layers, an outline, names to complete."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import cleandoc
from typing import TYPE_CHECKING, Any, cast

from xdsl.irdl import (
    EqAttrConstraint,
    IRDLOperation,
    OptOperandDef,
    OptPropertyDef,
    OptResultDef,
    ParamAttrConstraint,
    VarOperandDef,
    VarResultDef,
)

from hbir.viewers.readable import readable_type
from tools.lsp.index import Index, Kind, Occurrence, Statement
from tools.lsp.positions import Span
from tools.lsp.signature import type_of

if TYPE_CHECKING:
    from xdsl.ir import Operation

    from tools.lsp.checks import Checker

__all__ = ["Completion", "Entry", "complete", "hover", "layers_of", "operation_page", "outline"]

_STRING = re.compile(r'"((?:[^"\\\n]|\\.)*+)"')
_PASSES = re.compile(r'fused<(?:"(?:[^"\\]|\\.)*"|[^<>"])*>')
"""The passes of a location stand where MLIR has metadata; they are no layers."""
_ALIAS = re.compile(r"#[A-Za-z_][\w$-]*")
_BEFORE = re.compile(r'(?:^|=)\s*"?([A-Za-z_][\w.]*|)$|(%[\w$.-]*)$')
_SHOWN = 240
_OUTLINED = 5000
"""Operations of a function whose outline names each of them; that of a larger one ends at its layers."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of an outline: a function, a layer or an operation."""

    name: str
    detail: str
    kind: str
    span: Span
    selection: Span
    children: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A name that may stand at the cursor in place of `span`."""

    name: str
    kind: Kind
    span: Span
    page: str = ""


def _kind_of(constraint: Any) -> str:
    """What a property holds: ``array of i64``, ``integer i64``, ``string``."""
    names = sorted(str(base.name) for base in constraint.get_bases() or ())
    inner = ""
    if isinstance(constraint, ParamAttrConstraint):
        parts: Any = constraint.param_constrs  # pyright: ignore[reportUnknownMemberType]
        inner = next((str(cast(Any, each).attr) for each in parts if isinstance(each, EqAttrConstraint)), "")
    kind = " or ".join(names) or "any"
    return f"{kind} of {inner}" if kind == "array" and inner else f"{kind} {inner}".strip()


def _traits(op: type[Operation]) -> str:
    return ", ".join(sorted({type(trait).__name__ for trait in op.traits}))


def operation_page(op: type[Operation]) -> str:
    """An operation's documentation as Markdown: docstring, operands, results, properties and traits."""
    lines = [f"### `{op.name}`", cleandoc(op.__doc__ or "")]
    if issubclass(op, IRDLOperation):
        definition = op.get_irdl_definition()

        def suffix(each: object) -> str:
            # An optional one is a special variadic one.
            if isinstance(each, OptOperandDef | OptResultDef | OptPropertyDef):
                return "?"
            return "…" if isinstance(each, VarOperandDef | VarResultDef) else ""

        operands = ", ".join(f"`{name}{suffix(each)}`" for name, each in definition.operands)
        results = ", ".join(f"`{name}{suffix(each)}`" for name, each in definition.results)
        lines.append(f"Operands: {operands or 'none'}. Results: {results or 'none'}.")
        properties = {name: each for name, each in definition.properties.items() if name != "operandSegmentSizes"}
        if properties:
            lines.append("\n".join(f"- `{n}{suffix(each)}`: {_kind_of(each.constr)}" for n, each in properties.items()))
    if traits := _traits(op):
        lines.append(f"Traits: {traits}.")
    return "\n\n".join(line for line in lines if line)


def layers_of(index: Index, statement: Statement) -> tuple[str, ...]:
    """The layer names in a statement's location, those behind aliases included, each once."""
    text, found, seen = index.text, dict[str, None](), set[str]()

    def collect(piece: str) -> None:
        piece = _PASSES.sub("fused", piece)
        for each in _STRING.finditer(piece):
            found[each[1]] = None
        for alias in _ALIAS.findall(_STRING.sub("", piece)):
            position = index.first.get(("alias", 0, alias))
            if position is not None and alias not in seen:
                seen.add(alias)
                start = index.occurrences[position].end
                end = text.find("\n", start)
                collect(text[start : end if end >= 0 else len(text)])

    if statement.location is not None:
        collect(text[statement.location.start : statement.location.end])
    return tuple(found)


def _layer(index: Index, statement: Statement) -> str:
    return "+".join(layers_of(index, statement))


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _value_page(index: Index, checker: Checker, one: Occurrence) -> str:
    target = index.definition(one)
    if target is None:
        return f"`{one.name}` is not defined"
    number = re.compile(r"#(\d{1,6})").match(index.text, one.end)
    span = type_of(index, target, int(number[1]) if number else 0)
    written = index.text[span.start : span.end] if span is not None else ""
    type_ = checker.type(written) if written else None
    lines = [f"**`{one.name}`** {readable_type(type_) if type_ is not None else ''}".rstrip()]
    owner = index.statements[target.owner] if target.owner >= 0 else None
    if target.place >= 0 and owner is not None:
        layer = _layer(index, owner)
        lines.append(f"result of `{owner.name}`" + (f", layer `{layer}`" if layer else ""))
    else:
        lines.append("an input of its function")
    if written:
        lines.append(f"```mlir\n{_cut(written)}\n```")
    return "\n\n".join(lines)


def _symbol_page(index: Index, one: Occurrence) -> str:
    target = index.definition(one)
    if target is None or target.owner < 0:
        return f"`@{one.name}`"
    count = sum(each.parent == target.owner for each in index.statements)
    return f"**`@{one.name}`** {index.statements[target.owner].name}, {count} operations"


def hover(index: Index, checker: Checker, offset: int) -> tuple[Span, str] | None:
    """What to show over an offset: the name it belongs to, and Markdown."""
    one = index.at(offset)
    if one is None:
        return None
    page = ""
    if one.kind == "operation":
        op = checker.operation(one.name)
        page = operation_page(op) if op is not None else ""
        statement = index.statement_at(one.start)
        layer = _layer(index, statement) if statement is not None else ""
        page = f"layer `{layer}`\n\n{page}" if layer and page else page
    elif one.kind == "value":
        page = _value_page(index, checker, one)
    elif one.kind == "symbol":
        page = _symbol_page(index, one)
    elif one.kind == "alias":
        target = index.definition(one)
        end = index.text.find("\n", target.end) if target is not None else 0
        page = (
            f"```mlir\n{_cut(index.text[target.start : end if end >= 0 else None])}\n```" if target is not None else ""
        )
    elif one.kind == "type":
        page = checker.attribute_page(one.name)
    return (one.span, page) if page else None


def outline(index: Index) -> list[Entry]:
    """The functions, in each its layers, in each its operations: neighbours of one layer are one entry."""
    inside: dict[int, list[Statement]] = {}
    for statement in index.statements:
        inside.setdefault(statement.parent, []).append(statement)
    symbols = {each.owner: each for each in index.occurrences if each.kind == "symbol" and each.defines}
    functions: list[Entry] = []
    for number, statement in enumerate(index.statements):
        if statement.name != "func.func":
            continue
        symbol = symbols.get(number)
        selection = symbol.span if symbol is not None else statement.name_span
        name = f"@{symbol.name}" if symbol is not None else statement.name
        operations = inside.get(number, [])
        layers = tuple(_layer_entries(index, operations, deep=len(operations) <= _OUTLINED))
        span = Span(statement.start, statement.end)
        functions.append(Entry(name, f"{len(operations)} operations", "function", span, selection, layers))
    return functions


def _layer_entries(index: Index, statements: list[Statement], *, deep: bool) -> Iterator[Entry]:
    run: list[Statement] = []
    layer = ""

    def entry() -> Entry:
        operations = tuple(
            Entry(each.name or "?", "", "operation", Span(each.start, each.end), each.name_span) for each in run
        )
        span = Span(run[0].start, run[-1].end)
        detail = operations[-1].name if len(run) == 1 else f"{len(run)} operations"
        return Entry(layer, detail, "layer", span, run[0].name_span, operations if deep and len(run) > 1 else ())

    for statement in statements:
        name = _layer(index, statement) or statement.name or "?"
        if run and name != layer:
            yield entry()
            run = []
        layer = name
        run.append(statement)
    if run:
        yield entry()


def complete(index: Index, checker: Checker, offset: int) -> list[Completion]:
    """Names that may stand at an offset: operations where one may begin, values above it."""
    text = index.text
    line = text[max(text.rfind("\n", 0, offset) + 1, offset - _SHOWN) : offset]
    found = _BEFORE.search(line)
    if found is None:
        return []
    if found[2] is not None:
        span = Span(offset - len(found[2]), offset)
        statement = index.statement_at(max(span.start - 1, 0))
        limit = statement.start if statement is not None and not statement.regions else span.start
        values = [each for each in index.occurrences if each.kind == "value" and each.defines and each.start < limit]
        names = dict.fromkeys(each.name for each in reversed(values) if each.name.startswith(found[2]))
        return [Completion(name, "value", span) for name in list(names)[:200]]
    span = Span(offset - len(found[1]), offset)
    return [
        Completion(op.name, "operation", span, operation_page(op))
        for op in sorted(checker.operations, key=lambda op: op.name)
        if op.name.startswith(found[1])
    ]
