"""What quantised operations share: how multipliers are checked against the scales that ride in the types."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import DenseArrayBase, Float32Type, IntegerType, i32
from xdsl.irdl import opt_prop_def, prop_def
from xdsl.utils.exceptions import VerifyException

from hbir.dialects.base import HbOperation, Tensor, tensor_type
from hbir.dialects.quant import UniformQuantizedType, quantized_element

__all__ = [
    "QuantizedOperation",
    "check_limits",
    "check_multipliers",
    "check_ratio",
    "grid",
    "multipliers",
    "opt_float_type",
    "opt_multipliers",
    "opt_shifts",
    "per_tensor",
    "scalar",
    "shifts",
]

i8 = IntegerType(8)

# A multiplier of b bits, nearest and odd, is off by less than one unit of 2^(b-1): with the 15 bits of the narrowest
# march a relative error below 2^-14. Imported models round their multipliers themselves; one more bit is theirs.
_RATIO_TOLERANCE = 2.0**-13


class QuantizedOperation(HbOperation):
    """Base of the integer operations: `bind` also gets `zero_points`, one per operand (0 where there is none)."""

    @property
    def zero_points(self) -> tuple[int, ...]:
        """The zero points of the operands, from their types."""
        elements = [None if o is None else tensor_type(o.type).element_type for o in self.aligned_operands]
        return tuple(e.zero_point if isinstance(e, UniformQuantizedType) else 0 for e in elements)

    @property
    def keywords(self) -> dict[str, Any]:
        return self.values | {"zero_points": self.zero_points}


def grid() -> Any:
    """The quantised element type of the result, as a property."""
    return prop_def(UniformQuantizedType)


def multipliers() -> Any:
    """One i32 multiplier per channel, or one for all, as a property."""
    return prop_def(DenseArrayBase.constr(i32))


def shifts() -> Any:
    """One i8 right shift per channel, or one for all, as a property."""
    return prop_def(DenseArrayBase.constr(i8))


def opt_float_type() -> Any:
    """The element type of a float result, as a property that may be absent."""
    return opt_prop_def(Float32Type)


def opt_multipliers() -> Any:
    """Like `multipliers`, but may be absent: the raw accumulator is the result."""
    return opt_prop_def(DenseArrayBase.constr(i32))


def opt_shifts() -> Any:
    """Like `shifts`, but may be absent."""
    return opt_prop_def(DenseArrayBase.constr(i8))


def per_tensor(type_: Tensor, role: str) -> UniformQuantizedType:
    """The quantised element type of an activation. Raises VerifyException unless it has one scale."""
    element = quantized_element(type_)
    if element.per_axis is not None:
        raise VerifyException(f"the {role} has scales per axis; activations have one scale")
    return element


def check_multipliers(
    multiplier: npt.NDArray[np.int32], shift: npt.NDArray[np.int8], what: str, channels: int = 1
) -> None:
    """One multiplier and shift, or one of each for every channel, in their ranges. Raises VerifyException."""
    if multiplier.shape != shift.shape:
        raise VerifyException(f"{what}: {multiplier.size} multipliers and {shift.size} shifts")
    if (multiplier < 0).any() or (shift < 2).any() or (shift > 62).any():
        raise VerifyException(f"{what}: multipliers are at least 0, shifts between 2 and 62")
    if multiplier.size not in (1, channels):
        raise VerifyException(f"{what}: {multiplier.size} multipliers for {channels} channels")


def check_ratio(
    multiplier: npt.NDArray[np.int32],
    shift: npt.NDArray[np.int8],
    ratio: Any,
    what: str,
    channels: int = 1,
) -> None:
    """`multiplier * 2^-shift` must be the ratio of scales that the types state, for all or for each of `channels`.

    Raises VerifyException.
    """
    check_multipliers(multiplier, shift, what, channels)
    wanted = np.atleast_1d(np.asarray(ratio, np.float64))
    if wanted.size not in (1, channels):
        raise VerifyException(f"{what}: {wanted.size} scales for {channels} channels")
    given = np.ldexp(multiplier.astype(np.float64), -shift.astype(np.int32))
    # A ratio so small that every value rounds to zero is written as multiplier 0 or with the largest shift.
    exact = (np.abs(given - wanted) <= wanted * _RATIO_TOLERANCE) | (wanted < 2.0**-46)
    if not exact.all():
        at = int(np.flatnonzero(~np.broadcast_to(exact, np.broadcast_shapes(given.shape, wanted.shape)))[0])
        have = float(np.broadcast_to(given, exact.shape)[at])
        want = float(np.broadcast_to(wanted, exact.shape)[at])
        raise VerifyException(
            f"{what}: channel {at} multiplies by {have:.9g}, the scales of its types ask for {want:.9g}"
        )


def check_limits(low: int, high: int, element: UniformQuantizedType) -> None:
    """Clamp bounds must lie in the storage range of the result. Raises VerifyException."""
    smallest, largest = element.limits
    if not smallest <= low <= high <= largest:
        raise VerifyException(f"clamp {low}:{high} leaves the storage range {smallest}:{largest}")


def scalar(values: Sequence[Any] | npt.NDArray[Any]) -> int:
    """The only entry of a per-tensor multiplier or shift."""
    return int(values[0])
