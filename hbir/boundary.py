"""Edits at the edge of a function: what feeds its inputs and what reads its outputs, under the names users know.

The methods of `Argument` and `Function` in `hbir.module` call these functions; see them for the stage each edit belongs to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import Float32Type, IntegerType, Signedness, f32
from xdsl.dialects.func import ReturnOp
from xdsl.ir import Attribute, BlockArgument, Operation, SSAValue
from xdsl.utils.exceptions import VerifyException

from hbir.arguments import checked_index, shown
from hbir.dialects import quantized as q
from hbir.dialects.base import HbOperation, shape_of, tensor
from hbir.dialects.hbir import (
    CastOp,
    ConcatOp,
    ConstantOp,
    Conv2dOp,
    ReshapeOp,
    SliceOp,
    SoftmaxOp,
    TransposeOp,
    constant,
)
from hbir.dialects.qat import FakeQuantOp
from hbir.dialects.quant import UniformQuantizedType
from hbir.errors import IrError
from hbir.ir.locations import layer_name, location_names, name_location

if TYPE_CHECKING:
    from hbir.module import Argument, Function

__all__ = [
    "REMOVABLE",
    "attached_op",
    "erase",
    "insert_image_preprocess",
    "insert_image_scale",
    "insert_split",
    "insert_transpose",
    "is_removable",
    "remove_attached_op",
    "remove_io_op",
]

REMOVABLE: dict[str, tuple[type[HbOperation], ...]] = {
    "Cast": (CastOp,),
    "Dequantize": (q.DequantizeOp,),
    "Quantize": (q.QuantizeOp,),
    "Reshape": (ReshapeOp,),
    "Softmax": (SoftmaxOp, q.SoftmaxOp),
    "Transpose": (TransposeOp,),
}
"""What `remove_io_op` may take away, by the published names."""

_IMAGE_MODES = {None: False, "skip": False, "bgr2rgb": True, "rgb2bgr": True}


def _misfit(argument: Argument, what: str, why: str = "", lever: str = "") -> IrError:
    return IrError(
        40, what, where=f"{'input' if argument.is_input else 'output'} '{argument.name}'", why=why, lever=lever
    )


class _Inserter:
    """Appends operations at the start of a function (for an input) or before its return, named after the argument."""

    def __init__(self, argument: Argument) -> None:
        block = argument.function.op.body.block
        first = block.first_op
        self.block, self.anchor = (
            block,
            first if argument.is_input and first is not None else argument.function.return_op,
        )
        self.location = name_location(argument.name)

    def add(self, op: HbOperation) -> SSAValue:
        op.location = self.location
        self.block.insert_op_before(op, self.anchor)
        return op.results[0]


def _replace_input(
    argument: Argument, types: Sequence[Attribute], make: Callable[[Sequence[SSAValue]], SSAValue]
) -> None:
    """Put inputs of other types in an input's place; `make` builds the old value from them."""
    block, old = argument.function.op.body.block, argument.value
    if not isinstance(old, BlockArgument):
        raise _misfit(argument, "an output cannot be replaced like an input")
    made: list[SSAValue] = []
    for offset, type_ in enumerate(types):
        new = block.insert_arg(type_, argument.index + 1 + offset)
        new.location = old.location
        made.append(new)
    old.replace_all_uses_with(make(made))
    block.erase_arg(old)
    argument.function.update_type()


def _set_output(argument: Argument, value: SSAValue) -> None:
    argument.function.return_op.operands[argument.index] = value
    argument.function.update_type()


def insert_transpose(argument: Argument, permutes: Sequence[int]) -> None:
    """Give the argument another order of axes; `permutes[i]` is the NEW position of the old axis i (NCHW to NHWC: 0 3 1 2).

    That is the inverse of numpy's convention. Before `convert`. Raises IrError HB0240.
    """
    shape = argument.type.shape
    axes = list(permutes) if isinstance(permutes, Sequence) else []  # pyright: ignore[reportUnnecessaryIsInstance]
    if len(axes) != len(shape) or set(axes) != set(range(len(shape))):
        lever = f"give the numbers 0 to {len(shape) - 1} in another order"
        raise _misfit(argument, f"{axes or shown(permutes)} does not permute {len(shape)} axes", lever=lever)
    inverse = tuple(int(axis) for axis in np.argsort(permutes))
    build = _Inserter(argument)
    if not argument.is_input:
        _set_output(argument, build.add(TransposeOp.make(argument.value, permutation=inverse)))
        return
    moved = tensor([shape[axis] for axis in inverse], argument.type.mlir.element_type)
    _replace_input(argument, [moved], lambda new: build.add(TransposeOp.make(new[0], permutation=tuple(permutes))))


