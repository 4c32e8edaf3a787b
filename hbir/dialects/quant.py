"""`!quant.uniform`, spelled as upstream MLIR spells it: storage, scale and zero point of quantised values.

    tensor<1x56x56x64x!quant.uniform<i8:f32, 5.000000e-02>>        per tensor
    tensor<64x3x3x32x!quant.uniform<i8<-127:127>:f32:0, {…}>>      per axis 0, narrow range

real = (q - zero point) * scale. Scales are float32 values, finite and above zero.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import BytesAttr, Float32Type, IntAttr, IntegerType, TensorType, f32
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

__all__ = ["Quant", "UniformQuantizedType", "quantized_element"]


_MOST = 1 << 128
"""Beyond any float32; an integer beyond any float cannot become one."""
_LIST = re.compile(r"[-+.:,0-9eE\s]*")


def _scale_text(value: float) -> str:
    """Seven digits where they say it all, else seventeen, as MLIR prints a double.

    Seven digits are a whole number below 10^7 over 10^k. That is a double only where 5^k divides the number, hence k <= 10 and
    `value * 2^10` is whole: of most scales one look tells that they need all digits.
    """
    if (value * 1024).is_integer() and float(short := f"{value:.6e}") == value:
        return short
    return f"{value:.16e}"


@lru_cache(maxsize=256)
def _range(bits: int, narrow: bool, axis: int) -> tuple[IntegerType, IntAttr, IntAttr, Float32Type, IntAttr]:
    """The parts of a type that few types differ in."""
    half = 1 << (bits - 1)
    return IntegerType(bits), IntAttr(-half + int(narrow)), IntAttr(half - 1), f32, IntAttr(axis)


def _scales(values: npt.ArrayLike) -> BytesAttr:
    # A scale is a float32 value, however many digits a text gives; one beyond its range is refused by `verify`.
    with np.errstate(over="ignore"):
        return BytesAttr(np.asarray(values, "<f4").tobytes())


def _zero_points(values: npt.ArrayLike) -> BytesAttr:
    return BytesAttr(np.asarray(values, "<i4").tobytes())


@irdl_attr_definition
class UniformQuantizedType(ParametrizedAttribute, TypeAttribute):
    """``!quant.uniform<i8<-127:127>:f32:0, {0.1, 0.2:5}>``; axis is -1 for a per-tensor type.

    Scales (float32) and zero points (int32) are kept as bytes, little endian: a type of a few thousand channels is then
    compared and hashed as fast as any other.
    """

    name = "quant.uniform"

    storage: IntegerType = param_def()
    qmin: IntAttr = param_def()
    qmax: IntAttr = param_def()
    expressed: Float32Type = param_def()
    axis: IntAttr = param_def()
    scales: BytesAttr = param_def()
    zero_points: BytesAttr = param_def()

    @staticmethod
    def get(
        bits: int,
        scale: npt.ArrayLike,
        zero_point: npt.ArrayLike = 0,
        *,
        axis: int = -1,
        narrow: bool = False,
    ) -> UniformQuantizedType:
        """A type of `bits` signed bits; `narrow` leaves out the smallest value. Scales are rounded to float32."""
        scales = np.atleast_1d(np.asarray(scale, np.float32))
        zero_points = np.asarray(zero_point, np.int64)
        if zero_points.shape != scales.shape:
            # The quick way for the one zero point that most types have.
            one = zero_points.ndim == 0
            zero_points = np.full(scales.shape, zero_points) if one else np.broadcast_to(zero_points, scales.shape)
        return UniformQuantizedType(
            *_range(int(bits), bool(narrow), int(axis)), _scales(scales), _zero_points(zero_points)
        )

    @property
    def bits(self) -> int:
        """Width of the storage type."""
        return self.storage.width.data

    @property
    def limits(self) -> tuple[int, int]:
        """Smallest and largest storage value."""
        return self.qmin.data, self.qmax.data

    @property
    def narrow(self) -> bool:
        """Whether the smallest storage value is left out."""
        return self.qmin.data != -(1 << (self.bits - 1))

    @property
    def per_axis(self) -> int | None:
        """The axis that the scales run along, or None for a per-tensor type."""
        return self.axis.data if self.axis.data >= 0 else None

    @property
    def scale(self) -> float:
        """The scale of a per-tensor type."""
        return float(self.scale_array[0])

    @property
    def zero_point(self) -> int:
        """The zero point of a per-tensor type."""
        return int(self.zero_point_array[0])

    @property
    def channels(self) -> int:
        """How many scales there are: 1 for a per-tensor type."""
        return len(self.scales.data) // 4

    def along(self, axis: int) -> UniformQuantizedType:
        """The same scales along another axis, -1 for a per-tensor type."""
        zero_points = self.zero_point_array
        return UniformQuantizedType.get(self.bits, self.scale_array, zero_points, axis=axis, narrow=self.narrow)

    @property
    def scale_array(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """All scales, float32, read-only."""
        return np.frombuffer(self.scales.data, "<f4")

    @property
    def zero_point_array(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """All zero points, int32, read-only."""
        return np.frombuffer(self.zero_points.data, "<i4")

    def verify(self) -> None:
        """Check scales, zero points and storage range. Raises VerifyException."""
        scales, zero_points = self.scale_array, self.zero_point_array
        if scales.size != zero_points.size or not scales.size:
            raise VerifyException("a quantised type has one zero point per scale, and at least one scale")
        if self.axis.data < 0 and scales.size != 1:
            raise VerifyException("a per-tensor quantised type has one scale")
        if not (np.isfinite(scales) & (scales > 0)).all():
            worst = scales[~(np.isfinite(scales) & (scales > 0))][0]
            raise VerifyException(f"scale {worst} is not finite and above zero")
        half = 1 << (self.bits - 1)
        if not -half <= self.qmin.data < self.qmax.data < half:
            raise VerifyException(f"storage range {self.qmin.data}:{self.qmax.data} does not fit i{self.bits}")
        if zero_points.min() < self.qmin.data or zero_points.max() > self.qmax.data:
            raise VerifyException("a zero point lies outside the storage range")

    def print_parameters(self, printer: Printer) -> None:
        """Write the type as upstream MLIR does, in the shortest digits that give the same float32."""
        half = 1 << (self.bits - 1)
        with printer.in_angle_brackets():
            printer.print_attribute(self.storage)
            if self.limits != (-half, half - 1):
                printer.print_string(f"<{self.qmin.data}:{self.qmax.data}>")
            printer.print_string(":")
            printer.print_attribute(self.expressed)
            pairs = zip(self.scale_array.tolist(), self.zero_point_array.tolist(), strict=True)
            texts = [_scale_text(scale) + (f":{zero}" if zero else "") for scale, zero in pairs]
            if self.axis.data >= 0:
                printer.print_string(f":{self.axis.data}, {{{','.join(texts)}}}")
            else:
                printer.print_string(f", {texts[0]}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        """Read what `print_parameters`, or upstream MLIR, writes."""
        with parser.in_angle_brackets():
            storage = parser.parse_type()
            if not isinstance(storage, IntegerType):
                parser.raise_error("the storage type of !quant.uniform is an integer type")
            width = cast(int, cast(Any, storage).width.data)
            if not 1 <= width <= 32:
                parser.raise_error("the storage type of !quant.uniform has 1 to 32 bits")
            half = 1 << (width - 1)
            low, high = -half, half - 1
            if parser.parse_optional_characters("<"):
                low = parser.parse_integer()
                parser.parse_punctuation(":")
                high = parser.parse_integer()
                parser.parse_characters(">")
            parser.parse_punctuation(":")
            expressed = parser.parse_type()
            axis = parser.parse_integer() if parser.parse_optional_punctuation(":") else -1
            parser.parse_punctuation(",")
            body = _parse_list(parser) if axis >= 0 else _parse_entry(parser)
        return cast(Attribute, storage), IntAttr(low), IntAttr(high), expressed, IntAttr(axis), *body


def _parse_entry(parser: AttrParser) -> tuple[BytesAttr, BytesAttr]:
    """One scale, and a zero point that may be left out."""
    number = parser.parse_number()
    if abs(number) > _MOST:
        parser.raise_error("a scale is a float32")
    scale = float(number)
    zero_point = parser.parse_integer() if parser.parse_optional_punctuation(":") else 0
    return _scales([scale]), _checked_zero_points(parser, [zero_point])


def _parse_list(parser: AttrParser) -> tuple[BytesAttr, BytesAttr]:
    """Entries in braces, read as one piece of text: token by token, the types of a network take seconds."""
    lexer = cast(Any, parser.lexer)
    text, begin = cast(str, lexer.input.content), parser.pos
    end = text.find("}", begin)
    if text[begin : begin + 1] != "{" or end < 0:
        parser.raise_error("a list of scales in braces expected")
    body = text[begin + 1 : end]
    lexer.pos = end
    parser.parse_punctuation("{")
    parser.parse_punctuation("}")
    entries = body.split(",")
    try:
        if not _LIST.fullmatch(body):
            raise ValueError
        if ":" not in body:
            return _scales(np.array(entries, np.float64)), _zero_points(np.zeros(len(entries)))
        parts = [entry.partition(":") for entry in entries]
        scales = [float(scale) for scale, _, _ in parts]
        zero_points = [int(zero) if zero else 0 for _, _, zero in parts]
    except ValueError:
        parser.raise_error("scales are numbers, each with a zero point behind a colon or without one")
    return _scales(scales), _checked_zero_points(parser, zero_points)


def _checked_zero_points(parser: AttrParser, values: Sequence[int]) -> BytesAttr:
    if any(not -(1 << 31) <= value < 1 << 31 for value in values):
        parser.raise_error("a zero point lies outside the storage range")
    return _zero_points(values)


def quantized_element(type_: Attribute) -> UniformQuantizedType:
    """The quantised element type of a tensor. Raises VerifyException when it has none."""
    element = type_.element_type if isinstance(type_, TensorType) else type_  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(element, UniformQuantizedType):
        raise VerifyException(f"{type_} is not a quantised tensor")
    return element


Quant = Dialect("quant", [], [UniformQuantizedType])
"""The dialect: one type, no operations."""
