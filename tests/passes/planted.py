"""Faults to plant in passes: of the kind that a real change brings, and that most networks do not show."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
from hypothesis import strategies as st
from xdsl.ir import Operation, SSAValue

from hbir.dialects import quantized as q
from hbir.dialects.base import Array, HbOperation
from hbir.dialects.hbir import BINARY_OPS, AddOp, BinaryOp, Conv2dOp, PadOp, ReduceOp, ReshapeOp, SubOp, constant
from hbir.dialects.quant import quantized_element
from hbir.module import Module
from hbir.numerics import quantize_multiplier
from hbir.testing import modules, operations
from passes import (
    cancel_transposes,
    canonicalize,
    fix_lut,
    fold_batch_norm,
    fold_constants,
    fold_requantize,
    fuse_activations,
    fuse_conv_add_relu,
    high_precision_output,
    merge_duplicates,
    narrow_movement,
    replace_divisions,
    replace_padding,
)
from passes.common.rewriting import constant_of

__all__ = ["FAULTS", "PIPELINE", "Fault"]

PIPELINE = (
    "fold-constants,canonicalize,cancel-transposes,fold-batch-norm,fuse-conv-add-relu,fix-lut,fold-requantize,"
    "narrow-movement,merge-duplicates,dead-code"
)
"""The passes that promise not to change a value by more than a rounding of a float."""


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
    pipeline: str = PIPELINE
    """Where the pass stands."""
    rounds: bool = False
    """Whether the pass itself changes values by steps of a grid: what it does is then compared with what it does without
    the fault."""
    slight: bool = False
    """Whether what it does wrong may be less than what `bisect` lets a pass round: then that is told what is allowed."""
    seeds: int = 1
    """Searches that all have to succeed: one may be luck, but takes a second."""

    @property
    def name(self) -> str:
        """``cancel-transposes, not inverted``: a pass may have several."""
        return f"{self.step}, {self.plant.__name__.strip('_').replace('_', ' ')}"

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


_fuse_add = fuse_conv_add_relu._fuse_add


def _in_front_of_the_add(op: AddOp, order: dict[Operation, int]) -> SSAValue | None:
    """A convolution takes in the add behind it though it has a clamp, which would have to come before the sum."""
    with mock.patch.object(fuse_conv_add_relu, "_unclamped", lambda layer: isinstance(layer, Conv2dOp)):
        return _fuse_add(op, order)


_key = merge_duplicates._key


def _in_any_order(op: Operation) -> object:
    """What makes two operations the same, where the order of operands says nothing: right for sums and products."""
    kind, operands, *others = _key(op)
    return kind, tuple(sorted(operands, key=id)), *others


_raise = narrow_movement._raise


def _padded_as_before(op: q.QuantizeOp) -> None:
    """Padding gets the zero of the grid that the values had: right where grids do not change, and zeros are padded."""
    pad = op.input.owner
    source = pad.input.owner if isinstance(pad, PadOp) else None
    if not isinstance(source, q.DequantizeOp):
        return _raise(op)
    zero = float(source.grid.zero_point)
    with mock.patch.object(narrow_movement, "_code", return_value=zero):
        return _raise(op)


_square_root_of = replace_divisions._square_root_of


def _bound_not_squared(value: SSAValue) -> tuple[SSAValue, float | None] | None:
    """The bound of a root, `max(sqrt(v), low)`, as that of what is under it: right for 1, and for norms that reach it never."""
    found = _square_root_of(value)
    return found if found is None or found[1] is None else (found[0], found[1] ** 0.5)


_widen = high_precision_output._widen


def _clamp_forgotten(op: q.DequantizeOp, **options: bool) -> None:
    """The accumulator is handed out even where the convolution clamps: relu is gone."""
    conv = op.input.owner.operands[0].owner if isinstance(op.input.owner, ReshapeOp) else op.input.owner
    eight = isinstance(conv, q.Conv2dOp) and quantized_element(conv.input.type).bits == 8
    if isinstance(conv, q.Conv2dOp) and eight and conv.residual is None and conv.multiplier is not None:
        low, high = conv.grid.limits
        wide = q.Conv2dOp.make(conv.input, conv.weight, conv.bias, None, **{**conv.values, "low": low, "high": high})
        conv.properties |= {name: wide.properties[name] for name in ("low", "high")}
    _widen(op, **options)


_gathered = replace_padding._gathered


def _never_reflected(size: int, before: int, after: int, mode: str) -> list[int]:
    """Reflected padding repeats the edge: the same for the single row that most networks pad."""
    del mode
    return _gathered(size, before, after, "edge")


_agree = fuse_activations._agree


def _alike_near_zero(values: fuse_activations.Doubles, wanted: fuse_activations.Doubles) -> bool:
    """Expressions are compared where activations mostly are, and not where a clip of theirs ends."""
    return _agree(np.where(np.abs(fuse_activations.SAMPLES) < 1, values, wanted), wanted)


_behind = cancel_transposes._behind


def _order_not_inverted(op: Operation, moved: HbOperation, permutation: Sequence[int]) -> list[SSAValue]:
    """A reduction leaves its axes in the inverse order: the same for every exchange of two that it leaves."""
    if isinstance(op, ReduceOp) and not op.values["keep"]:
        permutation = cancel_transposes._inverse(permutation)
    return _behind(op, moved, tuple(permutation))


def _of_two_operands(op: Operation) -> object:
    """Two operations are the same when two operands are: as most have no more."""
    kind, operands, *others = _key(op)
    return kind, operands[:2], *others


_neutral = canonicalize._neutral


def _on_either_side(op: BinaryOp, module: Module) -> SSAValue | None:
    """`0 - x` is taken for `x`, as `0 + x` is."""
    zero = constant_of(op.lhs, module.constants) if isinstance(op, SubOp) else None
    if zero is not None and zero.size and not zero.any() and op.rhs.type == op.output.type:
        return op.rhs
    return _neutral(op, module)


_scaled_input = fold_batch_norm._scaled_input


def _groups_in_turn(*arguments: Any) -> SSAValue:
    """Output channels belong to the groups by turns: right for one group, and for one output channel in each."""
    with mock.patch.object(np, "repeat", np.tile):
        return _scaled_input(*arguments)


_into_table, _apply = fold_requantize._into_table, fold_requantize._apply


def _grid_of_the_result(op: q.RescaleOp, module: Module) -> SSAValue | None:
    """A table takes in the rescale behind it as if its entries had the zero point of the result: most have the same one."""
    with mock.patch.object(fold_requantize, "_apply", lambda op, x, source: _apply(op, x, op.grid)):
        return _into_table(op, module)


_FLOATS, _INTEGERS = modules(("hbir",), max_ops=20), modules(("quantized",), max_ops=14)

FAULTS = (
    Fault("fold-constants", (fold_constants, "constant"), _without_tail, _FLOATS, (), seeds=3),
    Fault(
        "fold-batch-norm", (fold_batch_norm, "_fold"), _unscaled_bias, _FLOATS, ("hbir.mul", "hbir.batch_norm"), seeds=3
    ),
    Fault(
        *("cancel-transposes", (cancel_transposes, "_inverse"), _not_inverted, _FLOATS),
        ("hbir.linear", "hbir.pad", "hbir.slice", "hbir.expand", "hbir.reshape", *(op.name for op in BINARY_OPS)),
        seeds=3,
    ),
    Fault("fold-requantize", (fold_requantize, "_folded"), _unproved, _INTEGERS, ("quantized.rescale",), seeds=3),
    Fault(
        *("fix-lut", (fix_lut, "ideal_results"), _first_entry_off, operations(q.FunctionOp)),
        ("quantized.function",),
        seeds=3,
    ),
    Fault(
        *("fuse-conv-add-relu", (fuse_conv_add_relu, "_fuse_add"), _in_front_of_the_add, _FLOATS),
        ("hbir.add",),
    ),
    Fault(
        *("merge-duplicates", (merge_duplicates, "_key"), _in_any_order, _FLOATS),
        ("hbir.sub", "hbir.div", "hbir.concat", "hbir.matmul", "hbir.conv2d"),
    ),
    Fault(
        *("narrow-movement", (narrow_movement, "_raise"), _padded_as_before, _INTEGERS),
        ("quantized.quantize",),
    ),
    Fault(
        *("replace-divisions", (replace_divisions, "_square_root_of"), _bound_not_squared, _FLOATS),
        ("hbir.div",),
        "canonicalize,replace-divisions,dead-code",
        slight=True,
    ),
    Fault(
        *("high-precision-output", (high_precision_output, "_widen"), _clamp_forgotten, _INTEGERS),
        ("quantized.conv2d",),
        "dead-code,high-precision-output",
        rounds=True,
    ),
    Fault(
        *("replace-padding", (replace_padding, "_gathered"), _never_reflected, _FLOATS),
        ("hbir.pad",),
        "canonicalize,replace-padding,dead-code",
    ),
    Fault(
        *("fuse-activations", (fuse_activations, "_agree"), _alike_near_zero, _FLOATS),
        ("hbir.mul", "hbir.div"),
        "canonicalize,fuse-activations,dead-code",
        slight=True,
    ),
    Fault(
        *("cancel-transposes", (cancel_transposes, "_behind"), _order_not_inverted, _FLOATS),
        ("hbir.reduce",),
    ),
    Fault(
        *("merge-duplicates", (merge_duplicates, "_key"), _of_two_operands, _FLOATS),
        ("hbir.concat", "hbir.conv2d", "hbir.linear", "hbir.batch_norm", "hbir.conv_transpose2d"),
    ),
    Fault(
        *("canonicalize", (canonicalize, "_neutral"), _on_either_side, _FLOATS),
        ("hbir.sub",),
    ),
    Fault(
        *("fold-batch-norm", (fold_batch_norm, "_scaled_input"), _groups_in_turn, _FLOATS),
        ("hbir.conv2d",),
    ),
    Fault(
        *("fold-requantize", (fold_requantize, "_into_table"), _grid_of_the_result, _INTEGERS),
        ("quantized.rescale",),
    ),
)
"""Each pass with its fault is right for most modules."""
