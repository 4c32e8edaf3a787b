"""What is wrong with a text of MLIR: names, each operation by itself, and what remains when its operations are left out.

An operation is read and verified alone, with the types that its signature states, so that one mistake hides no other and
an edit costs what it touches; that operands have the types of the values they name is checked here. Functions and the
module are read with their operations left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import cleandoc

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.ir import Attribute, Operation
from xdsl.utils.exceptions import ParseError, VerifyException

from hbir.dialects import all_dialects
from hbir.errors import IrError
from hbir.ir.constants import ConstantStore
from hbir.ir.limits import Budget
from hbir.ir.strings import ascii_literals
from hbir.ir.text import ESCAPING, MlirParser, parse_reason, verify_module
from hbir.module import Module
from tools.lsp.assemble import Assembler
from tools.lsp.index import Index, Statement
from tools.lsp.positions import Span
from tools.lsp.signature import result_types, signature_types, type_of
from tools.lsp.skeleton import build_skeleton, is_leaf

__all__ = ["Checker", "Problem", "context"]

_MOST = 200
"""Problems that one text is told of; beyond them a person starts elsewhere."""
_LITERAL = re.compile(r'//[^\n]*+|"(?:[^"\\\n]|\\.)*+(?P<end>"?)')
_OPERANDS = re.compile(r"\(\s*+(?:%[\w$.-]++(?:#\d++)?(?:\s*+,\s*+%[\w$.-]++(?:#\d++)?)*+)?\s*+\)")
_BEFORE_NAME = re.compile(r"(?:%[\w$.-]++(?::\d++)?(?:\s*+,\s*+%[\w$.-]++(?::\d++)?)*+\s*+=\s*+)?")
_NAMED = r'"[\w /.:+-]*+"'
_PLAIN_LOCATION = re.compile(rf"loc\((?:unknown|{_NAMED}|fused\[{_NAMED}(?:, {_NAMED})*+\])\)")
_HIDDEN = ("builtin.unregistered",)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: where, the code of the error, and the rest of its paragraph."""

    span: Span
    code: str
    message: str


def _problem(span: Span, error: IrError) -> Problem:
    message = error.what + (f"; {error.why}" if error.why else "")
    return Problem(span, error.code, message + (f". Change: {error.lever}" if error.lever else ""))


def context() -> Context:
    """A context that knows every operation a module may hold."""
    made = Context()
    for dialect in (Builtin, Func, *all_dialects()):
        made.load_dialect(dialect)
    return made


def _original(text: str, offset: int) -> int:
    """The offset in a text that an offset in its ASCII form (see `hbir.ir.strings`) stands for."""
    shift = 0
    for literal in _LITERAL.finditer(text):
        if literal.start() + shift >= offset:
            break
        longer = len(ascii_literals(literal[0], "")[0]) - len(literal[0])
        if literal.end() + shift + longer > offset:
            return min(offset - shift, literal.end())
        shift += longer
    return offset - shift


def _parse_problem(text: str, parser: MlirParser, error: Exception) -> tuple[Span, str]:
    """Where in `text` a parser failed, and why."""
    known = isinstance(error, ParseError)
    start, end = (error.span.start, error.span.end) if known else (parser.pos, parser.pos)
    first = _original(text, start)
    return Span(first, max(_original(text, end), first + 1)), _reason(error)


def _reason(error: Exception) -> str:
    """What a parser says, in one line."""
    if isinstance(error, ParseError):
        return parse_reason(error)
    return str(error).strip().rsplit("\n", 1)[-1].strip(" ^-") or type(error).__name__


