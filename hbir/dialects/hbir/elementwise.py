"""Elementwise arithmetic with numpy's broadcasting."""

from __future__ import annotations

import numpy as np
from xdsl.dialects.builtin import TensorType
from xdsl.irdl import irdl_op_definition, operand_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, Tensor, not_quantized, shape_of, tensor

__all__ = [
    "BINARY_OPS",
    "AddOp",
    "BinaryOp",
    "DivOp",
    "MaximumOp",
    "MinimumOp",
    "MulOp",
    "PowOp",
    "SubOp",
    "broadcast_shape",
]


def broadcast_shape(a: Tensor, b: Tensor) -> tuple[int, ...]:
    """The common shape of two operands. Raises VerifyException when there is none."""
    try:
        return np.broadcast_shapes(shape_of(a), shape_of(b))
    except ValueError:
        raise VerifyException(f"shapes {shape_of(a)} and {shape_of(b)} do not broadcast") from None


class BinaryOp(HbOperation):
    """Base of the two-operand operations."""

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    output = result_def(TensorType)

    traits = traits_def(Pure())

    def verify_(self) -> None:
        """Quantised operands are for maximum and minimum alone. Raises VerifyException."""
        if not isinstance(self, MaximumOp | MinimumOp):  # the larger of two codes is the code of the larger
            not_quantized(self.lhs.type)
        super().verify_()

    @staticmethod
    def infer(a: Tensor, b: Tensor) -> Tensor:
        if a.element_type != b.element_type:
            raise VerifyException(f"element types {a.element_type} and {b.element_type} differ")
        return tensor(broadcast_shape(a, b), a.element_type)


@irdl_op_definition
class AddOp(BinaryOp):
    """lhs + rhs, broadcast as numpy has it."""

    name = "hbir.add"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        return np.asarray(a + b)


@irdl_op_definition
class SubOp(BinaryOp):
    """lhs - rhs, broadcast as numpy has it."""

    name = "hbir.sub"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        return np.asarray(a - b)


@irdl_op_definition
class MulOp(BinaryOp):
    """lhs * rhs, broadcast as numpy has it."""

    name = "hbir.mul"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        return np.asarray(a * b)


@irdl_op_definition
class DivOp(BinaryOp):
    """lhs / rhs; integers divide towards zero, as ONNX has it."""

    name = "hbir.div"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        if np.issubdtype(a.dtype, np.integer):
            return np.asarray(np.trunc(a / b), a.dtype)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(a / b)


@irdl_op_definition
class PowOp(BinaryOp):
    """lhs to the power of rhs."""

    name = "hbir.pow"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(np.power(a, b))


@irdl_op_definition
class MaximumOp(BinaryOp):
    """The larger of lhs and rhs."""

    name = "hbir.maximum"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        return np.maximum(a, b)


@irdl_op_definition
class MinimumOp(BinaryOp):
    """The smaller of lhs and rhs."""

    name = "hbir.minimum"

    @staticmethod
    def evaluate(a: Array, b: Array) -> Array:
        return np.minimum(a, b)


BINARY_OPS = (AddOp, SubOp, MulOp, DivOp, PowOp, MaximumOp, MinimumOp)
"""The operations of two operands."""
