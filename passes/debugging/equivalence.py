"""Holds a pass to its promise by running the module before and after it on generated inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from hbir.dialects.base import Array
from hbir.errors import PassError
from hbir.module import Function, Module
from passes.debugging.differences import FLOAT_TOLERANCE, differences

__all__ = ["Feeds", "check_promise", "generated_inputs"]

Feeds: TypeAlias = Sequence[Mapping[str, Array]]
"""Input sets: each names every input of a function."""


def generated_inputs(function: Function, seed: int = 0) -> dict[str, Array]:
    """One deterministic input set: standard normal floats, integers over their whole range, booleans of both kinds."""
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for argument in function.flatten_inputs:
        dtype, shape = argument.type.np_dtype, argument.type.shape
        if np.issubdtype(dtype, np.floating):
            feeds[argument.name] = rng.standard_normal(shape).astype(dtype)
        elif dtype == np.bool_:
            feeds[argument.name] = rng.integers(0, 2, shape).astype(np.bool_)
        else:
            limits = np.iinfo(dtype)
            feeds[argument.name] = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    return feeds


def check_promise(name: str, promise: str, before: Module, after: Module, feeds: Feeds = ()) -> None:
    """Raise PassError HB0305 when results differ more than the promise allows.

    Names, shapes and dtypes stay under every promise. EXACT: all values equal. LAYOUT: integers equal, floats within 1e-4
    of the largest value. NUMERIC: values may change. NaN equals NaN. `feeds` are the input sets, the same for all functions;
    without any, each function is run on `generated_inputs`.
    """
    for old, new in zip(before.functions, after.functions, strict=True):
        for feed in feeds or [generated_inputs(old)]:
            _check_run(name, promise, old, old.feed(feed), new.feed(feed))


def _check_run(name: str, promise: str, old: Function, expected: dict[str, Array], actual: dict[str, Array]) -> None:
    if list(expected) != list(actual):
        raise _broken(name, promise, old, f"the outputs {list(expected)} into {list(actual)}")
    for key, value in expected.items():
        got = actual[key]
        if (value.dtype, value.shape) != (got.dtype, got.shape):
            change = f"output '{key}' from {value.dtype}{list(value.shape)} to {got.dtype}{list(got.shape)}"
            raise _broken(name, promise, old, change)
        difference = 0.0 if promise == "NUMERIC" else float(differences(value, got).max(initial=0.0))
        floats = promise == "LAYOUT" and np.issubdtype(value.dtype, np.floating)
        finite = np.abs(value[np.isfinite(value)]) if floats else np.zeros(0)
        if difference > (FLOAT_TOLERANCE * float(finite.max(initial=1e-30)) if floats else 0.0):
            raise _broken(name, promise, old, f"output '{key}' by {difference:g}")


def _broken(name: str, promise: str, function: Function, change: str) -> PassError:
    return PassError(
        5,
        f"pass '{name}' changed {change}",
        where=f"function '{function.name}'",
        why=f"it promises {promise}",
        lever="report it with the reproducer folder",
    )