class Checker:
    """Checks the versions of one document; what was found clean is not read again."""

    def __init__(self) -> None:
        self._context = context()
        self.operations: list[type[Operation]] = [op for op in self._context.loaded_ops if op.name not in _HIDDEN]
        self._names = [op.name for op in self.operations]
        self._clean: set[tuple[object, ...]] = set()
        self._aliases: dict[str, Attribute] = {}
        self._alias_text = ""
        self._assembler = Assembler(self._context)

    def check(self, index: Index, wanted: Callable[[], bool] = lambda: True) -> list[Problem]:
        """The problems of a text, in order, `_MOST` at most; some of them once it is not `wanted` any more."""
        self._assembler.budget = Budget()
        found = list(self._strings(index))
        found += self._read_aliases(index)
        for part in (self._values(index), self._statements(index, wanted), self._operand_types(index)):
            for problem in part:
                found.append(problem)
                if len(found) >= _MOST:
                    return sorted(found, key=lambda each: each.span)
            if not wanted():
                return found
        found += self._rest(index, found)
        return sorted(found, key=lambda each: each.span)

    def type(self, text: str) -> Attribute | None:
        """A type as it is written as an attribute, None for a text that is none."""
        return self._assembler.type(text)

    def operation(self, name: str) -> type[Operation] | None:
        """An operation by its name; ``module`` and ``return`` are those of the short form."""
        name = {"module": "builtin.module", "return": "func.return"}.get(name, name)
        return next((op for op in self.operations if op.name == name), None)

    def attribute_page(self, name: str) -> str:
        """The documentation of an attribute or a type, ``!quant.uniform``; "" when it is not known."""
        known = self._context.get_optional_type if name.startswith("!") else self._context.get_optional_attr
        kind: type[Attribute] | None = known(name[1:])
        return f"### `{name}`\n\n{cleandoc(kind.__doc__ or '')}" if kind is not None else ""

    def _strings(self, index: Index) -> Iterator[Problem]:
        for literal in _LITERAL.finditer(index.text):
            if literal["end"] == "":
                error = IrError(5, "a string does not end", lever='close it with " on its line')
                yield _problem(Span(literal.start(), literal.end()), error)

    def _parser(self, text: str) -> MlirParser:
        """A parser of a part of the text: together they read no more than the reader of the whole does."""
        made = MlirParser(self._context, text)
        made.budget = self._assembler.budget
        return made

    def _read_aliases(self, index: Index) -> list[Problem]:
        """Learn the aliases of the text; those that cannot be read, and uses before the definition."""
        text, found = index.text, list[Problem]()
        definitions = [each for each in index.occurrences if each.kind == "alias" and each.defines]
        self._assembler.budget.add(locations=_locations(index))
        spans = [Span(each.start, _line_end(text, each.end)) for each in definitions]
        joined = "\n".join(text[span.start : span.end] for span in spans)
        if joined != self._alias_text:
            self._aliases, self._alias_text = {}, joined
            self._clean.clear()
            for each, span in zip(definitions, spans, strict=True):
                body = text[text.index("=", each.end) + 1 : span.end]
                parser: MlirParser | None = None
                try:
                    parser = self._parser(ascii_literals(body, "")[0])
                    parser.attribute_aliases.update(self._aliases)
                    self._aliases[each.name] = parser.parse_attribute()
                except (ParseError, VerifyException, *ESCAPING, IrError):
                    continue  # the module that is left without its operations tells of it
            self._assembler.reset(self._aliases)
        for each in index.occurrences:
            if each.kind == "alias" and not each.defines:
                target = index.definition(each)
                if target is None or target.start > each.start:
                    why = "" if target is None else "an alias stands before its first use here"
                    lever = "define it above" if target is None else "print the module with --mlir-print-local-scope"
                    found.append(
                        _problem(each.span, IrError(5, f"alias {each.name} is not known", why=why, lever=lever))
                    )
        return found

    def _values(self, index: Index) -> Iterator[Problem]:
        for position in index.again:
            each = index.occurrences[position]
            if each.kind == "value":
                first = index.definition(each)
                line = index.text.count("\n", 0, first.start) + 1 if first is not None else 0
                what = f"{each.name} is already defined in line {line}"
                yield _problem(each.span, IrError(5, what, lever="choose another name"))
        for each in index.occurrences:
            if each.kind != "value" or each.defines:
                continue
            target = index.definition(each)
            if target is None:
                lever = "define it above, or name another value"
                yield _problem(each.span, IrError(5, f"{each.name} is not defined", lever=lever))
            elif target.start > each.start:
                lever = "move the operation behind the one that defines its operand"
                yield _problem(each.span, IrError(3, f"{each.name} is used before it is defined", lever=lever))

    def _statements(self, index: Index, wanted: Callable[[], bool]) -> Iterator[Problem]:
        text, clean = index.text, set[tuple[object, ...]]()
        for statement in index.statements:
            if not wanted():
                self._clean |= clean
                return
            if not is_leaf(index, statement):
                continue
            start = _operands_end(text, statement)
            key = _key(text, statement, start) if start >= 0 else None
            if key is not None and (key in clean or key in self._clean):
                clean.add(key)
                continue
            if start < 0 or not self._assembler.accepts(text, statement, start):
                problem = self._statement(text, statement)
                if problem is not None:
                    yield problem
                    continue
            if key is not None:
                clean.add(key)
        self._clean = clean

    def _statement(self, text: str, statement: Statement) -> Problem | None:
        """The first problem of one operation, read by itself."""
        piece = text[statement.start : statement.end]
        try:
            plain, _ = ascii_literals(piece, "")
        except IrError as error:
            return (
                None if any(m["end"] == "" for m in _LITERAL.finditer(piece)) else _problem(statement.name_span, error)
            )
        if statement.name not in self._names:
            close = get_close_matches(statement.name, self._names, 1)
            lever = f"write {close[0]}" if close else "name an operation of hbir, qat or quantized"
            what = f"there is no operation {statement.name}" if statement.name else "an operation is expected here"
            span = statement.name_span if statement.name else Span(statement.start, statement.end)
            return _problem(span, IrError(5, what, lever=lever))
        parser: MlirParser | None = None
        try:
            parser = self._parser(plain)
            parser.attribute_aliases.update(self._aliases)
            op = parser.parse_operation()
            if parser.pos < len(plain):
                parser.raise_error("this belongs to no operation", parser.pos, len(plain))
        except (ParseError, VerifyException, *ESCAPING) as error:
            if parser is None:
                return _problem(Span(statement.start, statement.end), IrError(5, _reason(error)))
            span, reason = _parse_problem(piece, parser, error)
            span = Span(statement.start + span.start, statement.start + span.end)
            return _problem(span, IrError(5, reason, lever="mend the text"))
        return _verified(op, statement.name_span)

    def _operand_types(self, index: Index) -> Iterator[Problem]:
        text = index.text
        defined: dict[tuple[int, int], Span | None] = {}
        results: dict[int, list[Span]] = {}
        for statement in index.statements:
            if statement.custom or not statement.operands:
                continue
            types = signature_types(text, statement)
            if types is None:
                continue
            if len(types[0]) != len(statement.operands):
                continue  # reading the operation tells of it
            for position, span in zip(statement.operands, types[0], strict=True):
                use = index.occurrences[position]
                target = index.definition(use)
                if target is None:
                    continue
                place = _place(text, use.end)
                if target.place >= 0:
                    if target.owner not in results:
                        results[target.owner] = result_types(text, index.statements[target.owner])
                    at = target.place + place
                    known = results[target.owner][at] if at < len(results[target.owner]) else None
                else:
                    key = (target.start, place)
                    if key not in defined:
                        defined[key] = type_of(index, target, place)
                    known = defined[key]
                if known is not None and not self._same(text[known.start : known.end], text[span.start : span.end]):
                    lever = f"write {_short(text[known.start : known.end])}, or change its definition"
                    what = f"{use.name} is used with type {_short(text[span.start : span.end])}"
                    yield _problem(span, IrError(5, what, why="it is defined with another", lever=lever))

    def _same(self, one: str, other: str) -> bool:
        if one == other:
            return True
        first, second = self._assembler.type(one), self._assembler.type(other)
        return first is None or second is None or first == second

    def _rest(self, index: Index, found: list[Problem]) -> list[Problem]:
        """What is wrong with functions and the module around them."""
        skeleton = build_skeleton(index)
        parser: MlirParser | None = None
        try:
            parser = MlirParser(self._context, ascii_literals(skeleton.text, "")[0])
            parser.budget.add(operations=len(index.statements), locations=_locations(index))
            module = parser.parse_module()
        except IrError:
            return []  # a string that does not end
        except (ParseError, VerifyException, *ESCAPING) as error:
            if parser is None:
                return [] if found else [_problem(Span(0, 1), IrError(5, _reason(error)))]
            span, reason = _parse_problem(skeleton.text, parser, error)
            span = skeleton.there(span)
            told = any(each.span.start <= span.start <= each.span.end for each in found)
            if told or (found and reason.startswith("values used but not defined")):
                return []
            return [_problem(span, IrError(5, reason, lever="mend the text"))]
        if any(each.code == "HB0205" for each in found):
            return []
        return _verify_rest(index, module)


