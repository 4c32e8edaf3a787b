"""Faults to plant in passes: of the kind that a real change brings, and that most networks do not show."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from xdsl.ir import Operation

from hbir.dialects import quantized as q
from hbir.dialects.base import Array
from hbir.dialects.hbir import BINARY_OPS, constant
from hbir.dialects.quant import quantized_element
from hbir.module import Module
from hbir.numerics import quantize_multiplier
from hbir.testing import modules, operations
from passes import cancel_transposes, fix_lut, fold_batch_norm, fold_constants, fold_requantize
from passes.common.rewriting import constant_of

__all__ = ["FAULTS", "Fault"]


@dataclass(frozen=True)
class Fault:
    """A fault: which function of which pass it replaces, what modules may show it, and where it then shows."""

    step: str
    """The pass."""
    target: tuple[object, str]
    plant: Callable[..., object]
    examples: st.SearchStrategy[Module]
    operations: tuple[str, ...]
    """The kinds of operation whose value can be the first that is wrong; none: what is computed from constants, of any kind."""

    @contextmanager
    def planted(self) -> Generator[None]:
        """The pass has the fault inside the `with`."""
        with mock.patch.object(*self.target, self.plant):
            yield


def _without_tail(array: Array, *others: object) -> object:
    """A loop over four numbers at a time that leaves out what is left at the end of longer arrays."""
    size = array.size
    if size > 4 and size % 4:
        array = np.array(array)
        array.reshape(-1)[size // 4 * 4 :] = 0
    return constant(array, *others)


_fold = fold_batch_norm._fold


def _unscaled_bias(layer: fold_batch_norm.Layer, op: Operation, factor: Array, offset: Array, module: Module) -> object:
    """`b' = b + offset`: right for every layer that has no bias, as most have none in front of a batch norm."""
    bias = None if layer.bias is None else constant_of(layer.bias, module.constants)
    if bias is not None:
        offset = offset + bias * (1 - factor)
    return _fold(layer, op, factor, offset, module)


def _unproved(outer: q.RescaleOp, bits: int, high_bits: int) -> q.RescaleOp | None:
    """Two rescales become one without a proof, which is right but for a rounding now and then."""
    inner = outer.input.owner
    if not isinstance(inner, q.RescaleOp) or quantized_element(inner.input.type).per_axis is not None:
        return None
    source = quantized_element(inner.input.type)
    ratio = np.array([np.float64(source.scale) / outer.grid.scale])
    m, s = quantize_multiplier(ratio, bits if outer.grid.bits == 8 else high_bits)
    return q.RescaleOp.make(inner.input, multiplier=m.astype(np.int32), shift=s.astype(np.int8), grid=outer.grid)


def _not_inverted(permutation: Sequence[int]) -> tuple[int, ...]:
    """A permutation in place of its inverse: the same for every exchange of two axes."""
    return tuple(permutation)


_ideal_results = fix_lut.ideal_results


def _first_entry_off(*arguments: object) -> Array:
    """A table whose entry for the lowest code is that of the next one."""
    entries = np.array(_ideal_results(*arguments))
    entries[0] = entries[1]
    return entries


_FLOATS, _INTEGERS = modules(("hbir",), max_ops=20), modules(("quantized",), max_ops=14)

FAULTS = (
    Fault("fold-constants", (fold_constants, "constant"), _without_tail, _FLOATS, ()),
    Fault("fold-batch-norm", (fold_batch_norm, "_fold"), _unscaled_bias, _FLOATS, ("hbir.mul", "hbir.batch_norm")),
    Fault(
        *("cancel-transposes", (cancel_transposes, "_inverse"), _not_inverted, _FLOATS),
        ("hbir.linear", "hbir.pad", "hbir.slice", "hbir.expand", "hbir.reshape", *(op.name for op in BINARY_OPS)),
    ),
    Fault("fold-requantize", (fold_requantize, "_folded"), _unproved, _INTEGERS, ("quantized.rescale",)),
    Fault(
        *("fix-lut", (fix_lut, "ideal_results"), _first_entry_off, operations(q.FunctionOp)),
        ("quantized.function",),
    ),
)
"""Each pass with its fault is right for most modules."""
