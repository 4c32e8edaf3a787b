"""Recognises activation functions that exporters spell out: GELU with erf or tanh, x * sigmoid(x), x * clip(x + 3, 0, 6) / 6.

The parts come in any order and on either side of their operators, so what is compared is not the shape of the graph but the
function: an expression that reads one value only is evaluated in float64, and the named function with the same non-linear parts
and the same values takes its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from xdsl.ir import Operation, SSAValue

from hbir.dialects.hbir import BinaryOp, ClipOp, FunctionOp, MaximumOp, MinimumOp
from hbir.module import Module
from hbir.numerics.lut import function_named
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, replace
from passes.manager import Pass, Promise

__all__ = ["FuseActivations"]

Doubles = npt.NDArray[np.float64]

LARGEST = 12
"""Operations that a spelled-out activation has at most."""

_NEAR = np.arange(-12.0, 12.0, 1 / 32)
_FAR = np.exp2(np.arange(4.0, 64.0, 4.0))
SAMPLES: Doubles = np.concatenate([-_FAR[::-1], _NEAR, _FAR])
"""Where functions are compared: closely where they bend, and far out, where a bound would show."""

TOLERANCE = 1e-6
"""Exporters round the constants (1 / 6, sqrt(1 / 2), sqrt(2 / pi)) to float32: a relative error of 6e-8 each."""

_NAMED: Mapping[tuple[str, ...], tuple[str, ...]] = MappingProxyType(
    {
        ("abs",): ("softsign",),
        ("clip",): ("hardswish",),
        ("erf",): ("gelu",),
        ("exp",): ("silu", "sigmoid"),
        ("exp", "log"): ("softplus",),
        ("exp", "log", "tanh"): ("mish",),
        ("hardsigmoid",): ("hardswish",),
        ("sigmoid",): ("silu", "gelu_tanh", "swish"),
        ("softplus", "tanh"): ("mish",),
        ("tanh",): ("gelu_tanh",),
    }
)
"""The non-linear parts of an expression, sorted, and the functions that it may be."""

_SMOOTH = ("affine", "identity", "neg", "pow", "reciprocal", "square")
"""Functions that exporters use in place of arithmetic; they say nothing about what an expression is."""

_LAST = ("log", "reciprocal")
"""Functions that may be the last operation of an expression, which otherwise is arithmetic."""


def _number(value: SSAValue, module: Module) -> float | None:
    """The number that a constant holds everywhere, or None."""
    array = constant_of(value, module.constants)
    if array is None or not array.size or not np.issubdtype(array.dtype, np.floating):
        return None
    first = array.reshape(-1)[0]
    return float(first) if bool((array == first).all()) else None


def _part(op: Operation) -> str | None:
    """What a non-linear operation is called in `_NAMED`, None for arithmetic."""
    if isinstance(op, ClipOp):
        return "clip"
    if isinstance(op, FunctionOp):
        return None if op.values["function"] in _SMOOTH else op.values["function"]
    return op.name if isinstance(op, MaximumOp | MinimumOp) else None


@dataclass
class _Scalars:
    """What the expressions of a block share: the order of operations, and the numbers among the values."""

    module: Module
    order: dict[Operation, int]
    numbers: dict[SSAValue, float | None] = field(default_factory=dict[SSAValue, float | None])

    def number(self, value: SSAValue) -> float | None:
        """The number that a value is everywhere, or None."""
        if value not in self.numbers:
            self.numbers[value] = _number(value, self.module)
        return self.numbers[value]

    def varying(self, op: Operation) -> list[SSAValue] | None:
        """The operands that are no numbers, or None for an operation that is no part of a scalar expression."""
        if not isinstance(op, BinaryOp | ClipOp | FunctionOp):
            return None
        found = [value for value in op.operands if self.number(value) is None]
        # A value of another shape is broadcast: it is not one number for each element of the result.
        return found if found and all(value.type == op.results[0].type for value in found) else None


@dataclass
class _Expression:
    """What leads to a value, grown backwards one operation at a time; `open` are the values that it reads."""

    scalars: _Scalars
    inside: list[Operation] = field(default_factory=list[Operation])
    open: dict[SSAValue, None] = field(default_factory=dict[SSAValue, None])

    def grow(self, op: Operation) -> bool:
        """Take in `op`; False when it cannot be part."""
        varying = self.scalars.varying(op)
        if varying is None or len(self.inside) == LARGEST:
            return False
        self.inside.append(op)
        self.open.pop(op.results[0], None)
        self.open.update(dict.fromkeys(varying))
        return True

    def grow_back(self) -> bool:
        """Take in the last of the operations whose results are read; False when that cannot be."""
        owners = [value.owner for value in self.open if isinstance(value.owner, Operation)]
        return bool(owners) and self.grow(max(owners, key=self.scalars.order.__getitem__))

    def evaluate(self, x: Doubles) -> Doubles:
        """The expression of one open value at `x`, in float64."""
        (source,) = self.open
        values, result = {source: x}, x

        def operand(value: SSAValue) -> Doubles:
            number = self.scalars.number(value)
            return values[value] if number is None else np.full_like(x, number)

        with np.errstate(all="ignore"):
            for op in reversed(self.inside):  # taken in last first, so this is program order
                operands = [operand(value) for value in op.operands]
                if isinstance(op, FunctionOp):
                    result = function_named(op.values["function"], op.values["parameters"]).evaluate(operands[0])
                elif isinstance(op, BinaryOp | ClipOp):
                    result = op.evaluate(*operands, **op.values)
                values[op.results[0]] = result
        return result

    def named(self) -> FunctionOp | None:
        """The function that the expression is, of its one open value; None when it is none that has a name."""
        candidates = _NAMED.get(tuple(sorted(part for part in map(_part, self.inside) if part is not None)), ())
        if len(self.open) != 1 or not candidates:
            return None
        (source,), values = self.open, self.evaluate(SAMPLES)
        for name in candidates:
            parameters = _slope(values) if name == "swish" else ()
            if parameters is not None and _agree(values, function_named(name, parameters).evaluate(SAMPLES)):
                return FunctionOp.make(source, function=name, parameters=parameters or None)
        return None


def _slope(values: Doubles) -> tuple[float] | None:
    """beta of `x * sigmoid(beta * x)`, from the value at 1."""
    gate = float(values[SAMPLES == 1.0][0])
    return (float(np.float32(np.log(gate / (1 - gate)))),) if 0 < gate < 1 else None


def _agree(values: Doubles, wanted: Doubles) -> bool:
    """Whether an expression has the wanted values; far out its exponentials may overflow, which the named function mends."""
    with np.errstate(invalid="ignore"):
        near = np.abs(values - wanted) <= TOLERANCE * np.maximum(np.abs(wanted), 1.0)
    return bool((near | (~np.isfinite(values) & (np.abs(SAMPLES) > 88))).all())


@dataclass(frozen=True)
class FuseActivations(Pass):
    """One function for each spelled-out activation, so that quantisation sees one table instead of a product."""

    name: ClassVar[str] = "fuse-activations"
    promise: ClassVar[Promise] = Promise.LAYOUT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            scalars = _Scalars(module, {op: number for number, op in enumerate(block.ops)})
            for op in list(block.ops):
                fused = _fused(op, scalars)
                if fused is not None:
                    scalars.order[insert_before(op, fused, [op])] = scalars.order[op]
                    replace(op, [fused.output])
            erase_dead(block)


def _fused(op: Operation, scalars: _Scalars) -> FunctionOp | None:
    """The function whose spelling ends with `op`, or None."""
    if not isinstance(op, BinaryOp) and not (isinstance(op, FunctionOp) and op.values["function"] in _LAST):
        return None
    expression = _Expression(scalars)
    grows = expression.grow(op)
    while grows:
        found = expression.named()
        if found is not None:
            return found
        grows = expression.grow_back()
    return None