def _locations(index: Index) -> int:
    """How many names of locations a text defines."""
    return sum(each.defines and each.name.startswith("#loc") for each in index.occurrences if each.kind == "alias")


def _operands_end(text: str, statement: Statement) -> int:
    """Where the operands of an operation in the generic form end, -1 for one that only the parser can judge."""
    operands = _OPERANDS.match(text, statement.name_span.end)
    if operands is None or statement.custom or operands.end() > statement.end:
        return -1
    if not _BEFORE_NAME.fullmatch(text, statement.start, statement.name_span.start):
        return -1
    place, end = statement.location, statement.end
    plain = place is None or (place.end == end and _PLAIN_LOCATION.fullmatch(text, place.start, end) is not None)
    return operands.end() if plain else -1


def _key(text: str, statement: Statement, start: int) -> tuple[object, ...]:
    """What decides whether an operation is well formed: all but its names of values and its location."""
    end = statement.location.start if statement.location is not None else statement.end
    return statement.name, statement.results, len(statement.operands), text[start:end]


def _verified(op: Operation, span: Span) -> Problem | None:
    try:
        op.verify()
    except VerifyException as error:
        reason = str(error).strip().rsplit("\n", 1)[-1].strip(" ^-")
    except ESCAPING as error:
        reason = f"{type(error).__name__}: {error}"
    else:
        return None
    return _problem(span, IrError(4, reason, lever="mend the operation, or the types around it"))


