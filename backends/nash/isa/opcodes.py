"""The instruction set as one table, from which encoder, decoder, assembler, disassembler, verifier and documentation
come.

Adding an opcode is a row here, a rule in `rules`, a binding in the functional simulator and a cost in `cycles`.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from backends.nash.isa import rules
from backends.nash.isa.records import DDR, DTYPE_NAMES, L1M, L2M, MAX_OPERANDS, UNITS

__all__ = ["BY_NAME", "BY_NUMBER", "OPCODES", "Opcode", "Operand", "Param"]


@dataclass(frozen=True, slots=True)
class Operand:
    """A view that an instruction reads ("r") or writes ("w"); memories and element types it may have."""

    name: str
    access: str
    dtypes: tuple[str, ...]
    spaces: tuple[str, ...] = (L1M,)
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    """An int32 field with its legal range; `is_float` fields hold the bits of a finite float32 that is not negative."""

    name: str
    minimum: int
    maximum: int
    doc: str
    default: int = 0
    is_float: bool = False


@dataclass(frozen=True, slots=True)
class Opcode:
    """One instruction: what it is for is its `doc`; `unit` is "" for one that any queue takes (parameter `unit`)."""

    number: int
    name: str
    unit: str
    doc: str
    operands: tuple[Operand, ...]
    params: tuple[Param, ...]
    rule: rules.Rule


_INTS = ("i8", "i16")
_WIDE = ("i8", "i16", "i32", "i64")
_ANY = DTYPE_NAMES
_FLOAT_ONE = 0x3F800000

_I32 = (-(1 << 31), (1 << 31) - 1)


def _r(name: str, dtypes: tuple[str, ...], spaces: tuple[str, ...] = (L1M,), *, optional: bool = False) -> Operand:
    return Operand(name, "r", dtypes, spaces, optional)


def _w(name: str, dtypes: tuple[str, ...], spaces: tuple[str, ...] = (L1M,)) -> Operand:
    return Operand(name, "w", dtypes, spaces)


def _scale(suffix: str, of: str) -> tuple[Param, Param]:
    return (
        Param(f"multiplier{suffix}", 0, _I32[1], f"multiplier of {of}"),
        Param(f"shift{suffix}", 0, 62, f"right shift of {of}, at least 2 where it is used", 2),
    )


def _zp(name: str, of: str) -> Param:
    return Param(name, *_I32, f"zero point of {of}")


_CLAMP = (Param("low", *_I32, "lower clamp of the result"), Param("high", *_I32, "upper clamp of the result"))
_OUT = (*_scale("", "the result"), _zp("zp_out", "the result"), *_CLAMP)
_STRIDE = (
    Param("stride_h", 1, 1 << 16, "rows between windows", 1),
    Param("stride_w", 1, 1 << 16, "columns between windows", 1),
)
_PAD = tuple(Param(f"pad_{side}", 0, 1 << 16, f"padding at the {side}") for side in ("top", "left", "bottom", "right"))
_KERNEL = (
    Param("kernel_h", 1, 1 << 16, "rows of the window", 1),
    Param("kernel_w", 1, 1 << 16, "columns of the window", 1),
)
_AXES = Param("axes", 1, 63, "bit mask of the reduced axes")
_BINARY = (_r("a", _INTS), _r("b", _INTS), _w("out", _INTS))
_UNARY = (_r("x", _INTS), _w("out", _INTS))

OPCODES: tuple[Opcode, ...] = (
    Opcode(
        *(0, "NOP", "", "Do nothing; carries waits that do not fit the next instruction of its queue."),
        (), (Param("unit", 0, len(UNITS) - 1, "index of the unit whose queue it is in"),), rules.nothing,
    ),
    Opcode(
        *(1, "LOAD", "LOAD", "Copy from DDR or L2M to L1M."),
        (_r("src", _ANY, (DDR, L2M)), _w("dst", _ANY)), (), rules.moved,
    ),
    Opcode(
        *(2, "STORE", "STORE", "Copy from L1M to DDR or L2M."),
        (_r("src", _ANY), _w("dst", _ANY, (DDR, L2M))), (), rules.moved,
    ),
    Opcode(
        *(16, "CONV", "TAE", "NHWC convolution of packed weights, onto partial sums; float multipliers make them floats."),
        (
            _r("x", _INTS), _r("weight", _INTS), _r("bias", ("i32", "i64"), optional=True),
            _r("multiplier", ("i32", "f32"), optional=True), _r("shift", ("i8",), optional=True),
            _r("residual", _INTS, optional=True), _r("partial", ("i32", "i64"), optional=True),
            _w("out", (*_WIDE, "f32")),
        ),
        (
            *_KERNEL, *_STRIDE, *_PAD,
            Param("dilation_h", 1, 1 << 16, "rows between taps", 1),
            Param("dilation_w", 1, 1 << 16, "columns between taps", 1),
            Param("groups", 1, 1 << 20, "channel groups", 1), Param("weight_bits", 8, 16, "bits of a weight", 8),
            _zp("pad_value", "the input, which padding reads"), _zp("zp_out", "the result"), *_CLAMP,
            _zp("residual_zp", "the residual"), Param("residual_multiplier", 0, _I32[1], "multiplier of the residual"),
            Param("residual_shift", 0, 62, "right shift of the residual", 2),
            Param("output_multiplier", 0, _I32[1], "multiplier of the sum with the residual", 1),
            Param("output_shift", 0, 62, "right shift of the sum with the residual", 2),
        ),
        rules.conv,
    ),
    Opcode(
        *(17, "MATMUL", "TAE", "Batched matrix product (…, M, K) by (…, K, N), rescaled, or as the floats sum * scale."),
        (_r("a", _INTS), _r("b", _INTS), _w("out", (*_WIDE, "f32"))),
        (
            _zp("zp_a", "the left operand"), _zp("zp_b", "the right operand"), *_OUT,
            Param("scale", 0, 0x7F7FFFFF, "float32 scale of a float result, 0 for an integer one", 0, True),
        ),
        rules.matmul,
    ),
    *(
        Opcode(
            *(number, name, "VAE", f"Both operands to a common scale, {what}, rescaled."),
            _BINARY,
            (_zp("zp_a", "a"), *_scale("_a", "a"), _zp("zp_b", "b"), *_scale("_b", "b"), *_OUT), rules.binary,
        )
        for number, name, what in ((32, "ADD", "the sum"), (33, "SUB", "the difference"))
    ),
    Opcode(
        *(34, "MUL", "VAE", "Product of the centred operands, rescaled."),
        _BINARY, (_zp("zp_a", "a"), _zp("zp_b", "b"), *_OUT), rules.binary,
    ),
    Opcode(35, "MAXIMUM", "VAE", "The larger of two values of one scale.", _BINARY, (), rules.binary),
    Opcode(36, "MINIMUM", "VAE", "The smaller of two values of one scale.", _BINARY, (), rules.binary),
    Opcode(37, "CLAMP", "VAE", "Values held between low and high.", _UNARY, _CLAMP, rules.same_type),
    Opcode(
        *(38, "RESCALE", "VAE", "One scale to another; with the operands, a multiplier and shift for each channel."),
        (
            _r("x", _WIDE), _r("multiplier", ("i32",), optional=True), _r("shift", ("i8",), optional=True),
            _w("out", _WIDE),
        ),
        (_zp("zp_in", "the input"), *_OUT), rules.rescale,
    ),
    Opcode(
        *(39, "TABLE8", "VAE", "table[x + 128]."),
        (_r("x", ("i8",)), _r("table", _INTS), _w("out", _INTS)), (), rules.table,
    ),
    Opcode(
        *(40, "TABLE16", "VAE", "Linear interpolation between 513 entries, rescaled."),
        (_r("x", ("i16",)), _r("table", ("i16",)), _w("out", _INTS)), _OUT, rules.table,
    ),
    Opcode(
        *(41, "REDUCE_SUM", "VAE", "Sum of the centred values over axes, rescaled."),
        _UNARY, (_AXES, _zp("zp_in", "the input"), *_OUT), rules.reduction,
    ),
    Opcode(42, "REDUCE_MAX", "VAE", "Largest value over axes.", _UNARY, (_AXES,), rules.reduction),
    Opcode(43, "REDUCE_MIN", "VAE", "Smallest value over axes.", _UNARY, (_AXES,), rules.reduction),
    Opcode(
        *(44, "SOFTMAX", "VAE", "Integer softmax along an axis."),
        (_r("x", _INTS), _r("exp_table", ("i16",)), _r("reciprocal_table", ("i16",)), _w("out", _INTS)),
        (Param("axis", 0, 5, "axis that sums to one"), *_OUT), rules.softmax,
    ),
    Opcode(
        *(45, "SEGMENTED", "VAE", "int16 by 1 to 64 segments of 64 entries, each with its own start and spacing."),
        (
            _r("x", ("i16",)), _r("starts", ("i16",)), _r("spacings", ("i8",)), _r("entries", ("i16",)),
            _w("out", ("i16",)),
        ),
        (), rules.segmented,
    ),
    Opcode(
        *(64, "MAXPOOL", "AAE", "Largest value of each window; padding never wins."),
        _UNARY, (*_KERNEL, *_STRIDE, *_PAD), rules.pool,
    ),
    Opcode(
        *(65, "AVGPOOL", "AAE", "Mean of the elements of each window, padding left out."),
        _UNARY, (*_KERNEL, *_STRIDE, *_PAD, _zp("zp_in", "the input"), _zp("zp_out", "the result"), *_CLAMP),
        rules.pool,
    ),
    Opcode(
        *(66, "RESIZE_NEAREST", "AAE", "Row rows[i] and column columns[j] of the input at (i, j)."),
        (_r("x", _INTS), _r("rows", ("i32",)), _r("columns", ("i32",)), _w("out", _INTS)), (), rules.resize_nearest,
    ),
    Opcode(
        *(67, "RESIZE_BILINEAR", "AAE", "Bilinear resize with rational scale (TOSA RESIZE), rescaled."),
        _UNARY,
        (
            *(Param(f"scale_{axis}{part}", 1, 1 << 15, f"{what} of the scale along {axis}", 1)
              for axis in "yx" for part, what in (("n", "numerator"), ("d", "denominator"))),
            *(Param(f"{key}_{axis}", -(1 << 20), 1 << 20, f"{key} along {axis}, in units of the numerator")
              for key in ("offset", "border") for axis in "yx"),
            *_scale("", "the result"), _zp("zp_in", "the input"), _zp("zp_out", "the result"), *_CLAMP,
        ),
        rules.resize_bilinear,
    ),
    Opcode(
        *(80, "COPY", "TRANS", "Copy within L1M, any strides: transposes, concatenations, slices."),
        (_r("src", _ANY), _w("dst", _ANY)), (), rules.moved,
    ),
    Opcode(
        *(81, "FILL", "TRANS", "Every element becomes value."),
        (_w("dst", _WIDE),), (Param("value", *_I32, "value of every element"),), rules.nothing,
    ),
    Opcode(
        *(96, "QUANTIZE", "VPU", "clamp(rint(x / scale) + zp)."),
        (_r("x", ("f32",)), _w("out", _INTS)),
        (Param("scale", 1, 0x7F7FFFFF, "float32 scale", _FLOAT_ONE, True), _zp("zp", "the result"), *_CLAMP),
        rules.quantize,
    ),
    Opcode(
        *(97, "DEQUANTIZE", "VPU", "(x - zp) * scale; with the operand, a scale for each channel."),
        (_r("x", _WIDE), _r("scales", ("f32",), optional=True), _w("out", ("f32",))),
        (Param("scale", 1, 0x7F7FFFFF, "float32 scale", _FLOAT_ONE, True), _zp("zp", "the input")), rules.quantize,
    ),
    Opcode(
        *(112, "ARGMAX", "SPU", "Index of the first largest value along an axis."),
        (_r("x", _INTS), _w("out", ("i32", "i64"))), (Param("axis", 0, 5, "axis that is searched"),), rules.argmax,
    ),
    Opcode(
        *(128, "HOST_CALL", "HOST", "Run a function of the `host` section on the host CPU."),
        # Which operands are written depends on `inputs`; the verifier and the simulator ask `accesses`.
        tuple(Operand(f"operand{i}", "r", _ANY, (DDR,), True) for i in range(MAX_OPERANDS)),
        (
            Param("function", 0, 1 << 16, "index of the function"),
            Param("inputs", 0, MAX_OPERANDS - 1, "operands that are read"),
        ),
        rules.host_call,
    ),
)  # fmt: skip
"""The instruction set."""

BY_NUMBER = MappingProxyType({opcode.number: opcode for opcode in OPCODES})
"""The opcodes by their numbers."""
BY_NAME = MappingProxyType({opcode.name: opcode for opcode in OPCODES})
"""The opcodes by their names."""
