"""`!quant.uniform`, spelled as upstream MLIR spells it: storage, scale and zero point of quantised values.

    tensor<1x56x56x64x!quant.uniform<i8:f32, 5.000000e-02>>        per tensor
    tensor<64x3x3x32x!quant.uniform<i8<-127:127>:f32:0, {…}>>      per axis 0, narrow range

real = (q - zero point) * scale. Scales are float32 values, finite and above zero.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
from xdsl.dialects.builtin import ArrayAttr, Float32Type, FloatData, IntAttr, IntegerType, TensorType, f32
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition, param_def
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException

__all__ = ["Quant", "UniformQuantizedType", "quantized_element"]


def _scale_text(value: float) -> str:
    short = f"{value:.6e}"
    return short if float(short) == value else f"{value:.16e}"


@irdl_attr_definition
class UniformQuantizedType(ParametrizedAttribute, TypeAttribute):
    """``!quant.uniform<i8<-127:127>:f32:0, {0.1, 0.2:5}>``; axis is -1 for a per-tensor type."""

    name = "quant.uniform"

    storage: IntegerType = param_def()
    qmin: IntAttr = param_def()
    qmax: IntAttr = param_def()
    expressed: Float32Type = param_def()
    axis: IntAttr = param_def()
    scales: ArrayAttr[FloatData] = param_def()
    zero_points: ArrayAttr[IntAttr] = param_def()

    @staticmethod
    def get(
        bits: int,
        scale: float | Sequence[float],
        zero_point: int | Sequence[int] = 0,
        *,
        axis: int = -1,
        narrow: bool = False,
    ) -> UniformQuantizedType:
        """A type of `bits` signed bits; `narrow` leaves out the smallest value. Scales are rounded to float32."""
        scales = np.atleast_1d(np.asarray(scale, np.float32)).astype(np.float64)
        zero_points = np.broadcast_to(np.atleast_1d(np.asarray(zero_point, np.int64)), scales.shape)
        half = 1 << (bits - 1)
        return UniformQuantizedType(
            IntegerType(bits),
            IntAttr(-half + int(narrow)),
            IntAttr(half - 1),
            f32,
            IntAttr(axis),
            ArrayAttr(FloatData(float(s)) for s in scales),
            ArrayAttr(IntAttr(int(z)) for z in zero_points),
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
    def per_axis(self) -> int | None:
        """The axis that the scales run along, or None for a per-tensor type."""
        return self.axis.data if self.axis.data >= 0 else None

    @property
    def scale(self) -> float:
        """The scale of a per-tensor type."""
        return self.scales.data[0].data

    @property
    def zero_point(self) -> int:
        """The zero point of a per-tensor type."""
        return self.zero_points.data[0].data

    @property
    def scale_array(self) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        """All scales, float32."""
        return np.array([s.data for s in self.scales], np.float32)

    @property
    def zero_point_array(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """All zero points, int32."""
        return np.array([z.data for z in self.zero_points], np.int32)

    def verify(self) -> None:
        if len(self.scales) != len(self.zero_points) or not len(self.scales):
            raise VerifyException("a quantised type has one zero point per scale, and at least one scale")
        if self.axis.data < 0 and len(self.scales) != 1:
            raise VerifyException("a per-tensor quantised type has one scale")
        for s in self.scales:
            if not (math.isfinite(s.data) and s.data > 0):
                raise VerifyException(f"scale {s.data} is not finite and above zero")
        half = 1 << (self.bits - 1)
        if not -half <= self.qmin.data < self.qmax.data < half:
            raise VerifyException(f"storage range {self.qmin.data}:{self.qmax.data} does not fit i{self.bits}")
        if any(not self.qmin.data <= z.data <= self.qmax.data for z in self.zero_points):
            raise VerifyException("a zero point lies outside the storage range")

    def print_parameters(self, printer: Printer) -> None:
        half = 1 << (self.bits - 1)
        with printer.in_angle_brackets():
            printer.print_attribute(self.storage)
            if self.limits != (-half, half - 1):
                printer.print_string(f"<{self.qmin.data}:{self.qmax.data}>")
            printer.print_string(":")
            printer.print_attribute(self.expressed)
            pairs = zip(self.scales, self.zero_points, strict=True)
            texts = [_scale_text(s.data) + (f":{z.data}" if z.data else "") for s, z in pairs]
            if self.axis.data >= 0:
                printer.print_string(f":{self.axis.data}, {{{','.join(texts)}}}")
            else:
                printer.print_string(f", {texts[0]}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        def entry() -> tuple[float, int]:
            # A scale is a float32 value, however many digits a text gives; one beyond its range is refused by `verify`.
            with np.errstate(over="ignore"):
                scale = float(np.float32(parser.parse_number()))
            return scale, parser.parse_integer() if parser.parse_optional_punctuation(":") else 0

        with parser.in_angle_brackets():
            storage = parser.parse_type()
            if not isinstance(storage, IntegerType):
                parser.raise_error("the storage type of !quant.uniform is an integer type")
            half = 1 << (cast(int, cast(Any, storage).width.data) - 1)
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
            pairs = parser.parse_comma_separated_list(parser.Delimiter.BRACES, entry) if axis >= 0 else [entry()]
        scales = ArrayAttr(FloatData(s) for s, _ in pairs)
        zero_points = ArrayAttr(IntAttr(z) for _, z in pairs)
        return cast(Attribute, storage), IntAttr(low), IntAttr(high), expressed, IntAttr(axis), scales, zero_points


def quantized_element(type_: Attribute) -> UniformQuantizedType:
    """The quantised element type of a tensor. Raises VerifyException when it has none."""
    element = type_.element_type if isinstance(type_, TensorType) else type_  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(element, UniformQuantizedType):
        raise VerifyException(f"{type_} is not a quantised tensor")
    return element


Quant = Dialect("quant", [], [UniformQuantizedType])
