"""MLIR bytecode, version 6: `.bc` files that `tosa-opt` and every other MLIR tool read, and what they write.

`primitives` are integers and sections, `layout` the facts of the format, `builtin` the encodings of MLIR's own attributes
and types, `reader` and `writer` the two directions. Attributes and types of our dialects travel as text, as they do in MLIR
when a tool does not know a dialect. Constants are resources of the file: aligned, mapped into memory on load, never copied.
"""

from hbir.ir.bytecode.reader import read_bytecode
from hbir.ir.bytecode.writer import write_bytecode

__all__ = ["read_bytecode", "write_bytecode"]
