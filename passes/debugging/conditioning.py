"""How much of a difference between float results is rounding: measured by running the function with rounding made larger.

Sums of large values that cancel keep the rounding of the large ones. A rewrite that adds in another order is then off by far
more than its share of the small result, as the same function would be with other last bits anywhere on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hbir.dialects.base import Array
from hbir.module import Function
from passes.debugging.differences import differences

__all__ = ["rounding"]

NOISE = 2.0**-20
"""Relative error given to each float value: sixteen times that of one rounding, so that one run shows it above them."""

MARGIN = 8.0
"""Sums of some thousand terms round as often: 128 roundings of 2^-24, at worst, where the random ones of a run add up less."""

RUNS = 3


def rounding(function: Function, feed: Mapping[str, Array]) -> dict[str, float]:
    """The largest absolute difference that rewrites which promise LAYOUT may make, for each float output.

    That is `MARGIN` times what errors of `NOISE` on the inputs and on the results of all operations change.
    """
    clean = function.feed(feed)
    found = dict.fromkeys((name for name, array in clean.items() if np.issubdtype(array.dtype, np.floating)), 0.0)
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)

        def disturb(_: object, results: Sequence[Array], rng: np.random.Generator = rng) -> None:
            for array in results:
                if np.issubdtype(array.dtype, np.floating) and array.flags.writeable:
                    array *= (1.0 + NOISE * rng.choice((-1.0, 1.0), array.shape)).astype(array.dtype)

        given = {name: np.array(array) for name, array in feed.items()}
        disturb(None, list(given.values()))
        noisy = function.feed(given, disturb)
        for name in found:
            apart = differences(clean[name], noisy[name])
            found[name] = max(found[name], float(apart[np.isfinite(apart)].max(initial=0.0)))
    return {name: change * MARGIN for name, change in found.items()}
