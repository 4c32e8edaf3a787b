"""`.mlir` text in MLIR's generic form, with locations in place: what `tosa-opt --allow-unregistered-dialect` reads too."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from io import StringIO

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, FusedLoc, LocationAttr, ModuleOp, NoneAttr
from xdsl.dialects.func import Func, FuncOp, ReturnOp
from xdsl.ir import Attribute, Dialect, Operation
from xdsl.printer import Printer
from xdsl.utils.exceptions import InvalidIRException, ParseError, PyRDLError, VerifyException

from hbir.errors import IrError
from hbir.ir.limits import LimitedParser, check_size
from hbir.ir.locations import layer_name
from hbir.ir.order import check_order
from hbir.ir.strings import ascii_literals, restore_literals

__all__ = ["ESCAPING", "MlirParser", "parse_module", "parse_reason", "print_module", "raised_here", "verify_module"]


# What xDSL raises, beside its own errors, over operations that lack a property or attributes of a surprising kind.
ESCAPING = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError),
    *(ValueError, PyRDLError, InvalidIRException),
)
"""The exceptions that xDSL lets out over malformed text."""


def raised_here(error: Exception) -> bool:
    """Whether this project raised an exception of `ESCAPING`, not xDSL: then it is a mistake of ours and must be seen.

    Where the stack ends (RecursionError) says nothing.
    """
    trace, module = error.__traceback__, ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        trace = trace.tb_next
    return module.partition(".")[0] == __name__.partition(".")[0] and not isinstance(error, RecursionError)


class _Printer(Printer):
    """Prints dictionaries as MLIR does, by key."""

    def print_attr_dict(self, attr_dict: Mapping[str, Attribute]) -> None:
        super().print_attr_dict(dict(sorted(attr_dict.items())))


class MlirParser(LimitedParser):
    """Reads what is MLIR's but not xDSL's: fused locations with metadata, ``fused<"pass">["layer"]``."""

    def _parse_location(self) -> LocationAttr:
        if not self.parse_optional_keyword("fused"):
            return super()._parse_location()
        metadata: Attribute = NoneAttr()
        if self.parse_optional_punctuation("<"):
            metadata = self.parse_attribute()
            self.parse_punctuation(">")
        return FusedLoc(tuple(self.parse_comma_separated_list(self.Delimiter.SQUARE, self._parse_location)), metadata)


def _name_values(module: ModuleOp) -> None:
    """MLIR's own names: %arg0, %arg1, … for arguments, numbers for results. Names in a text that was read are dropped."""
    for op in module.walk():
        for result in op.results:
            result.name_hint = None
        for block in (block for region in op.regions for block in region.blocks):
            for index, argument in enumerate(block.args):
                argument.name_hint = f"arg{index}"


def print_module(module: ModuleOp, *, locations: bool = True) -> str:
    """The module as generic-form MLIR, ending in a newline: what `tosa-opt` makes of it, up to the digits of floats."""
    _name_values(module)
    out = StringIO()
    _Printer(out, print_generic_format=True, print_debuginfo=locations).print_op(module)
    return out.getvalue().rstrip("\n") + "\n"


def _check_blocks(module: ModuleOp) -> None:
    """Regions have one block. Asked first: verifying takes quadratic time in the number of blocks."""
    for op in module.walk():
        for region in op.regions:
            if region.first_block is not None and region.first_block.next_block is not None:
                why = "a network is one block of operations that ends in func.return"
                raise IrError(8, f"{op.name} is not a network", where=f"layer '{layer_name(op)}'", why=why)


def _check_functions(module: ModuleOp) -> None:
    """Every function is one block that ends in func.return, and there is nothing beside functions."""
    for op in module.body.block.ops:
        if not isinstance(op, FuncOp):
            raise IrError(8, f"a module holds functions, not {op.name}")
        blocks = op.body.blocks
        if len(blocks) != 1 or not isinstance(blocks[0].last_op, ReturnOp):
            why = "a network is one block of operations that ends in func.return"
            raise IrError(8, f"function '{op.sym_name.data}' is not a network", why=why)


