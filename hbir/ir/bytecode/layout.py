"""Facts of the format that reader and writer share, beside the sections and the builtin dialect's rows."""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = ["BUILTIN", "MAGIC", "NATIVE_PROPERTIES", "PRODUCER", "RESOURCES", "VERSION", "Mask", "Resource"]

MAGIC = b"ML\xefR"
"""The first four bytes of a file."""
VERSION = 6
"""Version of the format."""
PRODUCER = b"hbir"
"""What a file says of the tool that wrote it."""
BUILTIN = "builtin"
"""Name of the dialect whose attributes and types have encodings of their own."""
RESOURCES = "hbir"
"""The group of resources that holds constants: the key of each is its sha256."""


class Mask(IntFlag):
    """What an operation has."""

    ATTRIBUTES = 1
    RESULTS = 2
    OPERANDS = 4
    SUCCESSORS = 8
    REGIONS = 16
    USE_LIST_ORDERS = 32
    PROPERTIES = 64


class Resource(IntEnum):
    """Kinds of resources."""

    BLOB = 0
    BOOL = 1
    STRING = 2


NATIVE_PROPERTIES: dict[str, tuple[tuple[str, bool], ...]] = {
    "builtin.module": (("sym_name", False), ("sym_visibility", False)),
    "func.func": (
        ("arg_attrs", False),
        ("function_type", True),
        ("no_inline", False),
        ("res_attrs", False),
        ("sym_name", True),
        ("sym_visibility", False),
    ),
    "func.return": (),
}
"""Operations that MLIR itself defines: their properties in order, and whether each must be there. All other operations are
unregistered to MLIR and keep theirs as one dictionary."""
