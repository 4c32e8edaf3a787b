"""Proves that no accumulator can overflow, with the actual weights, or refuses the network with the numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from hbir.dialects import quantized as q
from hbir.dialects.base import shape_of
from hbir.dialects.quant import quantized_element
from hbir.errors import PassError
from hbir.ir.locations import layer_name
from hbir.module import Module
from hbir.numerics.intervals import accumulator_bounds
from passes.manager import Pass, Promise
from passes.rewriting import blocks, constant_of

__all__ = ["ProveIntervals"]

_INT32 = 2**31 - 1
_INT48 = 2**47 - 1


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
    """Changes nothing. int8 inputs: int32 accumulators; int16 inputs: int48. Sums and products of two tensors: int32."""

    name: ClassVar[str] = "prove-intervals"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in block.ops:
                if isinstance(op, q.Conv2dOp):
                    _conv(op, module)
                elif isinstance(op, q.MatmulOp):
                    _matmul(op)
                elif isinstance(op, q.ReduceSumOp):
                    _reduce(op)


def _conv(op: q.Conv2dOp, module: Module) -> None:
    element = quantized_element(op.input.type)
    weight = constant_of(op.weight, module.constants)
    if weight is None:
        raise PassError(
            22, "the weight is not constant", where=f"layer '{layer_name(op)}'", lever="fold constants first"
        )
    bias = None if op.bias is None else constant_of(op.bias, module.constants)
    smallest, largest = accumulator_bounds(weight, bias, *element.limits, element.zero_point)
    limit = _INT32 if element.bits == 8 else _INT48
    bound = int(np.maximum(np.abs(smallest), np.abs(largest)).max(initial=0))
    if bound > limit:
        lever = "split the input channels, lower the weights' bits, or use int8 activations"
        raise _refuse(layer_name(op), "the accumulator", bound, limit, lever)
    # The machine folds the input's zero point into the bias: that sum must fit as well.
    folded = op.zero_points[0] * weight.reshape(weight.shape[0], -1).sum(axis=1, dtype=np.int64)
    shifted = int(np.abs((0 if bias is None else bias.astype(np.int64)) - folded).max(initial=0))
    plain = accumulator_bounds(weight, None, *element.limits, 0)
    reach = shifted + int(np.maximum(np.abs(plain[0]), np.abs(plain[1])).max(initial=0))
    if reach > limit:
        raise _refuse(
            layer_name(op), "the accumulator with the folded zero point", reach, limit, "use a zero point near 0"
        )


def _matmul(op: q.MatmulOp) -> None:
    a, b = quantized_element(op.lhs.type), quantized_element(op.rhs.type)
    depth = shape_of(op.lhs.type)[-1]
    reach = [max(e.limits[1] - e.zero_point, e.zero_point - e.limits[0]) for e in (a, b)]
    limit = _INT32 if max(a.bits, b.bits) == 8 else _INT48
    if depth * reach[0] * reach[1] > limit:
        raise _refuse(layer_name(op), "the product", depth * reach[0] * reach[1], limit, "split the inner axis")


def _reduce(op: q.ReduceSumOp) -> None:
    element = quantized_element(op.input.type)
    axes: Sequence[int] = op.values["axes"]
    count = prod(shape_of(op.input.type)[axis] for axis in axes)
    reach = max(element.limits[1] - element.zero_point, element.zero_point - element.limits[0])
    if count * reach > _INT32:
        raise _refuse(layer_name(op), "the sum", count * reach, _INT32, "reduce in two steps")