def _line_end(text: str, offset: int) -> int:
    end = text.find("\n", offset)
    return len(text) if end < 0 else end


def _place(text: str, end: int) -> int:
    """The number behind ``%0#1``; 0 without one."""
    found = re.compile(r"#(\d{1,6})").match(text, end)
    return int(found[1]) if found else 0


def _short(type_: str) -> str:
    return type_ if len(type_) <= 120 else type_[:117] + "…"


def _verify_rest(index: Index, module: ModuleOp) -> list[Problem]:
    try:
        verify_module(module)
        Module(module, ConstantStore()).check_names()
    except IrError as whole:
        top = [s for s in index.statements if s.parent < 0 or (s.scope == 1 and index.statements[s.parent].parent < 0)]
        inner = [s for s in top if s.parent >= 0] or top
        found: list[Problem] = []
        for op, statement in zip(list(module.body.block.ops), inner, strict=False):
            op.detach()
            one = ModuleOp([op])
            try:
                verify_module(one)
                Module(one, ConstantStore()).check_names()
            except IrError as error:
                found.append(_problem(_function_span(index, statement), error))
        return found or [_problem(inner[0].name_span if inner else Span(0, 1), whole)]
    return []


def _function_span(index: Index, statement: Statement) -> Span:
    """The symbol of a function, or the name of the operation."""
    for each in index.occurrences:
        if each.kind == "symbol" and each.defines and statement.start <= each.start <= statement.end:
            return each.span
    return statement.name_span
