"""Change of element type in the float graph: integers that a network takes or computes meet its floats."""

from __future__ import annotations

from typing import Any

from xdsl.dialects.builtin import Float32Type, IntegerType, TensorType, f32, i8, i16, i32, i64
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Tensor, element_dtype, shape_of, string, tensor

__all__ = ["CastOp"]

_TYPES: dict[str, Attribute] = {"f32": f32, "i8": i8, "i16": i16, "i32": i32, "i64": i64}


@irdl_op_definition
class CastOp(HbOperation):
    """Integers as `to` (`f32`, `i8`, `i16`, `i32`, `i64`): to float rounds to nearest, to a narrower integer wraps."""

    name = "hbir.cast"

    input = operand_def(TensorType)
    to = string()
    """The element type of the result."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    @staticmethod
    def infer(x: Tensor, *, to: str) -> Tensor:
        element: Any = x.element_type
        if to not in _TYPES or not isinstance(element, IntegerType | Float32Type):
            raise VerifyException(f"there is no cast from {element} to '{to}'")
        if isinstance(element, Float32Type) and to != "f32":
            raise VerifyException("floats are not cast to integers; quantize them")
        return tensor(shape_of(x), _TYPES[to])

    @staticmethod
    def evaluate(x: Array, *, to: str) -> Array:
        return x.astype(element_dtype(_TYPES[to]))
