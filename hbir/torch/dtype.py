"""The integer types of fake quantisation."""

from __future__ import annotations

from dataclasses import dataclass

from hbir.errors import TrainingError

__all__ = ["QuantDType", "qint8", "qint16", "qint32"]


@dataclass(frozen=True)
class QuantDType:
    """A signed integer type: its name, its width in bits, and its limits."""

    name: str
    bits: int

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and the largest integer."""
        return -(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1

    def __repr__(self) -> str:
        return self.name


qint8 = QuantDType("qint8", 8)
"""Eight bits: activations and weights."""
qint16 = QuantDType("qint16", 16)
"""Sixteen bits: activations that need them."""
qint32 = QuantDType("qint32", 32)
"""Accumulators, which leave as outputs of high precision."""

_KNOWN = {dtype.name: dtype for dtype in (qint8, qint16, qint32)}


def checked_dtype(dtype: object, what: str) -> QuantDType:
    """`dtype`, or the type of that name. Raises TrainingError HB0901."""
    found = _KNOWN.get(dtype) if isinstance(dtype, str) else dtype
    if isinstance(found, QuantDType) and found.bits in (8, 16):
        return found
    raise TrainingError(
        1, f"{what} is {dtype!r}", why="activations and weights are qint8 or qint16", lever="choose one"
    )
