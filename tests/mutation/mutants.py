"""Mutants of a Python source: every small change that a reviewer would call a different program.

A mutant replaces one expression or statement in the text, so that line numbers stay what they were. What is changed:
comparisons (to their neighbour and to their opposite), arithmetic and bit operators, `and` and `or`, signs, `not`,
numbers by one up and down, truth values, conditions, filters of comprehensions, bounds of slices, pairs of names such
as `min` and `max`; and what is taken away: assignments, calls for their effect, `raise`, `break`, `continue`, results.
Texts, annotations, decorators, imports, docstrings and the `strict` of `zip` stay: they are for readers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import TypeAlias, cast

__all__ = ["Mutant", "mutants_of"]

Position: TypeAlias = ast.expr | ast.stmt

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}
_PAIRS = (
    ("min", "max"),
    ("minimum", "maximum"),
    ("fmin", "fmax"),
    ("argmin", "argmax"),
    ("any", "all"),
    ("floor", "ceil"),
)
_SWAPS = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `function` is where ("" for a module's own level), `line` the number of its first line, `before` and
    `after` the text of the lines it touches, `source` the whole module after it. It shows only where one of the lines
    `runs` is run, or anywhere when that is None: on a module's own level."""

    function: str
    line: int
    runs: range | None
    before: str
    after: str
    source: str


class _Changes(ast.NodeVisitor):
    """Collects (function, node, replacement) in the order of the source."""

    def __init__(self) -> None:
        self.found: list[tuple[str, range | None, Position, str]] = []
        self._names: list[str] = []
        self._depth = 0
        self._body: range | None = None  # of the function whose defaults are visited

    def _add(self, node: Position, new: ast.expr | str) -> None:
        text = new if isinstance(new, str) else f"({ast.unparse(new)})"
        own = range(node.lineno, cast(int, node.end_lineno) + 1) if self._depth else None
        self.found.append((".".join(self._names), self._body or own, node, text))

    def _changed(self, node: ast.expr, **fields: object) -> None:
        other = deepcopy(node)
        for name, value in fields.items():
            setattr(other, name, value)
        self._add(node, other)

    def _negated(self, test: ast.expr) -> None:
        # A single comparison has its opposite already, and so has `not`.
        single = isinstance(test, ast.Compare) and len(test.ops) == 1
        if not single and not (isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)):
            self._add(test, ast.UnaryOp(ast.Not(), test))

    def _scope(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        function = isinstance(node, ast.FunctionDef)
        self._names.append(node.name)
        if isinstance(node, ast.FunctionDef):
            self._body = range(node.body[0].lineno, cast(int, node.end_lineno) + 1)
            self.visit(node.args)
            self._body = None
        self._depth += function
        for each in node.body:
            self.visit(each)
        self._depth -= function
        self._names.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if not any(isinstance(each, ast.Name) and each.id == "overload" for each in node.decorator_list):
            self._scope(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._scope(node)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._depth += 1
        self.visit(node.body)
        self._depth -= 1

    def visit_arg(self, node: ast.arg) -> None:
        """Annotations stay."""

    def visit_Import(self, node: ast.Import) -> None:
        """Imports stay."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Imports stay."""

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Texts stay."""

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            if self._depth:
                self._add(node, "pass")
            self.visit(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if self._depth:
            self._add(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._add(node, "pass")
        swapped = ast.AugAssign(node.target, _OPERATORS[type(node.op)](), node.value)
        self._add(node, ast.unparse(swapped))
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):  # a docstring, or the `...` of a protocol
            return
        self._add(node, "pass")
        self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(node, "pass")
        self.generic_visit(node)

    def visit_Break(self, node: ast.Break) -> None:
        self._add(node, "pass")

    def visit_Continue(self, node: ast.Continue) -> None:
        self._add(node, "pass")

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._add(node, "pass")
        elif not (isinstance(node.value, ast.Constant) and not node.value.value):  # None, False, "": all mean no
            self._add(node, "return None")
        self.generic_visit(node)

    def visit_If(self, node: ast.If) -> None:
        self._negated(node.test)
        self.generic_visit(node)

    def visit_While(self, node: ast.While) -> None:
        self._negated(node.test)
        self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self._negated(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._negated(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        for at, op in enumerate(node.ops):
            for other in _COMPARISONS[type(op)]:
                self._changed(node, ops=[*node.ops[:at], other(), *node.ops[at + 1 :]])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        # `int | None` is a type, not arithmetic; and a `%` or `+` of texts is a text.
        if not _is_type(node):
            self._changed(node, op=_OPERATORS[type(node.op)]())
            self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self._changed(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        self._add(node, node.operand)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value = node.value
        if isinstance(value, bool):
            self._add(node, repr(not value))
        elif isinstance(value, int | float):
            step = value if value + 1 == value else 1  # one is nothing to a large float
            self._add(node, repr(value + step))
            self._add(node, f"({value - step!r})")

    def visit_keyword(self, node: ast.keyword) -> None:
        if node.arg != "strict":  # of `zip`: an assertion about what is checked elsewhere
            self.visit(node.value)

    def visit_Slice(self, node: ast.Slice) -> None:
        for bound in (node.lower, node.upper, node.step):
            if bound is not None:
                self._add(bound, "None")
        self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in _SWAPS:
            self._add(node, _SWAPS[node.id])

    def visit_Attribute(self, node: ast.Attribute) -> None:
        if isinstance(node.ctx, ast.Load) and node.attr in _SWAPS:
            self._changed(node, attr=_SWAPS[node.attr])
        self.generic_visit(node)


def _is_type(node: ast.BinOp) -> bool:
    names = {"int", "float", "str", "bool", "None", "Path", "Model"}
    return isinstance(node.op, ast.BitOr) and ast.unparse(node.right).split("[")[0] in names


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every mutant of a module's source, in the order of the source."""
    changes = _Changes()
    changes.visit(ast.parse(source))
    data = source.encode()
    begins = [0]
    for line in data.splitlines(keepends=True):
        begins.append(begins[-1] + len(line))
    # The same change reached by two ways counts once.
    seen: set[tuple[int, int, str]] = set()
    for function, runs, node, new in changes.found:
        first, last = node.lineno, cast(int, node.end_lineno)
        begin, end = begins[first - 1] + node.col_offset, begins[last - 1] + cast(int, node.end_col_offset)
        if (begin, end, new) in seen:
            continue
        seen.add((begin, end, new))
        head, tail = data[begins[first - 1] : begin], data[end : begins[last]]
        before = data[begins[first - 1] : begins[last]]
        after = head + new.encode() + tail
        changed = data[: begins[first - 1]] + after + data[begins[last] :]
        yield Mutant(function, first, runs, _one_line(before), _one_line(after), changed.decode())


def _one_line(text: bytes) -> str:
    return " ".join(text.decode().split())