def insert_image_preprocess(
    argument: Argument,
    mode: str | None,
    divisor: float | None = None,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
    is_signed: bool = True,
) -> None:
    """Make a float NHWC input an 8-bit image: the network then sees `(x / divisor - mean) / std` of it.

    `x` is the stored value, int8 (`is_signed`) or uint8; `divisor` is 256 when None; `mean` and `std` have one value, or one
    for each channel of the network's input. Modes: None and "skip" (channels stay), "bgr2rgb" and "rgb2bgr" (the image has
    them the other way round). Before `convert`. Raises IrError HB0240; HB0241 for colour spaces that are not supported.
    """
    if mode is not None and (not isinstance(mode, str) or mode not in _IMAGE_MODES):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise IrError(
            41,
            f"image mode '{mode}' is not supported",
            where=f"input '{argument.name}'",
            why="conversions from YUV are not part of this compiler",
            lever="convert the picture to RGB or BGR before it is fed; modes are None, 'skip', 'bgr2rgb' and 'rgb2bgr'",
        )
    shape = _image_shape(argument)
    channels = shape[3]
    if len(mean) not in (1, channels) or len(std) not in (1, channels):
        raise _misfit(
            argument,
            f"{len(mean)} means and {len(std)} deviations for {channels} channels",
            lever=f"give 1 or {channels} of each",
        )
    steps = np.float64(256 if divisor is None else divisor) * np.asarray(std, np.float64)
    if not (np.isfinite(steps).all() and steps.all() and np.isfinite(mean).all()):
        lever = "give finite numbers, divisor and std not zero"
        raise _misfit(argument, f"divisor {divisor}, mean {list(mean)} or std {list(std)} scales nothing", lever=lever)
    offset = -np.asarray(mean, np.float64) / np.asarray(std, np.float64)
    insert_image_scale(argument, 1 / steps, offset, reverse_channels=_IMAGE_MODES[mode], signed=is_signed)
    pixel = IntegerType(8) if is_signed else IntegerType(8, Signedness.UNSIGNED)
    build = _Inserter(argument)
    _replace_input(argument, [tensor(shape, pixel)], lambda new: build.add(CastOp.make(new[0], to="f32")))


def _image_shape(argument: Argument) -> tuple[int, ...]:
    shape, element = argument.type.shape, argument.type.mlir.element_type
    if not argument.is_input or len(shape) != 4 or not isinstance(element, Float32Type):
        lever = "call insert_transpose first when the model is NCHW"
        raise _misfit(argument, f"{argument.type} is not a float NHWC image", lever=lever)
    return shape


def insert_image_scale(
    argument: Argument,
    scale: npt.ArrayLike,
    offset: npt.ArrayLike,
    *,
    reverse_channels: bool = False,
    signed: bool = False,
) -> None:
    """Make a float NHWC input hold pixels: the network then sees `x * scale + offset` of them.

    Pixels are whole numbers, 0 to 255 or (`signed`) -128 to 127: the fake quantisation of step 1 that is inserted loses
    nothing of them. `scale` and `offset` have one value, or one for each channel of the network's input; with
    `reverse_channels` the image has its channels the other way round. All of it is one 1 x 1 convolution, which the tensor
    engine runs with a scale for each channel. Before calibration. Raises IrError HB0240.
    """
    channels = _image_shape(argument)[3]
    factor, shift = (np.broadcast_to(np.asarray(v, np.float64), (channels,)) for v in (scale, offset))
    build, store = _Inserter(argument), argument.function.module.constants

    def network_input(new: Sequence[SSAValue]) -> SSAValue:
        value = build.add(FakeQuantOp.make(new[0], grid=UniformQuantizedType.get(8, 1.0, 0 if signed else -128)))
        if (factor == 1).all() and not shift.any() and not reverse_channels:
            return value
        # Output channel c reads the input channel that holds it.
        weight = np.diag(factor)[:, ::-1] if reverse_channels else np.diag(factor)
        kernel = build.add(constant(weight.reshape(channels, 1, 1, channels), store, f32))
        bias = build.add(constant(shift, store, f32))
        geometry = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
        return build.add(Conv2dOp.make(value, kernel, bias, None, **geometry))

    _replace_input(argument, [argument.type.mlir], network_input)


