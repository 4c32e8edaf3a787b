"""How far two arrays lie apart, element by element: what every comparison of results is made of."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hbir.dialects.base import Array

__all__ = ["FLOAT_TOLERANCE", "ROUNDING_TOLERANCE", "differences", "relative_differences"]

FLOAT_TOLERANCE = 1e-4
"""Float rewrites reorder sums: an error of 2^-24 for each of up to some thousand terms, on values of unit size."""

ROUNDING_TOLERANCE = 0.25
"""What a pass that promises rounding only may change, as a share of an output's largest value; eight bits change less."""


def differences(a: Array, b: Array) -> npt.NDArray[np.float64]:
    """`|a - b|`. NaN equals NaN; infinite where one number is NaN or infinite and the other is something else."""
    apart = np.zeros(a.shape, np.float64)
    other = (a != b) & ~((a != a) & (b != b))
    with np.errstate(invalid="ignore", over="ignore"):
        found = np.abs(a[other].astype(np.float64) - b[other].astype(np.float64))
    found[np.isnan(found)] = np.inf
    found[found == 0] = 1.0  # long integers that are one float64
    apart[other] = found
    return apart


def relative_differences(expected: Array, actual: Array) -> npt.NDArray[np.float64]:
    """The differences in units of the largest finite value that is expected."""
    apart = differences(expected, actual)
    finite = np.abs(expected[np.isfinite(expected)].astype(np.float64))
    return apart / finite.max(initial=1e-30)
