"""One node of the graph as a converter sees it: operands and attributes with their checks, results by `emit`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from xdsl.dialects.builtin import Float32Type, LocationAttr
from xdsl.ir import SSAValue

from hbir.dialects.base import Array, HbOperation, tensor_type
from hbir.errors import ImportModelError
from hbir.frontends.onnx.builder import Builder, Operand
from hbir.frontends.onnx.errors import Refusal, check_axes
from hbir.frontends.onnx.tensors import ExternalData, decode_text, tensor_array
from hbir.frontends.onnx.values import Static, Value, extent_text, value_shape

__all__ = ["Node"]

# AttributeProto.AttributeType of the format.
_FLOAT, _INT, _STRING, _TENSOR, _FLOATS, _INTS = 1, 2, 3, 4, 6, 7


class Node:
    """A node during its conversion. Attributes that no converter asked for are refused: none is dropped in silence."""

    def __init__(
        self,
        proto: Any,
        name: str,
        inputs: Sequence[Value | None],
        *,
        opset: int,
        build: Builder,
        external: ExternalData,
        location: LocationAttr,
    ) -> None:
        self.operator: str = proto.op_type
        self.name = name
        self.inputs = inputs
        self.outputs: list[str] = list(proto.output)
        self.opset = opset
        self.build = build
        self.location = location
        self._external = external
        self._attributes: dict[str, Any] = {a.name: a for a in proto.attribute}
        self._read: set[str] = set()

    @property
    def where(self) -> str:
        """The node as messages name it."""
        return f"node '{self.name}' ({self.operator})"

    def refuse(self, number: Refusal, what: str, *, why: str = "", lever: str = "") -> ImportModelError:
        """An error at this node, to be raised."""
        return ImportModelError(number, what, where=self.where, why=why, lever=lever)

    # Operands

    def has(self, index: int) -> bool:
        """Whether operand `index` is there."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def operand(self, index: int) -> Value:
        """Operand `index` of any kind. Raises HB0115 when it is absent."""
        if not self.has(index):
            raise self.refuse(
                Refusal.OPERANDS, f"operand {index} is missing", lever="check the model with onnx.checker"
            )
        return cast(Value, self.inputs[index])

    def operands(self) -> list[Value]:
        """All operands of a variadic operator. Raises HB0115 when there is none or one is left out."""
        return [self.operand(index) for index in range(max(len(self.inputs), 1))]

    def real(self, index: int) -> Value:
        """Operand `index`, known to hold real numbers (float32 when computed). Raises HB0115, HB0118."""
        value = self.operand(index)
        if isinstance(value, SSAValue) and not isinstance(tensor_type(value.type).element_type, Float32Type):
            raise self.refuse(
                Refusal.ELEMENT_TYPE,
                f"operand {index} holds integers that the network computes",
                why="the float graph computes in float32; integers may be moved, and cast to float",
                lever="cast to float before this node",
            )
        return value

    def array(self, index: int, role: str) -> Array:
        """The numbers of operand `index`, which must be known at import. Raises HB0115, HB0119."""
        value = self.operand(index)
        if not isinstance(value, Static):
            raise self.refuse(
                Refusal.DATA_DEPENDENT,
                f"operand {index} ({role}) depends on the network's data",
                why="shapes and parameters are fixed when the network is compiled",
                lever="if it stems from shapes, export with fixed ones or simplify the model; else compute it outside",
            )
        return value.array

    def integers(self, index: int, role: str) -> list[int]:
        """A known list of integers (a scalar counts as one). Raises HB0115, HB0118, HB0119."""
        array = self.array(index, role)
        if array.dtype.kind not in "iu" or array.ndim > 1:
            raise self.refuse(
                Refusal.ELEMENT_TYPE, f"operand {index} ({role}) is not a list of integers", lever="check the model"
            )
        return [int(item) for item in array.reshape(-1)]

    def scalar(self, index: int, role: str) -> float:
        """A known number of any shape with one element. Raises HB0115, HB0117, HB0119."""
        array = self.array(index, role)
        if array.size != 1:
            raise self.refuse(
                Refusal.SHAPE, f"operand {index} ({role}) has {array.size} elements, not one", lever="check the model"
            )
        return float(array.reshape(-1)[0])

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of operand `index`."""
        return value_shape(self.operand(index))

    def rank(self, index: int, allowed: Iterable[int]) -> int:
        """The rank of operand `index`. Raises HB0116 when it is not among `allowed`."""
        shape, ranks = self.shape(index), list(allowed)
        if len(shape) not in ranks:
            raise self.refuse(
                Refusal.RANK,
                f"operand {index} has shape {extent_text(shape)}",
                why=f"supported ranks: {', '.join(map(str, ranks))}",
                lever="reshape the tensor in the model",
            )
        return len(shape)

    def axis(self, axis: int, rank: int) -> int:
        """A possibly negative axis as one from 0 to rank - 1. Raises HB0113."""
        if not -rank <= axis < rank:
            raise self.refuse(
                Refusal.ATTRIBUTE, f"axis {axis} does not fit rank {rank}", lever="check the model's axes"
            )
        return axis % rank

    def axes(self, axes: Iterable[int], rank: int) -> list[int]:
        """Several axes, each once. Raises HB0113."""
        found = [self.axis(axis, rank) for axis in axes]
        if len(set(found)) != len(found):
            raise self.refuse(Refusal.ATTRIBUTE, f"an axis appears twice in {found}", lever="check the model's axes")
        return found

    # Attributes

    def _attribute(self, key: str, kind: int) -> Any | None:
        self._read.add(key)
        found = self._attributes.get(key)
        if found is not None and found.type != kind:
            raise self.refuse(
                Refusal.ATTRIBUTE, f"attribute '{key}' has the wrong type", lever="check the model with onnx.checker"
            )
        return found

    def integer(self, key: str, default: int) -> int:
        """An integer attribute."""
        found = self._attribute(key, _INT)
        return default if found is None else int(found.i)

    def opt_integers(self, key: str) -> list[int] | None:
        """An attribute that lists integers, or None."""
        found = self._attribute(key, _INTS)
        return None if found is None else list(found.ints)

    def number(self, key: str, default: float) -> float:
        """A float attribute, which must be finite."""
        found = self._attribute(key, _FLOAT)
        value = default if found is None else float(found.f)
        if not math.isfinite(value):
            raise self.refuse(Refusal.ATTRIBUTE, f"attribute '{key}' is {value}", lever="give a finite value")
        return value

    def opt_numbers(self, key: str) -> list[float] | None:
        """An attribute that lists floats, or None."""
        found = self._attribute(key, _FLOATS)
        return None if found is None else list(found.floats)

    def opt_number(self, key: str) -> float | None:
        """A float attribute, or None."""
        found = self._attribute(key, _FLOAT)
        return None if found is None else float(found.f)

    def text(self, key: str, default: str) -> str:
        """A string attribute."""
        found = self._attribute(key, _STRING)
        return default if found is None else bytes(found.s).decode("utf-8", "replace")

    def opt_tensor(self, key: str) -> Array | None:
        """A tensor attribute, or None. Raises HB013x."""
        found = self._attribute(key, _TENSOR)
        return None if found is None else self.build.allow(tensor_array(found.t, self._external, self.name))

    def choice(self, key: str, default: str, allowed: Iterable[str], lever: str = "") -> str:
        """A string attribute with one of the allowed values. Raises HB0113."""
        value, known = self.text(key, default), list(allowed)
        if value not in known:
            raise self.unsupported(key, value, f"supported: {', '.join(known)}", lever)
        return value

    def expect(self, key: str, only: int, lever: str = "") -> None:
        """An integer attribute of which one value is supported. Raises HB0113."""
        value = self.integer(key, only)
        if value != only:
            raise self.unsupported(key, value, f"supported: {only}", lever)

    def unsupported(self, key: str, value: object, why: str, lever: str = "") -> ImportModelError:
        """HB0113 for an attribute value, to be raised."""
        return self.refuse(
            Refusal.ATTRIBUTE,
            f"attribute {key}={value} is not supported",
            why=why,
            lever=lever or f"export the layer with another {key}",
        )

    def ignore(self, *keys: str) -> None:
        """Attributes that cannot change the result here."""
        self._read.update(keys)

    def check_attributes(self) -> None:
        """Raise HB0113 when the node has an attribute that the conversion did not look at."""
        unknown = sorted(decode_text(key, "the name of an attribute") for key in set(self._attributes) - self._read)
        if unknown:
            raise self.refuse(
                Refusal.ATTRIBUTE,
                f"attribute '{unknown[0]}' has no meaning in opset {self.opset}",
                why="an attribute that is not understood could change the result",
                lever="remove the attribute, or check the model with onnx.checker",
            )

    # Results

    def room(self, *shape: int) -> None:
        """Ask before numbers of a shape are computed. Raises HB0122 when import computes too many, or the shape has too
        many axes."""
        check_axes(shape)
        self.build.charge(math.prod(shape))

    def used(self, index: int) -> bool:
        """Whether result `index` has a name."""
        return index < len(self.outputs) and bool(self.outputs[index])

    def emit(self, cls: type[HbOperation], *operands: Operand, **attributes: Any) -> Value:
        """The result of one operation at this node's location."""
        return self.build.emit(cls, operands, attributes, self.location)

    def known(self, array: Any, dtype: Any = None) -> Static:
        """Numbers as a value."""
        return Static(np.asarray(array, dtype), self.name)

    def dtype_like(self, value: Value) -> np.dtype[Any]:
        """The dtype that a constant must have to meet `value` in an operation."""
        return value.array.dtype if isinstance(value, Static) else np.dtype(np.float32)

    def number_like(self, number: float, value: Value) -> Static:
        """A scalar that may meet `value` in an operation."""
        return self.known(number, self.dtype_like(value))
