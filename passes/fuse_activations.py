"""Recognises activation functions that exporters spell out: x * sigmoid(x), x * clip(x + 3, 0, 6) / 6 and their kin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from xdsl.ir import SSAValue

from hbir.dialects.hbir import AddOp, ClipOp, DivOp, FunctionOp, MulOp
from hbir.module import Module
from passes.manager import Pass, Promise
from passes.rewriting import blocks, constant_of, erase_dead, insert_before, replace

__all__ = ["FuseActivations"]


def _scalar(value: SSAValue, module: Module) -> float | None:
    array = constant_of(value, module.constants)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _split(op: MulOp | AddOp, module: Module) -> tuple[SSAValue, float] | None:
    """The operand and the constant of `x * c` or `x + c`."""
    for value, other in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        number = _scalar(other, module)
        if number is not None and value.type == op.output.type:
            return value, number
    return None


def _gate(value: SSAValue, module: Module) -> tuple[SSAValue, str, tuple[float, ...]] | None:
    """What a factor gates with: sigmoid(x), hardsigmoid(x), or clip(x + 3, 0, 6), which is 6 * hardsigmoid(x)."""
    op = value.owner
    if isinstance(op, FunctionOp) and op.values["function"] in ("sigmoid", "hardsigmoid"):
        return op.input, op.values["function"], tuple(op.values["parameters"] or ())
    if (
        isinstance(op, ClipOp)
        and (op.values["min"], op.values["max"]) == (0.0, 6.0)
        and isinstance(op.input.owner, AddOp)
    ):
        split = _split(op.input.owner, module)
        if split is not None and split[1] == 3.0:
            return split[0], "clip6", ()
    return None


def _swish(op: MulOp, module: Module) -> FunctionOp | None:
    for value, factor in ((op.lhs, op.rhs), (op.rhs, op.lhs)):
        gate = _gate(factor, module)
        if gate is None or gate[0] is not value:
            continue
        if gate[1] == "sigmoid":
            return FunctionOp.make(value, function="silu")
        # ONNX's HardSwish is x * hardsigmoid(x) with alpha 1/6 (rounded to float32) and beta 1/2.
        if gate[1] == "hardsigmoid" and len(gate[2]) == 2 and abs(gate[2][0] - 1 / 6) < 1e-6 and gate[2][1] == 0.5:
            return FunctionOp.make(value, function="hardswish")
    return None


def _scaled_hardswish(op: MulOp | DivOp, module: Module) -> FunctionOp | None:
    """`x * clip(x + 3, 0, 6)`, then divided by 6."""
    if isinstance(op, DivOp):
        value, number = op.lhs, _scalar(op.rhs, module)
        matches = number == 6.0 and value.type == op.output.type
    else:
        split = _split(op, module)
        if split is None:
            return None
        value, number = split
        matches = abs(number - 1 / 6) < 1e-6
    inner = value.owner
    if not matches or not isinstance(inner, MulOp):
        return None
    for source, factor in ((inner.lhs, inner.rhs), (inner.rhs, inner.lhs)):
        gate = _gate(factor, module)
        if gate is not None and gate[0] is source and gate[1] == "clip6":
            return FunctionOp.make(source, function="hardswish")
    return None


@dataclass(frozen=True)
class FuseActivations(Pass):
    """One function for each spelled-out activation, so that quantisation sees one table instead of a product."""

    name: ClassVar[str] = "fuse-activations"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if not isinstance(op, MulOp | DivOp):
                    continue
                fused = (_swish(op, module) if isinstance(op, MulOp) else None) or _scaled_hardswish(op, module)
                if fused is not None:
                    insert_before(op, fused, [op])
                    replace(op, [fused.output])
            erase_dead(block)
