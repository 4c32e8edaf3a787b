"""Holds a pass to its promise by running the module before and after it on generated inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from hbir.dialects.base import Array
from hbir.errors import PassError
from hbir.module import Function, Module
from passes.debugging.conditioning import rounding
from passes.debugging.differences import FLOAT_TOLERANCE, ROUNDING_TOLERANCE, differences
from passes.debugging.recorded import beyond_record

__all__ = ["Feeds", "check_promise", "generated_feeds", "generated_inputs"]

Feeds: TypeAlias = Sequence[Mapping[str, Array]]
"""Input sets: each names every input of a function."""


def generated_inputs(function: Function, seed: int = 0) -> dict[str, Array]:
    """One deterministic input set. Seed 0: standard normal floats, integers over their whole range, booleans of both kinds.

    Other seeds mix in what breaks things: floats far out, zero and halves; the limits of integers.
    """
    rng = np.random.default_rng(seed)
    feeds: dict[str, Array] = {}
    for argument in function.flatten_inputs:
        dtype, shape = argument.type.np_dtype, argument.type.shape
        if np.issubdtype(dtype, np.floating):
            array, special = rng.standard_normal(shape), _SPECIAL
        elif dtype == np.bool_:
            array, special = rng.integers(0, 2, shape), np.zeros(0)
        else:
            limits = np.iinfo(dtype)
            array = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
            special = np.array([limits.min, limits.max, 0, 1], dtype)
        if seed and special.size:
            array = np.where(rng.random(shape) < 0.25, rng.choice(special, shape), array)
        feeds[argument.name] = np.asarray(array).astype(dtype)
    return feeds


_SPECIAL = np.array([0.0, 0.5, -0.5, 1.5, 3.0, -3.0, 6.5, -8.0, 20.0])


def generated_feeds(function: Function) -> list[dict[str, Array]]:
    """The input sets on which a function is run when nobody gives any."""
    return [generated_inputs(function, seed) for seed in range(3)]


def check_promise(
    name: str,
    promise: str,
    before: Module,
    after: Module,
    feeds: Feeds = (),
    run: Callable[[Module], None] | None = None,
) -> None:
    """Raise PassError HB0305 when results differ more than the promise allows.

    Names, shapes and dtypes stay under every promise. EXACT: all values equal. LAYOUT: integers equal, floats within 1e-4
    of the largest value, or within their rounding where large values cancel (`conditioning`). NUMERIC: what was
    finite stays finite, and on `feeds` values change by a quarter of the largest at most: generated inputs may lie far beyond
    the grids of a module, real ones do not. RECORDED: so, too, and what replaces an operation is off by no more than it
    records; `run`, which is the pass, is run on the replaced ones alone. NaN equals NaN. `feeds` are the input sets, the same
    for all functions; without any, each function is run on `generated_feeds`.
    """
    names = [[function.name for function in module] for module in (before, after)]
    if names[0] != names[1]:
        raise _broken(
            name, promise, before.functions[0] if len(before) else None, f"the functions {names[0]} into {names[1]}"
        )
    for old, new in zip(before.functions, after.functions, strict=True):
        for feed in feeds or generated_feeds(old):
            _check_run(name, promise, old, feed, new.feed(feed), real=bool(feeds))
    if promise == "RECORDED" and run is not None:
        sets = {function.name: feeds or generated_feeds(function) for function in before}

        def made(piece: Module) -> Module:
            run(piece)
            return piece

        for found in beyond_record(before, after, made, sets):
            if found.steps > found.allowed:
                change = f"layer '{found.output}' by {found.steps:g} steps where it records {found.allowed:g}"
                raise _broken(name, promise, before[found.function], change)


def _check_run(
    name: str, promise: str, old: Function, feed: Mapping[str, Array], actual: dict[str, Array], *, real: bool
) -> None:
    expected = old.feed(feed)
    if list(expected) != list(actual):
        raise _broken(name, promise, old, f"the outputs {list(expected)} into {list(actual)}")
    for key, value in expected.items():
        got = actual[key]
        if (value.dtype, value.shape) != (got.dtype, got.shape):
            change = f"output '{key}' from {value.dtype}{list(value.shape)} to {got.dtype}{list(got.shape)}"
            raise _broken(name, promise, old, change)
        apart = differences(value, got)
        finite = np.abs(value[np.isfinite(value)].astype(np.float64))
        largest = float(finite.max(initial=1e-30))
        if promise in ("NUMERIC", "RECORDED"):
            apart = np.where(np.isfinite(value) & (np.isinf(apart) | real), apart, 0.0)
        difference = float(apart.max(initial=0.0))
        floats = promise == "LAYOUT" and np.issubdtype(value.dtype, np.floating)
        allowed = FLOAT_TOLERANCE * largest if floats else 0.0
        if promise in ("NUMERIC", "RECORDED"):
            allowed = ROUNDING_TOLERANCE * largest
        elif difference > allowed and floats and np.isfinite(difference):
            allowed = max(allowed, rounding(old, feed)[key])
        if difference > allowed:
            raise _broken(name, promise, old, f"output '{key}' by {difference:g}")


def _broken(name: str, promise: str, function: Function | None, change: str) -> PassError:
    return PassError(
        5,
        f"pass '{name}' changed {change}",
        where="" if function is None else f"function '{function.name}'",
        why=f"it promises {promise}",
        lever="report it with the reproducer folder",
    )
