"""The one rounding of the integers, `(x * m + 2^(s-1)) >> s`, exact in the cheapest arithmetic that bounds allow.

In all forms x = value + offset, and |x| <= bound, |value| <= bound, |offset| <= bound. Let M = m * 2^-s, in float64.

`rescaling` gives the integers in float64:

- with bound * m <= 2^52 in float64: `floor(value * M + h)`, h = offset * M + 1/2. Both products are exact, at most 53 bits
  times a power of two, and multiples of 2^-s. If s <= 53, so are h and the sum, and both are at most
  (2^52 + 2^52) * 2^-s in size: exact. If s > 53, |x * M| <= 1/4: h and the sum are rounded, by less than 2^-53 each, and
  stay strictly between 0 and 1: the floor is 0, as it should be.
- with bound * m <= 2^61 in int64, as it is written: `(value * m + (offset * m + 2^(s-1))) >> s`, below 3 * 2^61 + 2^61.
- with bound < 2^47 and m < 2^31 in int64, in two parts: x = a * 2^16 + b with 0 <= b < 2^16, hence x * m + 2^(s-1) =
  A * 2^16 + B with r = b * m + 2^(s-1), A = a * m + (r >> 16), B = r & 65535. The floor of its quotient by 2^s is
  A >> (s - 16) from s = 16 on, and (A << (16 - s)) + (B >> s) below. A is first held to 46 bits, beyond which the result
  is outside 32 bits and will be clamped.

`Requantise` then clamps. Where s <= 28, |x * M| + |zp| < 2^21 and bound * m <= 2^52 it does so without a floor: the float64
`value * M + (offset * M + zp + 2^-(s+1) + 3 * 2^22)` is a multiple of 2^-(s+1) between 2^23 and 2^24, so it is exact (24 + 29
bits), and never half way between two integers; half of the smallest step carries the ties upwards. As a float32 it has no
fraction left: the conversion rounds it to the nearest integer n + 3 * 2^22. Clamped as a float32, its bits are
0x4B400000 + n, whose low bytes are n in two's complement.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["Requantise", "Rescale", "rescaling"]

Rescale = Callable[[torch.Tensor], torch.Tensor]
"""From integers, in any dtype that holds them, to a new float64 tensor of integers."""
Words = npt.NDArray[np.int64]

_FLOAT, _WORD, _TWO_PARTS = 1 << 52, 1 << 61, 1 << 47
_MAGIC, _MAGIC_REACH, _MAGIC_SHIFT = 3 << 22, 1 << 21, 28


class _Factor:
    """Multipliers and shifts that broadcast from the last axis, with a bound on what they multiply."""

    def __init__(self, multiplier: npt.ArrayLike, shift: npt.ArrayLike, bound: int, offset: npt.ArrayLike) -> None:
        m, s, at = (np.asarray(values, np.int64) for values in (multiplier, shift, offset))
        # One element for all must not add an axis to tensors without any.
        self.m, self.s, self.offset = (v.reshape(()) if v.size == 1 else v for v in (m, s, at))
        self.bound, self.real = bound, np.ldexp(self.m.astype(np.float64), -self.s)
        self.product = bound * int(self.m.max(initial=0))
        self.reach = int(np.ceil(bound * float(self.real.max(initial=0.0)) * (1 + 2.0**-40))) + 1
        """A bound on the result."""


def rescaling(
    multiplier: npt.ArrayLike, shift: npt.ArrayLike, bound: int, device: torch.device, offset: npt.ArrayLike = 0
) -> tuple[Rescale, int]:
    """`((x + offset) * m + 2^(s-1)) >> s`, and a bound on its absolute value.

    `bound` holds for |x|, |offset| and |x + offset|. Multiplier, shift and offset are numbers, or broadcast against x from the
    last axis. Results beyond 2^53 may be rounded; they are outside every type and are clamped. Raises ValueError for a bound
    of 2^47 or more where products leave 62 bits.
    """
    factor = _Factor(multiplier, shift, bound, offset)
    return _rescale(factor, device), factor.reach


def _rescale(f: _Factor, device: torch.device) -> Rescale:
    if f.product <= _FLOAT:
        return _in_floats(_on(f.real, device), _on(f.offset * f.real + 0.5, device))
    m, s, offset = (_on(values, device) for values in (f.m, f.s, f.offset))
    half = torch.ones_like(s) << (s - 1)
    if f.product <= _WORD:
        return _in_words(m, s, offset * m + half)
    if f.bound >= _TWO_PARTS:
        raise ValueError(f"values of up to {f.bound} times {int(f.m.max())} leave what is computed exactly")
    return _in_two_parts(m, s, offset, half)


def _on(values: Any, device: torch.device) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), device=device).reshape(np.shape(values))


def _in_floats(factor: torch.Tensor, half: torch.Tensor) -> Rescale:
    return lambda x: torch.addcmul(half, x.to(torch.float64), factor).floor_()


def _in_words(m: torch.Tensor, s: torch.Tensor, half: torch.Tensor) -> Rescale:
    return lambda x: ((x.to(torch.int64) * m + half) >> s).to(torch.float64)


def _in_two_parts(m: torch.Tensor, s: torch.Tensor, offset: torch.Tensor, half: torch.Tensor) -> Rescale:
    right, left = (s - 16).clamp(min=0), (16 - s).clamp(min=0)

    def run(x: torch.Tensor) -> torch.Tensor:
        wide = x.to(torch.int64) + offset
        rest = (wide & 65535) * m + half
        above = ((wide >> 16) * m + (rest >> 16)) >> right
        below = (rest & 65535) >> s  # 0 from s = 16 on
        return ((above.clamp(-(1 << 46), 1 << 46) << left) + below).to(torch.float64)

    return run


class Requantise:
    """`clamp((((x + offset) * m + 2^(s-1)) >> s) + zp, low, high)` into a tensor of codes; arguments as for `rescaling`."""

    def __init__(
        self,
        multiplier: npt.ArrayLike,
        shift: npt.ArrayLike,
        bound: int,
        device: torch.device,
        *,
        offset: npt.ArrayLike = 0,
        zero_point: int,
        low: int,
        high: int,
    ) -> None:
        f = _Factor(multiplier, shift, bound, offset)
        self._zero_point, self._low, self._high = zero_point, low, high
        self._magic = (
            f.product <= _FLOAT
            and int(f.s.max(initial=0)) <= _MAGIC_SHIFT
            and f.reach + abs(zero_point) < _MAGIC_REACH
            and max(abs(low), abs(high)) < _MAGIC_REACH
        )
        if self._magic:
            tie = np.ldexp(1.0, -(f.s + 1))
            self._factor, self._added = _on(f.real, device), _on(f.offset * f.real + zero_point + tie + _MAGIC, device)
        else:
            self._rescale = _rescale(f, device)

    def __call__(self, out: torch.Tensor, x: torch.Tensor) -> None:
        """Write the codes for `x` into `out`, whose dtype holds `low` to `high`."""
        if self._magic:
            y = torch.addcmul(self._added, x.to(torch.float64), self._factor).to(torch.float32)
            y.clamp_(_MAGIC + self._low, _MAGIC + self._high)
            # Integers are narrowed by dropping their upper bytes; a wider result needs the number itself.
            out.copy_(y.view(torch.int32) if out.element_size() < 4 else y.sub_(_MAGIC))
            return
        y = self._rescale(x)
        out.copy_((y.add_(self._zero_point) if self._zero_point else y).clamp_(self._low, self._high))
