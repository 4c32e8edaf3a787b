"""`.mlir` text in MLIR's generic form, with locations in place: what `tosa-opt --allow-unregistered-dialect` reads too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from io import StringIO

from xdsl.context import Context
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func, FuncOp, ReturnOp
from xdsl.ir import Attribute, Dialect
from xdsl.parser import Parser
from xdsl.printer import Printer
from xdsl.utils.exceptions import InvalidIRException, ParseError, PyRDLError, VerifyException

from hbir.errors import IrError
from hbir.ir.order import check_order
from hbir.ir.strings import ascii_literals, restore_literals

__all__ = ["ESCAPING", "parse_module", "print_module", "verify_module"]


# What xDSL raises, beside its own errors, over operations that lack a property or attributes of a surprising kind.
ESCAPING = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, NotImplementedError, RecursionError, TypeError),
    *(ValueError, PyRDLError, InvalidIRException),
)


class _Printer(Printer):
    """Prints dictionaries as MLIR does, by key."""

    def print_attr_dict(self, attr_dict: Mapping[str, Attribute]) -> None:
        super().print_attr_dict(dict(sorted(attr_dict.items())))


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


def _check_functions(module: ModuleOp) -> None:
    """Every function is one block that ends in func.return, and there is nothing beside functions."""
    for op in module.body.block.ops:
        if not isinstance(op, FuncOp):
            raise IrError(8, f"a module holds functions, not {op.name}")
        blocks = op.body.blocks
        if len(blocks) != 1 or not isinstance(blocks[0].last_op, ReturnOp):
            why = "a network is one block of operations that ends in func.return"
            raise IrError(8, f"function '{op.sym_name.data}' is not a network", why=why)


def verify_module(module: ModuleOp) -> None:
    """Types, attributes, definition before use, and functions of one block.

    Raises IrError HB0203, HB0204 or HB0208 with the reason alone, never the whole module.
    """
    try:
        module.verify()
    except VerifyException as error:
        reason = str(error).strip().rsplit("\n", 1)[-1].strip(" ^-")
        raise IrError(4, "the module does not verify", why=reason) from None
    except ESCAPING as error:
        raise IrError(4, "the module does not verify", why=f"{type(error).__name__}: {error}") from error
    check_order(module)
    _check_functions(module)


def parse_module(text: str, dialects: Iterable[Dialect], *, source: str = "<text>") -> ModuleOp:
    """Read and verify a module. Raises IrError HB0205 with line and reason for text that is not one."""
    text, marked = ascii_literals(text, source)
    context = Context()
    for dialect in (Builtin, Func, *dialects):
        context.load_dialect(dialect)
    try:
        module = Parser(context, text, source).parse_module()
    except ParseError as error:
        span = error.span
        line = text.count("\n", 0, span.start) + 1
        raise IrError(
            5, error.msg.strip().splitlines()[0], where=f"{source}, line {line}", lever="mend the text"
        ) from None
    except VerifyException as error:
        raise IrError(5, str(error).strip().splitlines()[-1], where=source, lever="mend the text") from None
    except ESCAPING as error:
        raise IrError(5, f"not a module: {error}", where=source, lever="mend the text") from error
    if marked:
        restore_literals(module)
    verify_module(module)
    return module
