"""Folds rescales where the result is proved identical for every input; where it is not, they stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from xdsl.dialects.builtin import IntegerType
from xdsl.ir import SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import Array, element_dtype
from hbir.dialects.hbir import constant
from hbir.dialects.quant import UniformQuantizedType, quantized_element
from hbir.errors import PassError
from hbir.module import Module
from hbir.numerics import quantize_multiplier, rescale
from passes.common.rewriting import blocks, constant_of, erase_dead, insert_before, only_user, replace
from passes.manager import Pass, Promise, check_choice

__all__ = ["FoldRequantize"]


def _codes(grid: UniformQuantizedType) -> Array:
    """Every value of a grid of at most 16 bits."""
    low, high = grid.limits
    return np.arange(low, high + 1, dtype=np.int64)


def _apply(op: q.RescaleOp, x: Array, source: UniformQuantizedType) -> Array:
    values, target = op.values, op.grid
    return rescale(
        x, values["multiplier"], values["shift"], source.zero_point, target.zero_point, *target.limits
    ).astype(np.int64)


def _single(op: q.RescaleOp) -> bool:
    return op.values["multiplier"].size == 1 and quantized_element(op.input.type).per_axis is None


def _identity(op: q.RescaleOp) -> bool:
    """Proof by exhaustion: every code of the input maps to itself, and the type stays."""
    source = quantized_element(op.input.type)
    if source != op.grid or source.bits > 16 or not _single(op):
        return False
    codes = _codes(source)
    return bool((_apply(op, codes, source) == codes).all())


def _folded(outer: q.RescaleOp, bits: int, high_bits: int) -> q.RescaleOp | None:
    """One rescale for two, when it gives what both give, on every code of the first one's input."""
    inner = outer.input.owner
    if not isinstance(inner, q.RescaleOp) or not _single(inner) or not _single(outer):
        return None
    source, middle = quantized_element(inner.input.type), quantized_element(outer.input.type)
    if source.bits > 16:
        return None
    codes = _codes(source)
    wanted = _apply(outer, _apply(inner, codes, source), middle)
    width = bits if outer.grid.bits == 8 else high_bits
    try:
        m, s = quantize_multiplier(np.array([np.float64(source.scale) / outer.grid.scale]), width)
    except PassError:
        return None  # the joint factor has no multiplier: there is nothing to fold into
    joint = q.RescaleOp.make(inner.input, multiplier=m.astype(np.int32), shift=s.astype(np.int8), grid=outer.grid)
    return joint if bool((_apply(joint, codes, source) == wanted).all()) else None


def _before_table(op: q.TableOp, module: Module) -> SSAValue | None:
    """An int8 rescale in front of an int8 table becomes part of the table, exactly: each code is looked up once."""
    inner = op.input.owner
    if not isinstance(inner, q.RescaleOp) or not _single(inner):
        return None
    source, entries = quantized_element(inner.input.type), constant_of(op.table, module.constants)
    if source.bits != 8 or entries is None:
        return None
    # Codes outside a narrow storage range never occur; they read what the rescale makes of them.
    codes = np.arange(-128, 128, dtype=np.int64)
    mapped = entries[_apply(inner, codes, source) + 128]
    table = insert_before(op, constant(mapped, module.constants, IntegerType(8)), [op]).output
    made = q.TableOp.make(inner.input, table, function=op.values["function"], grid=op.grid)
    return insert_before(op, made, [inner, op]).output


def _into_table(op: q.RescaleOp, module: Module) -> SSAValue | None:
    """An int8 rescale behind an int8 table becomes part of the table, exactly: tables hold all results."""
    inner = op.input.owner
    if not isinstance(inner, q.TableOp) or op.grid.bits != 8 or not _single(op) or only_user(inner.output) is not op:
        return None
    entries = constant_of(inner.table, module.constants)
    if entries is None:
        return None
    mapped = _apply(op, entries.astype(np.int64), inner.grid).astype(element_dtype(op.grid))
    table = insert_before(op, constant(mapped, module.constants, IntegerType(8)), [op]).output
    made = q.TableOp.make(inner.input, table, function=inner.values["function"], grid=op.grid)
    return insert_before(op, made, [inner, op]).output


@dataclass(frozen=True)
class FoldRequantize(Pass):
    """Identities go; two rescales become one after a proof by exhaustion over the input's codes; tables absorb rescales.

    Nothing else folds: `rescale(rescale(x))` is not a rescale of the product.
    """

    name: ClassVar[str] = "fold-requantize"
    promise: ClassVar[Promise] = Promise.EXACT

    multiplier_bits: int = 15
    """Width of multipliers for int8 results."""
    high_multiplier_bits: int = 31
    """Width of multipliers for int16 and int32 results."""

    def __post_init__(self) -> None:
        for option in ("multiplier_bits", "high_multiplier_bits"):
            check_choice(self.name, option, getattr(self, option), range(8, 32))

    def run(self, module: Module) -> None:
        for _, block in blocks(module):
            for op in list(block.ops):
                if isinstance(op, q.TableOp) and (made := _before_table(op, module)) is not None:
                    replace(op, [made])
                if not isinstance(op, q.RescaleOp):
                    continue
                if _identity(op):
                    replace(op, [op.input])
                    continue
                absorbed = _into_table(op, module)
                if absorbed is not None:
                    replace(op, [absorbed])
                    continue
                joint = _folded(op, self.multiplier_bits, self.high_multiplier_bits)
                if joint is not None:
                    replace(op, [insert_before(op, joint, [op]).output])
            erase_dead(block)
