"""The IR underneath every dialect: constants outside the text, locations, order checks, `.mlir` and `.bc`, comparison."""

from hbir.ir.changes import Change, Difference, ModuleDiff
from hbir.ir.comparison import diff
from hbir.ir.constants import BlobAttr, ConstantStore
from hbir.ir.files import load_module, save_module
from hbir.ir.locations import fuse_locations, location_names, name_location
from hbir.ir.order import check_order
from hbir.ir.text import parse_module, print_module

__all__ = [
    "BlobAttr",
    "Change",
    "ConstantStore",
    "Difference",
    "ModuleDiff",
    "check_order",
    "diff",
    "fuse_locations",
    "load_module",
    "location_names",
    "name_location",
    "parse_module",
    "print_module",
    "save_module",
]
