"""Says the calls of a traced model in operators of ONNX, and hands them to the converters of the ONNX front end."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from onnx import helper
from xdsl.ir import Operation, OpResult

from hbir.dialects.base import Array
from hbir.dialects.hbir import ReshapeOp, TransposeOp
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import HbError, TrainingError
from hbir.frontends.onnx.builder import Builder
from hbir.frontends.onnx.node import Node
from hbir.frontends.onnx.registry import converter_for
from hbir.frontends.onnx.tensors import ExternalData
from hbir.frontends.onnx.values import Static, Value
from hbir.ir.locations import name_location
from hbir.torch.tracing.calls import Call

__all__ = ["OPSET", "Emitter"]

OPSET = 21
"""The version of ONNX whose operators the entries of `hbir.torch.operations` name."""


class Emitter:
    """What the entry of an operation gets: the call, and `onnx`, which adds an operator."""

    def __init__(self, build: Builder, call: Call) -> None:
        self.build, self.call = build, call
        self.location = name_location(call.name)
        self._first = len(build.operations)

    @property
    def shape(self) -> tuple[int, ...]:
        """The extents of the call's first result, as PyTorch made it."""
        return self.call.shapes[0]

    def onnx(self, operator: str, *inputs: Any, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """The result of an ONNX operator, or a tuple of several. Inputs are values, numbers, arrays, tensors, or None.

        Raises TrainingError HB0920 when the operator cannot be built, with the user's layer and line.
        """
        values = [None if each is None else self.value(each) for each in inputs]
        names = [f"o{number}" for number in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        proto = helper.make_node(operator, [f"i{n}" for n in range(len(values))], names, domain=domain, **given)
        node = Node(
            *(proto, self.call.name, values),
            opset=OPSET,
            build=self.build,
            external=ExternalData(None),
            location=self.location,
        )
        converter = converter_for(operator, domain, OPSET)
        if converter is None:
            raise self.no_form(f"operator {operator} is not there", lever="report it")
        try:
            results = converter(node)
            node.check_attributes()
        except HbError as error:
            raise self.no_form(error.what, why=error.why, lever=error.lever) from error
        return results

    def no_form(self, what: str, *, why: str = "", lever: str = "") -> TrainingError:
        """An error at the call, to be raised."""
        return TrainingError(20, what, where=self.where, why=why, lever=lever)

    @property
    def where(self) -> str:
        """The layer, and the line of user code."""
        line = f", {self.call.source}" if self.call.source else ""
        return f"layer '{self.call.name}'{line}"

    def value(self, given: Any) -> Value:
        """A value, or a constant for a number, an array or a tensor. Floats are held in float32."""
        if not isinstance(given, torch.Tensor | bool | int | float | list | tuple | np.ndarray | np.generic):
            return given
        array = array_of(given)
        kind = np.float32 if array.dtype.kind == "f" else np.int64 if array.dtype.kind == "i" else array.dtype
        return Static(self.build.allow(array.astype(kind)), self.call.name)

    def real(self, given: Any) -> Value:
        """The same for an operand of arithmetic: integers become floats, and constants are held to a grid."""
        if not isinstance(given, torch.Tensor | int | float | np.ndarray | np.generic):
            return given
        array = array_of(given).astype(np.float32)
        return Static(self.build.allow(array), self.call.name, constant_grid(array))

    def weight(self, given: Any, grid: UniformQuantizedType | None = None) -> Value:
        """A weight as a constant on the grid of its fake quant."""
        array = array_of(given).astype(np.float32)
        return Static(self.build.allow(array), self.call.name, grid)

    def fake_quant(self, value: Value, grid: UniformQuantizedType) -> Value:
        """The value, held to a grid. It stands right behind the operation that computes: reshapes and transposes that the
        call puts behind it move what is on the grid already, which is the same numbers."""
        moves: list[Operation] = []
        source = value
        while isinstance(source, OpResult) and isinstance(source.op, ReshapeOp | TransposeOp) and self._own(source.op):
            moves.append(source.op)
            source = source.op.input
        if not moves or not isinstance(source, OpResult) or not self._own(source.op):
            return self.build.emit(FakeQuantOp, (value,), {"grid": grid}, self.location)
        held = FakeQuantOp.make(source, grid=grid, location=self.location)
        self.build.operations.insert(self.build.operations.index(source.op) + 1, held)
        moves[-1].operands[0] = held.output
        return value

    def _own(self, op: Operation) -> bool:
        """Whether an operation is of this call, and one other operation at most reads it."""
        own = any(each is op for each in self.build.operations[self._first :])
        return own and op.results[0].uses.get_length() <= 1


def array_of(given: Any) -> Array:
    """A number, a list, an array or a tensor as an array."""
    return np.asarray(cast(Any, given.detach().cpu()).numpy() if isinstance(given, torch.Tensor) else given)


def constant_grid(array: Array, bits: int = 16) -> UniformQuantizedType:
    """A grid that reaches over a constant: in sixteen bits no constant of a network is too coarse."""
    reach = float(np.abs(array.astype(np.float64)).max(initial=0.0))
    return UniformQuantizedType.get(bits, max(reach / ((1 << (bits - 1)) - 1), 2.0**-100))
