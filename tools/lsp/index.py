"""What stands where in a text of MLIR: statements, values, symbols, blocks and aliases, found by tokens alone.

The index works on a text that is being edited: a statement that lacks a bracket ends where the next one starts a line.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from tools.lsp.positions import Span

__all__ = ["Index", "Kind", "Occurrence", "Statement", "build_index"]

Kind = Literal["value", "symbol", "block", "alias", "operation", "type"]
"""What a name names."""

_STRING = r'"(?:[^"\\\n]|\\.)*+"?'
_WORD = r"(?<![\w.$])(?:[A-Za-z_]\w*+(?:\.\w++)++|module\b|return\b)"
_LOCATION = r"\bloc\s*+\("
_LIST = r"%[\w$.-]++(?::\d++)?(?:\s*+,\s*+%[\w$.-]++(?::\d++)?)*+"
# Most of a text are numbers and names of types: the first line passes over them in one step. Matches leave no gap, or what lies
# before the gap would be passed over once more from each of its characters: a list of values is one match, whether or not it
# defines them, and the last two lines match wherever nothing else does.
_TOKEN = re.compile(
    rf"""(?:[^"%@^\#!()\[\]{{}}:/A-Za-z_]++|/(?!/)|:(?!\s*+\()|(?!{_WORD}|{_LOCATION})[A-Za-z_]\w*+)*+(?:
    (?P<comment>//[^\n]*+)
    |(?P<location>{_LOCATION})
    |(?P<string>{_STRING})
    |(?P<values>{_LIST})(?P<results>\s*+=(?!=))?+
    |(?P<symbol>@(?:[A-Za-z_][\w$.]*+|{_STRING}))
    |(?P<block>\^[\w$.-]++)
    |(?P<alias>[\#!][A-Za-z_][\w$.-]*+)
    |(?P<word>{_WORD})
    |(?P<open>[(\[{{])
    |(?P<close>[)\]}}])
    |(?P<signature>:)
    |(?P<other>.)
    |(?P<last>\Z))""",
    re.VERBOSE | re.DOTALL,
)
_RESULT = re.compile(r"(%[\w$.-]++)(?::(\d++))?")
_REGION = re.compile(
    r'\{(?:\s|//[^\n]*)*+(?:%|\^|"[^"\n]*"\s*\(|(?:module|return|[A-Za-z_]\w*(?:\.\w+)+)\b(?!\s*[=,}:]))'
)
_INDENT = 256  # a line that starts with more blanks than this is none that a person or a printer wrote
_DEEPEST = 64  # regions in regions: a name is looked for in each of them
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Occurrence(NamedTuple):
    """One mention of a name. `scope` is the region it stands in (values and blocks), 0 at the top.

    `owner` is the position of the statement that a value is defined by or used in, -1 outside of any; `place` counts its
    results, -1 for a block argument.
    """

    kind: Kind
    name: str
    start: int
    end: int
    scope: int
    defines: bool
    owner: int = -1
    place: int = -1

    @property
    def span(self) -> Span:
        """Where the mention stands."""
        return Span(self.start, self.end)


@dataclass(slots=True)
class Statement:
    """One operation: where it stands, its name, where its signature begins and its location stands.

    `custom` tells of a form other than the generic one, `regions` whether it has regions. `operands` are positions of
    occurrences in the index. `types` is what `tools.lsp.signature` found, once it was asked.
    """

    start: int
    parent: int
    scope: int
    name: str = ""
    name_span: Span = field(default=Span(0, 0))
    end: int = 0
    signature: int = -1
    location: Span | None = None
    custom: bool = False
    regions: bool = False
    results: int = 0
    operands: list[int] = field(default_factory=list[int])
    types: tuple[list[Span], list[Span]] | Literal["broken"] | None = None


@dataclass
class Index:
    """The occurrences in order, the statements in order, and who defines what."""

    text: str
    occurrences: list[Occurrence]
    statements: list[Statement]
    parents: list[int]
    """The scope around each scope; -1 for the top."""
    first: dict[tuple[Kind, int, str], int] = field(default_factory=dict[tuple[Kind, int, str], int])
    """(kind, scope, name) -> the occurrence that defines it."""
    again: list[int] = field(default_factory=list[int])
    """Occurrences that define a name once more."""

    def __post_init__(self) -> None:
        self._starts = [each.start for each in self.occurrences]
        self._begins = [each.start for each in self.statements]
        for position, each in enumerate(self.occurrences):
            if each.defines and self.first.setdefault((each.kind, each.scope, each.name), position) != position:
                self.again.append(position)

    def at(self, offset: int) -> Occurrence | None:
        """The name at an offset, or the one that ends there."""
        position = bisect_right(self._starts, offset) - 1
        if position >= 0 and offset <= self.occurrences[position].end:
            return self.occurrences[position]
        return None

    def definition(self, one: Occurrence) -> Occurrence | None:
        """The occurrence that defines a name, looked for from its scope outwards."""
        scope = one.scope
        while scope >= 0:
            found = self.first.get((one.kind, scope, one.name))
            if found is not None:
                return self.occurrences[found]
            scope = self.parents[scope]
        return None

    def references(self, one: Occurrence) -> list[Occurrence]:
        """Every occurrence of the same thing, its definition included."""
        same = [each for each in self.occurrences if each.name == one.name and each.kind == one.kind]
        target = self.definition(one)
        return [each for each in same if self.definition(each) is target]

    def statement_at(self, offset: int) -> Statement | None:
        """The innermost statement around an offset."""
        position = bisect_right(self._begins, offset) - 1
        while position >= 0 and offset > self.statements[position].end:
            position = self.statements[position].parent
        return self.statements[position] if position >= 0 else None


class _Builder:
    """One walk over the tokens. `brackets` holds what is open: the character, `R` for a region, `H` for arguments, `L` for a
    location."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.occurrences: list[Occurrence] = []
        self.statements: list[Statement] = []
        self.parents = [-1]
        self.brackets: list[str] = []
        self.scopes = [0]
        self.current = [-1]  # for each region the statement that is being read, -1 for none
        self.header = -1  # where the arguments of a block or function begin
        self.comment = -1  # the comment that nothing followed yet
        self.waiting: list[tuple[str, int, int]] = []  # arguments of a function whose region is still to come

    def build(self) -> Index:
        kinds = (
            "values",
            "string",
            "word",
            "symbol",
            "block",
            "alias",
            "location",
            "signature",
            "open",
            "close",
        )
        handlers: dict[str, Callable[[int, int], None]] = {kind: getattr(self, f"on_{kind}") for kind in kinds}
        for found in _TOKEN.finditer(self.text):
            kind = found.lastgroup or ""
            if kind in ("other", "last"):
                continue
            if kind == "results":
                self.on_results(found.start("values"), found.end())
                self.comment = -1
                continue
            start, end = found.span(kind)
            if kind == "comment":
                self.comment = start if self.comment < 0 else self.comment
                continue
            handlers[kind](start, end)
            self.comment = -1
        while len(self.current) > 1:
            self.leave_region(len(self.text))
        self.end_statement(len(self.text))
        return Index(self.text, self.occurrences, self.statements, self.parents)

    @property
    def level(self) -> bool:
        """Whether a statement may start here."""
        return not self.brackets or self.brackets[-1] == "R"

    def starts_line(self, offset: int) -> bool:
        begin = self.text.rfind("\n", max(0, offset - _INDENT), offset) + 1
        return (begin > 0 or offset < _INDENT) and not self.text[begin:offset].strip()

    def recover(self, offset: int) -> bool:
        """Whether a statement starts here; brackets that were left open before are dropped."""
        if not self.level and self.starts_line(offset):
            while not self.level:
                self.brackets.pop()
        return self.level

    def see(self, kind: Kind, name: str, start: int, *, scope: int = 0, defines: bool = False, place: int = -1) -> None:
        owner = self.current[-1]
        self.occurrences.append(Occurrence(kind, name, start, start + len(name), scope, defines, owner, place))

    def end_statement(self, offset: int) -> None:
        if self.current[-1] >= 0:
            statement = self.statements[self.current[-1]]
            statement.end = offset if self.comment < 0 else self.comment
            while statement.end > statement.start and self.text[statement.end - 1].isspace():
                statement.end -= 1
        self.current[-1] = -1

    def begin_statement(self, offset: int) -> Statement:
        self.end_statement(offset)
        parent = self.current[-2] if len(self.current) > 1 else -1
        statement = Statement(offset, parent, self.scopes[-1])
        self.current[-1] = len(self.statements)
        self.statements.append(statement)
        self.header, self.waiting = -1, []
        return statement

    def name_statement(self, start: int, end: int, name: str, *, custom: bool) -> None:
        """The statement that was opened by its results, or a new one."""
        position = self.current[-1]
        open_ = position >= 0 and not self.statements[position].name
        statement = self.statements[position] if open_ else self.begin_statement(start)
        statement.name, statement.custom, statement.name_span = name, custom, Span(start, end)
        self.see("operation", name, start if custom else start + 1)

    def on_results(self, start: int, end: int) -> None:
        if not self.recover(start):
            return
        statement = self.begin_statement(start)
        for each in _RESULT.finditer(self.text, start, end):
            self.see("value", each[1], each.start(), scope=self.scopes[-1], defines=True, place=statement.results)
            statement.results += int(each[2] or 1)

    def on_string(self, start: int, end: int) -> None:
        text = self.text
        before = text[max(0, start - 16) : start].rstrip()
        if before.endswith("=") and before[:-1].rstrip().endswith("sym_name"):
            self.see("symbol", text[start:end].strip('"'), start + 1, defines=True)
        elif text[end : end + 1] == "(" and (self.level or self.recover(start)):
            self.name_statement(start, end, text[start:end].strip('"'), custom=False)

    def on_word(self, start: int, end: int) -> None:
        if self.level:
            word = self.text[start:end]
            self.name_statement(start, end, word, custom=True)
            self.header = end if word == "func.func" else -1

    def on_symbol(self, start: int, end: int) -> None:
        position = self.current[-1]
        statement = self.statements[position] if position >= 0 else None
        defines = statement is not None and statement.custom and self.level
        name = self.text[start + 1 : end]
        self.see("symbol", name.strip('"'), start + 1 + name.startswith('"'), defines=defines)

    def on_values(self, start: int, end: int) -> None:
        for each in _RESULT.finditer(self.text, start, end):
            self.on_value(*each.span(1))

    def on_value(self, start: int, end: int) -> None:
        if self.brackets and self.brackets[-1] == "H":
            if self.header == -2:  # a function's arguments belong to the region that follows
                self.waiting.append((self.text[start:end], start, self.current[-1]))
            else:
                self.see("value", self.text[start:end], start, scope=self.scopes[-1], defines=True)
            return
        if self.current[-1] >= 0:
            self.statements[self.current[-1]].operands.append(len(self.occurrences))
        self.see("value", self.text[start:end], start, scope=self.scopes[-1])

    def on_block(self, start: int, end: int) -> None:
        defines = self.recover(start)
        if defines:
            self.end_statement(start)
            self.header = end
        self.see("block", self.text[start:end], start, scope=self.scopes[-1], defines=defines)

    def on_alias(self, start: int, end: int) -> None:
        name = self.text[start:end]
        if "." in name:
            self.see("type", name, start)
            return
        # `#loc1 = …` stands at the top, between the operations.
        defines = self.starts_line(start) and self.text[end : end + 16].lstrip().startswith("=")
        if defines:
            self.recover(start)
            self.end_statement(start)
        self.see("alias", name, start, defines=defines)

    def on_location(self, start: int, end: int) -> None:
        if self.level and self.current[-1] >= 0:
            self.statements[self.current[-1]].location = Span(start, end)
        self.brackets.append("L")

    def on_signature(self, start: int, end: int) -> None:
        if self.level and self.current[-1] >= 0 and self.statements[self.current[-1]].signature < 0:
            self.statements[self.current[-1]].signature = end

    def on_open(self, start: int, end: int) -> None:
        bracket = self.text[start]
        if bracket == "{" and len(self.scopes) <= _DEEPEST and self.is_region(start):
            self.enter_region()
        elif bracket == "(" and self.level and self.header >= 0:
            function = self.current[-1] >= 0
            self.brackets.append("H")
            self.header = -2 if function else -3
        else:
            self.brackets.append(bracket)

    def is_region(self, start: int) -> bool:
        if _REGION.match(self.text, start):
            return True
        empty = self.text[start + 1 : start + 17].lstrip().startswith("}")
        return empty and self.text[max(0, start - 16) : start].rstrip().endswith("(")

    def enter_region(self) -> None:
        if self.current[-1] >= 0:
            self.statements[self.current[-1]].regions = True
        self.brackets.append("R")
        self.parents.append(self.scopes[-1])
        self.scopes.append(len(self.parents) - 1)
        self.current.append(-1)
        if self.waiting:
            # They stand between what was seen since: only that is put in order, not all that came before.
            at = bisect_right(self.occurrences, self.waiting[0][1], key=lambda each: each.start)
            scope, seen = self.scopes[-1], self.occurrences[at:]
            for name, start, owner in self.waiting:
                seen.append(Occurrence("value", name, start, start + len(name), scope, True, owner))
            self.occurrences[at:] = sorted(seen, key=lambda each: each.start)
        self.waiting, self.header = [], -1

    def leave_region(self, offset: int) -> None:
        while self.brackets.pop() != "R":
            pass
        self.end_statement(offset)
        self.current.pop()
        self.scopes.pop()

    def on_close(self, start: int, end: int) -> None:
        bracket = self.text[start]
        if bracket == "}" and len(self.current) > 1 and (self.brackets[-1] == "R" or self.starts_line(start)):
            self.leave_region(start)
            return
        if not self.brackets or self.brackets[-1] == "R":
            return  # one too many
        top = self.brackets[-1]
        if _CLOSING.get(top, ")") != bracket:
            return
        self.brackets.pop()
        if top == "L" and self.level and self.current[-1] >= 0:
            statement = self.statements[self.current[-1]]
            if statement.location is not None:
                statement.location = Span(statement.location.start, end)


def build_index(text: str) -> Index:
    """The index of a text; linear in its length."""
    return _Builder(text).build()