def _slices(build: _Inserter, value: SSAValue, axis: int) -> list[SSAValue]:
    shape = shape_of(value.type)
    parts: list[SSAValue] = []
    for at in range(shape[axis]):
        begin, end = [0] * len(shape), list(shape)
        begin[axis], end[axis] = at, at + 1
        parts.append(build.add(SliceOp.make(value, begin=begin, end=end, step=[1] * len(shape))))
    return parts


def insert_split(argument: Argument, dim: int) -> list[Argument]:
    """Split the argument along an axis into arguments `NAME_0`, `NAME_1`, … of extent 1 there; the new arguments.

    Before `convert`. Raises IrError HB0240.
    """
    shape, name, function = argument.type.shape, argument.name, argument.function
    lever = f"choose an axis from 0 to {len(shape) - 1}, of extent 1 or more"
    dim = checked_index(dim, lambda given, why: _misfit(argument, f"{given} is no axis", why, lever))
    if not 0 <= dim < len(shape) or shape[dim] < 1:
        raise _misfit(argument, f"axis {dim} of {argument.type} cannot be split", lever=lever)
    index, count = argument.index, shape[dim]
    rows = [function.attributes_of(i, is_input=argument.is_input) for i in range(len(argument.siblings))]
    build = _Inserter(argument)
    if argument.is_input:
        piece = list(shape)
        piece[dim] = 1
        types = [tensor(piece, argument.type.mlir.element_type)] * count
        _replace_input(argument, types, lambda new: build.add(ConcatOp.make(new, axis=dim)))
    else:
        parts = _slices(build, argument.value, dim)
        operands = list(function.return_op.operands)
        function.return_op.operands = [*operands[:index], *parts, *operands[index + 1 :]]
        function.update_type()
    rows[index : index + 1] = [dict(rows[index]) for _ in range(count)]
    function.set_attributes(rows, is_input=argument.is_input)
    made = argument.siblings[index : index + count]
    for number, part in enumerate(made):
        part.name = f"{name}_{number}"
    return made


def erase(argument: Argument) -> tuple[bool, str]:
    """Remove an input that nothing reads, or an output; (True, "") or (False, the reason)."""
    function, index = argument.function, argument.index
    rows = [function.attributes_of(i, is_input=argument.is_input) for i in range(len(argument.siblings))]
    value = argument.value
    if argument.is_input and isinstance(value, BlockArgument):
        if value.first_use is not None:
            return False, f"{argument.name} is read by {layer_name(value.first_use.operation)}"
        function.op.body.block.erase_arg(value)
    else:
        if len(rows) == 1:
            return False, f"{argument.name} is the only output"
        operands = list(function.return_op.operands)
        function.return_op.operands = operands[:index] + operands[index + 1 :]
        _erase_unread(value)
    function.set_attributes(rows[:index] + rows[index + 1 :], is_input=argument.is_input)
    function.update_type()
    return True, ""


def _erase_unread(value: SSAValue) -> None:
    """Erase what only led to a value that nobody reads any more."""
    work = [value]
    while work:
        owner = work.pop().owner
        if (
            isinstance(owner, Operation)
            and owner.parent is not None
            and all(r.first_use is None for r in owner.results)
        ):
            work.extend(owner.operands)
            owner.detach()
            owner.erase()


