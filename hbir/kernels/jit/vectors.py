# pyright: basic, reportAttributeAccessIssue=false, reportCallIssue=false, reportArgumentType=false, reportPrivateImportUsage=false
# (numba and llvmlite ship no types)
"""Vectors of LLVM IR: the types and the few instructions that every emitted loop needs."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils

__all__ = ["ACC", "I8", "I32", "I64", "const", "features_of", "load", "masked_load", "masked_store", "splat"]

I8, I32, I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
"""LLVM integers of 8, 32 and 64 bits."""
ACC = ir.VectorType(I32, 16)
"""Sixteen int32 sums."""


def const(value: int) -> Any:
    """An int64 constant."""
    return ir.Constant(I64, value)


def splat(builder: Any, scalar: Any, lanes: int) -> Any:
    """A vector that holds one scalar in all lanes."""
    vector = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(vector, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, vector, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def features_of(context: Any) -> list[str]:
    """Features of the code generator's target (not merely of this host), as `+name`."""
    return context.codegen()._tm_features.split(",")  # pyright: ignore[reportPrivateUsage]


def load(builder: Any, address: Any, kind: Any) -> Any:
    """The value of `kind` at an address of any alignment."""
    value = builder.load(builder.inttoptr(address, kind.as_pointer()))
    value.align = 1
    return value


def masked_load(builder: Any, address: Any, kind: Any, mask: Any) -> Any:
    """Sixteen lanes at an address, 0 where the mask is off; nothing is read there."""
    name = f"llvm.masked.load.v16i{kind.element.width}.p0"
    function = ir.FunctionType(kind, [kind.as_pointer(), I32, mask.type, kind])
    load = cgutils.get_or_insert_function(builder.module, function, name)
    place = builder.inttoptr(address, kind.as_pointer())
    return builder.call(load, [place, ir.Constant(I32, 1), mask, ir.Constant(kind, [0] * 16)])


def masked_store(builder: Any, address: Any, value: Any, mask: Any) -> None:
    """Write the lanes whose mask is on to an address of any alignment."""
    kind = value.type
    name = f"llvm.masked.store.v16i{kind.element.width}.p0"
    function = ir.FunctionType(ir.VoidType(), [kind, kind.as_pointer(), I32, mask.type])
    store = cgutils.get_or_insert_function(builder.module, function, name)
    builder.call(store, [value, builder.inttoptr(address, kind.as_pointer()), ir.Constant(I32, 1), mask])
