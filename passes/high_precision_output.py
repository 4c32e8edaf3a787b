"""Lets a convolution whose result becomes float hand out its accumulator instead of eight bits of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects.builtin import f32

from hbir.dialects import quantized as q
from hbir.dialects.hbir import ReshapeOp
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.module import Module
from passes.common.rewriting import blocks, erase_dead, insert_before, replace, users
from passes.manager import Pass, Promise

__all__ = ["HighPrecisionOutput"]


@dataclass(frozen=True)
class HighPrecisionOutput(Pass):
    """conv (int8) -> dequantize becomes conv (int32) -> dequantize. Other readers get `rescale` of the accumulator, which
    is what the convolution's own epilogue did, bit for bit. Convolutions that clamp inside the range stay.

    With `float_results` the convolution's result is float32 itself, and other readers get `quantize` of it.
    """

    name: ClassVar[str] = "high-precision-output"
    promise: ClassVar[Promise] = Promise.NUMERIC

    float_results: bool = False
    """Whether the tensor engine hands out float32, in place of an int32 accumulator."""

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if isinstance(op, q.DequantizeOp):
                    _widen(op, floats=self.float_results)
            erase_dead(block)


def _widen(op: q.DequantizeOp, *, floats: bool) -> None:
    reshape = op.input.owner if isinstance(op.input.owner, ReshapeOp) else None
    conv = reshape.input.owner if reshape is not None else op.input.owner
    if not isinstance(conv, q.Conv2dOp) or conv.residual is not None or conv.multiplier is None:
        return
    element, weight = quantized_element(conv.input.type), quantized_element(conv.weight.type)
    if (element.bits != 8 and not floats) or (conv.values["low"], conv.values["high"]) != conv.grid.limits:
        return
    products = np.float64(element.scale) * weight.scale_array.astype(np.float64)
    raw = UniformQuantizedType.get(32, products.tolist(), axis=3 if products.size > 1 else -1)
    low, high = raw.limits
    values = conv.values | {"multiplier": None, "shift": None, "low": low, "high": high, "grid": raw}
    values["float_type"] = f32 if floats else None
    wide = insert_before(conv, q.Conv2dOp.make(conv.input, conv.weight, conv.bias, None, **values), [conv])
    made = wide.output if floats else insert_before(op, q.DequantizeOp.make(wide.output, grid=raw), [op]).output
    if reshape is not None:
        made = insert_before(op, ReshapeOp.make(made, shape=reshape.values["shape"]), [reshape]).output
    replace(op, [made])
    readers = users(conv.output)
    if any(not reader.results or any(r.first_use for r in reader.results) for reader in readers):
        conv.output.replace_all_uses_with(insert_before(conv, _narrowed(conv, wide), [conv]).output)


def _narrowed(conv: q.Conv2dOp, wide: q.Conv2dOp) -> q.QuantizeOp | q.RescaleOp:
    """What `conv` gave, of the wide result."""
    if wide.float_type is not None:
        return q.QuantizeOp.make(wide.output, grid=conv.grid)
    m, s = conv.values["multiplier"], conv.values["shift"]
    return q.RescaleOp.make(wide.output, multiplier=m, shift=s, grid=conv.grid)