def attached_op(argument: Argument) -> list[Operation]:
    """The operations next to the argument: those that read an input, the one that makes an output."""
    value = argument.value
    if argument.is_input:
        return list(dict.fromkeys(use.operation for use in value.uses if not isinstance(use.operation, ReturnOp)))
    return [value.owner] if isinstance(value.owner, Operation) else []


def is_removable(argument: Argument) -> tuple[bool, str]:
    """Whether the operation next to the argument can be removed; (True, "") or (False, the reason)."""
    ops, value = attached_op(argument), argument.value
    if len(ops) != 1 or (argument.is_input and not value.has_one_use()):
        return False, f"{argument.name} has {'no' if not ops else 'multiple'} uses. cannot remove."
    op = ops[0]
    if not argument.is_input and not value.has_one_use():
        return False, f"{argument.name} has multiple uses. cannot remove."
    sources = [v for v in op.operands if not isinstance(v.owner, ConstantOp)]
    if not isinstance(op, tuple(c for kinds in REMOVABLE.values() for c in kinds)):
        return False, f"{layer_name(op)} is a {op.name}, which cannot be removed"
    if len(sources) != 1 or len(op.results) != 1:
        return False, f"{layer_name(op)} is not a single input and single output op"
    return True, ""


def remove_attached_op(argument: Argument) -> tuple[bool, str]:
    """Remove the operation next to the argument, which then has the type on its other side; as `is_removable`."""
    possible, reason = is_removable(argument)
    if not possible:
        return False, reason
    op = attached_op(argument)[0]
    source = next(v for v in op.operands if not isinstance(v.owner, ConstantOp))
    if argument.is_input:
        result = op.results[0]
        wanted = result.type

        def without(new: Sequence[SSAValue]) -> SSAValue:
            result.replace_all_uses_with(new[0])
            return new[0]

        # The operation still reads the old input until it goes; the replacement must not type-check in between.
        constants = [v for v in op.operands if isinstance(v.owner, ConstantOp)]
        _replace_input(argument, [wanted], without)
        op.detach()
        op.erase()
        for value in constants:
            _erase_unread(value)
    else:
        _set_output(argument, source)
        _erase_unread(op.results[0])
    return True, ""


def remove_io_op(
    function: Function, op_types: Sequence[str] | None = None, op_names: Sequence[str] | None = None
) -> list[str]:
    """Remove operations at the inputs and outputs, again and again until none is left there; their layer names.

    `op_names` (layer names) wins over `op_types` (keys of `REMOVABLE`; default: all). Quantize and Dequantize exist after
    `convert` only. The user then feeds and reads what these operations would have made. Raises IrError HB0242.
    """
    for what, given in (("op_types", op_types), ("op_names", op_names)):
        if given is not None and (isinstance(given, str) or not isinstance(given, Sequence)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise IrError(42, f"{what} is {shown(given)}", why="it takes a list of names", lever=f"write {what}=[…]")
    for kind in op_types or ():
        if kind not in REMOVABLE:
            raise IrError(
                42, f"there is no removable operation type '{kind}'", lever=f"choose from {sorted(REMOVABLE)}"
            )
    integers = any(op.name.startswith("quantized.") for op in function.operations)
    if op_types is not None and not integers and {"Quantize", "Dequantize"} & set(op_types):
        why = "Quantize and Dequantize exist after convert only"
        raise IrError(42, f"function '{function.name}' is not quantised", why=why, lever="convert the module first")
    kinds = tuple(c for name in (REMOVABLE if op_types is None else op_types) for c in REMOVABLE[name])

    def wanted(op: Operation) -> bool:
        return isinstance(op, kinds) if op_names is None else bool(set(location_names(op)) & set(op_names))

    removed: list[str] = []
    for is_input in (True, False):
        index = 0
        while index < len(arguments := function.flatten_inputs if is_input else function.flatten_outputs):
            ops = attached_op(arguments[index])
            if len(ops) == 1 and wanted(ops[0]):
                name = layer_name(ops[0])
                if remove_attached_op(arguments[index])[0]:
                    removed.append(name)
                    continue
            index += 1
    try:
        function.op.verify()
    except VerifyException as error:
        raise IrError(42, "the function does not verify without these operations", why=str(error)) from None
    return removed