def _signature(op: Operation) -> tuple[object, ...] | None:
    """What an operation of this project verifies by: kind, properties and types, by their places in memory. Its attributes are
    the user's own.

    None for what has regions or ends a block, and for operations of others, which may look at what is around them.
    """
    ours = type(op).__module__.partition(".")[0] == __name__.partition(".")[0]
    if not ours or op.regions or op.successors or op.next_op is None:
        return None
    operands = [id(value.type) for value in op.operands]
    results = [id(result.type) for result in op.results]
    properties = [(key, id(value)) for key, value in op.properties.items()]
    return (type(op), len(operands), *operands, *results, None, *properties)


def _verify_operations(module: ModuleOp) -> None:
    """As `module.verify()`, but what is like an operation that was in order is in order: it is looked at once."""
    known: set[tuple[object, ...]] = set()
    for op in module.walk(region_first=True):
        signature = _signature(op)
        if signature is None or signature not in known:
            op.verify(verify_nested_ops=False)
        if signature is not None:
            known.add(signature)
        for region in op.regions:
            for block in region.blocks:
                if block.is_empty:
                    block.verify()


def verify_module(module: ModuleOp) -> None:
    """Types, attributes, definition before use, and functions of one block.

    Raises IrError HB0203, HB0204 or HB0208 with the reason alone, never the whole module.
    """
    _check_blocks(module)
    try:
        _verify_operations(module)
    except VerifyException as error:
        reason = str(error).strip().rsplit("\n", 1)[-1].strip(" ^-")
        raise IrError(4, "the module does not verify", why=reason) from None
    except ESCAPING as error:
        if raised_here(error):
            raise
        raise IrError(4, "the module does not verify", why=f"{type(error).__name__}: {error}") from error
    check_order(module)
    _check_functions(module)


# As MLIR prints them: one line each, behind the module, those that are parts of others first.
_LOCATION = re.compile(r"^#loc\d*[ \t]*=[ \t]*loc\(.*\)[ \t]*$", re.MULTILINE)


def _locations_first(text: str) -> tuple[str, int]:
    """The text with the names of locations in front of their uses, as xDSL wants them, and how many there are; lines keep
    their numbers."""
    names = _LOCATION.findall(text)
    return (" ".join((*names, _LOCATION.sub("", text))) if names else text), len(names)


def parse_reason(error: ParseError) -> str:
    """Why a parser stopped, in one line; what xDSL says without telling anything is said in words of ours."""
    reason, span = error.msg.strip().splitlines()[0], error.span
    if reason == "Could not parse entire input!":
        return (
            "an operation is expected here" if span.input.content.strip() else "the text is empty: it holds no module"
        )
    if reason.startswith("Expected suffix identifier"):  # xDSL leaves out the f of its f-string
        return f"a name is expected behind {span.input.content[span.start : span.start + 1]}"
    return reason


def parse_module(text: str, dialects: Iterable[Dialect], *, source: str = "<text>") -> ModuleOp:
    """Read and verify a module. Raises IrError HB0205 with line and reason for text that is not one."""
    text, marked = ascii_literals(text, source)
    text, named = _locations_first(text)
    context = Context()
    for dialect in (Builtin, Func, *dialects):
        context.load_dialect(dialect)
    try:
        parser = MlirParser(context, text, source)
        parser.budget.add(locations=named)
        module = parser.parse_module()
    except ParseError as error:
        line = text.count("\n", 0, error.span.start) + 1
        raise IrError(5, parse_reason(error), where=f"{source}, line {line}", lever="mend the text") from None
    except VerifyException as error:
        raise IrError(5, str(error).strip().splitlines()[-1], where=source, lever="mend the text") from None
    except ESCAPING as error:
        if raised_here(error):
            raise
        raise IrError(5, f"not a module: {error}", where=source, lever="mend the text") from error
    check_size(module, text, source)
    if marked:
        restore_literals(module)
    verify_module(module)
    return module
