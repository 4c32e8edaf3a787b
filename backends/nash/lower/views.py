"""Where each value lies: one pass backwards so that producers write into concatenations and outputs directly, one forwards
so that reshapes and slices read where their operand lies."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from xdsl.ir import BlockArgument, Operation, SSAValue

from backends.nash.isa.records import DTYPES, dense_strides
from backends.nash.lower.graph import Storage, TensorView
from hbir.dialects.base import element_dtype, tensor_type
from hbir.dialects.hbir import ConcatOp, ConstantOp, ReshapeOp, SliceOp
from hbir.module import Function

__all__ = ["Placement", "dtype_of", "reshaped", "sliced"]

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def dtype_of(value: SSAValue) -> str:
    """The ISA's name of a value's element type."""
    return _NAMES[element_dtype(tensor_type(value.type).element_type)]


def reshaped(view: TensorView, shape: tuple[int, ...]) -> TensorView | None:
    """A dense view under another shape; None for one with gaps."""
    if not view.is_dense:
        return None
    return TensorView(view.storage, view.offset, shape, dense_strides(shape, DTYPES[view.dtype].itemsize), view.dtype)


def sliced(view: TensorView, op: SliceOp) -> TensorView:
    """The part of a view that a slice takes."""
    begin, step = op.values["begin"], op.values["step"]
    shape = tensor_type(op.output.type).get_shape()
    offset = view.offset + sum(b * s for b, s in zip(begin, view.strides, strict=True))
    strides = tuple(a * b for a, b in zip(view.strides, step, strict=True))
    return TensorView(view.storage, offset, tuple(shape), strides, view.dtype)


@dataclass
class Placement:
    """Storages, and the view of every value that has one. `pinned` values lie in DDR because the host works on them."""

    function: Function
    pinned: set[SSAValue] = field(default_factory=set[SSAValue])
    storages: list[Storage] = field(default_factory=list[Storage])
    views: dict[SSAValue, TensorView] = field(default_factory=dict[SSAValue, TensorView])

    def new(self, value: SSAValue, kind: Any, name: str = "", dtype: str = "") -> TensorView:
        """A dense storage for one value, or for the same in another element type."""
        shape = tensor_type(value.type).get_shape()
        view = TensorView.dense(len(self.storages), shape, dtype or dtype_of(value))
        self.storages.append(Storage(view.size, kind, name, kind != "activation" or value in self.pinned))
        return view

    def _demand(self, value: SSAValue, view: TensorView | None) -> None:
        """Let the producer of `value` write into `view`, where that is possible and nobody asked for it before."""
        owner = value.owner
        if view is None or value in self.views or not isinstance(owner, Operation):
            return
        if isinstance(owner, ConstantOp | SliceOp) or (value in self.pinned and not self.storages[view.storage].pinned):
            return
        if isinstance(owner, ReshapeOp):
            # Its operand may already lie elsewhere; then the reshape becomes a copy into the view.
            self.views[value] = view
            self._demand(owner.input, reshaped(view, tensor_type(owner.input.type).get_shape()))
            return
        if not view.has_dense_rows and not isinstance(owner, ConcatOp):
            return
        self.views[value] = view

    def plan_backwards(self) -> list[tuple[str, TensorView]]:
        """Views of the outputs, and of everything that can be written where a concatenation or an output wants it."""
        outputs: list[tuple[str, TensorView]] = []
        for argument in self.function.flatten_outputs:
            view = self.new(argument.value, "output", argument.name)
            outputs.append((argument.name, view))
            self._demand(argument.value, view)
        for op in reversed(list(self.function.op.body.block.ops)):
            if not isinstance(op, ConcatOp):
                continue
            view = self.views.get(op.output)
            if view is None:
                view = self.views[op.output] = self.new(op.output, "activation")
            for value, part in self.concat_parts(op, view):
                self._demand(value, part)
        return outputs

    @staticmethod
    def concat_parts(op: ConcatOp, view: TensorView) -> list[tuple[SSAValue, TensorView]]:
        """Each operand of a concatenation with the part of the result that it fills."""
        parts: list[tuple[SSAValue, TensorView]] = []
        axis: int = op.values["axis"]
        at = 0
        for value in op.inputs:
            shape = tensor_type(value.type).get_shape()
            parts.append((value, view.part([at if a == axis else 0 for a in range(len(shape))], shape)))
            at += shape[axis]
        return parts

    def view(self, value: SSAValue) -> TensorView:
        """The view of a value, made now if it has none yet."""
        found = self.views.get(value)
        if found is None:
            found = self.views[value] = self.new(value, "activation")
        return found

    def is_input(self, value: SSAValue) -> bool:
        """Whether a value is an argument of the function."""
        return isinstance(value, BlockArgument)
