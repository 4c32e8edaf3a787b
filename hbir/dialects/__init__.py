"""The dialects: `hbir` (NHWC float graph), `qat` (fake quantisation), `quant` (quantised types), `quantized` (integers).

Installed packages add dialects of their own through entry points in the group `hbir.dialects`, each an `xdsl.ir.Dialect`.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points

from xdsl.ir import Dialect

from hbir.errors import IrError

__all__ = ["all_dialects", "own_dialects"]


def own_dialects() -> tuple[Dialect, ...]:
    """The dialects of the project."""
    from hbir.dialects.hbir import Hbir
    from hbir.dialects.qat import Qat
    from hbir.dialects.quant import Quant
    from hbir.dialects.quantized import Quantized

    return (Hbir, Qat, Quant, Quantized)


@cache
def all_dialects() -> tuple[Dialect, ...]:
    """The dialects of the project, and those of installed packages, in the order of their names.

    Raises IrError HB0244 for an entry point that is no dialect, cannot be imported, or has the name of another one.
    """
    found = {dialect.name: dialect for dialect in own_dialects()}
    for entry in sorted(entry_points(group="hbir.dialects"), key=lambda e: (e.name, e.value)):
        dialect = _load(entry)
        if dialect.name in found:
            raise _refuse(entry, f"there is a dialect '{dialect.name}' already", "choose another name for the dialect")
        found[dialect.name] = dialect
    return tuple(found.values())


def _load(entry: EntryPoint) -> Dialect:
    try:
        loaded: object = entry.load()
    except (ImportError, AttributeError) as error:
        raise _refuse(entry, str(error), "mend or uninstall the package that brings it") from error
    if not isinstance(loaded, Dialect):
        raise _refuse(entry, f"it is a {type(loaded).__name__}", "let it name an xdsl.ir.Dialect")
    return loaded


def _refuse(entry: EntryPoint, why: str, lever: str) -> IrError:
    return IrError(44, f"the dialect '{entry.value}' of an installed package cannot be used", why=why, lever=lever)
