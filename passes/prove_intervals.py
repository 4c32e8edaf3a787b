"""Proves that no accumulator can overflow, with the actual weights, or refuses the network with the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.errors import PassError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.numerics.intervals import accumulator_bounds
from passes.common.rewriting import blocks, constant_of
from passes.manager import Pass, Promise, check_choice

__all__ = ["ProveIntervals"]

_INT32 = 2**31 - 1


def _refuse(where: str, what: str, bound: int, limit: int, lever: str) -> PassError:
    return PassError(
        21,
        f"{what} can reach {bound:,}, the accumulator holds {limit:,}",
        where=f"layer '{where}'",
        why=f"it exceeds the limit by {bound - limit:,} with the actual weights and the input's whole range",
        lever=lever,
    )


@dataclass(frozen=True)
class ProveIntervals(Pass):
    """Changes nothing. int8 inputs: int32 accumulators; int16 inputs: `int16_accumulator_bits`.

    Sums of rescaled operands (residuals too), products of two tensors and bilinear resizes: int32.
    """

    name: ClassVar[str] = "prove-intervals"
    promise: ClassVar[Promise] = Promise.EXACT

    int16_accumulator_bits: int = 48
    """Width of the sums of int16 activations: 48 or 32."""

    def __post_init__(self) -> None:
        check_choice(self.name, "int16_accumulator_bits", self.int16_accumulator_bits, (32, 48))

    def run(self, module: Module) -> None:
        wide = (1 << (self.int16_accumulator_bits - 1)) - 1
        for _, block in blocks(module):
            for op in block.ops:
                if isinstance(op, q.Conv2dOp):
                    _conv(op, module, wide)
                elif isinstance(op, q.MatmulOp):
                    _matmul(op, wide)
                elif isinstance(op, q.ReduceSumOp):
                    _reduce(op)
                elif isinstance(op, q.AddOp | q.SubOp):
                    _sum(op)
                elif isinstance(op, q.MulOp):
                    _product(op)
                elif isinstance(op, q.ResizeBilinearOp):
                    _resize(op)


def _conv(op: q.Conv2dOp, module: Module, wide: int) -> None:
    element = quantized_element(op.input.type)
    weight = constant_of(op.weight, module.constants)
    if weight is None:
        raise PassError(
            22, "the weight is not constant", where=f"layer '{layer_name(op)}'", lever="fold constants first"
        )
    bias = None if op.bias is None else constant_of(op.bias, module.constants)
    smallest, largest = accumulator_bounds(weight, bias, *element.limits, element.zero_point)
    limit = _INT32 if element.bits == 8 else wide
    bound = int(np.maximum(np.abs(smallest), np.abs(largest)).max(initial=0))
    if bound > limit:
        lever = "split the input channels, lower the weights' bits, or use int8 activations"
        raise _refuse(layer_name(op), "the accumulator", bound, limit, lever)
    # The machine folds the input's zero point into the bias: that sum must fit as well.
    folded = op.zero_points[0] * weight.reshape(weight.shape[0], -1).sum(axis=1, dtype=np.int64)
    shifted = np.abs((0 if bias is None else bias.astype(np.int64)) - folded)
    plain = accumulator_bounds(weight, None, *element.limits, 0)
    reach = int((shifted + np.maximum(np.abs(plain[0]), np.abs(plain[1]))).max(initial=0))
    if reach > limit:
        raise _refuse(
            layer_name(op), "the accumulator with the folded zero point", reach, limit, "use a zero point near 0"
        )

    _residual(op, smallest, largest)


def _reach(element: UniformQuantizedType) -> int:
    """The largest |q - zero point|."""
    return max(element.limits[1] - element.zero_point, element.zero_point - element.limits[0])


def _rescaled(reach: int, multiplier: npt.NDArray[np.int32], shift: npt.NDArray[np.int8]) -> int:
    """The largest magnitude that a rescale makes of values up to `reach` (Python integers: nothing wraps here)."""
    return max((reach * int(m) + (1 << (int(s) - 1))) >> int(s) for m, s in zip(multiplier, shift, strict=True))


def _residual(op: q.Conv2dOp, smallest: npt.NDArray[np.int64], largest: npt.NDArray[np.int64]) -> None:
    values = op.values
    if op.residual is None:
        return
    reach = np.maximum(np.abs(smallest), np.abs(largest))
    m, s = (np.broadcast_to(values[name], reach.shape) for name in ("multiplier", "shift"))
    sums = max(_rescaled(int(r), m[i : i + 1], s[i : i + 1]) for i, r in enumerate(reach))
    other = _reach(quantized_element(op.residual.type))
    total = sums + _rescaled(other, values["residual_multiplier"], values["residual_shift"])
    if total > _INT32:
        raise _refuse(layer_name(op), "the sum with the residual", total, _INT32, "give common_scale a larger value")


def _sum(op: q.AddOp | q.SubOp) -> None:
    values = op.values
    total = sum(
        _rescaled(_reach(quantized_element(v.type)), values[f"{side}_multiplier"], values[f"{side}_shift"])
        for v, side in ((op.lhs, "lhs"), (op.rhs, "rhs"))
    )
    if total > _INT32:
        raise _refuse(layer_name(op), "the sum", total, _INT32, "give common_scale a larger value")


def _product(op: q.MulOp) -> None:
    bound = _reach(quantized_element(op.lhs.type)) * _reach(quantized_element(op.rhs.type))
    if bound > _INT32:
        raise _refuse(layer_name(op), "the product", bound, _INT32, "use zero points near 0, or int8 for one operand")


def _resize(op: q.ResizeBilinearOp) -> None:
    yn, _, xn, _ = op.values["scale"]
    bound = _reach(quantized_element(op.input.type)) * yn * xn
    if bound > _INT32:
        raise _refuse(layer_name(op), "the interpolated value", bound, _INT32, "resize by simpler ratios, or in int8")


def _matmul(op: q.MatmulOp, wide: int) -> None:
    a, b = quantized_element(op.lhs.type), quantized_element(op.rhs.type)
    depth = shape_of(op.lhs.type)[-1]
    reach = [_reach(a), _reach(b)]
    limit = _INT32 if max(a.bits, b.bits) == 8 else wide
    if depth * reach[0] * reach[1] > limit:
        raise _refuse(layer_name(op), "the product", depth * reach[0] * reach[1], limit, "split the inner axis")


def _reduce(op: q.ReduceSumOp) -> None:
    element = quantized_element(op.input.type)
    axes: Sequence[int] = op.values["axes"]
    count = prod(shape_of(op.input.type)[axis] for axis in axes)
    reach = _reach(element)
    if count * reach > _INT32:
        raise _refuse(layer_name(op), "the sum", count * reach, _INT32, "reduce in two steps")
