"""What every operation of the project shares: attributes as Python values, result types by inference, meaning as a function.

An operation class states three things beside its operands and properties:

- `infer(*operand_types, **attributes) -> result type(s)`: also its verifier, which compares them with the types it has;
- its meaning: `evaluate(*arrays, **attributes) -> result array(s)`, a pure function over numpy arrays, or
  `bind(*arrays, out, **attributes) -> run`, where each call of `run` computes the one result into the buffer `out` from what
  the arrays then hold; operations on integers are bound, those that move values any way have both;
- its docstring, from which the reference pages are made.

Absent optional operands are passed as None, variadic ones as further positional arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from operator import index
from typing import Any, Self, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    DenseArrayBase,
    Float16Type,
    Float32Type,
    Float64Type,
    FloatAttr,
    IntAttr,
    IntegerAttr,
    IntegerType,
    Signedness,
    StringAttr,
    TensorType,
    f64,
    i64,
)
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import IRDLOperation, OptOperandDef, VarOperandDef, opt_prop_def, prop_def
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.quant import UniformQuantizedType

__all__ = [
    "Array",
    "HbOperation",
    "Run",
    "Tensor",
    "element_dtype",
    "flag",
    "floats",
    "integer",
    "integer_width",
    "integers",
    "not_quantized",
    "number",
    "opt_number",
    "shape_of",
    "string",
    "tensor",
    "tensor_type",
]

Array: TypeAlias = npt.NDArray[Any]
"""A numpy array of any element type."""
Tensor: TypeAlias = TensorType[Any]
"""A tensor type of any element type."""
Run: TypeAlias = Callable[[], object]
"""A kernel with everything resolved: it computes into its buffer from what its operands hold when it is called."""


def integer() -> Any:
    """An i64 property."""
    return prop_def(IntegerAttr.constr(i64))


def flag() -> Any:
    """A boolean property."""
    return prop_def(BoolAttr.constr(IntegerType(1)))


def integers() -> Any:
    """A property that holds a list of i64."""
    return prop_def(DenseArrayBase.constr(i64))


def floats() -> Any:
    """A property that holds a list of f64."""
    return prop_def(DenseArrayBase.constr(f64))


def number() -> Any:
    """An f64 property."""
    return prop_def(FloatAttr.constr(f64))


def opt_number() -> Any:
    """An f64 property that may be absent (None)."""
    return opt_prop_def(FloatAttr.constr(f64))


def string() -> Any:
    """A string property."""
    return prop_def(StringAttr)


def tensor(shape: Sequence[int], element: Attribute) -> Tensor:
    """`tensor<shape x element>`."""
    extents = tuple(map(index, shape))
    if isinstance(element, UniformQuantizedType) and element.per_axis is not None:
        return TensorType(element, _extents(extents))  # a list of scales may be long, and is not to be kept
    return _tensor(extents, element)


@lru_cache(maxsize=1024)
def _tensor(shape: tuple[int, ...], element: Attribute) -> Tensor:
    # To build one takes longer than to hash its parts, and the next operation mostly asks for the same type again.
    return TensorType(element, _extents(shape))


@lru_cache(maxsize=1024)
def _extents(shape: tuple[int, ...]) -> tuple[IntAttr, ...]:
    return tuple(map(IntAttr, shape))


def shape_of(type_: Attribute) -> tuple[int, ...]:
    """The shape of a tensor type."""
    return tensor_type(type_).get_shape()


def not_quantized(*types: Attribute) -> None:
    """Raise VerifyException for a quantised operand: arithmetic on storage values needs zero points and multipliers."""
    for type_ in types:
        if isinstance(tensor_type(type_).element_type, UniformQuantizedType):
            raise VerifyException(
                f"{type_} is quantised; the operations on integers are those of the quantized dialect"
            )


def tensor_type(type_: Attribute) -> Tensor:
    """`type_`, known to be a tensor. Raises VerifyException otherwise."""
    if not isinstance(type_, TensorType):
        raise VerifyException(f"{type_} is not a tensor")
    return cast(Tensor, type_)


_FLOATS: dict[type[Attribute], npt.DTypeLike] = {
    Float16Type: np.float16,
    Float32Type: np.float32,
    Float64Type: np.float64,
}
_PIXEL = IntegerType(8, Signedness.UNSIGNED)
_INTEGERS: dict[int, npt.DTypeLike] = {1: np.bool_, 8: np.int8, 16: np.int16, 32: np.int32, 48: np.int64, 64: np.int64}


def element_dtype(element: Attribute) -> np.dtype[Any]:
    """The numpy dtype in which values of an element type are held (int48 accumulators are held in int64)."""
    if isinstance(element, UniformQuantizedType):
        element = element.storage
    if element == _PIXEL:
        return np.dtype(np.uint8)
    width = integer_width(element)
    if width in _INTEGERS and cast(Any, element).signedness.data is not Signedness.UNSIGNED:
        return np.dtype(_INTEGERS[width])
    if type(element) in _FLOATS:
        return np.dtype(_FLOATS[type(element)])
    raise VerifyException(f"element type {element} has no numpy dtype")


def integer_width(element: object) -> int:
    """Bits of an integer element type, 0 for any other."""
    return cast(int, cast(Any, element).width.data) if isinstance(element, IntegerType) else 0


def _encode(value: Any) -> Attribute | None:
    match value:
        case None | Attribute():
            return value
        case bool() | np.bool_():
            return BoolAttr.from_bool(bool(value))
        case int() | np.integer():
            return IntegerAttr(int(cast(Any, value)), i64)
        case float() | np.floating():
            return FloatAttr(float(cast(Any, value)), f64)
        case str():
            return StringAttr(value)
        case np.ndarray():
            array = cast(Array, value)
            return DenseArrayBase.from_list(IntegerType(8 * array.dtype.itemsize), cast(list[int], array.tolist()))
        case tuple() | list():
            items = cast(Sequence[Any], value)
            if items and all(isinstance(item, str) for item in items):
                return ArrayAttr(StringAttr(item) for item in items)
            if any(isinstance(item, float | np.floating) for item in items):
                return cast(Attribute, DenseArrayBase.from_list(f64, [float(item) for item in items]))
            return DenseArrayBase.from_list(i64, [int(item) for item in items])
        case _:
            raise TypeError(f"no attribute for a {type(value).__name__}")


def _decode(attribute: Attribute) -> Any:
    match attribute:
        case IntegerAttr():
            value = attribute.value.data
            return bool(value) if attribute.type == IntegerType(1) else value
        case FloatAttr():
            return attribute.value.data
        case StringAttr():
            return attribute.data
        case DenseArrayBase():
            array = cast(Any, attribute)
            if integer_width(array.elt_type) in (1, 8, 16, 32):
                return np.frombuffer(array.data.data, dtype=element_dtype(array.elt_type))
            return tuple(array.iter_values())
        case ArrayAttr():
            return tuple(_decode(item) for item in attribute)
        case _:
            return attribute


class HbOperation(IRDLOperation):
    """Base of every operation that has a meaning."""

    @classmethod
    def make(cls, *operands: SSAValue | Sequence[SSAValue] | None, location: Any = None, **attributes: Any) -> Self:
        """Build the operation; result types are inferred. Raises VerifyException when the operands do not fit."""
        properties = {name: _encode(value) for name, value in attributes.items()}
        flat = [o for operand in operands for o in (operand if isinstance(operand, Sequence) else (operand,))]
        types = [None if o is None else o.type for o in flat]
        values = {name: _decode(a) for name, a in properties.items() if a is not None} | cls._absent(properties)
        op = cls(
            operands=[
                o if isinstance(o, Sequence) else ([] if o is None else [o]) if cls._is_optional(i) else o
                for i, o in enumerate(operands)
            ],
            result_types=cls._result_types(types, values),
            properties=properties,
        )
        if location is not None:
            op.location = location
        return op

    @classmethod
    def _is_optional(cls, index: int) -> bool:
        definition = cls.get_irdl_definition().operands[index][1]
        return isinstance(definition, OptOperandDef | VarOperandDef)

    @classmethod
    def _absent(cls, present: dict[str, Attribute | None]) -> dict[str, Any]:
        names = cls.get_irdl_definition().properties
        return {name: None for name in names if present.get(name) is None and name != "operandSegmentSizes"}

    @classmethod
    def _result_types(cls, operand_types: Sequence[Attribute | None], attributes: dict[str, Any]) -> list[Attribute]:
        """`infer`, its result always a list, its failures always a VerifyException."""
        try:
            inferred = cls.infer(*operand_types, **attributes)
        except (ValueError, IndexError, TypeError, AttributeError, OverflowError, ZeroDivisionError) as error:
            # A tensor of another rank, or a list of another length, than the operation is written for.
            types = ", ".join("none" if t is None else str(t) for t in operand_types)
            raise VerifyException(
                f"{cls.name}: operands ({types}) and attributes do not fit together: {error}"
            ) from None
        return list(cast(tuple[Attribute, ...], inferred)) if isinstance(inferred, tuple) else [inferred]

    @staticmethod
    def infer(*operand_types: Any, **attributes: Any) -> Any:
        """Result type, or a tuple of them, from operand types and attributes. Raises VerifyException."""
        raise VerifyException("this operation has no inference")

    @staticmethod
    def evaluate(*operands: Any, **attributes: Any) -> Any:
        """Result array, or a tuple of them."""
        raise TypeError("this operation has no meaning of its own")

    @staticmethod
    def bind(*operands: Any, out: Array, **attributes: Any) -> Run:
        """Function that computes the result into `out` each time it is called."""
        raise TypeError("this operation is evaluated, not bound")

    @classmethod
    def _decoded(cls, properties: Mapping[str, Attribute]) -> dict[str, Any]:
        present = {n: _decode(a) for n, a in properties.items() if n != "operandSegmentSizes"}
        return present | cls._absent(cast(dict[str, Attribute | None], properties))

    @property
    def values(self) -> dict[str, Any]:
        """The properties as Python values; absent ones are None."""
        return self._decoded(self.properties)

    @classmethod
    def inferred(
        cls, operand_types: Sequence[Attribute | None], properties: Mapping[str, Attribute]
    ) -> list[Attribute]:
        """The result types that follow from the types of the aligned operands and from properties. Raises VerifyException."""
        return cls._result_types(operand_types, cls._decoded(properties))

    @property
    def aligned_operands(self) -> list[SSAValue | None]:
        """Operands in the order of the definition, None where an optional one is absent."""
        aligned: list[SSAValue | None] = []
        for name, definition in self.get_irdl_definition().operands:
            value = cast(SSAValue | Sequence[SSAValue] | None, getattr(self, name))
            if isinstance(definition, VarOperandDef) and not isinstance(definition, OptOperandDef):
                aligned.extend(cast(Sequence[SSAValue], value))
            else:
                aligned.append(cast(SSAValue | None, value))
        return aligned

    @property
    def keywords(self) -> dict[str, Any]:
        """What `evaluate` and `bind` take beside operands."""
        return self.values

    def binder(self, constants: Sequence[Array | None]) -> Callable[..., Run] | None:
        """The operation as `bind(*operands, out)` over its aligned operands; None when it is to be evaluated.

        `constants[i]` is the value of operand i where it is known before the run; an operation may prepare it once
        (packed weights). The function is still called with every operand.
        """
        del constants
        types = (tensor_type(value.type).element_type for value in (*self.operands, *self.results))
        # Float values are large, and what they cost is arithmetic: they need no buffers that outlive their use.
        if type(self).bind is HbOperation.bind or all(type(element) in _FLOATS for element in types):
            return None
        return partial(self.bind, **self.keywords)

    def evaluator(self, constants: Sequence[Array | None]) -> Callable[..., Any]:
        """The operation as a function of its aligned operands, which gives new results; `constants` as for `binder`."""
        bind = self.binder(constants)
        if bind is None:
            return partial(self.evaluate, **self.keywords)
        (result,) = self.results
        shape, dtype = shape_of(result.type), element_dtype(tensor_type(result.type).element_type)

        def call(*operands: Array | None) -> Array:
            out: Array = np.empty(shape, dtype)
            bind(*operands, out=out)()
            return out

        return call

    def verify_(self) -> None:
        """Compare the result types with those that follow from operands and attributes. Raises VerifyException."""
        expected = self.inferred([None if o is None else o.type for o in self.aligned_operands], self.properties)
        actual = [result.type for result in self.results]
        if expected != actual:
            raise VerifyException(
                f"{self.name}: result types {', '.join(map(str, actual))} differ from {', '.join(map(str, expected))},"
                " which follow from its operands and attributes"
            )
