"""Holds a pass to its promise by running the module before and after it on generated inputs."""

from __future__ import annotations

import numpy as np

from hbir.dialects.base import Array
from hbir.errors import PassError
from hbir.module import Function, Module

__all__ = ["check_promise", "generated_inputs"]

# Float rewrites reorder sums: an error of 2^-24 for each of up to some thousand terms, on values of unit size.
_FLOAT_TOLERANCE = 1e-4


def generated_inputs(function: Function, seed: int = 0) -> dict[str, Array]:
    """One deterministic input set: standard normal floats, integers over their whole range."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for argument in function.flatten_inputs:
        dtype, shape = argument.type.np_dtype, argument.type.shape
        if np.issubdtype(dtype, np.floating):
            feeds[argument.name] = rng.standard_normal(shape).astype(dtype)
        else:
            limits = np.iinfo(dtype)
            feeds[argument.name] = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return feeds


def check_promise(name: str, promise: str, before: Module, after: Module) -> None:
    """Raise PassError HB0305 when results differ more than the promise allows.

    EXACT and LAYOUT: integers equal, floats within 1e-4 of the largest value. NUMERIC passes only have to run.
    """
    for old, new in zip(before.functions, after.functions, strict=True):
        feeds = generated_inputs(old)
        expected, actual = old.feed(feeds), new.feed(feeds)
        for key, value in expected.items():
            got = actual[key]
            if promise == "NUMERIC":
                continue
            if np.issubdtype(value.dtype, np.floating):
                bound = _FLOAT_TOLERANCE * max(float(np.abs(value).max(initial=0)), 1e-30)
                wrong = float(np.abs(value - got).max(initial=0))
                bad = not wrong <= bound
            else:
                wrong = float(np.count_nonzero(value != got))
                bad = wrong > 0
            if bad:
                raise PassError(
                    5,
                    f"pass '{name}' changed output '{key}' (by {wrong:g})",
                    where=f"function '{old.name}'",
                    why=f"it promises {promise}",
                    lever="report it with the reproducer folder",
                )
