"""`hbir.constant`: a tensor whose bytes stand in the constant store."""

from __future__ import annotations

from typing import Any

from xdsl.dialects.builtin import LocationAttr, TensorType
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, prop_def, result_def, traits_def
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import Array, HbOperation, element_dtype, tensor
from hbir.ir.constants import BlobAttr, ConstantStore

__all__ = ["ConstantOp", "constant"]


@irdl_op_definition
class ConstantOp(HbOperation):
    """A constant tensor of any element type. `value` names its bytes (little endian, C order) in the store."""

    name = "hbir.constant"

    value = prop_def(BlobAttr)
    """Hash and size of the bytes."""
    output = result_def(TensorType)

    traits = traits_def(Pure())

    def verify_(self) -> None:
        """The bytes fill the tensor. Raises VerifyException."""
        type_ = self.output.type
        count = 1
        for extent in type_.get_shape():
            count *= extent
        size = count * element_dtype(type_.element_type).itemsize
        if size != self.value.size.data:
            raise VerifyException(
                f"hbir.constant: {self.value.size.data} bytes do not fill {type_}, which takes {size}"
            )

    def array(self, store: ConstantStore) -> Array:
        """The value as a read-only array; no copy."""
        type_ = self.output.type
        return store.array(self.value, element_dtype(type_.element_type), type_.get_shape())


def constant(
    array: Array, store: ConstantStore, element: Attribute, location: LocationAttr | None = None
) -> ConstantOp:
    """A constant of `array`'s shape with the given element type, which fixes the dtype the bytes are kept in."""
    kept: Array = array.astype(element_dtype(element), copy=False)
    result: Any = tensor(kept.shape, element)
    op = ConstantOp(operands=[], result_types=[result], properties={"value": store.put(kept)})
    if location is not None:
        op.location = location
    return op
