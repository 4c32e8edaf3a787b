"""Writes StarReLU in operations that the compiler knows, so that calibration, quantisation and the NPU know it too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from acme.star_relu import StarReluOp
from xdsl.dialects.builtin import f32

from hbir.dialects.hbir import AddOp, ClipOp, MulOp, constant
from hbir.module import Module
from passes import Pass, Promise
from passes.common.rewriting import blocks, insert_before, replace

__all__ = ["ExpandStarRelu"]


@dataclass(frozen=True)
class ExpandStarRelu(Pass):
    """`acme.star_relu` becomes a clip, two products and a sum."""

    name: ClassVar[str] = "expand-star-relu"
    promise: ClassVar[Promise] = Promise.EXACT

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if isinstance(op, StarReluOp):
                    self._expand(op, module)

    def _expand(self, op: StarReluOp, module: Module) -> None:
        scale, bias = (
            insert_before(op, constant(np.array(op.values[key], np.float32), module.constants, f32), [op]).output
            for key in ("scale", "bias")
        )
        positive = insert_before(op, ClipOp.make(op.input, min=0.0, max=None), [op]).output
        square = insert_before(op, MulOp.make(positive, positive), [op]).output
        scaled = insert_before(op, MulOp.make(square, scale), [op]).output
        replace(op, [insert_before(op, AddOp.make(scaled, bias), [op]).output])
